"""Rewrites keep the behavior; strangers stand under another problem's signature."""

from __future__ import annotations

import ast
import random

import pytest

from training.data.rewrites import as_answer, parameters_of, renamed

PROGRAMS = [
    "def f(xs, k):\n    total = 0\n    for v in xs:\n        total += v * k\n    return total\n",
    "def f(xs, k):\n    seen = [v for v in xs if v != k]\n    return sorted(seen)[:k]\n",
    "def g(n):\n    part = n + 1\n    return part\ndef f(xs, k):\n    best = max(map(g, xs))\n    return best * k\n",
    "LIMIT = 3\ndef f(xs, k):\n    count = LIMIT\n    while count < k:\n        count += len(xs)\n    return count\n",
    "def f(xs, k):\n    def go(v):\n        nonlocal n\n        n += v\n    n = 0\n    go(k)\n    return n\n",
    "def f(xs, k):\n    sum = 0\n    for x in xs:\n        sum = sum + x\n    return sum - k\n",
]


def answer(program: str) -> object:
    names: dict[str, object] = {}
    exec(program, names)
    return names["f"]([5, 2, 9], 4)  # type: ignore[operator]


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_renamed_program_answers_as_before(program: str) -> None:
    copies = {renamed(program, random.Random(seed)) for seed in range(5)} - {None}
    assert copies or program == PROGRAMS[4]
    for copy in copies:
        assert copy is not None
        assert copy != ast.unparse(ast.parse(program)) + "\n"
        assert answer(copy) == answer(program)


def test_a_stranger_has_the_signature_of_the_other_problem() -> None:
    source = 'def old(a, b):\n    """Doc."""\n    return old(b, a - 1) if a else b\n'
    assert as_answer(source, "old", ["xs", "k"], "new") == "def new(xs, k):\n    return new(k, xs - 1) if xs else k\n"


@pytest.mark.parametrize(
    ("source", "name", "parameters"),
    [
        ("def old(a):\n    return a\n", "old", ["x", "y"]),
        ("def old(*a):\n    return a\n", "old", ["x"]),
        ("def old(a):\n    x = a\n    return x\n", "old", ["x"]),
        ("def old(a):\n    return new(a)\ndef new(a):\n    return a\n", "old", ["x"]),
        ("def old(a:\n", "old", ["x"]),
        ("def other(a):\n    return a\n", "old", ["x"]),
    ],
    ids=["count", "star", "local taken", "helper taken", "broken", "missing"],
)
def test_a_stranger_that_cannot_take_the_signature_is_none(source: str, name: str, parameters: list[str]) -> None:
    assert as_answer(source, name, parameters, "new") is None


def test_parameters_are_the_positional_ones() -> None:
    assert parameters_of("def f(a, b=2):\n    return a\n", "f") == ["a", "b"]
    assert parameters_of("def f(a, *, b):\n    return a\n", "f") is None
