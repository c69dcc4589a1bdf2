"""Keeps a report within its size limit, whatever a program, a compiler or the number of tests puts into it.

A report takes at most `bounds.MAX_REPORT_BYTES` written as JSON, its requested output (`Report.output`) apart. Where
the texts are too long for that, the longest are cut first, all to the same length; where there are more tests than can
be listed with their verdicts alone, the last ones are not listed. `passed`, `total` and the verdict always count all of
them. The flag `report_truncated` says that something was left out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

from sandbox.judge import bounds
from sandbox.judge.bounds import encodable
from sandbox.types import CompileReport, Report, TestReport

TRUNCATED = "report_truncated"
TEST_BYTES = 200  # of one test without its texts: names of the fields, verdict, times
REST_BYTES = 2_000 + bounds.MAX_FLAGS * (bounds.MAX_NAME + 4)
TEXTS_BYTES = 32 * 1024  # left for texts, however many tests there are
MAX_LISTED = (bounds.MAX_REPORT_BYTES - REST_BYTES - TEXTS_BYTES) // TEST_BYTES
SHORT_TESTS, SHORT_CHARS = 100, 16 * 1024  # of a report that fits whatever its texts hold
WORST = 6  # bytes that one character takes in JSON at most: a control character as an escape
ELLIPSIS = "…"

Part = TypeVar("Part", TestReport, CompileReport)


def bounded(report: Report) -> Report:
    """`report`, cut to the size limit. Every text of it can be written as UTF-8."""
    if is_short(report):
        return report
    flags = tuple(bounds.text(encodable(flag), bounds.MAX_NAME) for flag in report.flags[: bounds.MAX_FLAGS - 1])
    listed = tuple(map(with_encodable_texts, report.tests[:MAX_LISTED]))
    compiled = None if report.compile is None else with_encodable_texts(report.compile)
    room = bounds.MAX_REPORT_BYTES - REST_BYTES - TEST_BYTES * len(listed)
    texts = [text for part in (*listed, compiled) for text in texts_of(part).values()]
    is_complete = len(listed) == len(report.tests) and len(flags) == len(report.flags)
    if WORST * sum(map(len, texts)) > room and sum(sizes := [*map(written, texts)]) > room:
        most, is_complete = fair_share(sizes, room), False
        listed = tuple(cut(test, most) for test in listed)
        compiled = None if compiled is None else cut(compiled, most)
    return replace(
        report, tests=listed, compile=compiled, flags=flags if is_complete else tuple(sorted({*flags, TRUNCATED}))
    )


def is_short(report: Report) -> bool:
    """Whether nothing has to be changed, by a quick check: few tests and flags, short texts, all ASCII."""
    if len(report.tests) > SHORT_TESTS or len(report.flags) >= bounds.MAX_FLAGS or report.compile is not None:
        return False
    size, plain = 0, True
    for test in report.tests:
        for text in (test.stdout, test.stderr, test.detail, test.name):
            size += len(text)
            plain = plain and text.isascii()
    named = all(len(flag) <= bounds.MAX_NAME and flag.isascii() for flag in report.flags)
    return plain and named and size <= SHORT_CHARS


def texts_of(part: Any) -> dict[str, str]:
    names = ("stdout", "stderr", "detail", "name")
    return {name: text for name in names if (text := getattr(part, name, ""))}


def with_encodable_texts(part: Part) -> Part:
    """The part with texts that can be written as UTF-8."""
    changed: dict[str, Any] = {name: encodable(text) for name, text in texts_of(part).items() if not text.isascii()}
    return replace(part, **changed) if changed else part


def written(text: str) -> int:
    """How many bytes a text takes in JSON, its quotes not counted."""
    return len(text) if text.isalnum() and text.isascii() else len(json.dumps(text, ensure_ascii=False).encode()) - 2


def fair_share(sizes: Sequence[int], room: int) -> int:
    """The most that each text may take so that all of them fit. What short texts do not use goes to the others."""
    left = room
    for done, size in enumerate(ordered := sorted(sizes)):
        share = left // (len(ordered) - done)
        if size > share:
            return share
        left -= size
    return max(sizes, default=0)


def cut(part: Part, most: int) -> Part:
    """The part with each text cut to `most` bytes: its beginning is kept, of stderr the end."""
    changed: dict[str, Any] = {
        name: shortened(text, most, end=name == "stderr")
        for name, text in texts_of(part).items()
        if WORST * len(text) > most
    }
    return replace(part, **changed)


def shortened(text: str, most: int, *, end: bool) -> str:
    if (size := written(text)) <= most:
        return text
    keep = most - len(ELLIPSIS.encode())
    while text and size > keep:
        num = max(0, min(len(text) - 1, len(text) * keep // size))
        text = text[len(text) - num :] if end else text[:num]
        size = written(text)
    return ELLIPSIS + text if end else text + ELLIPSIS
