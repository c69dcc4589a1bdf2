"""`pair`: which program of a problem is better than which, by pass rate.

AceCoder's rule (arXiv 2502.01718, eq. 3, inclusive as in its code): chosen ≥ 0.8, gap ≥ 0.4, and rejected > 0. The
last clause guards against labels that are wrong for a whole problem (a missing package, a slip in a generated test);
where tests are the problem's own and were run here, a program that passes nothing is simply wrong, and the recipe may
switch the clause off. The pass rate divides by the tests that are kept, never by all that were once imagined.

Every qualifying pair has weight 1 / (pairs of its problem): without that, a problem with a hundred samples would
count for ten thousand pairs. Programs are distinct already, so no pair appears twice. AceCoder's own numbers, without
a cap and without weights, come out with `rejected_above_zero = true`, `max_per_problem = 0` and `weighted = false`.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from plaudit.errors import Invalid
from training.data.dataset_stats import Statistics, markdown
from training.pipeline import config
from training.pipeline.config import Recipe
from training.pipeline.run import Progress, Run, write_jsonl, write_text

TINY = 1e-9  # tolerance of the thresholds: 1.0 - 0.6 is less than 0.4


@dataclass(frozen=True, slots=True)
class Preference:
    """Programs of one problem: `chosen` is better than `rejected`."""

    task_id: str
    chosen: str
    rejected: str
    weight: float


class Rated(msgspec.Struct, frozen=True):
    """What the rule needs of a row of `verified.jsonl`."""

    program_id: str
    task_id: str
    pass_rate: float | None
    iid_copies: int = 0


class Placed(msgspec.Struct, frozen=True):
    """What the rule needs of a row of `problems.jsonl`."""

    task_id: str
    source: str
    fold: str
    tests: list[str]


def pair(recipe: Recipe, run: Run) -> dict[str, object]:
    """Write `pairs.jsonl` from `verified.jsonl`, training and validation problems only, the fold on every row.

    Programs are read a problem at a time, so memory holds the names of the problems and the programs of one. Beside
    the pairs, `statistics.json` and `statistics.md` say what AceCoder's tables say of its data.
    """
    decoder = msgspec.json.Decoder(Placed)
    problems = {}
    with run.path("problems.jsonl").open("rb") as lines:
        for line in lines:
            placed = decoder.decode(line)
            problems[placed.task_id] = (placed.fold, placed.source, len(placed.tests))
    statistics, used = Statistics(), Counter[str]()
    count = write_jsonl(run.path("pairs.jsonl"), _rows(recipe, run, problems, statistics, used))
    found = statistics.tables()
    write_text(run.path("statistics.json"), msgspec.json.format(msgspec.json.encode(found)).decode() + "\n")
    write_text(run.path("statistics.md"), markdown(found))
    return {"pairs": count, **{f"{fold}_problems": number for fold, number in sorted(used.items())}}


def _rows(
    recipe: Recipe, run: Run, problems: dict[str, tuple[str, str, int]], statistics: Statistics, used: Counter[str]
) -> Iterator[dict[str, Any]]:
    progress = Progress(run, "pair", len(problems))
    for at, (task_id, programs) in enumerate(by_problem(run.path("verified.jsonl"))):
        fold, source, num_tests = problems[task_id]
        rated = [(program.program_id, program.pass_rate) for program in programs if program.pass_rate is not None]
        found = [] if fold == "test" else preferences(task_id, rated, recipe.pair, recipe.seed)
        if found:
            used[fold] += 1
        sampled = [(p.pass_rate, p.iid_copies) for p in programs if p.iid_copies and p.pass_rate is not None]
        statistics.add(source, num_tests, len(found), sampled)
        for one in found:
            yield {
                "fold": fold,
                "task_id": task_id,
                "chosen": one.chosen,
                "rejected": one.rejected,
                "weight": one.weight,
            }
        progress.at(at + 1)


def by_problem(path: Path) -> Iterator[tuple[str, list[Rated]]]:
    """The programs of one problem after the other. Raises `Invalid` where a problem's rows do not stand together."""
    decoder, seen = msgspec.json.Decoder(Rated), set[str]()
    with path.open("rb") as lines:
        for task_id, programs in itertools.groupby(map(decoder.decode, lines), key=lambda program: program.task_id):
            if task_id in seen:
                raise Invalid(f"{path.name}: the rows of {task_id} do not stand together")
            seen.add(task_id)
            yield task_id, list(programs)


def preferences(task_id: str, rated: Sequence[tuple[str, float]], rule: config.Pair, seed: int = 0) -> list[Preference]:
    """The pairs of one problem's distinct programs (name, pass rate), at most `max_per_problem` of them (0: all)."""
    found = [
        (better, worse)
        for better, high in rated
        if high >= rule.min_chosen - TINY
        for worse, low in rated
        if qualifies(high, low, rule)
    ]
    if 0 < rule.max_per_problem < len(found):
        found = sorted(random.Random(f"{seed}:{task_id}").sample(found, rule.max_per_problem))
    weight = 1 / len(found) if rule.weighted and found else 1.0
    return [Preference(task_id, better, worse, weight) for better, worse in found]


def qualifies(chosen: float, rejected: float, rule: config.Pair) -> bool:
    """The rule on two pass rates."""
    if rule.rejected_above_zero and rejected <= 0:
        return False
    return chosen >= rule.min_chosen - TINY and chosen - rejected >= rule.min_gap - TINY
