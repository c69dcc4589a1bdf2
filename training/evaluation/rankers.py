"""Rankers of a problem's samples, and what their choices are worth: best-of-N with intervals over problems.

- A ranker of single programs has one value per sample. Its best-of-N is the exact expectation over all N-subsets.
- A ranker of sets (consensus, agreement, majority) ranks each drawn subset on its own, as the service would. Its
  best-of-N is the mean over the draws.
- Ties are averaged in both.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from plaudit.tests_first import tie_scale, unit
from service.agreement import agreement, consensus
from service.evidence.behavior import behavior
from training.pipeline import config
from training.pipeline.metrics import best_of_n, bootstrap, mean, pass_at_n

MEAN, ORACLE, MODEL = "mean (no choice)", "oracle (pass@N)", "reward model"
EVIDENCE = "auto: examples, behavior, consensus, model"


@dataclass(slots=True)
class SampledProblem:
    """One test problem with its samples, duplicates kept: scores[i], rates[i] and so on belong together.

    `verdicts[i]`: which generated tests sample i passes; `kept`: places of those that the reference solution passes,
    None where that is not known. `example_rates[i]`, `answers[i]`: what `evidence` observed of sample i, if it did, and
    `evidence_cpu_s[i]`: what that cost, for each different program once.
    `greedy`: pass rate of the greedy program, if it was sampled.
    """

    task_id: str
    language: str = "python"
    completions: list[str] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    programs: list[str] = field(default_factory=list)
    verdicts: list[tuple[bool, ...]] = field(default_factory=list)
    example_rates: list[float] = field(default_factory=list)
    answers: list[list[str]] = field(default_factory=list)
    evidence_cpu_s: list[float] = field(default_factory=list)
    kept: tuple[int, ...] | None = None
    greedy: float | None = None

    @property
    def passed(self) -> list[bool]:
        return [rate == 1.0 for rate in self.rates]

    @property
    def pass_at_1(self) -> float:
        return mean([float(ok) for ok in self.passed])


NEARLY = 0.9  # of N samples, from which on a problem counts for best of N

Rate = Callable[[SampledProblem, int], float]
SampleRanker = Callable[[SampledProblem], list[float]]
SetRanker = Callable[[SampledProblem, list[int]], list[float]]


def best_of_n_curves(
    sampled: Sequence[SampledProblem], settings: config.EvaluateConfig, seed: int
) -> list[dict[str, Any]]:
    """Best-of-N of every ranker that the data allows, at the recipe's N.

    `points`: value, its gain over the mean and the share of the gap to the oracle that it closes, each with a 95 %
    interval from resampling problems. `whole`: the value at every N, for rankers whose expectation is exact. A problem
    with nearly N samples counts with those it has (`sizes_of`); `short`: how many do.
    """
    most = min(len(p.scores) for p in sampled)
    sizes = sizes_of(sampled, settings.num_candidates)
    rows = []
    for name, full_rate, exact in _rankers(sampled, settings, seed):

        def rate(problem: SampledProblem, n: int, full_rate: Rate = full_rate) -> float:
            return full_rate(problem, min(n, len(problem.scores)))

        row: dict[str, Any] = {"ranker": name, "points": [_point(sampled, rate, n, settings, seed) for n in sizes]}
        if exact:
            row["whole"] = [mean([rate(p, n) for p in sampled]) for n in range(1, most + 1)]
        rows.append(row)
    return rows


def sizes_of(sampled: Sequence[SampledProblem], wanted: Sequence[int]) -> list[int]:
    """The N for which every problem has at least `NEARLY` of the samples: one that was lost removes no column."""
    return [n for n in wanted if all(len(p.scores) >= NEARLY * n for p in sampled)]


def _rankers(
    sampled: Sequence[SampledProblem], settings: config.EvaluateConfig, seed: int
) -> list[tuple[str, Rate, bool]]:
    """(name, chance that the choice among N passes, whether that is exact) of every ranker that the data allows."""

    def alone(values: SampleRanker) -> Rate:
        return lambda p, n: best_of_n(values(p), p.passed, n)

    def together(values: SetRanker) -> Rate:
        return lambda p, n: drawn_best_of_n(p, n, values, settings.draws, seed)

    tested = all(len(p.verdicts) == len(p.scores) for p in sampled)
    filtered = tested and any(p.kept for p in sampled)
    rankers: list[tuple[str, Rate, bool]] = [(MEAN, lambda p, n: p.pass_at_1, True)]
    if all(p.greedy is not None for p in sampled):
        rankers.append(("greedy", lambda p, n: float(p.greedy == 1.0), True))
    rankers += [
        ("shortest", alone(lambda p: [-len(c) for c in p.completions]), True),
        (MODEL, alone(lambda p: p.scores), True),
        ("majority of identical programs", together(majority), False),
        ("consensus", together(_consensus), False),
        ("reward model + consensus", together(_sum(_model, _consensus)), False),
    ]
    if all(len(p.example_rates) == len(p.scores) for p in sampled):
        rankers += [(name, together(values), False) for name, values in EVIDENCE_RANKERS.items()]
    if tested:
        rankers += [
            ("raw generated tests", alone(raw_rate), True),
            ("agreement on raw generated tests", together(_agreement), False),
            ("reward model + agreement", together(_sum(_model, _agreement)), False),
            ("reward model and raw tests, as in /reward", alone(lambda p: combined_rewards(p, raw_rate(p))), True),
        ]
    if filtered:
        rankers += [
            ("filtered generated tests", alone(filtered_rate), True),
            (
                "reward model and filtered tests, as in /reward",
                alone(lambda p: combined_rewards(p, filtered_rate(p))),
                True,
            ),
        ]
    return [*rankers, (ORACLE, lambda p, n: pass_at_n(p.passed, n), True)]


def _point(
    sampled: Sequence[SampledProblem], rate: Rate, n: int, settings: config.EvaluateConfig, seed: int
) -> dict[str, Any]:
    values = [rate(p, n) for p in sampled]
    base = [p.pass_at_1 for p in sampled]
    best = [pass_at_n(p.passed, min(n, len(p.scores))) for p in sampled]
    gains = [value - plain for value, plain in zip(values, base, strict=True)]
    gaps = list(zip(gains, [top - plain for top, plain in zip(best, base, strict=True)], strict=True))
    closed = _share(gaps)
    low, high = bootstrap(gaps, resamples=settings.resamples, seed=seed, statistic=_share)
    return {
        "n": n,
        "short": sum(len(p.scores) < n for p in sampled),
        **estimate(values, settings, seed),
        "gain": estimate(gains, settings, seed),
        "gap_closed": {"value": closed, "low": low, "high": high, "problems": len(values)},
    }


def _share(gaps: Sequence[tuple[float, float]]) -> float:
    """Sum of the gains over the sum of what the oracle gains; 0.0 where there is nothing to gain."""
    room = sum(top for _, top in gaps)
    return sum(gain for gain, _ in gaps) / room if room > 1e-12 else 0.0


def estimate(values: Sequence[float], settings: config.EvaluateConfig, seed: int) -> dict[str, Any]:
    """The mean of one value per problem, with its 95 % interval; `value` is None without values."""
    if not values:
        return {"value": None, "low": None, "high": None, "problems": 0}
    low, high = bootstrap(values, resamples=settings.resamples, seed=seed)
    return {"value": mean(values), "low": low, "high": high, "problems": len(values)}


def drawn_best_of_n(problem: SampledProblem, n: int, rank: SetRanker, draws: int, seed: int) -> float:
    """Mean over drawn N-subsets of the best's pass chance, the subset ranked on its own, ties averaged."""
    if n == 1:
        return problem.pass_at_1  # nothing to choose, nothing to draw
    draw = random.Random(f"{seed}:{problem.task_id}:{n}")
    passed, total = problem.passed, 0.0
    for _ in range(draws):
        subset = draw.sample(range(len(problem.scores)), n)
        values = [round(value, 9) for value in rank(problem, subset)]
        top = max(values)
        total += mean([float(passed[at]) for at, value in zip(subset, values, strict=True) if value == top])
    return total / draws


