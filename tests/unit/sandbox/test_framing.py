"""Frames between two jailed processes, and the messages in them: written, cut and read as the slower way would."""

from __future__ import annotations

import json
import math
import socket
from typing import Any

import pytest

from plaudit.grading import Verdict
from sandbox.inside import framing
from sandbox.judge import bounds, codec
from sandbox.judge.report_limits import bounded
from sandbox.languages import jail_kind_of
from sandbox.types import Report, TestReport


def frame(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


@pytest.mark.parametrize(
    "parts",
    [
        [frame(b"one"), frame(b"two"), frame(b"")],
        [frame(b"one") + frame(b"two") + frame(b"")],
        [frame(b"one")[:2], frame(b"one")[2:5], frame(b"one")[5:] + frame(b"two")[:1], frame(b"two")[1:] + frame(b"")],
        [frame(b"one") + frame(b"two")[:6], frame(b"two")[6:], frame(b"")[:3], frame(b"")[3:]],
    ],
    ids=["one by one", "all at once", "in pieces", "across readings"],
)
def test_frames_come_out_as_they_went_in(parts: list[bytes]) -> None:
    class Pieces:
        def __init__(self) -> None:
            self.left = list(parts)

        def recv(self, size: int) -> bytes:
            if not self.left:
                return b""
            part, self.left[0] = self.left[0][:size], self.left[0][size:]
            if not self.left[0]:
                self.left.pop(0)
            return part

    frames = framing.Frames(Pieces())
    assert [frames.next() for _ in range(3)] == [b"one", b"two", b""]
    with pytest.raises(framing.Lost):
        frames.next()


def test_a_frame_larger_than_one_reading_comes_whole() -> None:
    data = bytes(range(256)) * 400
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(frame(data) + frame(b"next"))
        frames = framing.Frames(ours)
        assert frames.next() == data
        assert frames.next() == b"next"


def test_a_frame_that_is_announced_too_long_is_never_waited_for() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall((codec.MAX_MESSAGE_BYTES + 1).to_bytes(4, "big") + b"x")
        with pytest.raises(framing.Lost, match="was announced"):
            framing.Frames(ours).next()


@pytest.mark.parametrize(
    "tree",
    [{"op": "call", "args": [1, 2.5, None, True, "\ud800é"]}, [], "text", 7, -0.0, {"a": {"b": [[], {}]}}, 1e300],
    ids=repr,
)
def test_a_message_is_what_json_writes_and_reads_back_the_same(tree: Any) -> None:
    data = codec.dumps(tree)
    assert data == json.dumps(tree, separators=(",", ":")).encode()
    assert codec.loads(data) == tree


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b'{"a"}', b'{"a":}', b'{"a":1}x', b'{"a":NaN}', b"\xff", b'{"a":' + b"[" * 99_999, b'{"a":"\x01"}'],
    ids=lambda data: repr(data[:12]),
)
def test_what_is_no_message_is_refused_with_a_reason(data: bytes) -> None:
    with pytest.raises(codec.CodecError, match="malformed"):
        codec.loads(data)


def test_blanks_around_a_message_change_nothing() -> None:
    assert codec.loads(b' {"a": 1}\n') == {"a": 1} == codec.loads(b'{"a": 1} ')


def test_more_parts_than_allowed_are_refused_however_short_the_message() -> None:
    assert codec.loads(b"[[],[],[]]", most_containers=4) == [[], [], []]
    with pytest.raises(codec.CodecError, match="lists and objects"):
        codec.loads(b"[[],[],[]]", most_containers=3)


def test_a_short_report_is_given_out_as_it_is_and_a_long_one_is_cut() -> None:
    def report(*texts: str) -> Report:
        tests = tuple(TestReport(Verdict.WRONG_ANSWER, detail=text) for text in texts)
        return Report(Verdict.WRONG_ANSWER, 0, len(tests), tests, "split", "strong")

    short = report("plain")
    assert bounded(short) is short
    half = bounded(report("half a pair: \ud800"))
    assert half.tests[0].detail.encode() == b"half a pair: \\ud800"
    long = bounded(report(*["x" * 2_000] * 1_000))
    assert "report_truncated" in long.flags
    assert math.fsum(len(test.detail) for test in long.tests) < bounds.MAX_REPORT_BYTES


@pytest.mark.parametrize(
    ("source", "jail_kind"),
    [
        (b"print('statistics')", "light"),
        (b"import math\nprint(1)", "light"),
        (b"from statistics import *\n", "usual"),
        (b"import math, statistics\n", "usual"),
        (b"import ast\n", "usual"),
    ],
)
def test_a_program_starts_where_what_it_imports_is_warm(source: bytes, jail_kind: str) -> None:
    assert jail_kind_of(source) == jail_kind
