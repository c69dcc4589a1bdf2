"""The report's diagnostics: discrimination, calibration, length bias, agreement with the tests, and languages."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from training.data.preferences import qualifies
from training.evaluation.rankers import SampledProblem, estimate, sizes_of
from training.pipeline import config
from training.pipeline.metrics import auc, calibration_error, correlation, mean, pair_accuracy, pass_at_n
from training.pipeline.metrics import best_of_n as expected_best

SHOWN = 4000  # points of the length plot
ORDER = ("python", "cpp", "java", "php", "typescript", "csharp", "bash", "javascript")  # MultiPL-E's usual columns


def discrimination(
    sampled: Sequence[SampledProblem], settings: config.EvaluateConfig, rule: config.PairConfig, seed: int
) -> dict[str, Any]:
    """Pair accuracy and AUC inside a problem, averaged over problems that have both kinds."""
    by_problem = {problem.task_id: _of_problem(problem, rule) for problem in sampled}
    return {
        name: estimate([numbers[name] for numbers in by_problem.values() if numbers[name] is not None], settings, seed)
        for name in ("pair_accuracy", "auc")
    } | {"by_problem": by_problem}


def _of_problem(problem: SampledProblem, rule: config.PairConfig) -> dict[str, Any]:
    pairs = _pairs(problem, rule)
    return {
        "pair_accuracy": pair_accuracy(problem.scores, pairs) if pairs else None,
        "auc": auc(problem.scores, problem.passed),
    }


def _pairs(problem: SampledProblem, rule: config.PairConfig) -> list[tuple[int, int]]:
    """Places (better, worse) of the distinct programs that the rule pairs."""
    first = {name: at for at, name in reversed(list(enumerate(problem.programs)))}
    return [
        (i, j) for i in first.values() for j in first.values() if qualifies(problem.rates[i], problem.rates[j], rule)
    ]


Probability = Callable[[float], float | None]  # of a score; None from a checkpoint without a calibration


def calibration(sampled: Sequence[SampledProblem], probability: Probability) -> dict[str, Any] | None:
    """ECE of the shipped calibration on the test samples, and the bins behind the plot; None without a calibration."""
    pairs = []
    for problem in sampled:
        for score, ok in zip(problem.scores, problem.passed, strict=True):
            chance = probability(score)
            if chance is None:
                return None
            pairs.append((chance, ok))
    bins: dict[int, list[tuple[float, bool]]] = defaultdict(list)
    for chance, ok in pairs:
        bins[min(int(chance * 10), 9)].append((chance, ok))
    return {
        "ece": calibration_error([chance for chance, _ in pairs], [ok for _, ok in pairs]),
        "bins": [
            {
                "predicted": mean([chance for chance, _ in members]),
                "passing": mean([float(ok) for _, ok in members]),
                "samples": len(members),
            }
            for _, members in sorted(bins.items())
        ],
    }


def length_bias(
    sampled: Sequence[SampledProblem], settings: config.EvaluateConfig, rule: config.PairConfig, seed: int
) -> dict[str, Any]:
    """Whether the model measures length.

    - `score`, `passing`: rank correlation with length inside a problem.
    - `better_is_longer`, `better_is_shorter`: pair accuracy on pairs whose better program is the longer or the shorter.
      A model of length alone gets 1 on one of them and 0 on the other.
    - `points`: (characters, score, passed), for the plot.
    """
    longer: list[float] = []
    shorter: list[float] = []
    for problem in sampled:
        pairs = _pairs(problem, rule)
        sizes = [len(completion) for completion in problem.completions]
        for kind, wanted in ((longer, 1), (shorter, -1)):
            chosen = [(i, j) for i, j in pairs if (sizes[i] - sizes[j]) * wanted > 0]
            if chosen:
                kind.append(pair_accuracy(problem.scores, chosen))
    points = [
        [len(c), round(s, 4), ok] for p in sampled for c, s, ok in zip(p.completions, p.scores, p.passed, strict=True)
    ]
    if len(points) > SHOWN:
        points = random.Random(seed).sample(points, SHOWN)
    return {
        "score": _correlation(sampled, lambda p: p.scores),
        "passing": _correlation(sampled, lambda p: [float(ok) for ok in p.passed]),
        "better_is_longer": estimate(longer, settings, seed),
        "better_is_shorter": estimate(shorter, settings, seed),
        "points": points,
    }


def _correlation(sampled: Sequence[SampledProblem], values: Callable[[SampledProblem], list[float]]) -> float | None:
    """Mean rank correlation with length inside a problem, over problems in which the values vary."""
    correlations = [
        correlation(values(p), [float(len(c)) for c in p.completions]) for p in sampled if len(set(values(p))) > 1
    ]
    return mean(correlations) if correlations else None


def agreement_with_tests(sampled: Sequence[SampledProblem], probability: Probability) -> dict[str, Any]:
    """Where the model and the tests agree. Without a calibration the model has no verdict: `table` is None.

    - `table`: samples by the model's verdict (probability at least one half) and the tests' verdict.
    - `kappa`: Cohen's, the agreement beyond chance.
    - `rank`: mean rank correlation of score and pass rate inside a problem.
    - `high_failures`, `low_passes`: the samples on which they differ most, each problem once.
    """
    table = {"both_pass": 0, "model_only": 0, "tests_only": 0, "both_fail": 0}
    high: list[dict[str, Any]] = []
    low: list[dict[str, Any]] = []
    ranks = [correlation(p.scores, p.rates) for p in sampled if len(set(p.rates)) > 1]
    rank = mean(ranks) if ranks else None
    for p in sampled:
        chances = [chance for score in p.scores if (chance := probability(score)) is not None]
        if len(chances) < len(p.scores):
            return {"table": None, "kappa": None, "rank": rank, "high_failures": [], "low_passes": []}
        for chance, ok in zip(chances, p.passed, strict=True):
            says = chance >= 0.5
            name = {(True, True): "both_pass", (True, False): "model_only", (False, True): "tests_only"}
            table[name.get((says, ok), "both_fail")] += 1
        order = sorted(range(len(chances)), key=lambda at: chances[at])
        failing = next((at for at in reversed(order) if not p.passed[at]), None)
        passing = next((at for at in order if p.passed[at]), None)
        for at, kind in ((failing, high), (passing, low)):
            if at is not None:
                kind.append(
                    {
                        "task_id": p.task_id,
                        "probability": round(chances[at], 4),
                        "pass_rate": p.rates[at],
                        "completion": p.completions[at],
                    }
                )
    return {
        "table": table,
        "kappa": kappa(table),
        "rank": rank,
        "high_failures": sorted(high, key=lambda sample: -sample["probability"])[:5],
        "low_passes": sorted(low, key=lambda sample: sample["probability"])[:5],
    }


def kappa(table: dict[str, int]) -> float | None:
    """Cohen's kappa of a two-by-two table; None where chance alone explains everything."""
    total = sum(table.values())
    observed = (table["both_pass"] + table["both_fail"]) / total
    model = (table["both_pass"] + table["model_only"]) / total
    tests = (table["both_pass"] + table["tests_only"]) / total
    expected = model * tests + (1 - model) * (1 - tests)
    return (observed - expected) / (1 - expected) if expected < 1 else None