# --- a program alone -------------------------------------------------------------------------------------------------


def raw_rate(problem: SampledProblem) -> list[float]:
    """Share of the generated tests that each sample passes."""
    return [sum(passes) / len(passes) if passes else 0.0 for passes in problem.verdicts]


def filtered_rate(problem: SampledProblem) -> list[float]:
    """The same over the tests that the reference solution passes."""
    kept = problem.kept or ()
    return [sum(passes[at] for at in kept) / len(kept) if kept else 0.0 for passes in problem.verdicts]


def combined_rewards(problem: SampledProblem, rates: Sequence[float]) -> list[float]:
    """The reward of `POST /reward` under its default spec, with these pass rates as the tests' value."""
    scale = tie_scale({len(passes) for passes in problem.verdicts})
    return [rate + scale * unit(score) for rate, score in zip(rates, problem.scores, strict=True)]


# --- a program in its set --------------------------------------------------------------------------------------------


def majority(problem: SampledProblem, subset: list[int]) -> list[float]:
    """How often the very same program stands in the subset."""
    counts = Counter(problem.programs[at] for at in subset)
    return [float(counts[problem.programs[at]]) for at in subset]


def _model(problem: SampledProblem, subset: list[int]) -> list[float]:
    return [problem.scores[at] for at in subset]


