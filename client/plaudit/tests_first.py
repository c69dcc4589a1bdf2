"""`combine: "tests_first"`: the pass rate orders, the rest breaks ties. One formula for the service and for training.

    reward      = weight · (rate + tie)                        under `policy: "pass_rate"`, and for whoever passes all
    reward      = weight · (rate + tie) / SMALLEST_STEP        for the others under `policy: "all_or_nothing"`
    tie         = share / max(SMALLEST_STEP, 2 · steps)
    share       = sum of |w| · unit(value) over the sum of |w|, of the tie-breaking terms; in [0, 1]
    steps       = the number of tests (two programs that were counted on n and m tests: n · m)

Invariant: of two programs of a group, the one with the higher pass rate has the strictly higher reward, whatever the
other terms say. Two different pass rates are at least 1/steps apart and a tie is at most half of that. A tie is also
less than one test of any suite of fewer than SMALLEST_STEP tests, so that it stays small beside other groups' rewards.
A program that passes all has at least `weight`, every other one less.
"""

from __future__ import annotations

import math
from collections.abc import Collection

SMALLEST_STEP = 1024


def tie_scale(totals: Collection[int]) -> float:
    """What a tie-breaker's share is multiplied by, for a group whose programs were counted on so many tests each."""
    sizes = sorted({max(1, total) for total in totals}, reverse=True) or [1]
    steps = sizes[0] * sizes[1] if len(sizes) > 1 else sizes[0]
    return 1.0 / max(SMALLEST_STEP, 2 * steps)


def unit(value: float, *, bounded: bool = False, negative: bool = False) -> float:
    """A tie-breaker's value in [0, 1], in the same order; `bounded` values are there already.

    A `negative` weight prefers the lower value. A value that is not a number is worth nothing.
    """
    if math.isnan(value):
        return 0.0
    if bounded:
        share = min(1.0, max(0.0, value))
    elif value >= 0:
        share = 1.0 - 0.5 / (1.0 + value)  # x / (1 + |x|) on [0, 1]: large scores stay apart, as in no sigmoid
    else:
        share = 0.5 / (1.0 - value)
    return 1.0 - share if negative else share


def base(rate: float, *, all_or_nothing: bool) -> tuple[float, float]:
    """What a pass rate is worth, and what ties beside it are scaled by."""
    scale = 1.0 / SMALLEST_STEP if all_or_nothing and rate < 1.0 else 1.0
    return rate * scale, scale
