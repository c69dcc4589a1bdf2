"""The pair rule, its published test vector, and what it must not do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from training.data.preferences import preferences, qualifies
from training.pipeline.config import PairConfig

ACECODER = PairConfig()  # the defaults are the paper's thresholds


def test_the_published_vector_gives_four_pairs() -> None:
    # Pass rates {1.0, 0.8, 0.4, 0.4, 0.0, duplicate of 1.0}; duplicates are merged before the rule is asked.
    rated = [("a", 1.0), ("b", 0.8), ("c", 0.4), ("d", 0.4), ("e", 0.0)]
    found = {(p.chosen, p.rejected) for p in preferences("t", rated, ACECODER)}
    assert found == {("a", "c"), ("a", "d"), ("b", "c"), ("b", "d")}


def test_our_recipe_also_learns_from_programs_that_pass_nothing() -> None:
    rated = [("a", 1.0), ("b", 0.8), ("c", 0.4), ("d", 0.4), ("e", 0.0)]
    found = {(p.chosen, p.rejected) for p in preferences("t", rated, PairConfig(rejected_above_zero=False))}
    assert len(found) == 6
    assert ("b", "e") in found


@pytest.mark.parametrize(
    ("chosen", "rejected", "expected"),
    [(1.0, 0.6, True), (0.8, 0.4, True), (0.79, 0.1, False), (0.9, 0.51, False), (1.0, 0.0, False), (1.0, 0.01, True)],
)
def test_thresholds_are_inclusive_and_zero_is_not(chosen: float, rejected: float, expected: bool) -> None:
    assert qualifies(chosen, rejected, ACECODER) is expected


def test_every_problem_weighs_the_same_however_many_pairs_it_has() -> None:
    few = preferences("few", [("a", 1.0), ("b", 0.5)], ACECODER)
    many = preferences("many", [(f"g{i}", 1.0) for i in range(9)] + [(f"b{i}", 0.5) for i in range(9)], ACECODER)
    assert len(many) == 81
    assert sum(p.weight for p in few) == pytest.approx(sum(p.weight for p in many)) == 1.0


def test_the_cap_draws_repeatably_and_keeps_distinct_pairs() -> None:
    rated = [(f"g{i}", 1.0) for i in range(9)] + [(f"b{i}", 0.5) for i in range(9)]
    capped = replace(ACECODER, max_per_problem=10)
    first = preferences("t", rated, capped, seed=4)
    assert first == preferences("t", rated, capped, seed=4)
    assert len({(p.chosen, p.rejected) for p in first}) == 10
    assert first != preferences("t", rated, capped, seed=5)
