"""Bounds of a program's output: one table, and the functions that cut output where it enters.

A program sends messages (frames of JSON), texts inside them (reasons, names) and its standard streams. Every reader
(the judge on the host, the test process, the codec between them) takes its sizes from this table and its texts through
`text`. So nothing that a program made exceeds these bounds. Output past a bound is the program's `invalid_result`.

Bounds count bytes, characters and parts, never seconds: the verdict on an answer must not depend on the load of the
host. They are chosen so that the judge needs less than about 0.3 s of CPU time per message.

This file also runs inside the jail, so it imports nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Messages.
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
MAX_DEPTH = 200
MAX_NODES = 2_000_000  # values of a message, keys of its objects not counted
MAX_JUDGED_CONTAINERS = 250_000  # lists and objects of a message that the host itself compares
MAX_JUDGED_ITEMS = 150_000  # of all its sets and keys, which have to be found again
MAX_WORD_BYTES = 64 * 1024  # of what the test process says to the host: a verdict and a reason
MAX_LITERAL_BYTES = 256 * 1024  # of an answer to an assert that the host compares without a test process
MAX_ALIKE = 100  # keys of one hash that a key of a table has beside it on average: it is compared with each of them
MAX_INT_BITS = 1 << 22
MAX_ARRAY_BYTES = 64 * 1024 * 1024  # of a numpy array that a message describes

# Texts, in characters.
MAX_NAME = 200  # of an exception, a type, a named tuple, a field, an attribute
MAX_DTYPE = 40
MAX_ERROR = 2_000  # message of an exception
MAX_REASON = 500  # of a limit, the codec or a failed assert
MAX_DETAIL = 2_500  # of a test's report: a name, a message, and a short explanation
MAX_FIELDS = 255  # of a named tuple

# Of one pair of processes, and of one test.
MAX_HANDLES = 250_000
MAX_MESSAGES = 2_000_000

# Reports. Requested output (`Report.output`) is bounded by `limits.output_kb` instead.
MAX_REPORT_BYTES = 256 * 1024
MAX_FLAGS = 64

SHOWN_CHARS = 4000  # of what a program printed

SCANNED_BYTES = 1 << 16


def text(value: Any, most: int = MAX_REASON) -> str:
    """`value`, which may be anything that a message can hold, as a text of at most `most` characters and an ellipsis.

    Only a text, a number or a constant is quoted; of a list or an object just the kind is said.
    """
    kind = type(value)
    if kind is int and not -(1 << 128) < value < 1 << 128:
        return "<a large int>"
    if kind is not str:
        value = repr(value) if value is None or kind in (bool, int, float) else f"<a {kind.__name__}>"
    return value if len(value) <= most else f"{value[:most]}…"


def count(data: bytes, most_nodes: int = MAX_NODES, most_containers: int = MAX_NODES) -> tuple[int, int]:
    """How many values and how many containers a message of JSON holds, or more than the limits where it is too many.

    Looks at the bytes only. What stands inside strings is not counted; where the bytes are not JSON the figures hold
    for the part that is.
    """
    containers = data.count(b"[") + data.count(b"{")
    nodes = containers + data.count(b",") + 1
    if nodes <= most_nodes and containers <= most_containers:
        return nodes, containers
    nodes, containers, inside, at = 1, 0, 0, 0
    while at < len(data) and nodes <= most_nodes and containers <= most_containers:
        part = data[at : at + SCANNED_BYTES]
        at += len(part)
        if at < len(data) and (len(part) - len(part.rstrip(b"\\"))) % 2:  # an escape goes on in the next part
            part, at = part[:-1], at - 1
        pieces = part.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        outside = b" ".join(pieces[inside::2])
        inside = (inside + len(pieces) - 1) % 2
        opened = outside.count(b"[") + outside.count(b"{")
        containers += opened
        nodes += opened + outside.count(b",")
    return nodes, containers


def shown_head(data: bytes) -> str:
    """The beginning of `data`, undecodable bytes replaced."""
    text = data[: 4 * SHOWN_CHARS].decode("utf-8", "replace")
    return text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "…"


def shown_tail(data: bytes) -> str:
    """The end of `data`, where a traceback says what happened."""
    text = data[-4 * SHOWN_CHARS :].decode("utf-8", "replace")
    return text if len(text) <= SHOWN_CHARS else "…" + text[-SHOWN_CHARS:]


def encodable(text: str) -> str:
    """`text` in a form that UTF-8 can encode: a reason may quote half a surrogate pair that the program made."""
    return text.encode("utf-8", "backslashreplace").decode()
