"""Judging by a running plaudit: groups of one problem's programs to `POST /execute`, several in flight.

- A verdict on a program is a result.
- An error of the service (no worker, a lost job, a language it does not have) is an `infra_error` without a pass rate.
- A service that does not answer raises, and nothing is written.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from pathlib import Path
from typing import Any

from plaudit.client import Client
from plaudit.schemas import ProgramResult
from training.data.judge_task import JudgeTask
from training.data.test_formats import wire_suite
from training.pipeline import config


def judge_remotely(tasks: Sequence[JudgeTask], settings: config.VerifyConfig) -> Iterator[dict[str, Any]]:
    """Results as they come, rows like those of the local sandbox. Raises what the client raises."""
    key = Path(settings.key_file).read_text(encoding="utf-8").strip() if settings.key_file else None
    groups = iter(_groups(tasks, settings.group))
    running: set[Future[list[dict[str, Any]]]] = set()
    with (
        Client(settings.service, key, timeout_s=settings.timeout_s, max_connections=settings.in_flight) as client,
        ThreadPoolExecutor(settings.in_flight) as threads,
    ):
        try:
            while True:
                room = settings.in_flight - len(running)
                running |= {threads.submit(_execute, client, group) for group in islice(groups, room)}
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield from future.result()
        finally:
            for future in running:
                future.cancel()


def _groups(tasks: Sequence[JudgeTask], size: int) -> list[list[JudgeTask]]:
    by_suite: dict[object, list[JudgeTask]] = defaultdict(list)
    for task in tasks:
        by_suite[task.language, task.kind, task.tests, task.setup, task.entry_point, task.cpu_s, task.hash_seed].append(
            task
        )
    return [group[at : at + size] for group in by_suite.values() for at in range(0, len(group), size)]


def _execute(client: Client, group: list[JudgeTask]) -> list[dict[str, Any]]:
    first = group[0]
    item = {
        "language": first.language,
        "programs": [task.solution for task in group],
        "tests": wire_suite(first.kind, first.tests, first.setup, first.entry_point),
        "limits": {"cpu_s": first.cpu_s},
    }
    if first.hash_seed is not None:
        item["options"] = {"fresh_interpreter": True, "hash_seed": first.hash_seed}
    answer = client.execute([item])
    return [_row(task, result) for task, result in zip(group, answer.results[0].programs, strict=True)]


def _row(task: JudgeTask, result: ProgramResult) -> dict[str, Any]:
    identity = {"key": task.key, "program_id": task.program_id}
    if result.status != "ok" or result.pass_rate is None:
        detail = f"{result.status}: {result.error.code}: {result.error.detail}" if result.error else result.status
        status = "invalid" if result.error is not None and result.error.code == "invalid_tests" else "infra_error"
        return {**identity, "status": status, "detail": detail}
    tests = result.tests or []
    return {
        **identity,
        "status": "ok",
        "pass_rate": result.pass_rate,
        "verdict": str(result.verdict),
        "verdicts": [str(test.verdict) for test in tests],
        "detail": next((test.detail for test in tests if test.detail), "")[:200],
    }
