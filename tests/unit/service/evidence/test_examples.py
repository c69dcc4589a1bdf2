"""The reader of examples: what it reads, what it leaves, and what it costs."""

from __future__ import annotations

from service.evidence.examples import Example, Parameter, read_examples

PROMPT = '''from typing import List


def largest_gap(values: List[int], floor: int = 0) -> int:
    """The largest difference of two neighbours.

    >>> largest_gap([1, 4,
    ...              9])
    5
    >>> largest_gap([], floor=3)
    3
    >>> largest_gap(None)
    Traceback (most recent call last):
    TypeError: no values
    """
'''


def test_doctests_are_read_with_their_place_and_the_signature() -> None:
    reading = read_examples(PROMPT)
    assert (reading.kind, reading.entry_point) == ("function", "largest_gap")
    assert reading.parameters == (Parameter("values", "List[int]"), Parameter("floor", "int", "0"))
    first, second = reading.examples
    assert (first.arguments, first.expected, first.style) == ("[1, 4, 9]", "5", "doctest")
    assert (second.arguments, second.expected) == ("[], floor=3", "3")
    assert PROMPT[first.start : first.end].startswith("largest_gap([1, 4,")
    assert PROMPT[second.start : second.end].split() == ["largest_gap([],", "floor=3)", "3"]
    assert isinstance(first, Example)
