"""`verify`: every program gets a pass rate by running its problem's tests.

- Programs without a label (mutants, fresh samples) are all run.
- Public samples have a shipped pass rate. A seeded slice of those in Python is run again; the summary says how often
  the sandbox agrees, and `verify.disagreements.jsonl` holds every case where it does not.
- Programs that could not be judged have no row. Past a share of `max_infra_errors` the stage fails.
- Neither have programs whose tests no judge can use (a syntax error, no entry point); such suites are counted.
- Samples are verified shard by shard, as they were sampled; memory holds one shard.
"""

from __future__ import annotations

import dataclasses
import random
from collections import defaultdict
from typing import Any

from plaudit.errors import InfraError
from training.data.judge_task import MUTANT_CPU_S, JudgeTask, task_of
from training.data.judging import judge_all, not_judged
from training.pipeline.config import Recipe
from training.pipeline.files import write_jsonl
from training.pipeline.records import Problem, ProgramRecord, as_row, read_problems, read_programs
from training.pipeline.run import Run
from training.pipeline.shards import shard_name, shard_of, shard_path, shards_to_run


def verify_programs(recipe: Recipe, run: Run) -> dict[str, object]:
    """Write `verified.jsonl`: every program with a pass rate and where the rate comes from, grouped by problem."""
    problems = read_problems(run.path("problems.jsonl"))
    known = read_programs(run.path("programs.jsonl")) if "collect" in recipe.stages else []
    known += read_programs(run.path("mutants.jsonl")) if "mutate" in recipe.stages else []
    rated = [p for p in known if p.pass_rate is not None and p.label != "combined"]
    shipped = [p for p in rated if problems[p.task_id].language == "python"]
    checked = random.Random(recipe.seed).sample(shipped, min(recipe.verify.check, len(shipped)))
    verification = _Verification(recipe, run, problems, frozenset(program.program_id for program in checked))
    place = {task_id: at for at, task_id in enumerate(problems)}
    by_shard: dict[int, list[ProgramRecord]] = defaultdict(list)
    for program in sorted(known, key=lambda program: place[program.task_id]):
        by_shard[shard_of(program.task_id, recipe.sample.shards)].append(program)
    if recipe.shard:
        for number in shards_to_run(recipe):
            verification.shard(number, by_shard[number])
        return {**verification.counts, "complete": False}
    rows = (as_row(p) for number in shards_to_run(recipe) for p in verification.shard(number, by_shard[number]))
    write_jsonl(run.path("verified.jsonl"), rows)
    write_jsonl(run.path("verify.disagreements.jsonl"), verification.disagreements)
    flipped = sum((case["pass_rate"] == 1.0) != (case["shipped"] == 1.0) for case in verification.disagreements)
    num_checked = verification.counts["checked"]
    return {
        **verification.counts,
        "same_rate": num_checked - len(verification.disagreements),
        "same_pass": num_checked - flipped,
    }


class _Verification:
    """The counts of one `verify`, and where the sandbox and the shipped labels differ."""

    def __init__(self, recipe: Recipe, run: Run, problems: dict[str, Problem], check: frozenset[str]) -> None:
        self.recipe, self.run, self.problems, self.check = recipe, run, problems, check
        self.counts = dict.fromkeys(
            ("judged", "infra_errors", "invalid_suites", "mutants", "mutants_passing", "samples", "checked"), 0
        )
        self.disagreements: list[dict[str, Any]] = []

    def shard(self, number: int, known: list[ProgramRecord]) -> list[ProgramRecord]:
        """The programs of a shard that have a pass rate now. Raises `InfraError` if too many could not be judged."""
        recipe, programs = self.recipe, known
        journal = "verify.jsonl"
        if "sample" in recipe.stages:
            sampled = read_programs(shard_path(self.run, "samples", number, recipe))
            journal = f"verify/{shard_name(number, recipe)}.jsonl"
            order = {task_id: at for at, task_id in enumerate(self.problems)}
            programs = sorted([*known, *sampled], key=lambda program: order[program.task_id])
        tasks = [
            self._task(program) for program in programs if program.pass_rate is None or program.program_id in self.check
        ]
        results = judge_all(tasks, self.run, recipe.verify.processes, name=journal, settings=recipe.verify)
        failed = not_judged(results.values())
        if len(failed) > recipe.verify.max_infra_errors * max(1, len(tasks)):
            raise InfraError(
                f"{len(failed)} of {len(tasks)} programs could not be judged, more than verify.max_infra_errors "
                f"allows; the first: {failed[0]['detail']}"
            )
        judged = {result["program_id"]: result for result in results.values() if result["status"] == "ok"}
        self.counts["judged"] += len(judged)
        self.counts["infra_errors"] += len(failed)
        self.counts["invalid_suites"] += len({task.tests for task in tasks if results[task.key]["status"] == "invalid"})
        return [kept for program in programs if (kept := self._rated(program, judged.get(program.program_id)))]

    def _task(self, program: ProgramRecord) -> JudgeTask:
        cpu_s = MUTANT_CPU_S if program.origin == "mutant" else self.recipe.verify.cpu_s
        return task_of(self.problems[program.task_id], program, cpu_s)

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
