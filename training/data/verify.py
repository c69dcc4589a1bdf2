"""`verify`: programs × tests through sandboxes of our own, or through a running service (`verify.service`).

Programs without a label (mutants, fresh samples) are all run. Public samples come with a shipped pass rate; a seeded
slice of them is run again, and the summary says how often the sandbox agrees (`verify.disagreements.jsonl` holds every
case where it does not). A program is judged once, by the hash of its text and its tests, whichever stage or run asks.

Results are appended as they come, so a killed run loses only the programs that were in flight. What the sandbox could
not do is written apart as `infra_error`: it is no pass rate, it is tried again when the stage runs again, and past a
share of `max_infra_errors` the stage fails instead of going on with holes. A service that is gone fails the stage.

Samples are verified shard by shard, as they were sampled; memory holds one shard.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import queue
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from plaudit.errors import HostLacks, InfraError
from sandbox.errors import SandboxError
from sandbox.types import Limits, Stop
from sandbox.types import Program as Source
from training.data.test_formats import sandbox_suite
from training.data.verify_remote import judge_remotely
from training.generation.sample import shard_of, shard_path, shards_of
from training.pipeline import config
from training.pipeline.config import Recipe
from training.pipeline.journal import Journal
from training.pipeline.records import Problem, Program, TestKind, read_problems, read_programs, row
from training.pipeline.run import Progress, Run, digest, write_jsonl

if TYPE_CHECKING:
    from sandbox.sandbox import Sandbox


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
    language: str = "python"
    kind: TestKind = "assert"


def verify(recipe: Recipe, run: Run) -> dict[str, object]:
    """Write `verified.jsonl`: every program with a pass rate and where the rate comes from, a problem's in a row."""
    problems = read_problems(run.path("problems.jsonl"))
    known = read_programs(run.path("programs.jsonl")) if "collect" in recipe.stages else []
    known += read_programs(run.path("mutants.jsonl")) if "mutate" in recipe.stages else []
    shipped = [program for program in known if program.pass_rate is not None]
    slice_ = random.Random(recipe.seed).sample(shipped, min(recipe.verify.check, len(shipped)))
    work = _Work(recipe, run, problems, frozenset(program.program_id for program in slice_))
    place = {task_id: at for at, task_id in enumerate(problems)}
    by_shard: dict[int, list[Program]] = defaultdict(list)
    for program in sorted(known, key=lambda program: place[program.task_id]):
        by_shard[shard_of(program.task_id, recipe.sample.shards)].append(program)
    if recipe.shard:
        for number in shards_of(recipe):
            work.shard(number, by_shard[number])
        return {**work.counts, "complete": False}
    rows = (row(p) for number in shards_of(recipe) for p in work.shard(number, by_shard[number]))
    write_jsonl(run.path("verified.jsonl"), rows)
    write_jsonl(run.path("verify.disagreements.jsonl"), work.differing)
    flipped = sum((case["pass_rate"] == 1.0) != (case["shipped"] == 1.0) for case in work.differing)
    checked = work.counts["checked"]
    return {**work.counts, "same_rate": checked - len(work.differing), "same_pass": checked - flipped}


class _Work:
    """One `verify`: what it has counted, and where the sandbox and the shipped labels differ."""

    def __init__(self, recipe: Recipe, run: Run, problems: dict[str, Problem], check: frozenset[str]) -> None:
        self.recipe, self.run, self.problems, self.check = recipe, run, problems, check
        self.counts = dict.fromkeys(("judged", "infra_errors", "mutants", "mutants_passing", "samples", "checked"), 0)
        self.differing: list[dict[str, Any]] = []

    def shard(self, number: int, known: list[Program]) -> list[Program]:
        """The programs of a shard that have a pass rate now. Raises `InfraError` if too many could not be judged."""
        recipe, programs = self.recipe, known
        name = "verify.jsonl"
        if "sample" in recipe.stages:
            sampled = read_programs(shard_path(self.run, "samples", number, recipe))
            name = f"verify/{number:05}-of-{recipe.sample.shards:05}.jsonl"
            order = {task_id: at for at, task_id in enumerate(self.problems)}
            programs = sorted([*known, *sampled], key=lambda program: order[program.task_id])
        tasks = [
            self._task(program) for program in programs if program.pass_rate is None or program.program_id in self.check
        ]
        results = judge_all(tasks, self.run, recipe.verify.processes, name=name, settings=recipe.verify)
        failed = [result for result in results.values() if result["status"] != "ok"]
        if len(failed) > recipe.verify.max_infra_errors * max(1, len(tasks)):
            first = failed[0]["detail"]
            raise InfraError(f"{len(failed)} of {len(tasks)} programs could not be judged; first: {first}")
        judged = {result["program_id"]: result for result in results.values() if result["status"] == "ok"}
        self.counts["judged"] += len(judged)
        self.counts["infra_errors"] += len(failed)
        return [kept for program in programs if (kept := self._rated(program, judged.get(program.program_id)))]

    def _task(self, program: Program) -> Task:
        settings = self.recipe.verify
        limit = settings.mutant_cpu_s if program.origin == "mutant" else settings.cpu_s
        return task_of(self.problems[program.task_id], program, limit)

    def _rated(self, program: Program, result: dict[str, Any] | None) -> Program | None:
        if program.pass_rate is None:
            if result is None:
                return None
            kind = "mutants" if program.origin == "mutant" else "samples"
            self.counts[kind] += 1
            self.counts["mutants_passing"] += kind == "mutants" and result["pass_rate"] == 1.0
            return dataclasses.replace(program, pass_rate=float(result["pass_rate"]), label="sandbox")
        if result is not None:
            self.counts["checked"] += 1
            if abs(result["pass_rate"] - program.pass_rate) > 1e-3:
                case = {"sample_ids": program.sample_ids, "shipped": program.pass_rate, **result}
                self.differing.append({**case, "solution": program.solution})
        return program


