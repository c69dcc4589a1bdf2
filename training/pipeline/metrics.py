"""What a report says about scores: exact best-of-N, pair accuracy, AUC, calibration, and intervals over problems.

Plain functions over lists of (score, passed) of one problem. They are written out here, without scikit-learn and scipy:

- `auc` and `correlation` give the numbers of `roc_auc_score` and `spearmanr` to 1e-15, and `auc` is 45 times as fast on
  the 60 programs of a problem. Importing both packages takes seconds.
- `bootstrap` and `platt` have made published intervals and calibrations. scipy draws other resamples, and the solver of
  scikit-learn stops 1e-4 from the optimum by default.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def best_of_n(scores: Sequence[float], passed: Sequence[bool], n: int) -> float:
    """Chance that the best-scored of `n` of these programs passes, over all subsets of that size, ties averaged.

    A subset's best is in the tie group T if it avoids everything above T and meets T; inside T the pick is uniform,
    so its pass chance is the share of passing programs in T.
    """
    total = len(scores)
    if not 1 <= n <= total:
        raise ValueError(f"best of {n} of {total} programs: n must be from 1 to the number of programs")
    groups: dict[float, list[bool]] = {}
    for score, ok in zip(scores, passed, strict=True):
        groups.setdefault(score, []).append(ok)
    expected, num_below = 0.0, total
    for score in sorted(groups, reverse=True):
        members = groups[score]
        chance = (math.comb(num_below, n) - math.comb(num_below - len(members), n)) / math.comb(total, n)
        expected += chance * sum(members) / len(members)
        num_below -= len(members)
    return expected


def pass_at_n(passed: Sequence[bool], n: int) -> float:
    """Chance that at least one of `n` programs drawn without replacement passes (the unbiased pass@n)."""
    total, num_passing = len(passed), sum(passed)
    return 1.0 - math.comb(total - num_passing, n) / math.comb(total, n)


def pair_accuracy(scores: Sequence[float], pairs: Sequence[tuple[int, int]]) -> float:
    """Share of (better, worse) index pairs that the scores order rightly; a tie counts half."""
    return sum(_order(scores[better], scores[worse]) for better, worse in pairs) / len(pairs)


def auc(scores: Sequence[float], passed: Sequence[bool]) -> float | None:
    """Chance that a passing program outscores a failing one; None where there is only one kind."""
    good = [score for score, ok in zip(scores, passed, strict=True) if ok]
    bad = [score for score, ok in zip(scores, passed, strict=True) if not ok]
    if not good or not bad:
        return None
    return sum(_order(high, low) for high in good for low in bad) / (len(good) * len(bad))


def _order(high: float, low: float) -> float:
    return 0.5 if high == low else float(high > low)


def mean(values: Sequence[float]) -> float:
    """The mean of at least one value."""
    return sum(values) / len(values)


def bootstrap(
    values: Sequence[T],
    *,
    resamples: int,
    seed: int,
    statistic: Callable[[Sequence[T]], float] = mean,  # type: ignore[assignment]
) -> tuple[float, float]:
    """The middle 95 % of `statistic` over resamples of these values (one per problem), with replacement."""
    draw = random.Random(seed)
    estimates = sorted(statistic(draw.choices(values, k=len(values))) for _ in range(resamples))
    low = estimates[int(0.025 * (resamples - 1))]
    high = estimates[math.ceil(0.975 * (resamples - 1))]
    return low, high


def wilson(successes: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share; (0, 1) where nothing was counted."""
    if not total:
        return 0.0, 1.0
    z, share = 1.959964, successes / total
    middle = share + z * z / (2 * total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def calibration_error(probabilities: Sequence[float], passed: Sequence[bool], bins: int = 10) -> float:
    """Expected calibration error over equal-width bins: mean |share passing - mean probability|, by bin size."""
    by_bin: dict[int, list[tuple[float, bool]]] = {}
    for probability, ok in zip(probabilities, passed, strict=True):
        by_bin.setdefault(min(int(probability * bins), bins - 1), []).append((probability, ok))
    gaps = [abs(sum(ok for _, ok in members) - sum(p for p, _ in members)) for members in by_bin.values()]
    return sum(gaps) / len(probabilities)


def platt(
    scores: Sequence[float], passed: Sequence[bool], weights: Sequence[float] | None = None, steps: int = 100
) -> tuple[float, float]:
    """(a, b) of P(pass) = sigmoid(a · score + b), by Newton steps on the (weighted) likelihood.

    Targets are Platt's smoothed ones, so a separable set has a finite answer. `a` is at least 0: probabilities order
    programs as scores do, or, where the best line would fall, are all the same.
    """
    share = weights or [1.0] * len(scores)
    good = sum(w for w, ok in zip(share, passed, strict=True) if ok)
    bad = sum(share) - good
    target = [(good + 1) / (good + 2) if ok else 1 / (bad + 2) for ok in passed]
    a, b = 0.0, math.log((good + 1) / (bad + 1))
    for _ in range(steps):
        ga = gb = haa = hab = hbb = 0.0
        for s, t, w in zip(scores, target, share, strict=True):
            p = 1 / (1 + math.exp(-max(-30.0, min(30.0, a * s + b))))
            gradient, curvature = w * (p - t), w * max(p * (1 - p), 1e-9)
            ga, gb = ga + gradient * s, gb + gradient
            haa, hab, hbb = haa + curvature * s * s, hab + curvature * s, hbb + curvature
        haa, hbb = haa + 1e-9, hbb + 1e-9
        determinant = haa * hbb - hab * hab
        da, db = (hbb * ga - hab * gb) / determinant, (haa * gb - hab * ga) / determinant
        a, b = a - da, b - db
        if abs(da) + abs(db) < 1e-10:
            break
    if a < 0:  # the smoothed mean target, the likeliest probability without the score
        chance = sum(w * t for w, t in zip(share, target, strict=True)) / sum(share)
        return 0.0, math.log(chance / (1 - chance))
    return a, b


def correlation(left: Sequence[float], right: Sequence[float]) -> float:
    """Spearman's rank correlation, ties at their mean rank; 0.0 where one side does not vary."""
    x, y = _ranks(left), _ranks(right)
    mx, my = mean(x), mean(y)
    spread = math.sqrt(sum((a - mx) ** 2 for a in x) * sum((b - my) ** 2 for b in y))
    return sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True)) / spread if spread else 0.0


def _ranks(values: Sequence[float]) -> list[float]:
    order = sorted(range(len(values)), key=lambda at: values[at])
    ranks = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end < len(order) and values[order[end]] == values[order[start]]:
            end += 1
        for at in order[start:end]:
            ranks[at] = (start + end - 1) / 2
        start = end
    return ranks
