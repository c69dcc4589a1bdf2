"""What a trainer's user wrote wrongly is raised where it is written: tests that cannot be read, options that cannot be.

Pass rates and a model's scores never share a column, and no row of a broken data set becomes a number or a None.
"""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any

import numpy
import pytest

from plaudit.errors import Invalid, PlauditError
from plaudit.integrations import areal, inspect_ai, openrlhf, skyrl, slime, trl, verifiers, verl
from plaudit.integrations.batcher import RewardBatcher
from plaudit.integrations.config import Misconfigured
from plaudit.schemas import CompletionReward, Component, ResultError
from support.plug_ins import BAD, GOOD, PLUG_INS, PROMPT, TESTS, answered, rewards_of
from support.scripted import Scripted
from support.stack import Stack

pytestmark = pytest.mark.usefixtures("nothing_left_open")


# --- tests that are not there ----------------------------------------------------------------------------------------

UNREADABLE = {
    "nothing": None,
    "empty text": "",
    "blank text": "  ",
    "empty list": [],
    "empty object": {},
    "a number": 42,
    "a number as text": "42",
    "prose": "garbage",
    "lists in a list": [["assert add(1, 2) == 3"]],
    "a list under test": {"test": ["assert add(1, 2) == 3"]},
    "null under tests": {"tests": None},
    "broken JSON": '["assert add(1, 2) == 3"',
    "asserts and more": "assert add(1, 2) == 3\nprint(1)",
    "inputs alone": {"inputs": ["1"]},
    "pairs that do not fit": {"inputs": ["1"], "outputs": []},
    "an unknown kind": {"kind": "magic"},
    "an empty assert": [""],
    "numbers": [1, 2],
}


@pytest.mark.parametrize("label", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_a_label_without_tests_is_raised_by_row_and_field(label: Any, scripted: Scripted) -> None:
    desk = scripted.says(answered)
    batch: dict[str, Any] = {"prompts": [PROMPT] * 3, "completions": [GOOD] * 3, "quiz": [TESTS, TESTS, label]}
    with pytest.raises(ValueError, match=r"^row 2: quiz: ") as raised:
        trl.reward_function(scripted.url, column="quiz")(**batch)
    assert isinstance(raised.value, Invalid)
    assert desk.calls == []  # nothing was asked for
    assert trl.reward_function(scripted.url, column="quiz", reward="model")(**batch) == [1.0] * 3


def test_a_column_that_is_not_there_is_named_with_those_that_are(scripted: Scripted) -> None:
    scripted.says(answered)
    with pytest.raises(Misconfigured, match=r"test: the data set has no such column.*; there are answer, tests"):
        trl.reward_function(scripted.url, column="test")(prompts=["p"], completions=[GOOD], tests=[TESTS], answer=[1])
    assert trl.reward_function(scripted.url, column="test", reward="model")(prompts=["p"], completions=[GOOD]) == [1.0]


WITH_FALLBACK = {"verl", "verl, plain", "verl, batch", "openrlhf", "slime"}


@pytest.mark.parametrize("name", PLUG_INS)
@pytest.mark.parametrize("label", [None, "42", [[]], {"test": ["assert True"]}], ids=str)
def test_every_plug_in_raises_a_label_without_tests_whatever_the_fallback(
    name: str, label: Any, scripted: Scripted
) -> None:
    scripted.says(answered)
    options: dict[str, Any] = {"fallback": 0.0} if name in WITH_FALLBACK else {}
    with pytest.raises(ValueError, match=r"^row 0: [a-z_.]+: no tests in it"):
        rewards_of(scripted.url, label=label, **options)[name]()


def test_a_bad_label_among_rows_in_flight_costs_its_own_row_only(scripted: Scripted) -> None:
    scripted.says(answered)
    compute_score = verl.compute_score(scripted.url, gather_s=0.2)

    async def many() -> list[Any]:
        labels = [TESTS, None, TESTS]
        calls = [compute_score("taco", GOOD, label) for label in labels]
        try:
            return await asyncio.gather(*calls, return_exceptions=True)
        finally:
            await compute_score.args[0].close_async()

    first, second, third = asyncio.run(many())
    assert (first["score"], third["score"]) == (1.0, 1.0)
    assert isinstance(second, Misconfigured)


@pytest.mark.parametrize(
    "label",
    [
        "assert add(1, 2) == 3",
        "assert add(1, 2) == 3\nassert add(0, 0) == 0\n",
        ("assert add(1, 2) == 3",),
        json.dumps(TESTS),
        numpy.array(TESTS),
        {"inputs": numpy.array(["1\n2"]), "outputs": ["3"], "fn_name": "add"},
    ],
    ids=repr,
)
def test_what_can_be_read_is_read(label: Any, stack: Stack) -> None:
    found = trl.reward_function(stack.url)(prompts=[PROMPT] * 2, completions=[GOOD, BAD], tests=[label] * 2)
    assert found[0] is not None
    assert found[0] >= 1.0 > (found[1] or 0.0)


# --- options ---------------------------------------------------------------------------------------------------------

MAKERS = (
    trl.reward_function,
    verl.compute_score,
    verl.compute_score_blocking,
    verl.compute_score_batch,
    openrlhf.reward_func,
    openrlhf.agent_step,
    slime.custom_rm,
    areal.reward_fn,
    skyrl.env_mixin,
    verifiers.reward_func,
    verifiers.task_reward,
    inspect_ai.code_scorer,
    RewardBatcher,
)
URL = "http://127.0.0.1:9"


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        ("timeout", "timeout_s"),
        ("specs", "spec"),
        ("limit", "limits"),
        ("langage", "language"),
        ("rewards", "reward"),
        ("extracts", "extract"),
        ("prio", "priority"),
    ],
)
def test_an_option_that_does_not_exist_is_raised_where_it_is_written(make: Any, wrong: str, nearest: str) -> None:
    with pytest.raises(TypeError, match=rf"{make.__name__}\(\) has no option '{wrong}'; did you mean '{nearest}'"):
        make(URL, **{wrong: 1})


