"""`verify`: every program gets a pass rate by running its problem's tests.

- Programs without a label (mutants, fresh samples) are all run.
- Public samples have a shipped pass rate. A seeded slice of those in Python is run again; the summary says how often
  the sandbox agrees, and `verify.disagreements.jsonl` holds every case where it does not.
- Programs that could not be judged have no row. Past a share of `max_infra_errors` the stage fails.
- Neither have programs whose tests no judge can use (a syntax error, no entry point); such suites are counted.
- Samples are verified shard by shard, as they were sampled. Programs are read twice, once to be judged and once to be
  written with their rates: memory holds the problems, and of a program its key and where it stands.
"""

from __future__ import annotations

import dataclasses
import random
from array import array
from collections.abc import Iterator
from typing import Any

from plaudit.errors import InfraError
from training.data.judge_task import MUTANT_CPU_S, JudgeTask, task_of
from training.data.judging import JudgedPrograms, judge_all, judge_of
from training.data.program_files import ProgramFiles, headers
from training.pipeline.config import Recipe
from training.pipeline.files import write_jsonl
from training.pipeline.records import Problem, ProgramRecord, as_row, read_problems
from training.pipeline.run import Run
from training.pipeline.shards import shard_name, shard_of, shard_path, shards_to_run


def verify_programs(recipe: Recipe, run: Run) -> dict[str, object]:
    """Write `verified.jsonl`: every program with a pass rate and where the rate comes from, grouped by problem."""
    problems = read_problems(run.path("problems.jsonl"))
    places = {task_id: at for at, task_id in enumerate(problems)}
    shards = [ProgramFiles(places) for _ in range(recipe.sample.shards)]
    checked = _read_known(recipe, run, problems, shards)
    verification = _Verification(recipe, run, problems, checked)
    if recipe.shard:
        for number in shards_to_run(recipe):
            for _ in verification.shard(number, shards[number]):
                pass
        return {**verification.counts, "complete": False}
    rows = (as_row(p) for number in shards_to_run(recipe) for p in verification.shard(number, shards[number]))
    write_jsonl(run.path("verified.jsonl"), rows)
    write_jsonl(run.path("verify.disagreements.jsonl"), verification.disagreements)
    flipped = sum((case["pass_rate"] == 1.0) != (case["shipped"] == 1.0) for case in verification.disagreements)
    num_checked = verification.counts["checked"]
    return {
        **verification.counts,
        "same_rate": num_checked - len(verification.disagreements),
        "same_pass": num_checked - flipped,
    }


def _read_known(recipe: Recipe, run: Run, problems: dict[str, Problem], shards: list[ProgramFiles]) -> frozenset[str]:
    """Deal the programs of earlier stages into their shards; the ids of those whose shipped rate is checked."""
    names = [name for name, stage in (("programs", "collect"), ("mutants", "mutate")) if stage in recipe.stages]
    shipped = array("q")
    number = 0
    for name in names:
        path = run.path(f"{name}.jsonl")
        for offset, header in headers(path):
            shards[shard_of(header.task_id, recipe.sample.shards)].add(path, offset, header.task_id)
            is_rated = header.pass_rate is not None and header.label != "combined"
            if is_rated and problems[header.task_id].language == "python":
                shipped.append(number)
            number += 1
    drawn = random.Random(recipe.seed).sample(range(len(shipped)), min(recipe.verify.check, len(shipped)))
    wanted = {shipped[at] for at in drawn}
    ids = (header.program_id for name in names for _, header in headers(run.path(f"{name}.jsonl")))
    return frozenset(program_id for at, program_id in enumerate(ids) if at in wanted) if wanted else frozenset()


class _Verification:
    """The counts of one `verify`, and where the sandbox and the shipped labels differ."""

    def __init__(self, recipe: Recipe, run: Run, problems: dict[str, Problem], check: frozenset[str]) -> None:
        self.recipe, self.run, self.problems, self.check = recipe, run, problems, check
        self.judge = judge_of(recipe)
        self.counts = dict.fromkeys(
            ("judged", "infra_errors", "invalid_suites", "mutants", "mutants_passing", "samples", "checked"), 0
        )
        self.disagreements: list[dict[str, Any]] = []
        self._invalid: set[tuple[str, ...]] = set()

    def shard(self, number: int, programs: ProgramFiles) -> Iterator[ProgramRecord]:
        """The programs of a shard that have a pass rate now. Raises `InfraError` if too many could not be judged."""
        recipe = self.recipe
        journal = "verify.jsonl"
        if "sample" in recipe.stages:
            programs.add_file(shard_path(self.run, "samples", number, recipe))
            journal = f"verify/{shard_name(number, recipe)}.jsonl"
        tasks = (task for program in programs if (task := self._task(program)))
        judged = judge_all(tasks, self.run, self.judge, name=journal, total=len(programs))
        failed = judged.not_judged
        if len(failed) > recipe.verify.max_infra_errors * max(1, judged.num_tasks):
            raise InfraError(
                f"{len(failed)} of {judged.num_tasks} programs could not be judged, more than verify.max_infra_errors "
                f"allows; the first: {failed[0]['detail']}"
            )
        self.counts["infra_errors"] += len(failed)
        for program in programs:
            rated = self._rated(program, self._result(program, judged))
            if rated is not None:
                yield rated
        self.counts["invalid_suites"] += len(self._invalid)
        self._invalid.clear()

    def _task(self, program: ProgramRecord) -> JudgeTask | None:
        """What there is to judge of a program; None where its rate is known."""
        if program.pass_rate is not None and program.program_id not in self.check:
            return None
        cpu_s = MUTANT_CPU_S if program.origin == "mutant" else self.recipe.verify.cpu_s
        return task_of(self.problems[program.task_id], program, cpu_s)

    def _result(self, program: ProgramRecord, judged: JudgedPrograms) -> dict[str, Any] | None:
        """The result of a program that was judged, under its own name; None for every other."""
        task = self._task(program)
        if task is None:
            return None
        result = judged[task.key]
        if result["status"] == "invalid":
            self._invalid.add(task.tests)
        if result["status"] != "ok":
            return None
        self.counts["judged"] += 1
        return {**result, "program_id": program.program_id}

    def _rated(self, program: ProgramRecord, result: dict[str, Any] | None) -> ProgramRecord | None:
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
                self.disagreements.append({**case, "solution": program.solution})
        return program
