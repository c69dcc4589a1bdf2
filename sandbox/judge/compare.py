"""Compares what a program printed or returned with what was expected, in the trusted process.

- Values arrive as trees of the codec and are compared as trees. No object of the program is hashed, called or imported.
- Time and memory are linear in the size of the values: items of sets and keys of dicts are found by digests, and each
  part of a tree is visited once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

from plaudit.grading import Compare
from sandbox.judge import bounds, codec
from sandbox.judge.compare_lines import same_by_lines

DEFAULT_REL_TOL = 1e-6
MAX_FLOAT_TEXT = 400


def same_output(got: bytes, expected: bytes, mode: Compare, rel_tol: float | None = None) -> bool:
    """Whether printed bytes count as the expected ones.

    `exact`: byte for byte. `rstrip`: but for blanks at line ends and blank lines at the end. `tokens`: the same
    blank-separated words. `float`: the same words, numbers within `rel_tol` (relative, or absolute below 1), but two
    integers only if they are equal.

    Only as much of the output is split into words as was expected.
    """
    if mode == "lines":
        return same_by_lines(got, expected, rel_tol)
    if mode == "exact":
        return got == expected
    if mode == "rstrip":
        return same_lines(got.rstrip(), expected.rstrip())
    expected_words = expected.split()
    got_words = got.split(None, len(expected_words))
    if mode == "tokens":
        return got_words == expected_words
    tolerance = DEFAULT_REL_TOL if rel_tol is None else rel_tol
    return len(got_words) == len(expected_words) and all(
        a == b or close_words(a, b, tolerance) for a, b in zip(got_words, expected_words, strict=True)
    )


def least_output(expected: bytes, mode: Compare) -> int:
    """Lower bound of the bytes that a right program prints; 0 for numbers that only have to be close."""
    if mode == "float":
        return 0
    if mode == "tokens":
        return len(b" ".join(expected.split()))
    return len(expected if mode == "exact" else b"\n".join(line.rstrip() for line in expected.rstrip().split(b"\n")))


def same_lines(got: bytes, expected: bytes) -> bool:
    """Whether two texts without blanks at their ends are the same but for blanks at the ends of lines."""
    if got == expected:
        return True
    if got.count(b"\n") != expected.count(b"\n"):
        return False
    return all(
        got_line.rstrip() == expected_line.rstrip()
        for got_line, expected_line in zip(got.split(b"\n"), expected.split(b"\n"), strict=True)
    )


def close_words(got: bytes, expected: bytes, tolerance: float) -> bool:
    if is_integer(got) and is_integer(expected):
        return same_integer(got, expected)
    if max(len(got), len(expected)) > MAX_FLOAT_TEXT or b"_" in got + expected:  # `1_0` is a number in Python only
        return False
    try:
        got_number, expected_number = float(got), float(expected)
    except ValueError:
        return False
    return close(got_number, expected_number, tolerance)


def is_integer(word: bytes) -> bool:
    return (word[1:] if word[:1] in (b"+", b"-") else word).isdigit()


def same_integer(got: bytes, expected: bytes) -> bool:
    """Whether two spellings are of one integer: `+5` and `05`. Of any length, so as texts."""
    got_digits, expected_digits = got.lstrip(b"+-0"), expected.lstrip(b"+-0")
    return got_digits == expected_digits and (not got_digits or got.startswith(b"-") == expected.startswith(b"-"))


def close(got: float, expected: float, tolerance: float) -> bool:
    if math.isnan(got) or math.isnan(expected):
        return math.isnan(got) and math.isnan(expected)
    return math.isclose(got, expected, rel_tol=tolerance, abs_tol=tolerance)


class Opaque(Exception):
    """The returned tree holds something that is not a plain value."""


def same_value(tree: Any, expected: Any, rel_tol: float | None = None) -> bool:
    """Whether a returned value (a codec tree) equals an expected Python value.

    As Python's `==` on builtin values, and, because expected values come from JSON: a tuple equals the list of its
    items, and a dict's int, float, bool and None keys equal their JSON spelling. Floats may differ by `rel_tol` where
    it is given; two integers never. Raises Opaque if the tree holds a handle, codec.CodecError if it is malformed.
    """
    got, wanted = normal(tree, ItemBudget(bounds.MAX_JUDGED_ITEMS)), normal(codec.encode(expected), ItemBudget())
    return (rel_tol is None and bool(got == wanted)) or _same(got, wanted, rel_tol)


class ItemBudget:
    """How many more items of sets and keys of dicts may be digested, which costs more than a comparison."""

    __slots__ = ("left",)

    def __init__(self, left: int = 1 << 62) -> None:
        self.left = left

    def spend(self, num_items: int) -> None:
        self.left -= num_items
        if self.left < 0:
            raise codec.CodecError(f"sets and keys of more than {bounds.MAX_JUDGED_ITEMS} items")


def normal(tree: Any, work: ItemBudget, depth: int = 0) -> Any:
    """A tree in one spelling.

    A scalar, ("seq", [...]), ("map", {key: value}), ("set", {digest}) or ("other", digest). A key is a text where JSON
    has a spelling for it, and a digest elsewhere.
    """
    kind = type(tree)
    if kind is list:
        return ("seq", _items(tree, work, depth))
    if kind is not dict:
        return tree
    tag, value = _tag(tree), tree.get("v")
    if tag in SEQUENCES and type(value) is list:
        return ("seq", _items(value, work, depth))
    if tag in SETS and type(value) is list:
        _check(depth)
        work.spend(len(value))
        return ("set", {spelled(item, work, depth + 1) for item in value})
    if tag in MAPS and type(value) is list:
        _check(depth)
        if not all(type(pair) is list and len(pair) == 2 for pair in value):
            raise codec.CodecError("a malformed dict")
        return (
            "map",
            {key_of(k, work, depth + 1): v if type(v) in SCALARS else normal(v, work, depth + 1) for k, v in value},
        )
    if tag == "numpy":
        _check(depth)
        return normal(value, work, depth + 1)
    if tag in ("int", "float"):
        return codec.decode(tree)
    return ("other", spelled(tree, work, depth))


def spelled(tree: Any, work: ItemBudget, depth: int = 0) -> bytes:
    """A digest that two hashable trees share exactly if they are equal. Raises CodecError for one that is not hashable.

    Numbers that are equal are spelled alike whatever their type; items of a set in the order of their digests.
    """
    kind = type(tree)
    if kind is str:
        return _digest(b"s", tree.encode("utf-8", "surrogatepass"))
    if tree is None:
        return _digest(b"n")
    if kind is bool or kind is int:
        return _digest(b"i", hex(tree).encode())
    if kind is float:
        return _digest(b"i", hex(int(tree)).encode()) if tree.is_integer() else _digest(b"f", repr(tree).encode())
    if kind is not dict:
        raise codec.CodecError("a list in a set or as a key of a dict")
    tag, value = _tag(tree), tree.get("v")
    _check(depth)
    if tag in ("int", "float"):
        return spelled(codec.decode(tree), work, depth + 1)
    if tag == "numpy":
        return spelled(value, work, depth + 1)
    if tag in ("tuple", "namedtuple") and type(value) is list:
        work.spend(len(value))
        return _digest(b"(", *[spelled(item, work, depth + 1) for item in value])
    if tag == "frozenset" and type(value) is list:
        work.spend(len(value))
        return _digest(b"{", *sorted({spelled(item, work, depth + 1) for item in value}))
    if tag in SEQUENCES | SETS | MAPS:
        raise codec.CodecError(f"a {tag} in a set or as a key of a dict")
    return _digest(b"o", tag.encode(), codec.dumps(value))


def key_of(tree: Any, work: ItemBudget, depth: int) -> str | bytes:
    """A dict's key: the way JSON would spell it, or a digest."""
    kind = type(tree)
    if kind is str:
        return str(tree)
    if kind is dict and tree.get("t") in ("int", "float", "numpy"):
        tree = normal(tree, work, depth)
        kind = type(tree)
    if kind is bool:
        return "true" if tree else "false"
    if tree is None:
        return "null"
    if kind is float:
        return repr(tree)
    if kind is int and abs(tree) < codec.PLAIN_INT:
        return str(tree)
    return spelled(tree, work, depth)


