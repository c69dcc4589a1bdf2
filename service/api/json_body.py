"""A large JSON body, parsed a piece at a time.

- `json.loads` holds the interpreter lock while it runs: for seconds, if 64 MB hold small values. Here it gets at most
  about `PIECE_BYTES` at a time, so a thread that parses lets the event loop run in between.
- A string that is longer than a piece is decoded piece by piece, too.
- What the values would take in memory is estimated as they are read. A body that would take more than `MAX_GROWTH`
  times its size, beyond a floor, is rejected before it has.
- The result is that of `json.loads`, and so are the errors, except for their positions.
"""

from __future__ import annotations

import itertools
import json
import re
import uuid
from dataclasses import dataclass, field
from typing import Any

from plaudit.errors import TooLarge

NOT_UTF8_JSON = "body: it is not JSON in UTF-8"
PIECE_BYTES = 256 * 1024
MAX_DEPTH = 500  # lists and objects within each other
MAX_VALUES = 4_000_000  # a list or an object counts as four
MAX_GROWTH = 8
GROWTH_FLOOR_BYTES = 64 * 1024 * 1024
LIST_BYTES, OBJECT_BYTES, ENTRY_BYTES, STRING_BYTES = 72, 200, 16, 56  # in CPython, rounded

QUOTE, COMMA, LIST, LIST_END, OBJECT, OBJECT_END = b'",[]{}'
_PLAIN = re.compile(rb'[^"\[\]{},]{0,65536}+')
# No piece ends inside an escape, nor between the two escapes of a surrogate pair.
_STRING = re.compile(rb'(?:[^"\\]{1,8192}+|\\u[dD][89abAB][^"\\]{2}\\u[^"\\]{4}|\\u[^"\\]{4}|\\[^u]){0,64}+', re.DOTALL)


def load(body: bytes) -> Any:
    """The value of a JSON text in UTF-8. Raises ValueError for what is not JSON, TooLarge for too many values."""
    return json.loads(body) if len(body) <= PIECE_BYTES else _Reader(body).read()


@dataclass(slots=True)
class _Open:
    """A list or an object that has begun.

    Args:
        is_object: whether it is an object.
        start: where its first value begins.
        raw_from: up to where it has been parsed.
        values: what has been parsed of it.
        is_parsed: whether anything of it has been; otherwise it is still part of its parent's text.
        has_value: whether the value at `raw_from` was put there already.
    """

    is_object: bool
    start: int
    raw_from: int
    values: Any = field(init=False)
    is_parsed: bool = False
    has_value: bool = False

    def __post_init__(self) -> None:
        self.values = {} if self.is_object else []


