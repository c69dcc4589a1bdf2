"""No failing program outranks one that passes more tests: whatever the model, the weights, the policy or the sizes."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.grading import Verdict
from plaudit.schemas import (
    CompletionScore,
    ExecuteResult,
    ProgramResult,
    ResultError,
    RewardItem,
    RewardResult,
    RewardSpec,
    ScoreResult,
)
from plaudit.tests_first import SMALLEST_STEP, tie_scale, unit
from service.api.handlers.reward_terms import join, order

MOST = float.fromhex("0x1.fffffep127")  # the largest score: they are float32
LOST = ResultError(code="no_worker", detail="no scoring worker is alive", retryable=True)
Counts = list[tuple[int, int]]


def ran(counts: Counts) -> ExecuteResult:
    """Programs by tests passed and counted."""
    return ExecuteResult(
        programs=[
            ProgramResult(
                status="ok",
                verdict=Verdict.PASSED if passed == total else Verdict.WRONG_ANSWER,
                passed=passed,
                total=total,
                pass_rate=passed / total,
                trainable=True,
            )
            for passed, total in counts
        ]
    )


def scored(scores: list[float | None]) -> ScoreResult:
    return ScoreResult(
        completions=[
            CompletionScore(status="infra_error", trainable=False, error=LOST)
            if score is None
            else CompletionScore(status="ok", score=score, trainable=True)
            for score in scores
        ]
    )


def joined(
    counts: Counts,
    scores: list[float | None],
    *,
    weight: float = 1.0,
    policy: str = "pass_rate",
    rm_weight: float = 1.0,
    transform: str = "none",
    more: tuple[dict[str, Any], ...] = (),
    texts: list[str] | None = None,
    **rest: Any,
) -> RewardResult:
    terms = [
        {"name": "rm", "type": "score", "weight": rm_weight, "transform": transform},
        {"name": "tests", "type": "execute", "weight": weight, "policy": policy},
        *more,
    ]
    spec = RewardSpec.model_validate({"terms": terms, "combine": "tests_first", **rest})
    item = RewardItem(prompt="p", completions=texts or [f"text {at}" for at in range(len(counts))])
    return join(spec, item, {"rm": scored(scores)}, ran(counts))


def rewards(result: RewardResult) -> list[float]:
    found = [one.reward for one in result.completions]
    assert all(reward is not None and math.isfinite(reward) for reward in found)
    return [reward for reward in found if reward is not None]


weights = st.floats(-1e9, 1e9, allow_nan=False)
score = st.one_of(st.none(), st.floats(-MOST, MOST, width=32), st.sampled_from([0.0, MOST, -MOST]))


@st.composite
def groups(draw: st.DrawFn, *, sizes: bool) -> tuple[Counts, list[float | None]]:
    """Programs of one suite, or counted on suites of several sizes, with scores."""
    total = draw(st.one_of(st.integers(1, 12), st.integers(1, 100_000)))
    counts: Counts = []
    for _ in range(draw(st.integers(1, 6))):
        size = draw(st.integers(1, 1000)) if sizes else total
        counts.append((draw(st.one_of(st.integers(0, size), st.integers(max(0, size - 1), size))), size))
    return counts, [draw(score) for _ in counts]


def holds(counts: Counts, result: RewardResult, weight: float, policy: str) -> None:
    """The promise, pair by pair, and in the order."""
    found, place = rewards(result), {at: where for where, at in enumerate(order(result))}
    rates = [passed / total for passed, total in counts]
    for a, rate in enumerate(rates):
        assert found[a] == sum(part.contribution or 0.0 for part in result.completions[a].components.values())
        assert (found[a] >= weight) == (rate == 1.0)
        for b, other in enumerate(rates):
            if rate > other:
                assert found[a] > found[b]
                assert place[a] < place[b]
    assert result.group.best == order(result)[0]


@settings(max_examples=400, deadline=None)
@given(
    groups(sizes=False),
    st.floats(1e-6, 1e9),
    weights,
    weights,
    st.sampled_from(["pass_rate", "all_or_nothing"]),
    st.sampled_from(["none", "sigmoid", "zscore_in_group"]),
)
def test_a_higher_pass_rate_is_a_higher_reward_whatever_else_is_said(
    group: tuple[Counts, list[float | None]], weight: float, rm_weight: float, same: float, policy: str, transform: str
) -> None:
    more = ({"name": "same", "type": "consensus", "weight": same}, {"name": "code", "type": "format", "weight": -3.0})
    result = joined(*group, weight=weight, policy=policy, rm_weight=rm_weight, transform=transform, more=more)
    holds(group[0], result, weight, policy)


@settings(max_examples=300, deadline=None)
@given(groups(sizes=True), weights, st.sampled_from(["pass_rate", "all_or_nothing"]))
def test_so_it_is_where_programs_were_counted_on_different_numbers_of_tests(
    group: tuple[Counts, list[float | None]], rm_weight: float, policy: str
) -> None:
    holds(group[0], joined(*group, policy=policy, rm_weight=rm_weight), 1.0, policy)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=6), st.booleans())
def test_ties_are_broken_by_the_weighted_score(scores: list[float], negative: bool) -> None:
    result = joined([(1, 2)] * len(scores), list(scores), rm_weight=-2.0 if negative else 0.5)
    found = rewards(result)
    for a, high in enumerate(scores):
        for b, low in enumerate(scores):
            if high > low:
                assert (found[a] <= found[b]) if negative else (found[a] >= found[b])


def test_the_fault_that_was_found_does_not_come_back() -> None:
    result = joined([(10, 10), (9, 10)], [-5.0, 5.0])
    assert order(result) == [0, 1]
    assert [one.components["tests"].decided for one in result.completions] == [True, True]
    assert result.group.margin == pytest.approx(0.1, abs=0.002)


def test_of_equal_pass_rates_the_model_decides_and_is_named() -> None:
    result = joined([(9, 10), (10, 10), (10, 10)], [9.0, -1.0, 2.0])
    assert order(result) == [2, 1, 0]
    assert [name for name, part in result.completions[2].components.items() if part.decided] == ["rm"]
    assert 0 < (result.group.margin or 0.0) < 1 / SMALLEST_STEP


def test_where_nothing_sets_two_apart_no_term_decided() -> None:
    result = joined([(1, 1), (1, 1)], [2.0, 2.0])
    assert (order(result), result.group.margin) == ([0, 1], 0.0)
    assert not any(part.decided for one in result.completions for part in one.components.values())
    assert joined([(1, 1)], [2.0]).group.margin is None


def test_a_tie_breaker_that_is_lost_adds_0_and_says_why() -> None:
    result = joined([(1, 2), (2, 2)], [None, None])
    assert rewards(result) == [0.5, 1.0]
    for one in result.completions:
        assert (one.status, one.trainable) == ("ok", True)
        rm = one.components["rm"]
        assert (rm.status, rm.value, rm.contribution, rm.error) == ("infra_error", None, 0.0, LOST)


@pytest.mark.parametrize("on_missing", ["null", "drop"])
def test_tests_that_are_lost_are_no_reward_whatever_the_model_says(on_missing: str) -> None:
    spec = RewardSpec.model_validate({"on_missing": on_missing})
    lost = ExecuteResult(programs=[ProgramResult(status="timeout_queue", trainable=False, error=LOST)])
    (one,) = join(spec, RewardItem(prompt="p", completions=["a"]), {"rm": scored([5.0])}, lost).completions
    assert (one.status, one.reward, one.trainable) == ("timeout_queue", None, False)


@pytest.mark.parametrize("spec", [{}, {"terms": [{"name": "tests", "type": "execute", "policy": "all_or_nothing"}]}])
def test_a_suite_of_which_nothing_can_be_judged_is_no_reward(spec: dict[str, Any]) -> None:
    none = ProgramResult(status="ok", verdict=Verdict.UNJUDGEABLE, passed=0, total=0, pass_rate=0.0, trainable=True)
    (one,) = join(
        RewardSpec.model_validate(spec),
        RewardItem(prompt="p", completions=["a"]),
        {"rm": scored([5.0])},
        ExecuteResult(programs=[none]),
    ).completions
    assert (one.status, one.reward, one.trainable) == ("invalid", None, False)
    assert one.components["tests"].error is not None
    assert one.components["tests"].error.code == "unjudgeable"


def test_a_clip_that_makes_rewards_equal_does_not_reorder_them() -> None:
    result = joined([(1, 2), (2, 2)], [5.0, -5.0], clip={"min": 0.0, "max": 0.25})
    assert rewards(result) == [0.25, 0.25]
    assert (order(result), result.group.best) == ([1, 0], 1)


def test_all_or_nothing_keeps_failures_far_below_and_in_order() -> None:
    found = rewards(joined([(0, 9), (8, 9), (9, 9), (1, 9)], [9.0, -9.0, -9.0, 9.0], policy="all_or_nothing"))
    assert found[2] >= 1.0
    assert found[0] < found[3] < found[1] < 2 / SMALLEST_STEP


def test_a_tie_is_less_than_one_test_of_any_suite_up_to_a_thousand() -> None:
    assert all(tie_scale({size}) < 1 / larger for size in range(1, 1001) for larger in (size, 1000))
    assert tie_scale({5000}) < 1 / 5000
    assert tie_scale({9, 10}) == tie_scale({10}) == 1 / SMALLEST_STEP
    assert tie_scale({999, 1000}) < 1 / (999 * 1000)
    assert tie_scale(set()) == 1 / SMALLEST_STEP


def test_a_value_on_the_unit_interval_keeps_its_order_and_is_a_number() -> None:
    values = [-math.inf, -MOST, -1e9, -1.0, 0.0, 1.0, 1e9, MOST, math.inf]
    shares = [unit(value) for value in values]
    assert shares == sorted(shares)
    assert (shares[0], shares[4], shares[-1]) == (0.0, 0.5, 1.0)
    assert [unit(value, negative=True) for value in values] == [1.0 - share for share in shares]
    assert unit(math.nan) == unit(math.nan, bounded=True, negative=True) == 0.0
    assert (unit(1e7) < unit(1e8), unit(0.25, bounded=True)) == (True, 0.25)
