"""`pair`: which program of a problem is better than which, by pass rate.

AceCoder's rule (arXiv 2502.01718, eq. 3, inclusive as in its code): chosen ≥ 0.8, gap ≥ 0.4, and rejected > 0.

- The last clause guards against labels that are wrong for a whole problem (a missing package, a slip in a generated
  test). Where tests are the problem's own, a program that passes nothing is wrong, and the recipe may switch it off.
- The pass rate divides by the tests that are kept, never by all that were generated.
- Every pair has weight 1 / (pairs of its problem): otherwise a problem with a hundred samples would count for ten
  thousand pairs. Programs are distinct already, so no pair appears twice.
- AceCoder's own way, without a cap and without weights, is `rejected_above_zero = true`, `max_per_problem = 0` and
  `weighted = false`.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from plaudit.errors import Invalid
from training.data.dataset_stats import DatasetStats, stats_markdown
from training.pipeline import config
from training.pipeline.config import Recipe
from training.pipeline.engines import pairing_engine
from training.pipeline.files import write_jsonl, write_text
from training.pipeline.progress import StageProgress
from training.pipeline.ray_executors import chunked, ordered_on_ray
from training.pipeline.run import Run

PROBLEMS_AT_ONCE = 256  # that an executor of a cluster gets
TOLERANCE = 1e-9  # tolerance of the thresholds: 1.0 - 0.6 is less than 0.4


@dataclass(frozen=True, slots=True)
class Preference:
    """Programs of one problem: `chosen` is better than `rejected`."""

    task_id: str
    chosen: str
    rejected: str
    weight: float


class RatedProgram(msgspec.Struct, frozen=True):
    """What the rule needs of a row of `verified.jsonl`."""

    program_id: str
    task_id: str
    pass_rate: float | None
    iid_copies: int = 0


class ProblemHeader(msgspec.Struct, frozen=True):
    """What the rule needs of a row of `problems.jsonl`."""

    task_id: str
    source: str
    fold: str
    tests: list[str]


def build_pairs(recipe: Recipe, run: Run) -> dict[str, object]:
    """Write `pairs.jsonl` from `verified.jsonl`, training and validation problems only, the fold on every row.

    Programs are read problem by problem, so memory holds the names of the problems and the programs of one. Beside the
    pairs, `statistics.json` and `statistics.md` hold the numbers of AceCoder's tables for this data.
    """
    decoder = msgspec.json.Decoder(ProblemHeader)
    problems = {}
    with run.path("problems.jsonl").open("rb") as lines:
        for line in lines:
            header = decoder.decode(line)
            problems[header.task_id] = (header.fold, header.source, len(header.tests))
    stats, used = DatasetStats(), Counter[str]()
    count = write_jsonl(run.path("pairs.jsonl"), _rows(recipe, run, problems, stats, used))
    tables = stats.tables()
    write_text(run.path("statistics.json"), msgspec.json.format(msgspec.json.encode(tables)).decode() + "\n")
    write_text(run.path("statistics.md"), stats_markdown(tables))
    return {"pairs": count, **{f"{fold}_problems": number for fold, number in sorted(used.items())}}


def _rows(
    recipe: Recipe, run: Run, problems: dict[str, tuple[str, str, int]], stats: DatasetStats, used: Counter[str]
) -> Iterator[dict[str, Any]]:
    progress = StageProgress(run, "pair", len(problems))
    rated = (
        _RatedProblem(task_id, problems[task_id][0], programs)
        for task_id, programs in by_problem(run.path("verified.jsonl"))
    )
    for at, (task_id, programs, pairs) in enumerate(_paired(recipe, rated)):
        fold, source, num_tests = problems[task_id]
        if pairs:
            used[fold] += 1
        sampled = [(p.pass_rate, p.iid_copies) for p in programs if p.iid_copies and p.pass_rate is not None]
        stats.add(source, num_tests, len(pairs), sampled)
        for preference in pairs:
            yield {
                "fold": fold,
                "task_id": task_id,
                "chosen": preference.chosen,
                "rejected": preference.rejected,
                "weight": preference.weight,
            }
        progress.at(at + 1)


class _RatedProblem(NamedTuple):
    """A problem's programs."""

    task_id: str
    fold: str
    programs: list[RatedProgram]


_Paired = tuple[str, list[RatedProgram], list[Preference]]


def _paired(recipe: Recipe, rated: Iterable[_RatedProblem]) -> Iterator[_Paired]:
    """The pairs of each problem in turn, made here or by the executors of a cluster."""
    if pairing_engine(recipe).name == "ray":
        chunks = chunked(rated, PROBLEMS_AT_ONCE)
        for paired in ordered_on_ray(partial(_pairing, recipe.pair, recipe.seed), chunks, recipe.ray):
            yield from paired
        return
    with _pairing(recipe.pair, recipe.seed) as pair:
        for problem in rated:
            yield from pair([problem])


@contextmanager
def _pairing(rule: config.PairConfig, seed: int) -> Iterator[Callable[[list[_RatedProblem]], list[_Paired]]]:
    def pair(problem: _RatedProblem) -> _Paired:
        task_id, fold, programs = problem
        rated = [(program.program_id, program.pass_rate) for program in programs if program.pass_rate is not None]
        return task_id, programs, [] if fold == "test" else preferences(task_id, rated, rule, seed)

    yield lambda problems: list(map(pair, problems))


def by_problem(path: Path) -> Iterator[tuple[str, list[RatedProgram]]]:
    """The programs of each problem in turn. Raises `Invalid` where a problem's rows do not stand together."""
    decoder, done = msgspec.json.Decoder(RatedProgram), set[str]()
    with path.open("rb") as lines:
        for task_id, programs in itertools.groupby(map(decoder.decode, lines), key=lambda program: program.task_id):
            if task_id in done:
                raise Invalid(f"{path.name}: the rows of {task_id} do not stand together; run verify again")
            done.add(task_id)
            yield task_id, list(programs)


def preferences(
    task_id: str, rated: Sequence[tuple[str, float]], rule: config.PairConfig, seed: int = 0
) -> list[Preference]:
    """The pairs of one problem's distinct programs (name, pass rate), at most `max_per_problem` of them (0: all)."""
    pairs = [
        (better, worse)
        for better, high in rated
        if high >= rule.min_chosen - TOLERANCE
        for worse, low in rated
        if qualifies(high, low, rule)
    ]
    if 0 < rule.max_per_problem < len(pairs):
        pairs = sorted(random.Random(f"{seed}:{task_id}").sample(pairs, rule.max_per_problem))
    weight = 1 / len(pairs) if rule.weighted and pairs else 1.0
    return [Preference(task_id, better, worse, weight) for better, worse in pairs]


def qualifies(chosen: float, rejected: float, rule: config.PairConfig) -> bool:
    """The rule on two pass rates."""
    if rule.rejected_above_zero and rejected <= 0:
        return False
    return chosen >= rule.min_chosen - TOLERANCE and chosen - rejected >= rule.min_gap - TOLERANCE
