"""Judging by a running plaudit: groups of one problem's programs to `POST /execute`, several in flight.

- A verdict on a program is a result.
- An error of the service (no worker, a lost job, a language it does not have) is an `infra_error` without a pass rate.
- A service that does not answer raises, and nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from plaudit.client import Client
from plaudit.schemas import ProgramResult
from training.data.judge_task import JudgeTask
from training.data.test_formats import wire_suite
from training.pipeline import config


def judge_remotely(tasks: Iterable[JudgeTask], settings: config.VerifyConfig, url: str) -> Iterator[dict[str, Any]]:
    """Results as they come, rows like those of the local sandbox. Raises what the client raises.

    Args:
        tasks: those under one suite should stand together; they are one request.
        settings: how many requests are in flight, of how many programs.
        url: of the service.
    """
    key = Path(settings.key_file).read_text(encoding="utf-8").strip() if settings.key_file else None
    groups = _groups(tasks, settings.group)
    running: set[Future[list[dict[str, Any]]]] = set()
    with (
        Client(url, key, timeout_s=settings.timeout_s, max_connections=settings.in_flight) as client,
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


def _groups(tasks: Iterable[JudgeTask], size: int) -> Iterator[list[JudgeTask]]:
    """Neighbours under one suite, at most `size` of them."""
    for _, under_one in groupby(tasks, key=_suite_of):
        while group := list(islice(under_one, size)):
            yield group


def _suite_of(task: JudgeTask) -> tuple[object, ...]:
    return task.language, task.kind, task.tests, task.setup, task.entry_point, task.cpu_s, task.hash_seed


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
