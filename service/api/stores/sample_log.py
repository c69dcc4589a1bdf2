"""The log of scored and executed samples: off unless the setting `candidates_dir` names a folder.

- The next reward model should learn where the model and the tests disagree, and the service sees both. With the setting
  on, every completion of a `/reward` or `/rank` request that has both a score and a verdict becomes one line of
  `candidates-PROCESS.jsonl`: prompt, completion, language, tests, raw score, model, revision, verdict, pass rate.
- Nothing says who asked. The lines hold the callers' texts in clear until the operator deletes them. The folder and its
  files are readable by the service's own user only.
- Lines are written after the answer. Where the disk is full or slow, or this process has written
  `max_candidates_bytes`, samples are not logged, one warning says so, and answers go on as before.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from plaudit.schemas import ExecuteResult, ModelRef, RewardItem, ScoreResult
from service.api.dispatch.tasks import cancel_and_wait

log = logging.getLogger("plaudit.sample_log")

MAX_PENDING = 64  # requests being written at a time; further ones are not logged


class SampleLog:
    """One per API process. With `folder` None nothing is logged."""

    def __init__(self, folder: Path | None, max_bytes: int, process: str) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._name = f"candidates-{process[:12]}.jsonl"
        self._written = 0
        self._warned = False
        self._lock = asyncio.Lock()
        self._pending: set[asyncio.Task[None]] = set()
        if folder is not None:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def keep(
        self,
        items: Sequence[RewardItem],
        scores: Sequence[Mapping[str, ScoreResult]],
        executions: Sequence[ExecuteResult],
        models: Mapping[str, ModelRef],
    ) -> None:
        """Log what was executed and scored by the first score term, soon.

        Args:
            items: of the request that were executed.
            scores: per item, by score term.
            executions: per item.
            models: by score term.
        """
        if self.folder is None:
            return
        if len(self._pending) >= MAX_PENDING:
            self._warn(f"{MAX_PENDING} requests are being written already")
            return
        lines = [
            line for results in zip(items, scores, executions, strict=True) for line in sample_lines(*results, models)
        ]
        if lines:
            task = asyncio.create_task(self._write(lines), name="sample-log")
            self._pending.add(task)
            task.add_done_callback(self._pending.discard)

    async def _write(self, lines: list[dict[str, Any]]) -> None:
        async with self._lock:
            try:
                await asyncio.to_thread(self._append, lines)
            except OSError as error:
                self._warn(str(error))

    def _append(self, lines: list[dict[str, Any]]) -> None:
        assert self.folder is not None
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode("utf-8", "surrogatepass")
        if self._written + len(text) > self.max_bytes:
            self._warn(f"{self._written} bytes are written, and the limit is {self.max_bytes} (max_candidates_bytes)")
            return
        handle = os.open(self.folder / self._name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(handle, "ab") as out:
            out.write(text)
        self._written += len(text)

    def _warn(self, reason: str) -> None:
        if not self._warned:
            log.warning("candidates are not logged: %s", reason)
            self._warned = True

    async def close(self) -> None:
        """Wait a second for what is being written, then stop."""
        if self._pending:
            await asyncio.wait(self._pending, timeout=1.0)
        await cancel_and_wait(self._pending)


def sample_lines(
    item: RewardItem, scores: Mapping[str, ScoreResult], execution: ExecuteResult, models: Mapping[str, ModelRef]
) -> list[dict[str, Any]]:
    """One line per completion that has a score and a verdict; a server error leaves no line."""
    if not scores or item.tests is None:
        return []
    term, result = next(iter(scores.items()))
    prompt = item.prompt if isinstance(item.prompt, str) else [message.fields() for message in item.prompt]
    tests = item.tests.model_dump(mode="json", exclude_defaults=False)
    return [
        {
            "prompt": prompt,
            "completion": text,
            "language": item.language,
            "tests": tests,
            "score": scored.score,
            "model": models[term].name,
            "revision": models[term].revision,
            "verdict": str(program.verdict),
            "pass_rate": program.pass_rate,
        }
        for text, scored, program in zip(item.completions, result.completions, execution.programs, strict=True)
        if scored.score is not None and program.status == "ok" and program.pass_rate is not None
    ]
