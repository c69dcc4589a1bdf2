"""The numbers of a report, against brute force and values worked out by hand."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.pipeline.metrics import (
    auc,
    best_of_n,
    bootstrap,
    calibration_error,
    correlation,
    mean,
    pair_accuracy,
    pass_at_n,
    platt,
)


def brute_force(scores: list[float], passed: list[bool], n: int) -> float:
    """Every subset of size n, the best's pass chance, ties averaged."""
    values = []
    for subset in itertools.combinations(range(len(scores)), n):
        top = max(scores[at] for at in subset)
        best = [passed[at] for at in subset if scores[at] == top]
        values.append(sum(best) / len(best))
    return mean(values)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=8), st.data())
def test_best_of_n_is_the_mean_over_every_subset(rows: list[tuple[int, bool]], data: st.DataObject) -> None:
    n = data.draw(st.integers(1, len(rows)))
    scores, passed = [float(score) for score, _ in rows], [ok for _, ok in rows]
    assert best_of_n(scores, passed, n) == pytest.approx(brute_force(scores, passed, n))


def test_best_of_one_is_the_mean_and_best_of_all_the_top() -> None:
    scores, passed = [0.1, 0.9, 0.5, 0.9], [False, True, True, False]
    assert best_of_n(scores, passed, 1) == 0.5
    assert best_of_n(scores, passed, 4) == 0.5  # the two at 0.9 tie
    assert best_of_n([3.0, 2.0, 1.0], [True, False, False], 3) == 1.0


@pytest.mark.parametrize("n", [0, 3])
def test_best_of_n_refuses_an_n_that_is_not_there(n: int) -> None:
    with pytest.raises(ValueError, match="programs"):
        best_of_n([1.0, 2.0], [True, False], n)


def test_a_perfect_ranker_reaches_the_oracle() -> None:
    passed = [True, False, False, True, False, False]
    scores = [float(ok) for ok in passed]
    for n in range(1, 7):
        assert best_of_n(scores, passed, n) == pytest.approx(pass_at_n(passed, n))


def test_pass_at_n_by_hand() -> None:
    assert pass_at_n([True, False, False, False], 2) == pytest.approx(1 - 3 / 6)
    assert pass_at_n([False, False], 2) == 0.0


def test_auc_and_pair_accuracy_by_hand() -> None:
    assert auc([3.0, 2.0, 2.0, 1.0], [True, True, False, False]) == (1 + 1 + 0.5 + 1) / 4
    assert auc([1.0, 2.0], [True, True]) is None
    assert pair_accuracy([3.0, 2.0, 2.0], [(0, 1), (1, 2), (2, 0)]) == 0.5


def test_the_bootstrap_covers_the_mean_it_was_drawn_from() -> None:
    draw = random.Random(5)
    covered = 0
    for trial in range(100):
        low, high = bootstrap([draw.gauss(1.0, 2.0) for _ in range(40)], resamples=300, seed=trial)
        covered += low <= 1.0 <= high
    assert 88 <= covered <= 99


def test_the_bootstrap_is_repeatable_and_exact_where_nothing_varies() -> None:
    assert bootstrap([0.5] * 7, resamples=50, seed=1) == (0.5, 0.5)
    values = [0.1, 0.4, 0.9]
    assert bootstrap(values, resamples=200, seed=3) == bootstrap(values, resamples=200, seed=3)


def test_platt_recovers_the_curve_that_made_the_labels() -> None:
    draw = random.Random(2)
    scores = [draw.gauss(0, 2) for _ in range(4000)]
    passed = [draw.random() < 1 / (1 + math.exp(-(1.5 * s - 0.5))) for s in scores]
    a, b = platt(scores, passed)
    assert a == pytest.approx(1.5, abs=0.15)
    assert b == pytest.approx(-0.5, abs=0.15)


def test_platt_never_ranks_against_the_scores() -> None:
    a, b = platt([3.0, 2.0, 1.0, 0.0], [False, False, False, True])
    assert a == 0.0
    assert 1 / (1 + math.exp(-b)) == pytest.approx(0.3, abs=0.1)


def test_platt_stays_finite_on_separable_scores_and_follows_weights() -> None:
    a, b = platt([-1.0, -2.0, 1.0, 2.0], [False, False, True, True])
    assert math.isfinite(a)
    assert math.isfinite(b)
    assert a > 0
    heavy = platt([0.0, 0.0], [True, False], [90.0, 10.0])
    assert 1 / (1 + math.exp(-heavy[1])) == pytest.approx(0.9, abs=0.02)


def test_calibration_error_by_hand() -> None:
    assert calibration_error([0.05, 0.05, 0.95, 0.95], [False, False, True, False]) == pytest.approx(0.25)
    assert calibration_error([1.0, 0.0], [True, False]) == 0.0


def test_correlation_is_spearmans() -> None:
    assert correlation([1.0, 2.0, 3.0], [10.0, 100.0, 1000.0]) == pytest.approx(1.0)
    assert correlation([1.0, 2.0, 2.0], [1.0, 1.0, 1.0]) == 0.0
    assert correlation([1.0, 1.0, 2.0], [2.0, 1.0, 0.0]) == pytest.approx(-math.sqrt(3) / 2)