SCALARS = frozenset({type(None), bool, str, int, float})
SEQUENCES = frozenset({"tuple", "deque", "namedtuple", "ndarray"})
SETS = frozenset({"set", "frozenset"})
MAPS = frozenset({"dict", "Counter", "OrderedDict", "defaultdict"})


def _items(values: list[Any], work: ItemBudget, depth: int) -> list[Any]:
    _check(depth)
    if SCALARS.issuperset(map(type, values)):
        return values
    return [item if type(item) in SCALARS else normal(item, work, depth + 1) for item in values]


def _check(depth: int) -> None:
    if depth > codec.MAX_DEPTH:
        raise codec.CodecError(f"a value nested deeper than {codec.MAX_DEPTH} levels")


def _tag(tree: dict[str, Any]) -> str:
    """The tag of a tree that is a value. Raises Opaque for a handle."""
    tag = tree.get("t")
    if tag == "h":
        raise Opaque(f"an opaque value of type {codec.describe_handle(tree)}")
    if type(tag) is not str or tag not in codec.TAGS:
        raise codec.CodecError(f"an unknown tag {bounds.text(tag, 50)}")
    return tag


def _digest(*parts: bytes) -> bytes:
    """Of parts that are digests themselves, or the last of which alone has no fixed length."""
    return blake2b(b"\0".join(parts), digest_size=20).digest()


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
    return len(got) == len(expected) and all(
        (type(a) in SCALARS and a == b) or _same(a, b, rel_tol) for a, b in zip(got, expected, strict=True)
    )


def _same_map(got: dict[str, Any], expected: dict[str, Any], rel_tol: float | None) -> bool:
    return got.keys() == expected.keys() and all(_same(got[key], expected[key], rel_tol) for key in got)


_SHAPES: dict[str, Callable[[Any, Any, float | None], bool]] = {
    "seq": _same_seq,
    "map": _same_map,
    "set": lambda got, expected, rel_tol: bool(got == expected),
    "other": lambda got, expected, rel_tol: bool(got == expected),
}