def task_of(problem: Problem, program: Program, cpu_s: float, tests: tuple[str, ...] | None = None) -> Task:
    """This program under its problem's own tests, or under these."""
    tests = problem.tests if tests is None else tests
    parts: list[object] = [program.solution, problem.test_setup, tests, problem.entry_point, cpu_s]
    if (problem.language, problem.kind) != ("python", "assert"):
        parts += [problem.language, problem.kind]
    return Task(
        key=digest(*parts),
        program_id=program.program_id,
        solution=program.solution,
        setup=problem.test_setup,
        tests=tests,
        entry_point=problem.entry_point,
        cpu_s=cpu_s,
        language=problem.language,
        kind=problem.kind,
    )


def judge_all(
    tasks: Sequence[Task],
    run: Run,
    processes: int,
    *,
    name: str = "verify.jsonl",
    settings: config.Verify | None = None,
    judged: Callable[[Sequence[Task]], Iterable[dict[str, Any]]] | None = None,
) -> dict[str, dict[str, Any]]:
    """Results by task key: from sandboxes of our own, from the service that the settings name, or from `judged`.

    What the journal `name` already holds is not judged again, infra errors excepted.
    """
    if judged is None and settings is not None and settings.service:
        judged = partial(judge_remotely, settings=settings)
    judged = judged or partial(_judged, processes=processes)
    wanted = {task.key: task for task in tasks}
    with Journal(run.path(name)) as journal:
        results = {key: row for key, row in journal.rows.items() if key in wanted}
        left = [task for key, task in wanted.items() if results.get(key, {}).get("status") != "ok"]
        run.say(f"verify: {len(wanted)} programs, {len(wanted) - len(left)} judged before")
        progress = Progress(run, "verify", len(wanted))
        for at, result in enumerate(judged(left), start=len(wanted) - len(left) + 1):
            results[result["key"]] = result
            journal.add(result)
            progress.at(at)
    return results


def _judged(tasks: Sequence[Task], processes: int) -> Iterator[dict[str, Any]]:
    shards = [tasks[number::processes] for number in range(processes)]
    if processes == 1:
        yield from judge_shard(shards[0])
        return
    context = multiprocessing.get_context("spawn")
    results: Any = context.Queue()
    workers = [context.Process(target=_work, args=(shard, results, os.getpid())) for shard in shards if shard]
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


def _work(tasks: Sequence[Task], results: Any, parent: int) -> None:
    try:
        for result in judge_shard(tasks):
            if os.getppid() != parent:
                return  # it was killed, and nobody reads
            results.put(result)
    except (HostLacks, InfraError) as error:
        results.put(error)


def judge_shard(tasks: Sequence[Task]) -> Iterator[dict[str, Any]]:
    """Judge these programs one after another in one sandbox of this process."""
    from sandbox.errors import IsolationUnavailable
    from sandbox.open import open_sandbox

    try:
        with open_sandbox() as sandbox:
            yield from judge_tasks(tasks, sandbox)
    except IsolationUnavailable as error:
        raise HostLacks(str(error)) from error


def judge_tasks(tasks: Sequence[Task], sandbox: Sandbox) -> Iterator[dict[str, Any]]:
    """Judge these programs one after another in this sandbox: rows with a pass rate, or `infra_error` without one."""
    from sandbox.judge import judge

    for task in tasks:
        named = {"key": task.key, "program_id": task.program_id}
        suite = sandbox_suite(task.kind, task.tests, task.setup, task.entry_point)
        try:
            report = judge(Source(task.language, task.solution), suite, Limits(cpu_s=task.cpu_s), Stop(), sandbox)
        except SandboxError as error:
            yield {**named, "status": "infra_error", "detail": f"{type(error).__name__}: {error}"}
            continue
        yield {
            **named,
            "status": "ok",
            "pass_rate": report.pass_rate,
            "verdict": str(report.verdict),
            "verdicts": [str(test.verdict) for test in report.tests],
            "detail": next((test.detail for test in report.tests if test.detail), "")[:200],
        }
