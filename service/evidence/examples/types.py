"""What reading a prompt gives: the examples, each tied to its place, and the function that they call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ReadingKind = Literal["function", "stdio"]


@dataclass(frozen=True, slots=True)
class Example:
    """One example of a prompt: a call and its value, or an input text and its output.

    Attributes:
        start: the first of the prompt's characters that belong to the example.
        end: the character after the last.
        style: the form it is written in: "doctest", "equality", "arrow", "returns", "comment", "input_output",
            "sentence", "table", "leetcode", "record" or "sample".
        arguments: Python source of the call's arguments, literals only: `f({arguments})` is a call.
        expected: Python source of the value, a literal.
        tolerance: how far from `expected` the value may be, where the prompt rounds or compares nearly: absolute.
        stdin: of a program that reads its standard input.
        stdout: what that program has to print.
    """

    start: int
    end: int
    style: str
    arguments: str | None = None
    expected: str | None = None
    stdin: str | None = None
    stdout: str | None = None
    tolerance: float | None = None


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a signature. `*args` and `**kwargs` keep their stars in the name."""

    name: str
    annotation: str | None = None
    default: str | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """What a prompt says about the program that it asks for.

    Attributes:
        kind: None where nothing can be said.
        entry_point: the function to call, "f" or "Class.method".
        parameters: of its signature, without `self`.
        examples: in the order of the prompt.
    """

    kind: ReadingKind | None = None
    entry_point: str | None = None
    parameters: tuple[Parameter, ...] = ()
    examples: tuple[Example, ...] = ()
