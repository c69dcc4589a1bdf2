"""The codec of the split: what crosses comes back exactly, what cannot cross is refused with words."""

from __future__ import annotations

import collections
import contextlib
import datetime
import decimal
import fractions
import json
import math
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.judge import codec

atoms = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False)
    | st.decimals(allow_nan=False)
    | st.fractions()
    | st.dates()
    | st.datetimes()
    | st.times()
    | st.timedeltas()
)
keys = st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.tuples(st.integers(), st.text())
values = st.recursive(
    atoms,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(keys, inner)
        | st.sets(keys)
        | st.frozensets(keys)
        | st.lists(inner).map(collections.deque)
        | st.dictionaries(keys, inner).map(collections.OrderedDict)
    ),
    max_leaves=25,
)


def there_and_back(value: Any) -> Any:
    return codec.decode(codec.loads(codec.dumps(codec.encode(value))))


@given(values)
@settings(max_examples=100, deadline=None)
def test_values_come_back_equal_and_of_the_same_type(value: Any) -> None:
    back = there_and_back(value)
    assert back == value
    assert same_types(back, value)


def same_types(ours: Any, theirs: Any) -> bool:
    if type(ours) is not type(theirs):
        return False
    if isinstance(ours, list | tuple | collections.deque):
        return all(same_types(a, b) for a, b in zip(ours, theirs, strict=True))
    if isinstance(ours, dict):
        return all(same_types(ours[key], theirs[key]) for key in ours)
    return True


@given(st.recursive(st.none() | st.integers() | st.text(), lambda s: st.lists(s) | st.dictionaries(st.text(), s)))
@settings(max_examples=100, deadline=None)
def test_any_json_is_a_value_or_a_codec_error(tree: Any) -> None:
    with contextlib.suppress(codec.CodecError):
        codec.decode(codec.loads(json.dumps(tree).encode()))


TAGS = st.sampled_from([*codec.DECODERS, "h", "pickle", ""])


@given(TAGS, st.recursive(st.none() | st.integers() | st.text() | st.floats(), st.lists))
@settings(max_examples=150, deadline=None)
def test_any_content_under_any_tag_is_a_value_or_a_codec_error(tag: str, content: Any) -> None:
    tree = {"t": tag, "v": content, "max": None, "f": content, "n": "N", "d": "i8"}
    with contextlib.suppress(codec.CodecError):
        codec.decode(tree)


@pytest.mark.parametrize(
    "value",
    [
        float("inf"),
        float("-inf"),
        -0.0,
        2**5000,
        -(2**2000),
        "\ud800 lone",
        range(3, 9, 2),
        slice(1, None, 2),
        ...,
        int,
        ValueError,
        bytearray(b"x"),
        decimal.Decimal("1.10"),
        fractions.Fraction(1, 3),
        datetime.timedelta(days=-1, microseconds=5),
        collections.Counter("aab"),
    ],
    ids=repr,
)
def test_particular_values_come_back(value: Any) -> None:
    back = there_and_back(value)
    assert back == value
    assert type(back) is type(value)
    assert repr(back) == repr(value)


def test_nan_comes_back() -> None:
    assert math.isnan(there_and_back(float("nan")))


class Point(NamedTuple):
    x: int
    y: int


def test_a_named_tuple_keeps_its_fields() -> None:
    back = there_and_back(Point(1, 2))
    assert back == (1, 2)
    assert (back.x, back.y, type(back).__name__) == (1, 2, "Point")


def test_a_default_dict_comes_back_without_its_factory() -> None:
    groups = collections.defaultdict(list)
    groups["a"].append(1)
    back = there_and_back(groups)
    assert back == {"a": [1]}
    with pytest.raises(KeyError):
        back["b"]


class Sub(int):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("value", [Sub(3), object(), lambda: 1, iter([]), {1: object()}, [[Sub(3)]], math])
def test_what_is_no_exact_value_is_refused(value: Any) -> None:
    with pytest.raises(codec.CodecError, match="cannot cross between"):
        codec.encode(value)


def test_what_is_no_exact_value_becomes_a_handle_where_handles_are_kept() -> None:
    tree = codec.encode([1, Sub(3)], lambda value: {"t": "h", "id": 7, "type": type(value).__name__})
    assert tree == [1, {"t": "h", "id": 7, "type": "Sub"}]
    assert codec.decode(tree, lambda handle: ("borrowed", handle["id"])) == [1, ("borrowed", 7)]
    with pytest.raises(codec.CodecError, match="an opaque value of type Sub"):
        codec.decode(tree)


def test_depth_is_bounded_both_ways() -> None:
    nested: list[Any] = []
    for _ in range(codec.MAX_DEPTH + 2):
        nested = [nested]
    with pytest.raises(codec.CodecError, match="nested deeper"):
        codec.encode(nested)
    with pytest.raises(codec.CodecError, match="nested deeper"):
        codec.decode(nested)
    with pytest.raises(codec.CodecError):
        codec.loads(b"[" * 100_000)
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(codec.CodecError, match="nested deeper"):
        codec.encode(endless)


def test_size_is_bounded_both_ways() -> None:
    with pytest.raises(codec.CodecError, match="at most"):
        codec.dumps("x" * (codec.MAX_MESSAGE_BYTES + 1))
    with pytest.raises(codec.CodecError, match="at most"):
        codec.loads(b" " * (codec.MAX_MESSAGE_BYTES + 1))
    with pytest.raises(codec.CodecError, match="parts"):
        codec.loads(b"[" + b"0," * codec.MAX_NODES + b"0]")
    with pytest.raises(codec.CodecError, match="bits"):
        codec.encode(1 << (codec.MAX_INT_BITS + 1))
    with pytest.raises(codec.CodecError):
        codec.decode({"t": "int", "v": "0x" + "f" * codec.MAX_INT_BITS})


@pytest.mark.parametrize("data", [b"", b"{", b"NaN", b"[Infinity]", b"\xff", b"1 2", b'{"t":}'])
def test_malformed_bytes_are_a_codec_error(data: bytes) -> None:
    with pytest.raises(codec.CodecError):
        codec.loads(data)


def test_decoding_makes_no_object_of_the_senders_choosing() -> None:
    for tree in (
        {"t": "type", "v": "os.system"},
        {"t": "type", "v": "__import__"},
        {"t": "type", "v": "print"},
        {"t": "namedtuple", "n": "x); import os; (", "f": ["a"], "v": [1]},
        {"t": "namedtuple", "n": "N", "f": ["a b"], "v": [1]},
    ):
        with pytest.raises(codec.CodecError):
            codec.decode(tree)
