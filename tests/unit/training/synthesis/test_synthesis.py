"""What a model writes is repaired where it can be and counted where not; what the tests say decides the rest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from plaudit.errors import InfraError
from training.data.decontaminate import ContaminationIndex
from training.data.judge_task import JudgeTask
from training.data.test_formats import entry_point_of
from training.generation.sources.base import CompletionReply, CompletionRequest, TokenUsage
from training.pipeline.config import Recipe, SynthesizeConfig
from training.pipeline.run import Run
from training.synthesis.filters import ProblemDraft, SynthesisLog, extend_weak_suites, filter_tests
from training.synthesis.json_repair import object_of
from training.synthesis.mutation_score import SuiteStrength, suite_strength, wrong_programs
from training.synthesis.prompts import normal_assert, oracle_program, parse_writer_reply, seed_messages

TESTS = ["assert f(1) == 2", 'assert f("a\\n") == {"k": [1, 2]}', "assert f(2) == 3"]
REPLY = {"question": "Write f(x).", "tests": TESTS}
TEXT = json.dumps(REPLY)


@pytest.mark.parametrize(
    ("text", "repaired"),
    [
        (TEXT, False),
        (f"```json\n{TEXT}\n```", False),
        (f"Here you are:\n{TEXT}", False),
        (f"{TEXT}\nI hope that helps {{}}!", True),
        (TEXT.replace("]}", ",]}").replace(', "tests"', ', "tests"'), True),
        (TEXT.replace("f(1)", "f('\\d')"), True),
        (str(REPLY), True),
        (TEXT.replace('2", "assert f(\\"a', '2" "assert f(\\"a'), True),
        (TEXT[:-1], True),
    ],
)
def test_json_as_models_write_it_is_read(text: str, repaired: bool) -> None:
    found = object_of(text)
    assert found is not None
    assert found[1] is repaired
    assert found[0]["question"] == "Write f(x)."
    assert len(found[0]["tests"]) == 3


def test_a_reply_cut_at_the_token_limit_keeps_its_whole_tests() -> None:
    found = parse_writer_reply(TEXT[: TEXT.rindex("assert") + 9])
    assert found is not None
    assert found.repaired
    assert found.tests == ("assert f(1) == 2", "assert f('a\\n') == {'k': [1, 2]}")


@pytest.mark.parametrize("text", [TEXT, json.dumps(REPLY, indent=1), f"```json\n{TEXT}\n```", str(REPLY)])
def test_a_cut_anywhere_gives_only_tests_that_were_written(text: str) -> None:
    for cut in range(len(text) + 1):
        found = parse_writer_reply(text[:cut])
        if found is not None:
            assert set(found.tests) <= {normal_assert(test) for test in TESTS}
            assert found.question == "Write f(x)."


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no",
        "[1, 2]",
        "[" * 5000,
        '{"a":' * 5000,
        str(REPLY)[:-20],
        '{"tests": []}',
        '{"question": 3, "tests": []}',
        '{"question": "q"}',
    ],
)
def test_what_holds_no_question_with_tests_is_none(text: str) -> None:
    assert parse_writer_reply(text) is None


def test_a_test_is_one_assert_that_calls_something_and_stands_once() -> None:
    found = parse_writer_reply(
        json.dumps(
            {
                "question": "q",
                "tests": [
                    "assert f(1)==2",
                    "assert f(1) == 2",
                    "assert 1 == 1",
                    "f(1)",
                    "assert f(",
                    "import os\nassert f(1)",
                    7,
                ],
            }
        )
    )
    assert found is not None
    assert found.tests == ("assert f(1) == 2",)
    assert found.dropped == 6


def test_the_entry_point_is_what_the_tests_call() -> None:
    assert entry_point_of(["assert sorted(merge([1], [2])) == [1, 2]", "assert merge([], []) == []"]) == "merge"
    assert entry_point_of(["assert len([1]) == 1", "assert ("]) == ""


def test_a_seed_loses_its_printing_and_brings_its_instruction() -> None:
    system, user = seed_messages({"program": "x = 1\nprint(x)\n", "instruction": "Count."}, 20)
    assert system[0] == "system"
    assert "print(x)" not in user[1]
    assert "Count." in user[1]
    assert "20 tests" in user[1]


def test_the_oracles_program_is_its_code_block() -> None:
    assert oracle_program("Sure.\n```python\ndef f(): ...\n```") == "def f(): ...\n"
    assert oracle_program("I cannot.") is None


STATEMENT = "Given a list of numbers return the second largest distinct value or None when there is no such value."


def test_an_evaluation_problem_is_found_whole_and_in_parts() -> None:
    index = ContaminationIndex([("Eval/1", [STATEMENT, "def second(xs):\n    return sorted(set(xs))[-2]\n"])], 8)
    assert index.size == 1
    exact = index.hit(STATEMENT.upper().replace(" ", "\n"))
    assert exact is not None
    assert (exact.task_id, exact.how) == ("Eval/1", "exact")
    part = index.hit("Please: given a list of numbers return the second largest distinct value, quickly")
    assert part is not None
    assert (part.how, part.run) == ("ngram", "a list of numbers return the second largest")
    assert index.hit("Given a list of words return the longest one or None when the list is empty.") is None


@pytest.mark.parametrize(
    "test",
    [
        "assert second([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]) == 9",
        "assert second(['ab', 'bc', 'cd', 'de', 'ef', 'fg', 'gh']) == 'fg'",
        "assert second({'a': 1, 'b': 2, 'c': 3, 'd': 4, 'e': 5}) == 4",
    ],
)
def test_a_literal_is_nobodys_text(test: str) -> None:
    index = ContaminationIndex([("Eval/1", [test.replace("second", "other")])], 8)
    assert index.hit(test) is None
    loop = "for index in range(len(values)): total = total + values[index]"
    assert ContaminationIndex([("Eval/1", [loop])], 8).hit(f"def f(values):\n    {loop}\n") is not None


def test_suite_strength_counts_killed_mutants_and_useful_tests() -> None:
    found = suite_strength({"a": (True, True, False), "b": (True, True, True), "c": None}, stub=(True, False, False))
    assert found.useful == (1, 2)
    assert found.survivors == ("b",)
    assert found.killed == 0.5
    assert suite_strength({}, stub=(False,)).killed == 1.0


def test_wrong_programs_are_not_the_right_one() -> None:
    draft = ProblemDraft("t", "s", "l", "q", ["assert f(3) == 7"], "f", program="def f(x):\n    return 2 * x + 1\n")
    found, stub = wrong_programs(draft.problem(), 6, 1)
    assert draft.program not in found
    assert len(found) == len(set(found)) >= 3
    assert "def f" in stub


def test_tests_that_could_not_be_run_are_never_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draft = ProblemDraft("t", "s", "l", "q", ["assert f(1) == 3"], "f", program="def f(x):\n    return 2 * x + 1\n")
    draft.strength = SuiteStrength((0,), ("def f(x): return 3",), 2)
    more = json.dumps({"tests": ["assert f(2) == 99"]})

    def asked(
        recipe: Recipe, run: Run, name: str, settings: object, asks: list[CompletionRequest], usage: TokenUsage
    ) -> dict[str, CompletionReply]:
        return {ask.key: CompletionReply(ask.key, (more,), ("stop",)) for ask in asks}

    def broken(tasks: list[JudgeTask]) -> Iterator[dict[str, object]]:
        for task in tasks:
            yield {"key": task.key, "program_id": "t", "status": "infra_error", "detail": "no slot"}

    monkeypatch.setattr("training.synthesis.filters.complete_all", asked)
    monkeypatch.setattr("training.data.judge_local.judge_shard", broken)
    recipe = Recipe(synthesize=SynthesizeConfig(max_infra_errors=1.0))
    extend_weak_suites(recipe, Run(tmp_path, quiet=True), [draft], SynthesisLog(), TokenUsage(), 1)
    assert draft.tests == ["assert f(1) == 3"]
    assert draft.extended == 0
    assert filter_tests(recipe, Run(tmp_path, quiet=True), [draft], SynthesisLog()) == []
    strict = Recipe(synthesize=SynthesizeConfig())
    with pytest.raises(InfraError, match="1 of 1"):
        filter_tests(strict, Run(tmp_path, quiet=True), [draft], SynthesisLog())
