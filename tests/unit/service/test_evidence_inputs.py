"""Mutated inputs: deterministic, of the examples' types, bounded, and made from types where there is no example."""

from __future__ import annotations

import ast
import time

import pytest

from service.evidence.examples import Example, Parameter, Reading, read_examples
from service.evidence.inputs import MAX_INPUTS, mutated_inputs


def function(*arguments: str, parameters: tuple[Parameter, ...] = ()) -> Reading:
    examples = tuple(Example(0, 1, "doctest", arguments=source, expected="0") for source in arguments)
    return Reading("function", "f", parameters, examples)


def values(source: str) -> list[object]:
    call = ast.parse(f"f({source})", mode="eval").body
    assert isinstance(call, ast.Call)
    return [ast.literal_eval(node) for node in (*call.args, *(keyword.value for keyword in call.keywords))]


READING = function("[3, 1, 2], 'abc de'", "[5], 'x'", "[], ''")


def test_inputs_are_the_same_for_a_seed() -> None:
    assert mutated_inputs(READING, seed=1) == mutated_inputs(READING, seed=1)
    assert mutated_inputs(READING, seed=1) != mutated_inputs(READING, seed=2)


def test_inputs_are_new_and_each_is_there_once() -> None:
    inputs = mutated_inputs(READING, count=40)
    assert len(inputs) == len(set(inputs)) == 40
    assert not {"[3, 1, 2], 'abc de'", "[5], 'x'", "[], ''"} & set(inputs)


@pytest.mark.parametrize(
    ("arguments", "kinds"),
    [
        ("5", (int,)),
        ("2.5, 'a'", (float, str)),
        ("[1, 2], True", (list, bool)),
        ("(1, 2), {'a': 1}", (tuple, dict)),
        ("{1, 2}, [[1], [2, 3]]", (set, list)),
        ("'03-11-2000'", (str,)),
        ("1, k=[1, 2]", (int, list)),
    ],
)
def test_arguments_keep_their_types(arguments: str, kinds: tuple[type, ...]) -> None:
    inputs = mutated_inputs(function(arguments), count=30)
    assert len(inputs) >= 3 or kinds == (bool,)
    for source in inputs:
        assert tuple(map(type, values(source))) == kinds


def test_items_of_lists_keep_their_types() -> None:
    for source in mutated_inputs(function("[1, 5, 2]", "[7]"), count=40):
        (items,) = values(source)
        assert isinstance(items, list)
        assert all(type(item) is int for item in items)


def test_numbers_that_are_positive_in_all_examples_are_never_negative() -> None:
    for source in mutated_inputs(function("3", "10"), count=40):
        assert values(source)[0] >= 0  # type: ignore[operator]


def test_pairs_stay_pairs() -> None:
    for source in mutated_inputs(function("(1, 2), (3, 4)"), count=40):
        assert [len(value) for value in values(source)] == [2, 2]  # type: ignore[arg-type]


def test_the_number_of_inputs_is_bounded() -> None:
    assert len(mutated_inputs(READING, count=10_000)) <= MAX_INPUTS
    assert mutated_inputs(function("True"), count=30) == ["False"]
    assert mutated_inputs(function(""), count=30) == []


def test_large_and_broken_examples_cost_little() -> None:
    long = repr(list(range(3000)))
    deep = "[" * 60 + "]" * 60
    began = time.process_time()
    for arguments in (long, deep, "x" * 100_000, "1)(", "[" * 5000, "'" + "a" * 15_000 + "'"):
        for source in mutated_inputs(function(arguments), count=30):
            values(source)
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("prompt", "kind"),
    [
        ('def f(x: int) -> int:\n    """Double it."""\n', int),
        ("def f(values: list[str]):\n    pass\n", list),
        ('def f(s):\n    """Given a string, count the vowels in it."""\n', str),
        ('def f(q):\n    """You are given a list of integers. Return the largest."""\n', list),
        ('def f(n):\n    """Given a positive integer n, return its digits\' sum."""\n', int),
        ("def f(q=2.5):\n    pass\n", float),
        ("def f(x: Optional[dict] = None):\n    pass\n", dict),
    ],
)
def test_types_are_inferred_where_there_is_no_example(prompt: str, kind: type) -> None:
    inputs = mutated_inputs(read_examples(prompt, entry_point="f"), prompt=prompt, count=20)
    assert len(inputs) >= 10
    assert all(type(values(source)[0]) is kind for source in inputs)


def test_a_list_of_strings_has_strings_in_it() -> None:
    prompt = 'def f(q):\n    """Takes a list of strings and joins them."""\n'
    for source in mutated_inputs(read_examples(prompt, entry_point="f"), prompt=prompt, count=20):
        assert all(type(item) is str for item in values(source)[0])  # type: ignore[attr-defined]


def test_nothing_is_made_where_nothing_is_known() -> None:
    assert mutated_inputs(Reading(None, None, (), ())) == []
    assert mutated_inputs(function()) == []


def stdio(*texts: str) -> Reading:
    return Reading("stdio", None, (), tuple(Example(0, 1, "sample", stdin=text, stdout="0") for text in texts))


def test_stdin_keeps_the_shape_of_its_sample() -> None:
    inputs = mutated_inputs(stdio("4\n10 20 30 40\n"), count=30)
    assert len(inputs) == 30
    for text in inputs:
        first, second, last = text.split("\n")
        assert len(second.split()) == int(first)
        assert last == ""


def test_a_count_of_lines_stays_right() -> None:
    for text in mutated_inputs(stdio("3\nabc 5\nde 6\nf 7\n"), count=30):
        lines = text.splitlines()
        assert lines[0] == "3"
        assert len(lines) == 4


def test_empty_and_huge_stdin_are_not_varied() -> None:
    assert mutated_inputs(stdio("", " \n", "7 " * 20_000), count=10) == []
