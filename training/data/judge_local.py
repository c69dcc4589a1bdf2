"""Judging in sandboxes of our own: one per process, in this process where `processes` is 1."""

from __future__ import annotations

import multiprocessing
import os
import queue
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from plaudit.errors import HostLacks, InfraError
from sandbox.errors import InvalidSuite, SandboxError
from sandbox.types import Limits, Options, Program, Stop
from training.data.judge_task import JudgeTask
from training.data.test_formats import sandbox_suite

if TYPE_CHECKING:
    from sandbox.sandbox import Sandbox

AHEAD = 8  # tasks per process that are handed over before their results come


def judge_locally(tasks: Iterable[JudgeTask], processes: int) -> Iterator[dict[str, Any]]:
    """Results as they come. Raises `HostLacks` where there is no sandbox, `InfraError` if the processes end early."""
    if processes == 1:
        yield from judge_shard(tasks)
        return
    left = iter(tasks)
    first = list(islice(left, processes * AHEAD))
    if not first:
        return
    context = multiprocessing.get_context("spawn")
    to_judge: Any = context.Queue()  # and not an argument: a child that dies while it starts would block its parent
    results: Any = context.Queue()
    workers = [
        context.Process(target=_judge_in_child, args=(to_judge, results, os.getpid()))
        for _ in range(min(processes, len(first)))
    ]
    for task in first:
        to_judge.put(task)
    for worker in workers:
        worker.start()
    try:
        num_in_flight = len(first)
        while num_in_flight:
            result = _next_result(results, workers)
            if isinstance(result, Exception):
                raise result
            yield result
            num_in_flight -= 1
            for task in islice(left, 1):
                to_judge.put(task)
                num_in_flight += 1
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()
        to_judge.cancel_join_thread()  # what nobody has taken is not waited for


def _next_result(results: Any, workers: Sequence[Any]) -> Any:
    while True:
        try:
            return results.get(timeout=2.0)
        except queue.Empty:
            if not any(worker.is_alive() for worker in workers):
                raise InfraError(
                    "the judging processes ended before all programs were judged; run the stage again"
                ) from None


def _judge_in_child(to_judge: Any, results: Any, parent: int) -> None:
    try:
        for result in judge_shard(iter(to_judge.get, None)):
            if os.getppid() != parent:
                return  # the parent was killed, so nothing reads the queue
            results.put(result)
    except (HostLacks, InfraError) as error:
        results.put(error)


@contextmanager
def local_sandbox() -> Iterator[Sandbox]:
    """A sandbox of this process. Raises `HostLacks` where there is none."""
    from sandbox.errors import IsolationUnavailable
    from sandbox.open import open_sandbox

    try:
        sandbox = open_sandbox()
    except IsolationUnavailable as error:
        raise HostLacks(str(error)) from error
    with sandbox:
        yield sandbox


def judge_shard(tasks: Iterable[JudgeTask]) -> Iterator[dict[str, Any]]:
    """Judge these programs one after another in one sandbox of this process."""
    with local_sandbox() as sandbox:
        yield from judge_tasks(tasks, sandbox)


def judge_tasks(tasks: Iterable[JudgeTask], sandbox: Sandbox) -> Iterator[dict[str, Any]]:
    """Judge these programs one after another in this sandbox.

    Rows have a pass rate; or status `infra_error` without one, or `invalid` where no judge can use the tests.
    """
    from sandbox.judge import judge

    for task in tasks:
        identity = {"key": task.key, "program_id": task.program_id}
        try:
            suite = sandbox_suite(task.kind, task.tests, task.setup, task.entry_point)
            options = Options(fresh_interpreter=task.hash_seed is not None, hash_seed=task.hash_seed)
            program = Program(task.language, task.solution)
            report = judge(program, suite, Limits(cpu_s=task.cpu_s), Stop(), sandbox, options)
        except (InvalidSuite, ValidationError) as error:
            yield {**identity, "status": "invalid", "detail": str(error)[:400]}
            continue
        except SandboxError as error:
            yield {**identity, "status": "infra_error", "detail": f"{type(error).__name__}: {error}"}
            continue
        yield {
            **identity,
            "status": "ok",
            "pass_rate": report.pass_rate,
            "verdict": str(report.verdict),
            "verdicts": [str(test.verdict) for test in report.tests],
            "detail": next((test.detail for test in report.tests if test.detail), "")[:200],
        }
