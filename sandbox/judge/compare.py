"""Comparison in the trusted process: what a program printed or returned against what was expected.

Values arrive as trees of the codec and are compared as trees: nothing of the program's making is hashed, called or
imported here, so a hostile value can cost no more than its size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from sandbox.judge import codec
from sandbox.judge.lines import same_by_lines
from sandbox.types import Compare

DEFAULT_REL_TOL = 1e-6
MAX_FLOAT_TEXT = 400


def same_output(got: bytes, expected: bytes, mode: Compare, rel_tol: float | None = None) -> bool:
    """Whether printed bytes count as the expected ones.

    `exact`: byte for byte. `rstrip`: but for blanks at line ends and blank lines at the end. `tokens`: the same
    blank-separated words. `float`: the same words, numbers within `rel_tol` (relative, or absolute below 1).
    """
    if mode == "lines":
        return same_by_lines(got, expected, rel_tol)
    if mode == "exact":
        return got == expected
    if mode == "rstrip":
        return stripped_lines(got) == stripped_lines(expected)
    ours, theirs = got.split(), expected.split()
    if mode == "tokens":
        return ours == theirs
    tolerance = DEFAULT_REL_TOL if rel_tol is None else rel_tol
    return len(ours) == len(theirs) and all(
        a == b or close_words(a, b, tolerance) for a, b in zip(ours, theirs, strict=True)
    )


def stripped_lines(data: bytes) -> list[bytes]:
    lines = [line.rstrip() for line in data.split(b"\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def close_words(got: bytes, expected: bytes, tolerance: float) -> bool:
    if max(len(got), len(expected)) > MAX_FLOAT_TEXT or b"_" in got + expected:  # `1_0` is a number in Python only
        return False
    try:
        ours, theirs = float(got), float(expected)
    except ValueError:
        return False
    return close(ours, theirs, tolerance)


def close(ours: float, theirs: float, tolerance: float) -> bool:
    if math.isnan(ours) or math.isnan(theirs):
        return math.isnan(ours) and math.isnan(theirs)
    return math.isclose(ours, theirs, rel_tol=tolerance, abs_tol=tolerance)


class Opaque(Exception):
    """The returned tree holds something that is no plain value."""


def same_value(tree: Any, expected: Any, rel_tol: float | None = None) -> bool:
    """Whether a returned value (a codec tree) equals an expected Python value.

    As Python's `==` on builtin values, and, because expected values come from JSON: a tuple equals the list of its
    items, and a dict's int, float, bool and None keys equal their JSON spelling. Floats may differ by `rel_tol` where
    it is given. Raises Opaque if the tree holds a handle, codec.CodecError if it is malformed.
    """
    return _same(normal(tree), normal(codec.encode(expected)), rel_tol)


def normal(tree: Any, depth: int = 0) -> Any:
    """A tree in one spelling: a scalar, ("seq", [...]), ("map", {text: value}), ("set", {text}) or ("other", text).

    Texts are keys made by `spelled`; strings are the only thing that is ever hashed.
    """
    if depth > codec.MAX_DEPTH:
        raise codec.CodecError(f"a value nested deeper than {codec.MAX_DEPTH} levels")
    kind = type(tree)
    if kind is list:
        return ("seq", [normal(item, depth + 1) for item in tree])
    if kind is not dict:
        return tree
    tag = tree.get("t")
    if tag == "h":
        raise Opaque(f"an opaque value of type {codec.describe_handle(tree)}")
    value = tree.get("v")
    if tag in ("tuple", "deque", "namedtuple", "ndarray") and type(value) is list:
        return ("seq", [normal(item, depth + 1) for item in value])
    if tag in ("set", "frozenset") and type(value) is list:
        return ("set", {spelled(normal(item, depth + 1)) for item in value})
    if tag in ("dict", "Counter", "OrderedDict", "defaultdict") and type(value) is list:
        if not all(type(pair) is list and len(pair) == 2 for pair in value):
            raise codec.CodecError("a malformed dict")
        return ("map", {spelled(normal(k, depth + 1), as_key=True): normal(v, depth + 1) for k, v in value})
    if tag == "numpy":
        return normal(value, depth + 1)
    if tag in ("int", "float"):
        return codec.decode(tree)
    if tag in ("bytes", "bytearray", "complex", "range", "decimal", "fraction", "type", "ellipsis", "slice") or (
        tag in ("datetime", "date", "time", "timedelta")
    ):
        return ("other", f"{tag} {codec.dumps(value).decode()}")
    raise codec.CodecError(f"an unknown tag {tag!r:.50}")


def spelled(value: Any, *, as_key: bool = False) -> str:
    """A text that two normal values share exactly if they are equal. As a dict key, the way JSON would spell it."""
    kind = type(value)
    if kind is str:
        return value if as_key else f'"{value}'
    if kind is bool:
        return ("true" if value else "false") if as_key else str(int(value))
    if value is None:
        return "null"
    if kind is float:
        return hex(int(value)) if value.is_integer() and not as_key else repr(value)
    if kind is int:
        return str(value) if as_key and abs(value) < codec.PLAIN_INT else hex(value)
    shape, content = value
    if shape == "seq":
        return "(" + ",".join(f"{len(text)}:{text}" for text in map(spelled, content)) + ")"
    if shape == "set":
        return "{" + ",".join(f"{len(text)}:{text}" for text in sorted(content)) + "}"
    return f"<{content}>"


def _same(got: Any, expected: Any, rel_tol: float | None) -> bool:
    kind, other = type(got), type(expected)
    if kind is tuple and other is tuple:
        if got[0] != expected[0]:
            return False
        return _SHAPES[got[0]](got[1], expected[1], rel_tol)
    if kind is tuple or other is tuple:
        return False
    if rel_tol is not None and float in (kind, other) and {kind, other} <= {int, float}:
        try:
            return close(float(got), float(expected), rel_tol)
        except OverflowError:
            return False
    if kind is float and other is float and got != got:
        return bool(expected != expected)
    return bool(got == expected)


def _same_seq(got: list[Any], expected: list[Any], rel_tol: float | None) -> bool:
    return len(got) == len(expected) and all(_same(a, b, rel_tol) for a, b in zip(got, expected, strict=True))


def _same_map(got: dict[str, Any], expected: dict[str, Any], rel_tol: float | None) -> bool:
    return got.keys() == expected.keys() and all(_same(got[key], expected[key], rel_tol) for key in got)


_SHAPES: dict[str, Callable[[Any, Any, float | None], bool]] = {
    "seq": _same_seq,
    "map": _same_map,
    "set": lambda got, expected, rel_tol: bool(got == expected),
    "other": lambda got, expected, rel_tol: bool(got == expected),
}