def by_language(sampled: Sequence[SampledProblem], sizes: Sequence[int]) -> list[dict[str, Any]]:
    """RewardRanker's table: one row per way of choosing, one column per language, and the mean of the columns."""
    languages = sorted(
        {p.language for p in sampled},
        key=lambda name: (name not in ORDER, ORDER.index(name) if name in ORDER else 0, name),
    )
    groups = {name: [p for p in sampled if p.language == name] for name in languages}
    ways: list[tuple[str, Callable[[SampledProblem], float]]] = [("mean of the samples", lambda p: p.pass_at_1)]
    if all(p.greedy is not None for p in sampled):
        ways.insert(0, ("greedy", lambda p: float(p.greedy == 1.0)))
    usable = [n for n in sizes_of(sampled, sizes) if n > 1]
    for n in usable:
        best = lambda p, n=n: expected_best(p.scores, p.passed, min(n, len(p.scores)))  # noqa: E731
        ways.append((f"reward model, best of {n}", best))
    if usable:
        ways.append((f"oracle, pass@{usable[-1]}", lambda p: pass_at_n(p.passed, min(usable[-1], len(p.scores)))))
    rows = []
    for way, value in ways:
        cells = {name: mean([value(p) for p in group]) for name, group in groups.items()}
        rows.append({"way": way, "languages": cells, "average": mean(list(cells.values()))})
    return rows