def _consensus(problem: SampledProblem, subset: list[int]) -> list[float]:
    return list(_consensus_once(tuple(problem.completions[at] for at in subset)))


@lru_cache(maxsize=1 << 16)
def _consensus_once(completions: tuple[str, ...]) -> tuple[float, ...]:
    # Two rankers ask about the same drawn subsets.
    return tuple(consensus(completions))


def _agreement(problem: SampledProblem, subset: list[int]) -> list[float]:
    return agreement([problem.verdicts[at] for at in subset])


def in_order(*parts: SetRanker) -> SetRanker:
    """The first part decides, and each later one among what is equal so far: `combine: "auto"`."""

    def values(problem: SampledProblem, subset: list[int]) -> list[float]:
        columns = [[round(value, 9) for value in part(problem, subset)] for part in parts]
        keys = list(zip(*columns, strict=True))
        places = {key: float(place) for place, key in enumerate(sorted(set(keys)))}
        return [places[key] for key in keys]

    return values


def by_examples(problem: SampledProblem, subset: list[int]) -> list[float]:
    """Share of the prompt's examples that each sample passes."""
    return [problem.example_rates[at] for at in subset]


def by_behavior(problem: SampledProblem, subset: list[int]) -> list[float]:
    """Agreement on further inputs, weighted by the examples passed."""
    return behavior([problem.answers[at] for at in subset], by_examples(problem, subset))


def by_behavior_alone(problem: SampledProblem, subset: list[int]) -> list[float]:
    """The same, no example used as a test."""
    return behavior([problem.answers[at] for at in subset])


def _sum(left: SetRanker, right: SetRanker) -> SetRanker:
    """Sum of z-scores in the subset: both parts weigh the same, and neither weight was tuned."""

    def values(problem: SampledProblem, subset: list[int]) -> list[float]:
        parts = zip(_standard(left(problem, subset)), _standard(right(problem, subset)), strict=True)
        return [a + b for a, b in parts]

    return values


EVIDENCE_RANKERS: dict[str, SetRanker] = {
    "behavior alone": by_behavior_alone,
    "examples": by_examples,
    "examples, behavior": in_order(by_examples, by_behavior),
    EVIDENCE: in_order(by_examples, by_behavior, _consensus, _model),
}


def _standard(values: Sequence[float]) -> list[float]:
    centre = mean(values)
    spread = mean([(value - centre) ** 2 for value in values]) ** 0.5
    return [(value - centre) / spread if spread > 1e-12 else 0.0 for value in values]
