"""Judging by a running plaudit: groups of one problem's programs to `POST /execute`, several in flight.

What the service says of a program is a result; what it says of itself (no worker, a lost job, a language it does not
have) is an `infra_error` and no pass rate. A service that does not answer at all raises, and nothing is written.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plaudit.client import Client
from plaudit.schemas import ProgramResult
from training.data.test_formats import wire_suite
from training.pipeline import config

if TYPE_CHECKING:
    from training.data.verify import Task


def judge_remotely(tasks: Sequence[Task], settings: config.Verify) -> Iterator[dict[str, Any]]:
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


def _groups(tasks: Sequence[Task], size: int) -> list[list[Task]]:
    by_suite: dict[object, list[Task]] = defaultdict(list)
    for task in tasks:
        by_suite[task.language, task.kind, task.tests, task.setup, task.entry_point, task.cpu_s].append(task)
    return [same[at : at + size] for same in by_suite.values() for at in range(0, len(same), size)]


def _execute(client: Client, group: list[Task]) -> list[dict[str, Any]]:
    first = group[0]
    item = {
        "language": first.language,
        "programs": [task.solution for task in group],
        "tests": wire_suite(first.kind, first.tests, first.setup, first.entry_point),
        "limits": {"cpu_s": first.cpu_s},
    }
    answer = client.execute([item])
    return [_row(task, one) for task, one in zip(group, answer.results[0].programs, strict=True)]


def _row(task: Task, one: ProgramResult) -> dict[str, Any]:
    named = {"key": task.key, "program_id": task.program_id}
    if one.status != "ok" or one.pass_rate is None:
        detail = f"{one.status}: {one.error.code}: {one.error.detail}" if one.error else one.status
        return {**named, "status": "infra_error", "detail": detail}
    tests = one.tests or []
    return {
        **named,
        "status": "ok",
        "pass_rate": one.pass_rate,
        "verdict": str(one.verdict),
        "verdicts": [str(test.verdict) for test in tests],
        "detail": next((test.detail for test in tests if test.detail), "")[:200],
    }
