"""Terms become rewards by arithmetic that can be checked by hand, and what is missing never becomes a number."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import ValidationError

from plaudit.errors import Invalid
from plaudit.grading import Verdict
from plaudit.schemas import (
    CompletionScore,
    ExecuteResult,
    GroupStatistics,
    ProgramResult,
    ResultError,
    RewardItem,
    RewardResult,
    RewardSpec,
    ScoreResult,
    TestResult,
)
from service.api.handlers.reward_terms import join, order, statistics

LOST = ResultError(code="model_failed", detail="RuntimeError in the model", retryable=True)


def item(*completions: str) -> RewardItem:
    return RewardItem(prompt="Add two numbers.", completions=list(completions))


def scored(*scores: float | None) -> ScoreResult:
    return ScoreResult(
        completions=[
            CompletionScore(status="ok", score=score, trainable=True)
            if score is not None
            else CompletionScore(status="infra_error", trainable=False, error=LOST)
            for score in scores
        ]
    )


def ran(*rows: str | None) -> ExecuteResult:
    """Programs by their tests: `+` passed, `-` wrong; None: the service lost it."""
    return ExecuteResult(
        programs=[
            ProgramResult(status="timeout_queue", trainable=False, error=ResultError(code="deadline", detail="late"))
            if row is None
            else ProgramResult(
                status="ok",
                verdict=Verdict.PASSED if "-" not in row else Verdict.WRONG_ANSWER,
                passed=row.count("+"),
                total=len(row),
                pass_rate=row.count("+") / len(row),
                trainable=True,
                tests=[TestResult(verdict=Verdict.PASSED if one == "+" else Verdict.WRONG_ANSWER) for one in row],
            )
            for row in rows
        ]
    )


def spec(*terms: dict[str, Any], **rest: Any) -> RewardSpec:
    return RewardSpec.model_validate({"terms": list(terms), **rest})


def rewards(result: RewardResult) -> list[float | None]:
    return [one.reward for one in result.completions]


def values(result: RewardResult, term: str) -> list[float | None]:
    return [one.components[term].value for one in result.completions]


TESTS = {"name": "tests", "type": "execute", "weight": 0.7}
RM = {"name": "rm", "type": "score", "weight": 0.3}


def test_tests_and_a_sigmoid_of_the_score_add_up() -> None:
    result = join(
        spec(TESTS, RM | {"transform": "sigmoid"}), item("a", "b"), {"rm": scored(0.0, math.log(3))}, ran("++", "+-")
    )

    assert rewards(result) == pytest.approx([0.7 * 1 + 0.3 * 0.5, 0.7 * 0.5 + 0.3 * 0.75])
    assert [one.status for one in result.completions] == ["ok", "ok"]
    assert [one.trainable for one in result.completions] == [True, True]
    first = result.completions[0].components
    assert (first["tests"].value, first["tests"].contribution, first["tests"].verdict) == (1.0, 0.7, Verdict.PASSED)
    assert (first["rm"].value, first["rm"].contribution) == (0.5, 0.15)


def test_without_clip_the_reward_is_exactly_the_sum_of_the_contributions() -> None:
    result = join(
        spec(TESTS, RM, {"name": "code", "type": "format", "weight": -0.1}),
        item("a", "```\nx\n```"),
        {"rm": scored(-1.7, 0.1)},
        ran("+--", "++-"),
    )

    for one in result.completions:
        assert one.reward == sum(part.contribution or 0.0 for part in one.components.values())
        assert all(part.contribution is not None for part in one.components.values())


def test_all_or_nothing_pays_only_for_every_test() -> None:
    result = join(spec(TESTS | {"policy": "all_or_nothing"}), item("a", "b"), {}, ran("++-", "+++"))
    assert values(result, "tests") == [0.0, 1.0]


def test_plus_minus_one_punishes_a_program_that_fails_a_test() -> None:
    result = join(spec(TESTS | {"policy": "plus_minus_one"}), item("a", "b"), {}, ran("++-", "+++"))
    assert values(result, "tests") == [-1.0, 1.0]
    assert [one.reward for one in result.completions] == [-0.7, 0.7]


def test_a_bonus_for_every_test_is_a_second_term() -> None:
    bonus = {"name": "all", "type": "execute", "policy": "all_or_nothing", "weight": 0.5}
    result = join(spec(TESTS | {"weight": 1.0}, bonus), item("a", "b"), {}, ran("++--", "++++"))
    assert [one.reward for one in result.completions] == [0.5, 1.5]


def test_tests_first_takes_no_reward_below_zero() -> None:
    terms = [TESTS | {"policy": "plus_minus_one"}]
    with pytest.raises(ValidationError, match=r"plus_minus_one.*weighted_sum"):
        RewardSpec.model_validate({"terms": terms, "combine": "tests_first"})


@pytest.mark.parametrize(
    ("transform", "expected"),
    [("none", [-1.0, 3.0]), ("sigmoid", [0.2689414213699951, 0.9525741268224334]), ("zscore_in_group", [-1.0, 1.0])],
)
def test_transforms_of_a_score(transform: str, expected: list[float]) -> None:
    result = join(spec(RM | {"transform": transform}), item("a", "b"), {"rm": scored(-1.0, 3.0)}, None)
    assert values(result, "rm") == pytest.approx(expected)


def test_a_sigmoid_of_any_logit_is_a_number_between_0_and_1() -> None:
    result = join(spec(RM | {"transform": "sigmoid"}), item("a", "b"), {"rm": scored(-1e6, 1e6)}, None)
    assert values(result, "rm") == [0.0, 1.0]


def test_zscore_uses_only_the_scores_that_are_there_and_a_flat_group_is_0() -> None:
    term = RM | {"transform": "zscore_in_group"}
    missing = join(spec(term), item("a", "b", "c"), {"rm": scored(1.0, None, 3.0)}, None)
    flat = join(spec(term), item("a", "b"), {"rm": scored(2.0, 2.0)}, None)

    assert values(missing, "rm") == [-1.0, None, 1.0]
    assert values(flat, "rm") == [0.0, 0.0]


@pytest.mark.parametrize(
    ("require", "expected"),
    [
        ("code_fence", [0.0, 1.0, 1.0, 0.0]),
        ("single_code_fence", [0.0, 1.0, 0.0, 0.0]),
        ("non_empty", [1.0, 1.0, 1.0, 0.0]),
    ],
)
def test_format_looks_at_the_text_alone(require: str, expected: list[float]) -> None:
    texts = ("plain", "```\nx = 1\n```", "```\nx = 1\n```\n```\ny = 2\n```", " \n")
    result = join(spec({"name": "format", "type": "format", "require": require}), item(*texts), {}, None)
    assert values(result, "format") == expected


def test_consensus_prefers_the_completion_that_is_like_the_others() -> None:
    texts = ("return a + b", "return a + b", "print('no')")
    result = join(spec({"name": "same", "type": "consensus"}), item(*texts), {}, None)

    found = values(result, "same")
    assert found[0] == found[1] == pytest.approx(0.5)
    assert found[2] == pytest.approx(0.0)


def test_agreement_is_group_size_times_tests_passed_over_programs_and_tests() -> None:
    result = join(spec({"name": "agree", "type": "agreement"}), item("a", "b", "c"), {}, ran("++-", "++-", "--+"))
    assert values(result, "agree") == pytest.approx([2 * 2 / 9, 2 * 2 / 9, 1 * 1 / 9])


def test_agreement_counts_a_program_that_never_ran_a_test_as_passing_none() -> None:
    unparsed = ProgramResult(status="ok", verdict=Verdict.NO_CODE, passed=0, total=2, pass_rate=0.0, trainable=True)
    run = ExecuteResult(programs=[*ran("++", "++").programs, unparsed])

    result = join(spec({"name": "agree", "type": "agreement"}), item("a", "b", "c"), {}, run)

    assert values(result, "agree") == pytest.approx([2 * 2 / 6, 2 * 2 / 6, 0.0])


def test_agreement_leaves_out_programs_that_the_service_lost() -> None:
    result = join(spec({"name": "agree", "type": "agreement"}), item("a", "b", "c"), {}, ran("+-", None, "+-"))

    assert values(result, "agree") == pytest.approx([2 * 1 / 4, None, 2 * 1 / 4])
    assert result.completions[1].status == "timeout_queue"


def test_a_missing_term_makes_the_reward_null_and_never_0() -> None:
    result = join(spec(TESTS, RM), item("a", "b"), {"rm": scored(1.0, None)}, ran(None, "++"))

    assert rewards(result) == [None, None]
    assert [one.status for one in result.completions] == ["timeout_queue", "infra_error"]
    assert [one.trainable for one in result.completions] == [False, False]
    assert result.completions[1].components["rm"].error == LOST
    assert result.completions[1].components["tests"].value == 1.0
    assert result.group == GroupStatistics(n=2, n_ok=0, degenerate=True)


def test_drop_takes_a_missing_term_out_of_the_sum_and_says_so() -> None:
    result = join(spec(TESTS, RM, on_missing="drop"), item("a", "b"), {"rm": scored(None, None)}, ran("+-", None))

    assert rewards(result) == [0.35, None]
    first, second = result.completions
    assert (first.status, first.trainable) == ("ok", False)
    assert (first.components["rm"].value, first.components["rm"].contribution) == (None, None)
    assert first.components["rm"].status == "infra_error"
    assert (second.status, second.trainable) == ("timeout_queue", False)


GATED = {"combine": "gated", "gate": {"term": "tests", "min": 1.0}}


def test_a_closed_gate_makes_every_contribution_0() -> None:
    result = join(spec(TESTS, RM, **GATED), item("a", "b"), {"rm": scored(2.0, 2.0)}, ran("++", "+-"))

    assert rewards(result) == pytest.approx([0.7 + 0.6, 0.0])
    assert [part.contribution for part in result.completions[1].components.values()] == [0.0, 0.0]
    assert values(result, "rm") == [2.0, 2.0]


@pytest.mark.parametrize("on_missing", ["null", "drop"])
def test_a_gate_that_is_missing_is_neither_open_nor_closed(on_missing: str) -> None:
    result = join(spec(TESTS, RM, on_missing=on_missing, **GATED), item("a"), {"rm": scored(2.0)}, ran(None))
    assert rewards(result) == [None]


def test_clip_bounds_the_reward_and_leaves_the_contributions() -> None:
    result = join(
        spec(RM | {"weight": 1.0}, clip={"min": -1, "max": 1}),
        item("a", "b", "c"),
        {"rm": scored(5.0, -5.0, 0.25)},
        None,
    )

    assert rewards(result) == [1.0, -1.0, 0.25]
    assert [one.components["rm"].contribution for one in result.completions] == [5.0, -5.0, 0.25]


def test_what_early_stop_took_back_is_cancelled_and_has_no_reward() -> None:
    stopped = ProgramResult(status="cancelled", trainable=False, error=ResultError(code="early_stop", detail="enough"))
    run = ExecuteResult(programs=[*ran("++").programs, stopped])

    result = join(spec(TESTS), item("a", "b"), {}, run)

    assert [one.status for one in result.completions] == ["ok", "cancelled"]
    assert rewards(result) == [0.7, None]
    assert order(result) == [0, 1]
    assert result.group.best == 0


def test_group_statistics_by_hand() -> None:
    assert statistics([1.0, None, 3.0]) == GroupStatistics(
        n=3,
        n_ok=2,
        mean=2.0,
        std=1.0,
        degenerate=False,
        best=2,
        margin=2.0,
    )
    assert statistics([2.0, 2.0]) == GroupStatistics(
        n=2,
        n_ok=2,
        mean=2.0,
        std=0.0,
        degenerate=True,
        best=0,
        margin=0.0,
    )
    assert statistics([5.0]) == GroupStatistics(n=1, n_ok=1, mean=5.0, std=0.0, degenerate=True, best=0)
    assert statistics([None]) == GroupStatistics(n=1, n_ok=0, mean=None, std=None, degenerate=True, best=None)


def test_order_is_best_first_the_earlier_of_equals_first_and_the_unknown_last() -> None:
    result = join(spec(RM | {"weight": 1.0}), item(*"abcde"), {"rm": scored(0.0, None, 2.0, 0.0, -1.0)}, None)
    assert order(result) == [2, 0, 3, 4, 1]


def test_the_largest_numbers_that_a_spec_may_say_still_make_finite_statistics() -> None:
    result = join(spec(RM | {"weight": 1e9}), item("a", "b"), {"rm": scored(3e38, -3e38)}, None)
    assert rewards(result) == [3e47, -3e47]
    assert result.group.mean == 0.0
    assert result.group.std == pytest.approx(3e47)


def test_a_reward_that_is_no_finite_number_is_refused() -> None:
    with pytest.raises(Invalid, match="not a finite number"):
        join(
            spec(RM | {"weight": 1e9}, RM | {"name": "two"}), item("a"), {"rm": scored(1e300), "two": scored(0.0)}, None
        )
