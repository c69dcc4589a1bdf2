"""The log of scored and executed candidates: off unless `candidates_dir` names a folder.

Where a reward model and the tests disagree is what the next reward model should learn from, and the service is where
both are seen. With the setting on, every completion of a `/reward` or `/rank` request that has both a score and a
verdict becomes one line of `candidates-PROCESS.jsonl`: prompt, completion, language, tests, raw score, model,
revision, verdict and pass rate. Nothing is kept of who asked. The lines are texts of the callers in the clear, for as
long as the operator leaves them there; the folder and its files are for the service's own user only.

Lines are written behind the answer's back. Where the disk is full or slow, or `max_candidates_bytes` of this process
are reached, candidates are not logged, a warning says so once, and answers go on as before.
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
from service.api.dispatch.tasks import end

log = logging.getLogger("plaudit.candidates")

MAX_PENDING = 64  # requests being written; while there are more, none is added


class Candidates:
    """One per API process. `folder` None: nothing is kept."""

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
        runs: Sequence[ExecuteResult],
        models: Mapping[str, ModelRef],
    ) -> None:
        """Log what was scored by the first score term and executed; `models` by score term."""
        if self.folder is None:
            return
        if len(self._pending) >= MAX_PENDING:
            self._warn("too many are being written")
            return
        lines = [line for parts in zip(items, scores, runs, strict=True) for line in rows(*parts, models)]
        if lines:
            task = asyncio.create_task(self._write(lines), name="candidates")
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
            self._warn(f"{self._written} bytes are written, and max_candidates_bytes is {self.max_bytes}")
            return
        handle = os.open(self.folder / self._name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(handle, "ab") as out:
            out.write(text)
        self._written += len(text)

    def _warn(self, why: str) -> None:
        if not self._warned:
            log.warning("candidates are not logged: %s", why)
            self._warned = True

    async def close(self) -> None:
        """Let what is being written be written, for a moment."""
        if self._pending:
            await asyncio.wait(self._pending, timeout=1.0)
        await end(self._pending)


def rows(
    item: RewardItem, scores: Mapping[str, ScoreResult], run: ExecuteResult, models: Mapping[str, ModelRef]
) -> list[dict[str, Any]]:
    """One line a completion that has both; the service's own faults are no evidence and leave none."""
    if not scores or item.tests is None:
        return []
    term, result = next(iter(scores.items()))
    prompt = item.prompt if isinstance(item.prompt, str) else [m.model_dump(mode="json") for m in item.prompt or []]
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
        for text, scored, program in zip(item.completions, result.completions, run.programs, strict=True)
        if scored.score is not None and program.status == "ok" and program.pass_rate is not None
    ]
