"""What a round adds to the reranker's data: executed completions, sorted by what the reranker thought of them.

A *high-scoring failure* fails a test and scores at least as high as the `hard_quantile` of the passing programs of its
problem; where the problem has none, of all passing programs seen in the round. The second paper says that failures
which the reranker scores high are kept; the rule and its number are plaudit's own. `hard_negatives` adds these alone,
`self_training` adds passing programs too, up to `max_positives` a problem, distinct, the lowest-scored first: what the
reranker underrates teaches more than what it already likes.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plaudit.errors import InfraError, UsageError
from training.data.judge_task import task_of
from training.data.judging import judge_all
from training.data.programs import program_of
from training.pipeline.config import Recipe
from training.pipeline.files import read_jsonl
from training.pipeline.records import Problem, ProgramRecord
from training.pipeline.run import Run

MODES = ("self_training", "hard_negatives")


@dataclass(frozen=True, slots=True)
class Mined:
    """What a round found: `positives` and `hard` are distinct programs, the counts are of completions."""

    positives: tuple[ProgramRecord, ...]
    hard: tuple[ProgramRecord, ...]
    completions: int
    failures: int
    high_scoring: int

    def added(self, mode: str) -> list[ProgramRecord]:
        """The programs that this mode adds to the reranker's data."""
        if mode not in MODES:
            raise UsageError(f"iterate.mode {mode!r} is not one of {', '.join(MODES)}")
        return [*self.hard, *(self.positives if mode == "self_training" else ())]

    def summary(self) -> dict[str, Any]:
        return {
            "completions": self.completions,
            "failures": self.failures,
            "high_scoring_failures": self.high_scoring,
            "share_of_failures": round(self.high_scoring / max(1, self.failures), 4),
            "share_of_completions": round(self.high_scoring / max(1, self.completions), 4),
            "positives_kept": len(self.positives),
            "hard_kept": len(self.hard),
        }


def execute(
    recipe: Recipe, run: Run, problems: Mapping[str, Problem], drawn: Mapping[str, Sequence[str]]
) -> dict[str, list[ProgramRecord]]:
    """Distinct programs of every problem with their pass rates; `copies` counts equal completions.

    What the sandbox could not judge is left out, never labelled; raises `InfraError` past `max_infra_errors`.
    """
    programs: dict[str, ProgramRecord] = {}
    for task_id, completions in drawn.items():
        problem = problems[task_id]
        for text, copies in Counter(completions).items():
            made = program_of(
                problem, problem.prompt + text, "sample", problem.source, problem.license, completion=text
            )
            programs[made.program_id] = dataclasses.replace(made, copies=copies, iid_copies=copies)
    tasks = [task_of(problems[p.task_id], p, recipe.verify.cpu_s) for p in programs.values()]
    results = judge_all(tasks, run, recipe.verify.processes)
    failed = [r for r in results.values() if r["status"] != "ok"]
    if len(failed) > recipe.verify.max_infra_errors * max(1, len(tasks)):
        raise InfraError(f"{len(failed)} of {len(tasks)} programs could not be judged; first: {failed[0]['detail']}")
    judged: dict[str, list[ProgramRecord]] = defaultdict(list)
    for task, program in zip(tasks, programs.values(), strict=True):
        result = results[task.key]
        if result["status"] == "ok":
            rate = float(result["pass_rate"])
            judged[program.task_id].append(dataclasses.replace(program, pass_rate=rate, label="sandbox"))
    return dict(judged)


def mine(executed: Mapping[str, Sequence[ProgramRecord]], scores: Mapping[str, float], recipe: Recipe) -> Mined:
    """Sort executed programs by their scores (of program ids)."""
    settings = recipe.iterate
    passing = [p for programs in executed.values() for p in programs if p.pass_rate == 1.0]
    anywhere = quantile([scores[p.program_id] for p in passing], settings.hard_quantile)
    positives: list[ProgramRecord] = []
    hard: list[ProgramRecord] = []
    failures = high = 0
    for programs in executed.values():
        good = sorted((p for p in programs if p.pass_rate == 1.0), key=lambda p: (scores[p.program_id], p.program_id))
        positives += good[: settings.max_positives]
        bar = quantile([scores[p.program_id] for p in good], settings.hard_quantile) if good else anywhere
        for program in programs:
            if program.pass_rate != 1.0:
                failures += program.copies
                if bar is not None and scores[program.program_id] >= bar:
                    hard.append(program)
                    high += program.copies
    total = sum(p.copies for programs in executed.values() for p in programs)
    return Mined(tuple(positives), tuple(hard), total, failures, high)


def quantile(values: Sequence[float], at: float) -> float | None:
    """The value with this share of the values below it (the lower of two neighbours); None of none."""
    ordered = sorted(values)
    return ordered[min(int(at * len(ordered)), len(ordered) - 1)] if ordered else None


def merged(before: Sequence[ProgramRecord], added: Sequence[ProgramRecord]) -> list[ProgramRecord]:
    """Both, distinct; a program that is known already counts once more often. Grouped by problem."""
    by_id: dict[str, ProgramRecord] = {}
    for program in (*before, *added):
        known = by_id.get(program.program_id)
        by_id[program.program_id] = (
            program if known is None else dataclasses.replace(known, copies=known.copies + program.copies)
        )
    return sorted(by_id.values(), key=lambda p: p.task_id)


def recorded(path: str, problems: Mapping[str, Problem]) -> dict[str, list[str]]:
    """Completions of record by problem: lines with `task_id` and `completion`; other problems' are left out."""
    if not path:
        return {}
    if not Path(path).is_file():
        raise UsageError(f"iterate.recorded: no file {path}")
    found: dict[str, list[str]] = defaultdict(list)
    for r in read_jsonl(Path(path)):
        if r["task_id"] in problems:
            found[r["task_id"]].append(r["completion"])
    return dict(found)
