"""`pair`: which program of a problem is better than which, by pass rate.

AceCoder's rule (arXiv 2502.01718, eq. 3, inclusive as in its code): chosen ≥ 0.8, gap ≥ 0.4, and rejected > 0. The
last clause guards against labels that are wrong for a whole problem (a missing package, a slip in a generated test);
where tests are the problem's own and were run here, a program that passes nothing is simply wrong, and the recipe may
switch the clause off. The pass rate divides by the tests that are kept, never by all that were once imagined.

Every qualifying pair has weight 1 / (pairs of its problem): without that, a problem with a hundred samples would
count for ten thousand pairs. Programs are distinct already, so no pair appears twice.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from training import config
from training.config import Recipe
from training.records import Program, read_problems, read_programs
from training.run import Run, write_jsonl


@dataclass(frozen=True, slots=True)
class Preference:
    """Programs of one problem: `chosen` is better than `rejected`."""

    task_id: str
    chosen: str
    rejected: str
    weight: float


def pair(recipe: Recipe, run: Run) -> dict[str, object]:
    """Write `pairs.jsonl` from `verified.jsonl`, training and validation problems only, the fold on every row."""
    problems = read_problems(run.path("problems.jsonl"))
    by_task: dict[str, list[Program]] = defaultdict(list)
    for program in read_programs(run.path("verified.jsonl")):
        by_task[program.task_id].append(program)
    rows: list[dict[str, object]] = []
    used: dict[str, int] = defaultdict(int)
    for task_id, programs in by_task.items():
        fold = problems[task_id].fold
        if fold == "test":
            continue
        rated = [(program.program_id, program.pass_rate) for program in programs if program.pass_rate is not None]
        found = preferences(task_id, rated, recipe.pair, recipe.seed)
        used[fold] += bool(found)
        rows += [
            {"fold": fold, "task_id": p.task_id, "chosen": p.chosen, "rejected": p.rejected, "weight": p.weight}
            for p in found
        ]
    write_jsonl(run.path("pairs.jsonl"), rows)
    return {"pairs": len(rows), **{f"{fold}_problems": count for fold, count in sorted(used.items())}}


def preferences(task_id: str, rated: Sequence[tuple[str, float]], rule: config.Pair, seed: int = 0) -> list[Preference]:
    """The pairs of one problem's distinct programs (name, pass rate), at most `max_per_problem` of them."""
    found = [
        (better, worse)
        for better, high in rated
        for worse, low in rated
        if qualifies(high, low, rule)
    ]  # fmt: skip
    if len(found) > rule.max_per_problem:
        found = sorted(random.Random(f"{seed}:{task_id}").sample(found, rule.max_per_problem))
    return [Preference(task_id, better, worse, 1 / len(found)) for better, worse in found]


def qualifies(chosen: float, rejected: float, rule: config.Pair) -> bool:
    """The rule on two pass rates; the tolerance is for sums like 1.0 - 0.6 < 0.4."""
    tiny = 1e-9
    if rule.rejected_above_zero and rejected <= 0:
        return False
    return chosen >= rule.min_chosen - tiny and chosen - rejected >= rule.min_gap - tiny
