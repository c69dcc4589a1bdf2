"""The table of bounds and what cuts by it: counting a message, cutting a text, fitting a report, reading last words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.exceptions import ConnectionError as BrokenConnection
from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError

from sandbox.judge import bounds, codec
from sandbox.judge.compare import close_words, least_output, same_output
from sandbox.judge.report_limits import fair_share, shortened, written
from sandbox.last_words import no_memory, not_parsed
from service.worker.loop import is_rejection

json_values = st.recursive(
    st.none() | st.integers() | st.text(alphabet='a,[{]}"\\\x00é\ud800'),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(alphabet='",[\\'), inner),
    max_leaves=20,
)


def counted(value: Any) -> tuple[int, int]:
    """Values and containers, by walking."""
    if not isinstance(value, list | dict):
        return 1, 0
    inner = [counted(item) for item in (value if isinstance(value, list) else value.values())]
    return 1 + sum(nodes for nodes, _ in inner), 1 + sum(containers for _, containers in inner)


@given(json_values)
@settings(max_examples=300, deadline=None)
def test_a_message_is_counted_past_its_strings(value: Any) -> None:
    data = json.dumps(value, separators=(",", ":")).encode()
    nodes, containers = counted(value)
    limits = (max(1, nodes), containers)  # so low that only the careful way can say that it fits
    found = bounds.count(data, *limits)
    assert found[1] == containers
    assert nodes <= found[0] <= nodes + containers  # an empty list counts for one value more


@pytest.mark.parametrize("part", ["\\\\", '\\"', "\\u002c", ",", "[", "\\\\,", 'x\\"[,'])
def test_strings_that_cross_the_scanned_parts_are_not_counted(part: str) -> None:
    for shift in range(4):
        text = "x" * (bounds.SCANNED_BYTES - 3 + shift) + part * 50_000
        assert bounds.count(f'["{text}","{text}"]'.encode(), 10, 5)[1] == 1


def test_the_count_stops_where_the_limit_is_passed() -> None:
    assert bounds.count(b"[" + b"[]," * 1000 + b"1]", 10**6, 10)[1] > 10
    with pytest.raises(codec.CodecError, match="more than 10 lists and objects"):
        codec.loads(b"[" + b"[]," * 1000 + b"1]", 10)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("abc", "abc"),
        ("x" * 600, "x" * 500 + "…"),
        (None, "None"),
        (3, "3"),
        (True, "True"),
        (1.5, "1.5"),
        ([1], "<a list>"),
        ({"a": 1}, "<a dict>"),
        (2**4000, "<a large int>"),
    ],
)
def test_a_text_of_anything_is_short(value: Any, said: str) -> None:
    assert bounds.text(value) == said


@given(st.lists(st.integers(0, 1000), min_size=1), st.integers(0, 20_000))
def test_a_fair_share_fits_and_leaves_nothing_out_that_need_not_be(sizes: list[int], room: int) -> None:
    share = fair_share(sizes, room)
    assert sum(min(size, share) for size in sizes) <= room
    if sum(sizes) > room:
        assert sum(min(size, share + 1) for size in sizes) > room
    else:
        assert share >= max(sizes)


@given(st.text(min_size=1, max_size=300), st.integers(6, 100), st.booleans())
def test_a_shortened_text_takes_what_it_may(text: str, most: int, end: bool) -> None:
    text = text.encode("utf-8", "replace").decode()
    cut = shortened(text, most, end=end)
    assert written(cut) <= most
    assert cut == text or (text.endswith(cut[1:]) if end else text.startswith(cut[:-1]))


@pytest.mark.parametrize(
    ("stderr", "memory", "parsed"),
    [
        (b"", False, True),
        (b"  File \"/tmp/main.py\", line 1\n    x = (\n        ^\nSyntaxError: '(' was never closed\n", False, False),
        (b"Traceback (most recent call last):\n  ...\nSyntaxError: x\n", False, True),
        (b"Traceback (most recent call last):\n  ...\nMemoryError\n", True, True),
        (b"Traceback\nnumpy._core._exceptions._ArrayMemoryError: Unable to allocate 8 TiB\n", True, True),
        (b"Traceback (most recent call last):\n  ...\nValueError: MemoryError\n", False, True),
        (b"terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc\n", True, True),
        (b"terminate called after throwing an instance of 'std::out_of_range'\n", False, True),
        (b'Exception in thread "main" java.lang.OutOfMemoryError: Java heap space\n\tat Main.main\n', True, True),
        (b"memory allocation of 109951162777600 bytes failed\n", True, True),
        (b"fatal error: runtime: out of memory\n", True, True),
        (b"Out of memory!\n", True, True),
        (b"\xff\xfe", False, True),
    ],
)
def test_last_words(stderr: bytes, memory: bool, parsed: bool) -> None:
    assert no_memory(stderr) is memory
    assert not_parsed(stderr) is not parsed


@pytest.mark.parametrize(
    ("got", "expected", "same"),
    [
        (b"5", b"+5", True),
        (b"05", b"5", True),
        (b"-0", b"0", True),
        (b"-5", b"5", False),
        (b"5", b"6", False),
        (b"1000001", b"1000000", False),
        (b"1000000.5", b"1000000", True),
        (b"9" * 500, b"9" * 500, True),
        (b"9" * 500, b"9" * 499 + b"8", False),
        (b"+", b"-", False),
        (b"1_0", b"10", False),
    ],
)
def test_integers_are_close_only_if_equal(got: bytes, expected: bytes, same: bool) -> None:
    assert close_words(got, expected, 1e-5) is same


def test_no_more_is_taken_apart_than_was_expected() -> None:
    for mode in ("tokens", "float", "rstrip"):
        assert not same_output(b"a\n" * 5_000_000, b"a\na\n", mode)  # type: ignore[arg-type]
        assert same_output(b"a\na\n", b"a\na\n", mode)  # type: ignore[arg-type]
    assert [least_output(b" a  b \n\n", mode) for mode in ("exact", "rstrip", "tokens", "float")] == [8, 5, 3, 0]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), True),
        (ResponseError("string exceeds maximum allowed size (proto-max-bulk-len)"), True),
        (ResponseError("MISCONF Redis is configured to save RDB snapshots"), False),
        (ReadOnlyError("You can't write against a read only replica."), False),
        (BrokenConnection("gone"), False),
    ],
)
def test_a_refusal_is_no_outage(error: Exception, said: bool) -> None:
    assert is_rejection(error) is said