def test_options_of_one_plug_in_are_suggested_and_not_taken_by_others() -> None:
    with pytest.raises(TypeError, match="did you mean 'column'"):
        trl.reward_function(URL, colum="x")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="did you mean 'fallback'"):
        verl.compute_score(URL, fall_back=0.0)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="no option 'fallback'"):
        trl.reward_function(URL, fallback=0.0)  # type: ignore[call-arg]


VALUES: list[tuple[dict[str, Any], str]] = [
    ({"extract": "raw"}, "^extract: 'raw'; there are none, last_fence"),
    ({"extract": None}, "^extract: None"),
    ({"language": "cobol"}, "^language: language 'cobol' is not one of"),
    ({"language": 3}, "^language: 3 is not"),
    ({"limits": {"cpu_s": -1}}, "^limits.cpu_s: "),
    ({"limits": {"memory_mb": 1}}, "^limits.memory_mb: "),
    ({"limits": {"cpu": 1}}, "^limits.cpu: .*did you mean 'cpu_s'"),
    ({"limits": {"cpu_s": "x"}}, "^limits.cpu_s: "),
    ({"limits": None}, "^limits: "),
    ({"stop": "sometimes"}, "^stop"),
    ({"stop": {"after": 0}}, "^stop"),
    ({"priority": "urgent"}, "^priority: 'urgent'; there are high, normal, low"),
    ({"timeout_s": 0}, "^timeout_s: 0 is not a number of seconds above 0"),
    ({"timeout_s": "5"}, "^timeout_s: '5'"),
    ({"timeout_s": math.nan}, "^timeout_s"),
    ({"gather_s": -1}, "^gather_s"),
    ({"max_connections": 0}, "^max_conn"),
    ({"reward": "both"}, "^reward: 'both'; there are auto, tests, model"),
    ({"spec": 1}, "^spec: "),
    ({"spec": {"terms": []}}, "^spec.terms: "),
    ({"spec": {"term": []}}, "^spec.term: "),
    ({"spec": {}, "reward": "model"}, "^reward: 'model' and a spec exclude each other"),
]


@pytest.mark.parametrize(("options", "words"), VALUES, ids=lambda one: str(one)[:40])
def test_a_value_that_cannot_be_is_raised_where_it_is_written(options: dict[str, Any], words: str) -> None:
    for make in MAKERS:
        with pytest.raises(ValueError, match=words):
            make(URL, **options)


def test_an_address_a_column_or_a_fallback_that_cannot_be_is_raised() -> None:
    for make, words in (
        (lambda: trl.reward_function("127.0.0.1:8000"), "url: '127.0.0.1:8000' does not begin with http"),
        (lambda: trl.reward_function(URL, column=""), "column: '' is not a name"),
        (lambda: verl.compute_score(URL, fallback=math.nan), "fallback: nan is not a number"),
    ):
        with pytest.raises(ValueError, match=words):
            make()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"limits": {"cpu_s": 1000}}, r"limits\.cpu_s: 1000 is more than 60"),
        ({"limits": {"memory_mb": 10**7}}, r"limits\.memory_mb: .* is more than"),
        (
            {"spec": {"terms": [{"name": "t", "type": "execute"}, {"name": "m", "type": "score", "model": "nope"}]}},
            "nope",
        ),
    ],
    ids=str,
)
def test_what_this_service_does_not_take_is_raised_at_the_first_call(
    options: dict[str, Any], words: str, stack: Stack
) -> None:
    with pytest.raises(PlauditError, match=words):
        trl.reward_function(stack.url, **options)(prompts=[PROMPT] * 4, completions=[GOOD] * 4, tests=[TESTS] * 4)
    with pytest.raises(PlauditError, match=words):
        verl.compute_score_blocking(stack.url, fallback=0.0, **options)("taco", GOOD, TESTS)


def test_a_language_that_the_service_lacks_is_raised_and_no_column_of_none(scripted: Scripted) -> None:
    def lacks(asked: Any) -> Any:
        error = ResultError(code="language_unavailable", detail="rust is not installed")
        part = Component(status="invalid", error=error)
        bad = CompletionReward(status="invalid", trainable=False, components={"tests": part})
        answer = answered(asked)
        results = [one.model_copy(update={"completions": [bad] * len(one.completions)}) for one in answer.results]
        return answer.model_copy(update={"results": results})

    scripted.says(lacks)
    with pytest.raises(ValueError, match="language: rust is not installed"):
        trl.reward_function(scripted.url, language="rust")(prompts=[PROMPT], completions=[GOOD], tests=[TESTS])
