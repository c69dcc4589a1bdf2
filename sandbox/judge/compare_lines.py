"""Compares printed text as the graders of LiveCodeBench and NeMo-Gym do: line by line, numbers by value.

White space around the text and around each line does not count. Two lines are the same if they are equal, or if all
their words are numbers that are pairwise equal as decimals. With `rel_tol` numbers may differ by that much, unless both
are written as integers.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal, InvalidOperation, localcontext

MAX_WORD = 5000  # a longer number is compared as text
INTEGER = re.compile(rb"[+-]?\d+\Z")
NUMBER = re.compile(rb"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,6})?\Z|[+-]?(?:inf|infinity)\Z", re.IGNORECASE)


def same_by_lines(got: bytes, expected: bytes, rel_tol: float | None) -> bool:
    expected_lines = expected.strip().split(b"\n")
    got_lines = got.strip().split(b"\n", len(expected_lines))
    return len(got_lines) == len(expected_lines) and all(
        same_line(a, b, rel_tol) for a, b in zip(got_lines, expected_lines, strict=True)
    )


def same_line(got: bytes, expected: bytes, rel_tol: float | None) -> bool:
    got, expected = got.strip(), expected.strip()
    if got == expected:
        return True
    expected_words = expected.split()
    got_words = got.split(None, len(expected_words))
    return len(got_words) == len(expected_words) and all(
        same_number(a, b, rel_tol) for a, b in zip(got_words, expected_words, strict=True)
    )


def same_number(got: bytes, expected: bytes, rel_tol: float | None) -> bool:
    if max(len(got), len(expected)) > MAX_WORD or not NUMBER.match(got) or not NUMBER.match(expected):
        return False
    if got == expected:
        return True
    try:
        with localcontext() as context:
            context.traps[InvalidOperation] = True
            if Decimal(got.decode()) == Decimal(expected.decode()):
                return True
    except InvalidOperation:
        return False
    if rel_tol is None or (INTEGER.match(got) and INTEGER.match(expected)):
        return False
    return math.isclose(float(got), float(expected), rel_tol=rel_tol, abs_tol=rel_tol)
