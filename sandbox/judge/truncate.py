"""Printed bytes as text for a person to read, cut to a size that can travel in a report."""

from __future__ import annotations

SHOWN_CHARS = 4000


def shown_head(data: bytes) -> str:
    """The beginning of `data`, undecodable bytes replaced."""
    text = data[: 4 * SHOWN_CHARS].decode("utf-8", "replace")
    return text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "…"


def shown_tail(data: bytes) -> str:
    """The end of `data`, where a traceback says what happened."""
    text = data[-4 * SHOWN_CHARS :].decode("utf-8", "replace")
    return text if len(text) <= SHOWN_CHARS else "…" + text[-SHOWN_CHARS:]


def sayable(text: str) -> str:
    """`text` as it can be written in UTF-8: a reason may quote half a surrogate pair of the program's making."""
    return text.encode("utf-8", "backslashreplace").decode()