class _Reader:
    """One pass over a body: finds the structure, and gives the text between to `json.loads`."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.num_values = 0
        self.num_bytes = 0
        self.max_bytes = max(GROWTH_FLOOR_BYTES, MAX_GROWTH * len(body))
        self.placeholder = uuid.uuid4().hex
        self.stack = [_Open(False, 0, 0)]  # the whole text is read as the content of a list

    def read(self) -> Any:
        body, size, at = self.body, len(self.body), 0
        while (at := _end(_PLAIN, body, at)) < size:
            character = body[at]
            if character == QUOTE:
                at = self._string(at)
                continue
            if character == COMMA:
                self._comma(at)
            elif character in (LIST, OBJECT):
                self._begin(at, is_object=character == OBJECT)
            elif character in (LIST_END, OBJECT_END):
                self._close(at, is_object=character == OBJECT_END)
            else:
                continue  # a long stretch without structure
            at += 1
        if len(self.stack) > 1:
            raise self._error("a list or an object does not end", size)
        whole = self.stack[0]
        self._parse(whole, size, last=True)
        if len(whole.values) != 1:
            raise self._error("there is no value", 0)
        return whole.values[0]

    def _count(self, num_values: int, num_bytes: int) -> None:
        self.num_values += num_values
        self.num_bytes += num_bytes
        if self.num_values > MAX_VALUES:
            raise TooLarge(f"body: more than {MAX_VALUES} values (a list or an object counts as four)")
        if self.num_bytes > self.max_bytes:
            raise TooLarge(f"body: so many small values take more than {self.max_bytes} bytes of memory")

    def _begin(self, at: int, *, is_object: bool) -> None:
        self._count(4, OBJECT_BYTES if is_object else LIST_BYTES)
        if len(self.stack) > MAX_DEPTH:
            raise self._error(f"more than {MAX_DEPTH} lists and objects within each other", at)
        self.stack.append(_Open(is_object, at + 1, at + 1))

    def _comma(self, at: int) -> None:
        self._count(1, ENTRY_BYTES)
        top = self.stack[-1]
        if len(self.stack) == 1:
            raise self._error("there is more than one value", at)
        if top.has_value or at - top.raw_from > PIECE_BYTES:
            self._parse(top, at, last=False)

    def _close(self, at: int, *, is_object: bool) -> None:
        top = self.stack.pop()
        if not self.stack or top.is_object != is_object:
            raise self._error("a list or an object ends that has not begun", at)
        if top.is_parsed or at - top.start > PIECE_BYTES:
            self._parse(top, at, last=True)
            self._put(top.values, top.start - 1, at + 1)

    def _parse(self, container: _Open, end: int, *, last: bool) -> None:
        """Parse what has not been of a container, up to `end`, where it ends or a comma stands."""
        raw = self.body[container.raw_from : end]
        if container.has_value:
            if raw.strip(b" \t\r\n"):
                raise self._error("a comma is missing", container.raw_from)
        else:
            values = json.loads(b"{%b}" % raw if container.is_object else b"[%b]" % raw)
            if not values and (container.is_parsed or not last):
                raise self._error("a value is missing", end)
            self._add(container, values)
        container.is_parsed, container.has_value, container.raw_from = True, False, end + 1

    def _put(self, value: Any, start: int, end: int) -> None:
        """Put a value that was read on its own, from `start` to `end`, into the container that it stands in."""
        container = self.stack[-1]
        if container.has_value:
            raise self._error("a comma is missing", start)
        raw = self.body[container.raw_from : start]
        if container.is_object:
            entries = json.loads(b'{%b"%b"}' % (raw, self.placeholder.encode()))
            names = [name for name, entry in entries.items() if entry == self.placeholder]
            self._add(container, entries | {names[0]: value})
        else:
            values = json.loads(b"[%bnull]" % raw)
            values[-1] = value
            self._add(container, values)
        container.is_parsed, container.has_value, container.raw_from = True, True, end

    @staticmethod
    def _add(container: _Open, values: Any) -> None:
        if container.is_object:
            container.values.update(values)
        else:
            container.values.extend(values)

    def _string(self, start: int) -> int:
        """Read over a string, and return where it ends. A long one is decoded and put in its place."""
        body, size = self.body, len(self.body)
        self._count(0, STRING_BYTES)
        cuts = [start + 1]
        while True:
            at = _end(_STRING, body, cuts[-1])
            if at >= size:
                raise self._error("a string does not end", start)
            if body[at] == QUOTE:
                break
            while body[at] & 0xC0 == 0x80:  # inside a character of several bytes
                at -= 1
            if at <= cuts[-1]:
                raise self._error("an escape in a string is not one", at)
            cuts.append(at)
        cuts.append(at)
        if at - start > PIECE_BYTES:
            pieces = itertools.pairwise(cuts)
            self._put("".join([json.loads(b'"%b"' % body[left:right]) for left, right in pieces]), start, at + 1)
        return at + 1

    def _error(self, reason: str, at: int) -> json.JSONDecodeError:
        return json.JSONDecodeError(reason, "", at)


def _end(pattern: re.Pattern[bytes], body: bytes, at: int) -> int:
    match = pattern.match(body, at)
    assert match is not None  # the patterns match the empty text
    return match.end()
