"""What other people's code raises, as part of a message of ours."""

from __future__ import annotations

MAX_CHARACTERS = 500


def one_line(error: BaseException) -> str:
    """The type and the message of an exception, on one line of bounded length."""
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words[:MAX_CHARACTERS]}{' …' if len(words) > MAX_CHARACTERS else ''}"
