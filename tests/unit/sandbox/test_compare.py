"""Comparing what came out with what was expected, in every mode and for hostile trees."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.judge import codec
from sandbox.judge.compare import Opaque, same_output, same_value


@pytest.mark.parametrize(
    ("mode", "got", "expected", "same"),
    [
        ("exact", b"1\n", b"1\n", True),
        ("exact", b"1", b"1\n", False),
        ("rstrip", b"1", b"1\n", True),
        ("rstrip", b"1 \n2\t\n\n\n", b"1\n2", True),
        ("rstrip", b"1\r\n2\r\n", b"1\n2\n", True),
        ("rstrip", b" 1", b"1", False),
        ("rstrip", b"1\n\n2", b"1\n2", False),
        ("rstrip", b"", b"\n\n", True),
        ("tokens", b" 1   2\n\n3", b"1 2 3\n", True),
        ("tokens", b"1 2", b"12", False),
        ("tokens", b"1.0", b"1", False),
        ("float", b"1.0000000001 x", b"1 x", True),
        ("float", b"1.1 x", b"1 x", False),
        ("float", b"1", b"1 2", False),
        ("float", b"nan inf", b"nan inf", True),
        ("float", b"nan", b"1", False),
        ("float", b"\xff", b"\xff", True),
        ("float", b"1e400", b"inf", True),
        ("float", b"9" * 10_000, b"9" * 10_001, False),
    ],
)
def test_printed_output(mode: Any, got: bytes, expected: bytes, same: bool) -> None:
    assert same_output(got, expected, mode) is same


def test_the_tolerance_of_printed_floats_can_be_chosen() -> None:
    assert same_output(b"1.01", b"1", "float", rel_tol=0.1)
    assert not same_output(b"1.01", b"1", "float")


def tree(value: Any) -> Any:
    return codec.loads(codec.dumps(codec.encode(value)))


@pytest.mark.parametrize(
    ("got", "expected", "same"),
    [
        (3, 3, True),
        (3, 4, False),
        (3, 3.0, True),
        (True, 1, True),
        ("3", 3, False),
        (None, None, True),
        (None, False, False),
        (0, "", False),
        ((1, 2), [1, 2], True),
        ([1, [2, (3,)]], [1, [2, [3]]], True),
        ([1, 2], [2, 1], False),
        ([1, 2], [1, 2, 3], False),
        ({"a": 1}, {"a": 1.0}, True),
        ({1: "x"}, {"1": "x"}, True),
        ({None: 1, True: 2, 1.5: 3}, {"null": 1, "true": 2, "1.5": 3}, True),
        ({"a": 1}, {"a": 2}, False),
        ({"a": 1}, {"b": 1}, False),
        ({1, 2}, {2, 1}, True),
        ({1, 2}, [1, 2], False),
        ({1, 2}, {1, 3}, False),
        ({(1, "a")}, {(1, "a")}, True),
        ({1.0}, {1}, True),
        (b"x", b"x", True),
        (b"x", "x", False),
        (range(3), [0, 1, 2], False),
        (2**5000, 2**5000, True),
        (2**5000, 2**5000 + 1, False),
        (float("nan"), float("nan"), True),
        (float("nan"), 1.0, False),
        (float("inf"), float("inf"), True),
        ([], {}, False),
        ({}, {}, True),
        ("", [], False),
        (1, [1], False),
        ({"1": 1, 1: 2}, {"1": 2}, True),
    ],
)
def test_returned_values(got: Any, expected: Any, same: bool) -> None:
    assert same_value(tree(got), expected) is same


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.sets(st.integers() | st.text()),
    max_leaves=15,
)


@given(plain, plain)
@settings(max_examples=100, deadline=None)
def test_returned_values_compare_as_python_does(got: Any, expected: Any) -> None:
    assert same_value(tree(got), got)
    assert same_value(tree(got), expected) is (got == expected)


def test_a_tolerance_reaches_every_float() -> None:
    got, expected = tree([0.1 + 0.2, {"a": (1.0000000001, 5)}]), [0.3, {"a": [1, 5]}]
    assert not same_value(got, expected)
    assert same_value(got, expected, rel_tol=1e-6)
    assert not same_value(tree([1.1]), [1], rel_tol=1e-6)
    assert not same_value(tree(10**400), 1.5, rel_tol=1e-6)


def test_a_handle_anywhere_is_opaque() -> None:
    handle = {"t": "h", "mine": True, "id": 1, "type": "Yes"}
    for hostile in (handle, [handle], {"t": "dict", "v": [[1, handle]]}, {"t": "tuple", "v": [1, handle]}):
        with pytest.raises(Opaque, match="Yes"):
            same_value(hostile, 5)


@pytest.mark.parametrize(
    "hostile",
    [{"t": "dict", "v": [1]}, {"t": "dict", "v": "x"}, {"t": "?"}, {}, {"t": ["x"]}, {"t": "int", "v": "zz"}],
)
def test_a_malformed_tree_is_a_codec_error(hostile: Any) -> None:
    with pytest.raises(codec.CodecError):
        same_value(hostile, 5)


def test_colliding_hashes_cost_nothing_extra() -> None:
    """Integers chosen to collide in a dict or set would cost minutes if the judge rebuilt one of them."""
    modulus = (1 << 61) - 1
    colliding = [k * modulus for k in range(1, 60_000)]
    hostile = {"t": "set", "v": colliding}
    began = time.monotonic()
    assert not same_value(hostile, {1})
    assert not same_value({"t": "dict", "v": [[k, 0] for k in colliding]}, {"1": 1})
    assert time.monotonic() - began < 5
