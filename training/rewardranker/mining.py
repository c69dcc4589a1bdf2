"""Mining: which executed completions a round adds to the reranker's data.

- A *hard negative* (high-scoring failure) fails a test and scores at least the `hard_quantile` of the passing programs
  of its problem. Where its problem has none, the problem's reference is what it must reach; without a reference nothing
  is mined of that problem, because scores of different prompts cannot be compared: a Bradley-Terry model is free to add
  any number to all scores of one prompt.
- The paper (arXiv 2504.09643) keeps failures with high scores. The rule and its number are plaudit's own.
- `hard_negatives` adds these alone. `self_training` adds passing programs too, up to `max_positives` per problem,
  distinct, the lowest-scored first: programs that the reranker underrates teach it more.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plaudit.errors import InfraError, UsageError
from plaudit.extract import code_of
from training.data.judge_task import task_of
from training.data.judging import judge_all, judge_of
from training.data.programs import opens_program, program_of
from training.pipeline.config import Recipe
from training.pipeline.files import read_jsonl
from training.pipeline.records import Problem, ProgramRecord
from training.pipeline.run import Run

MODES = ("self_training", "hard_negatives")


@dataclass(frozen=True, slots=True)
class MinedPrograms:
    """The result of a round: `positives` and `hard` are distinct programs, the counts are of completions."""

    positives: tuple[ProgramRecord, ...]
    hard: tuple[ProgramRecord, ...]
    num_completions: int
    num_failures: int
    num_hard: int

    def added(self, mode: str) -> list[ProgramRecord]:
        """The programs that this mode adds. Raises `UsageError` for an unknown mode."""
        if mode not in MODES:
            raise UsageError(f"iterate.mode {mode!r} is not one of {', '.join(MODES)}")
        return [*self.hard, *(self.positives if mode == "self_training" else ())]

    def summary(self) -> dict[str, Any]:
        """Counts and shares, for the record of the round."""
        return {
            "completions": self.num_completions,
            "failures": self.num_failures,
            "high_scoring_failures": self.num_hard,
            "share_of_failures": round(self.num_hard / max(1, self.num_failures), 4),
            "share_of_completions": round(self.num_hard / max(1, self.num_completions), 4),
            "positives_kept": len(self.positives),
            "hard_kept": len(self.hard),
        }


def execute_completions(
    recipe: Recipe, run: Run, problems: Mapping[str, Problem], completions: Mapping[str, Sequence[str]]
) -> dict[str, list[ProgramRecord]]:
    """Run completions with their problems' tests in the sandbox.

    Args:
        recipe: CPU seconds per test, and the share of infrastructure errors that is tolerated.
        run: the folder whose journal keeps verdicts; nothing is judged twice.
        problems: by task id.
        completions: by task id, in which equal texts count as copies.

    Returns:
        distinct programs by task id, with pass rates. Programs that could not be judged are left out, never labelled.

    Raises:
        InfraError: more than `verify.max_infra_errors` of the programs could not be judged.
    """
    programs: dict[str, ProgramRecord] = {}
    for task_id, texts in completions.items():
        problem = problems[task_id]
        for text, copies in Counter(texts).items():
            program = program_of(
                problem, program_text(problem, text), "sample", problem.source, problem.license, completion=text
            )
            programs[program.program_id] = dataclasses.replace(program, copies=copies, iid_copies=copies)
    tasks = [task_of(problems[p.task_id], p, recipe.verify.cpu_s) for p in programs.values()]
    results = judge_all(tasks, run, judge_of(recipe), total=len(tasks))
    failed = results.not_judged
    if len(failed) > recipe.verify.max_infra_errors * max(1, len(tasks)):
        raise InfraError(f"{len(failed)} of {len(tasks)} programs could not be judged; first: {failed[0]['detail']}")
    judged: dict[str, list[ProgramRecord]] = defaultdict(list)
    for task, program in zip(tasks, programs.values(), strict=True):
        result = results[task.key]
        if result["status"] == "ok":
            rate = float(result["pass_rate"])
            judged[program.task_id].append(dataclasses.replace(program, pass_rate=rate, label="sandbox"))
    return dict(judged)


def program_text(problem: Problem, completion: str) -> str:
    """The program: code that has begun with its completion; for a question in words what the completion answers."""
    if opens_program(problem):
        return problem.prompt + completion
    code = code_of(completion, problem.language)
    return completion if code is None else code.text


def mean_pass_rate(programs: Sequence[ProgramRecord]) -> float:
    """Share of these programs' completions that pass every test."""
    return sum(p.copies for p in programs if p.pass_rate == 1.0) / sum(p.copies for p in programs)


def by_task(programs: Iterable[ProgramRecord]) -> dict[str, list[ProgramRecord]]:
    """These programs by task id, in their order."""
    groups: dict[str, list[ProgramRecord]] = defaultdict(list)
    for program in programs:
        groups[program.task_id].append(program)
    return dict(groups)


def mine(
    executed: Mapping[str, Sequence[ProgramRecord]],
    scores: Mapping[str, float],
    references: Mapping[str, float],
    recipe: Recipe,
) -> MinedPrograms:
    """Select positives and hard negatives.

    Args:
        executed: programs by task id.
        scores: of these programs, by program id.
        references: the score of a problem's reference, by task id, where it has one.
        recipe: its `iterate` section has the quantile and the bounds.
    """
    settings = recipe.iterate
    positives: list[ProgramRecord] = []
    hard: list[ProgramRecord] = []
    num_failures = num_hard = 0
    for task_id, programs in executed.items():
        good = sorted((p for p in programs if p.pass_rate == 1.0), key=lambda p: (scores[p.program_id], p.program_id))
        positives += good[: settings.max_positives]
        own_threshold = quantile([scores[p.program_id] for p in good], settings.hard_quantile)
        threshold = own_threshold if good else references.get(task_id)
        for program in programs:
            if program.pass_rate != 1.0:
                num_failures += program.copies
                if threshold is not None and scores[program.program_id] >= threshold:
                    hard.append(program)
                    num_hard += program.copies
    num_completions = sum(p.copies for programs in executed.values() for p in programs)
    return MinedPrograms(tuple(positives), tuple(hard), num_completions, num_failures, num_hard)


def quantile(values: Sequence[float], share: float) -> float | None:
    """The value with this share of the values below it (the lower of two neighbours); None without values."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else None


def merge_programs(before: Sequence[ProgramRecord], added: Sequence[ProgramRecord]) -> list[ProgramRecord]:
    """Both, distinct and sorted by problem; copies of a program that is in both are added up."""
    by_id: dict[str, ProgramRecord] = {}
    for program in (*before, *added):
        known = by_id.get(program.program_id)
        by_id[program.program_id] = (
            program if known is None else dataclasses.replace(known, copies=known.copies + program.copies)
        )
    return sorted(by_id.values(), key=lambda p: p.task_id)


def recorded_completions(path: str, problems: Mapping[str, Problem]) -> dict[str, list[str]]:
    """Completions by task id from a JSONL file with `task_id` and `completion`, for these problems only.

    Raises `UsageError` if the file does not exist. An empty path is no file and gives nothing.
    """
    if not path:
        return {}
    if not Path(path).is_file():
        raise UsageError(f"iterate.recorded: no file {path}")
    completions: dict[str, list[str]] = defaultdict(list)
    for line in read_jsonl(Path(path)):
        if line["task_id"] in problems:
            completions[line["task_id"]].append(line["completion"])
    return dict(completions)
