"""`verify`: programs × tests through the local sandbox.

Mutants have no label and are all run. Samples come with a shipped pass rate; a seeded slice of them is run again, and
the summary says how often the sandbox agrees (`verify.disagreements.jsonl` holds every case where it does not). A
program is judged once, by the hash of its text and its tests, whichever stage or run asks.

Results are appended as they come, so a killed run loses only the programs that were in flight. What the sandbox could
not do is written apart as `infra_error`: it is no pass rate, it is tried again when the stage runs again, and past a
share of `max_infra_errors` the stage fails instead of going on with holes.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import queue
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sandbox.errors import SandboxError
from sandbox.types import AssertSuite, Limits, Stop
from sandbox.types import Program as Source
from service.errors import HostLacks, InfraError
from training.config import Recipe
from training.records import Problem, Program, read_problems, read_programs, row
from training.run import Progress, Run, digest, read_jsonl, write_jsonl


@dataclasses.dataclass(frozen=True, slots=True)
class Task:
    """One program to judge; `key` names its text, its tests and its limits."""

    key: str
    program_id: str
    solution: str
    setup: str
    tests: tuple[str, ...]
    entry_point: str
    cpu_s: float


def verify(recipe: Recipe, run: Run) -> dict[str, object]:
    """Write `verified.jsonl`: every program with a pass rate, and where the rate comes from."""
    settings = recipe.verify
    problems = read_problems(run.path("problems.jsonl"))
    samples, mutants = read_programs(run.path("programs.jsonl")), read_programs(run.path("mutants.jsonl"))
    slice_ = random.Random(recipe.seed).sample(samples, min(settings.check, len(samples)))
    tasks = [task_of(problems[p.task_id], p, settings.cpu_s) for p in slice_]
    tasks += [task_of(problems[p.task_id], p, settings.mutant_cpu_s) for p in mutants]
    results = judge_all(tasks, run, settings.processes)
    judged = {r["program_id"]: float(r["pass_rate"]) for r in results.values() if r["status"] == "ok"}

    failed = [r for r in results.values() if r["status"] != "ok"]
    if len(failed) > settings.max_infra_errors * max(1, len(tasks)):
        raise InfraError(f"{len(failed)} of {len(tasks)} programs could not be judged; first: {failed[0]['detail']}")
    known = [
        dataclasses.replace(p, pass_rate=judged[p.program_id], label="sandbox")
        for p in mutants if p.program_id in judged
    ]  # fmt: skip
    write_jsonl(run.path("verified.jsonl"), map(row, [*samples, *known]))

    checked = [p for p in slice_ if p.program_id in judged and p.pass_rate is not None]
    differing = [p for p in checked if abs(judged[p.program_id] - (p.pass_rate or 0.0)) > 1e-3]
    verdicts = {r["program_id"]: r for r in results.values()}
    write_jsonl(
        run.path("verify.disagreements.jsonl"),
        (
            {"sample_ids": p.sample_ids, "shipped": p.pass_rate, **verdicts[p.program_id], "solution": p.solution}
            for p in differing
        ),
    )
    flipped = sum((judged[p.program_id] == 1.0) != (p.pass_rate == 1.0) for p in differing)
    return {
        "judged": len(judged), "infra_errors": len(failed), "mutants": len(known),
        "mutants_passing": sum(p.pass_rate == 1.0 for p in known), "checked": len(checked),
        "same_rate": len(checked) - len(differing), "same_pass": len(checked) - flipped,
    }  # fmt: skip


def task_of(problem: Problem, program: Program, cpu_s: float, tests: tuple[str, ...] | None = None) -> Task:
    """This program under its problem's own tests, or under these."""
    tests = problem.tests if tests is None else tests
    return Task(
        key=digest(program.solution, problem.test_setup, tests, problem.entry_point, cpu_s),
        program_id=program.program_id, solution=program.solution, setup=problem.test_setup, tests=tests,
        entry_point=problem.entry_point, cpu_s=cpu_s,
    )  # fmt: skip


def judge_all(tasks: Sequence[Task], run: Run, processes: int) -> dict[str, dict[str, Any]]:
    """Results by task key. What `verify.jsonl` already holds is not judged again, infra errors excepted."""
    path = run.path("verify.jsonl")
    wanted = {task.key: task for task in tasks}
    results = {r["key"]: r for r in _lines(path) if r["key"] in wanted}
    left = [task for key, task in wanted.items() if results.get(key, {}).get("status") != "ok"]
    run.say(f"verify: {len(wanted)} programs, {len(wanted) - len(left)} judged before")
    progress = Progress(run, "verify", len(wanted))
    with path.open("a", encoding="utf-8") as out:
        for at, result in enumerate(_judged(left, processes), start=len(wanted) - len(left) + 1):
            results[result["key"]] = result
            out.write(json.dumps(result) + "\n")
            out.flush()
            progress.at(at)
    return results


def _lines(path: Path) -> list[dict[str, Any]]:
    """The results so far; a last line that a kill cut short is taken off, or the next one would be glued to it."""
    if not path.is_file():
        return []
    text = path.read_bytes()
    if text and not text.endswith(b"\n"):
        path.write_bytes(text[: text.rfind(b"\n") + 1])
    return list(read_jsonl(path))


def _judged(tasks: Sequence[Task], processes: int) -> Iterator[dict[str, Any]]:
    shards = [tasks[number::processes] for number in range(processes)]
    if processes == 1:
        yield from judge_shard(shards[0])
        return
    context = multiprocessing.get_context("spawn")
    results: Any = context.Queue()
    workers = [context.Process(target=_work, args=(shard, results)) for shard in shards if shard]
    for worker in workers:
        worker.start()
    try:
        for _ in range(sum(map(len, shards))):
            result = _next(results, workers)
            if isinstance(result, Exception):
                raise result
            yield result
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()


def _next(results: Any, workers: Sequence[Any]) -> Any:
    while True:
        try:
            return results.get(timeout=2.0)
        except queue.Empty:
            if not any(worker.is_alive() for worker in workers):
                raise InfraError("the verifying processes ended before their work did; run the stage again") from None


def _work(tasks: Sequence[Task], results: Any) -> None:
    try:
        for result in judge_shard(tasks):
            results.put(result)
    except (HostLacks, InfraError) as error:
        results.put(error)


def judge_shard(tasks: Sequence[Task]) -> Iterator[dict[str, Any]]:
    """Judge these programs one after another in one sandbox of this process."""
    from sandbox.errors import WallsMissing
    from sandbox.judge import judge
    from sandbox.walls import Sandbox

    try:
        with Sandbox.open() as box:
            for task in tasks:
                suite = AssertSuite(asserts=task.tests, setup=task.setup, entry_point=task.entry_point)
                try:
                    report = judge(Source("python", task.solution), suite, Limits(cpu_s=task.cpu_s), Stop(), box)
                except SandboxError as error:
                    yield {
                        "key": task.key, "program_id": task.program_id, "status": "infra_error",
                        "detail": f"{type(error).__name__}: {error}",
                    }  # fmt: skip
                    continue
                yield {
                    "key": task.key, "program_id": task.program_id, "status": "ok", "pass_rate": report.pass_rate,
                    "verdict": str(report.verdict), "verdicts": [str(test.verdict) for test in report.tests],
                    "detail": next((test.detail for test in report.tests if test.detail), "")[:200],
                }  # fmt: skip
    except WallsMissing as error:
        raise HostLacks(str(error)) from error
