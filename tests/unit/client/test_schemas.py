"""The contract's types: what a request may say, what it may not, and where an error points."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from plaudit.schemas import (
    AssertTests,
    CheckTests,
    ExecuteItem,
    ExecuteRequest,
    FunctionTests,
    RankRequest,
    RefTests,
    RewardRequest,
    RewardSpec,
    ScoreAnswer,
    ScoreRequest,
    StdioTests,
    StopAfter,
    Tests,
)

SCORE: dict[str, Any] = {"items": [{"prompt": "p", "completions": ["c"]}]}
ASSERT: dict[str, Any] = {"kind": "assert", "asserts": ["assert f() == 1"]}
EXECUTE: dict[str, Any] = {"items": [{"language": "python", "programs": ["x = 1"], "tests": ASSERT}]}
REWARD: dict[str, Any] = {"items": [{"prompt": "p", "completions": ["c"], "tests": ASSERT}]}
FUNCTION: dict[str, Any] = {"kind": "function", "entry_point": "f", "cases": [{"args": [1], "expected": 1}]}


def locations(kind: type[BaseModel], value: Any) -> list[str]:
    """Where a value is wrong, as dotted paths."""
    with pytest.raises(ValidationError) as raised:
        kind.model_validate(value)
    return [".".join(map(str, error["loc"])) for error in raised.value.errors()]


@pytest.mark.parametrize(
    ("kind", "value", "path"),
    [
        (ScoreRequest, SCORE | {"colour": 1}, "colour"),
        (ScoreRequest, {"items": [SCORE["items"][0] | {"completion": "c"}]}, "items.0.completion"),
        (
            ScoreRequest,
            {"items": [{"prompt": [{"role": "user", "content": "p", "nick": "x"}], "completions": ["c"]}]},
            "items.0.prompt.list[Message].0.nick",
        ),
        (ExecuteRequest, {"items": [EXECUTE["items"][0] | {"limits": {"cpu": 1}}]}, "items.0.limits.cpu"),
        (ExecuteRequest, {"items": [EXECUTE["items"][0] | {"tests": ASSERT | {"x": 1}}]}, "items.0.tests.assert.x"),
        (RewardRequest, REWARD | {"early_stop": True}, "early_stop"),
        (
            RewardRequest,
            REWARD | {"spec": {"terms": [{"name": "a", "type": "format", "policy": "x"}]}},
            "spec.terms.0.format.policy",
        ),
    ],
)
def test_an_unknown_field_is_an_error_with_its_path(kind: type[BaseModel], value: Any, path: str) -> None:
    assert path in locations(kind, value)


@pytest.mark.parametrize(
    "value",
    [
        {"items": []},
        {"items": [{"prompt": "p", "completions": []}]},
        {"items": [{"completions": ["c"]}]},
        {"items": [{"prompt": [], "completions": ["c"]}]},
        SCORE | {"deadline_ms": 0},
        SCORE | {"deadline_ms": 1.5},
        SCORE | {"on_overflow": "truncate"},
        SCORE | {"model": ""},
        SCORE | {"priority": "urgent"},
        {"items": [{"id": "", "prompt": "p", "completions": ["c"]}]},
        {"items": [{"prompt": "p", "completions": [1]}]},
    ],
)
def test_a_score_request_that_makes_no_sense_is_refused(value: Any) -> None:
    assert locations(ScoreRequest, value) != []


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize(
    "body",
    [
        '{"kind": "function", "entry_point": "f", "cases": [{"args": [NUMBER], "expected": 1}]}',
        '{"kind": "function", "entry_point": "f", "cases": [{"kwargs": {"a": {"b": [NUMBER]}}, "expected": 1}]}',
        '{"kind": "function", "entry_point": "f", "cases": [{"expected": {"deep": [[NUMBER]]}}]}',
        '{"kind": "function", "entry_point": "f", "cases": [{"expected": 1}], "rel_tol": NUMBER}',
    ],
)
def test_nan_and_infinity_are_no_numbers_anywhere_in_a_suite(body: str, number: str) -> None:
    with pytest.raises(ValidationError):
        FunctionTests.model_validate_json(body.replace("NUMBER", number))


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_nan_and_infinity_are_no_numbers_in_a_reward_spec(number: float) -> None:
    assert "spec.terms.0.execute.weight" in locations(
        RewardRequest, REWARD | {"spec": {"terms": [{"name": "t", "type": "execute", "weight": number}]}}
    )


def test_half_a_surrogate_pair_is_no_text_anywhere_in_a_suite() -> None:
    cases: list[dict[str, Any]] = [
        {"expected": "\ud800"},
        {"expected": {"\ud800": 1}},
        {"args": [["\ud800"]], "expected": 1},
        {"kwargs": {"\ud800": 1}, "expected": 1},
    ]
    for case in cases:
        assert locations(FunctionTests, FUNCTION | {"cases": [case]}) != []


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (ScoreRequest, {"items": [{"prompt": "\ud800", "completions": ["c"]}]}),
        (ScoreRequest, {"items": [{"prompt": [{"role": "user", "content": "\ud800"}], "completions": ["c"]}]}),
        (ScoreRequest, {"items": [{"prompt": "p", "completions": ["\ud800"]}]}),
        (ScoreRequest, SCORE | {"model": "\ud800"}),
        (ExecuteItem, EXECUTE["items"][0] | {"programs": ["\ud800"]}),
        (ExecuteItem, EXECUTE["items"][0] | {"language": "\ud800"}),
        (AssertTests, ASSERT | {"asserts": ["\ud800"]}),
        (AssertTests, ASSERT | {"setup": "\ud800"}),
        (AssertTests, ASSERT | {"entry_point": "\ud800"}),
        (CheckTests, {"kind": "check", "test": "t", "entry_point": "f", "prompt": "\ud800"}),
        (StdioTests, {"kind": "stdio", "cases": [{"stdin": "\ud800", "stdout": ""}]}),
        (StdioTests, {"kind": "stdio", "cases": [{"stdout": "\ud800"}]}),
        (RewardSpec, {"terms": [{"name": "\ud800", "type": "consensus"}]}),
        (RewardSpec, {"combine": "gated", "gate": {"term": "\ud800", "min": 0}}),
    ],
)
def test_half_a_surrogate_pair_is_no_text_in_any_field(kind: type[BaseModel], value: Any) -> None:
    assert locations(kind, value) != []


def test_bottomless_nesting_is_refused() -> None:
    deep: Any = 1
    for _ in range(100):
        deep = [deep]
    assert FunctionTests.model_validate(FUNCTION | {"cases": [{"expected": deep}]}).cases[0].expected == deep
    assert locations(FunctionTests, FUNCTION | {"cases": [{"expected": {"deeper": deep}}]}) != []


def test_a_suite_keeps_any_value_that_json_can_say() -> None:
    case = {"args": [2**70, -0.5, "é\x00", None, [True]], "kwargs": {"a": {"b": {}}}, "expected": -(10**40)}
    suite = FunctionTests.model_validate(FUNCTION | {"cases": [case]})
    assert suite.cases[0].model_dump() == {**case, "also": []}
    assert FunctionTests.model_validate_json(suite.model_dump_json()) == suite


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (ASSERT, AssertTests),
        (FUNCTION, FunctionTests),
        ({"kind": "check", "test": "def check(c): pass", "entry_point": "f"}, CheckTests),
        ({"kind": "stdio", "cases": [{"stdout": "1"}]}, StdioTests),
        ({"kind": "ref", "sha256": "0" * 64}, RefTests),
    ],
)
def test_the_kind_of_a_suite_decides_its_fields(value: dict[str, Any], kind: type[BaseModel]) -> None:
    assert type(TypeAdapter(Tests).validate_python(value)) is kind


@pytest.mark.parametrize(
    "value",
    [
        {"kind": "assert"},
        {"kind": "assert", "asserts": []},
        {"kind": "assert", "asserts": [""]},
        {"kind": "ref", "sha256": "0" * 63},
        {"kind": "ref", "sha256": "G" * 64},
        {"kind": "poem"},
        {},
        {"kind": "function", "entry_point": "", "cases": [{"expected": 1}]},
        {"kind": "function", "entry_point": "f", "cases": [{"args": [1]}]},
        {"kind": "stdio", "cases": [{"stdout": "1"}], "compare": "fuzzy"},
        {"kind": "stdio", "cases": [{"stdout": "1"}], "rel_tol": 1.0},
    ],
)
def test_a_suite_that_makes_no_sense_is_refused(value: Any) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Tests).validate_python(value)


@pytest.mark.parametrize(
    ("stop", "expected"),
    [("never", "never"), ("first_failure", "first_failure"), ({"after": 3}, StopAfter(after=3))],
)
def test_stop_is_a_word_or_a_count(stop: Any, expected: Any) -> None:
    assert ExecuteItem.model_validate(EXECUTE["items"][0] | {"stop": stop}).stop == expected


@pytest.mark.parametrize("stop", ["always", {"after": 0}, {"before": 1}, 1])
def test_a_stop_that_makes_no_sense_is_refused(stop: Any) -> None:
    assert locations(ExecuteItem, EXECUTE["items"][0] | {"stop": stop}) != []


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"terms": [{"name": "a", "type": "format"}] * 2}, "same name"),
        ({"combine": "gated"}, "go together"),
        ({"gate": {"term": "tests", "min": 1}}, "go together"),
        ({"combine": "gated", "gate": {"term": "x", "min": 1}}, "'x' is not a term; there are tests, rm"),
        ({"clip": {"min": 1, "max": 0}}, "clip.min is greater"),
        ({"terms": [{"name": "a", "type": "format", "weight": 1e10}]}, "less than or equal"),
        ({"terms": []}, "at least 1"),
        ({"terms": [{"name": "a", "type": "vibes"}]}, "vibes"),
    ],
)
def test_a_spec_that_contradicts_itself_is_refused_in_words(spec: Any, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        RewardSpec.model_validate(spec)


def test_a_term_that_executes_needs_tests_and_says_for_which_item() -> None:
    without = {"prompt": "p", "completions": ["c"]}
    spec = {"terms": [{"name": "tests", "type": "execute"}]}
    with pytest.raises(ValidationError, match=r"items\.1\.tests is missing and term 'tests' needs it"):
        RewardRequest.model_validate({"items": [*REWARD["items"], without], "spec": spec})
    assert (
        RewardRequest.model_validate({"items": [without], "spec": {"terms": [{"name": "c", "type": "consensus"}]}})
        .items[0]
        .tests
        is None
    )


def test_without_a_spec_an_item_is_rewarded_by_what_it_has() -> None:
    without = {"prompt": "p", "completions": ["c"]}
    request = RewardRequest.model_validate({"items": [*REWARD["items"], without]})
    assert request.spec is None
    assert (request.spec_of(0).combine, [term.type for term in request.spec_of(0).terms]) == (
        "tests_first",
        ["execute", "score"],
    )
    assert [term.type for term in request.spec_of(1).terms] == ["score"]


def test_a_spec_without_terms_is_tests_first_and_one_with_terms_is_a_sum() -> None:
    for given in ({}, {"on_missing": "drop"}, {"combine": "tests_first"}, {"clip": {"min": 0, "max": 1}}):
        assert RewardSpec.model_validate(given).combine == "tests_first"
    assert RewardSpec.model_validate({"terms": [{"name": "c", "type": "consensus"}]}).combine == "weighted_sum"
    again = RewardSpec.model_validate_json(RewardSpec().model_dump_json(exclude_unset=True))
    assert again == RewardSpec()


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"combine": "weighted_sum"}, "has none of its own"),
        ({"combine": "gated", "gate": {"term": "tests", "min": 1}}, "has none of its own"),
        ({"combine": "tests_first", "gate": {"term": "tests", "min": 1}}, "go together"),
        ({"combine": "tests_first", "terms": [{"name": "c", "type": "consensus"}]}, "one execute term, .* are 0"),
        ({"combine": "tests_first", "terms": [{"name": n, "type": "execute"} for n in "ab"]}, "and there are 2"),
        ({"combine": "tests_first", "terms": [{"name": "t", "type": "execute", "weight": -1}]}, "'t': its weight"),
        ({"combine": "tests_first", "terms": [{"name": "t", "type": "execute", "weight": 0}]}, "at least 1e-06"),
    ],
)
def test_tests_first_refuses_what_could_turn_it_around(spec: Any, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        RewardSpec.model_validate(spec)


def test_rank_is_reward_with_early_stop() -> None:
    assert RankRequest.model_validate(REWARD | {"early_stop": True}).early_stop is True
    assert RankRequest.model_validate(REWARD).early_stop is False


def test_an_answer_of_a_newer_server_is_read_without_its_news() -> None:
    answer = ScoreAnswer.model_validate(
        {
            "request_id": "r",
            "status": "complete",
            "model": {"name": "default", "colour": "red"},
            "weather": "fine",
            "results": [{"completions": [{"status": "ok", "score": 1.0, "trainable": True, "mood": "good"}]}],
            "timing": {"queue_ms": 1.0, "compute_ms": 2.0, "network_ms": 3.0},
        }
    )
    assert answer.results[0].completions[0].score == 1.0
