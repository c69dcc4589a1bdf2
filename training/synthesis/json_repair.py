"""JSON as models write it: fenced, with a sentence before it, cut off at the token limit, with commas too many.

`object_of` gives the object and whether it had to be repaired; what is beyond repair is None, and the caller counts it.
A repair never invents: it takes text off, closes what was open, and doubles a backslash that JSON does not know.
"""

from __future__ import annotations

import ast
import json
import re
from typing import Any

from plaudit.extract import answer, last_fence

_ESCAPE = re.compile(r'\\(?!["\\/bfnrt]|u[0-9a-fA-F]{4})')
_COMMA = re.compile(r",(\s*[\]}])")


def object_of(text: str) -> tuple[dict[str, Any], bool] | None:
    """The JSON object in a model's reply, and whether it is other than what was written."""
    body = answer(text).strip()
    if not body.startswith("{"):
        body = (last_fence(text) or body[max(body.find("{"), 0) :]).strip()
    whole = _loads(body)
    if whole is not None:
        return whole[0], whole[1] < len(body)
    for attempt in (body, _COMMA.sub(r"\1", body), _closed(body)):
        for spelled in (attempt, _ESCAPE.sub(r"\\\\", attempt)):
            found = _loads(spelled)
            if found is not None:
                return found[0], True
    try:
        literal = ast.literal_eval(body)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return (literal, True) if isinstance(literal, dict) else None


def _loads(text: str) -> tuple[dict[str, Any], int] | None:
    """The object at the beginning of the text, and where it ends."""
    try:
        found, end = json.JSONDecoder(strict=False).raw_decode(text)  # models break lines inside strings
    except (ValueError, RecursionError):
        return None
    return (found, end) if isinstance(found, dict) else None


def _closed(text: str) -> str:
    """The text up to its last whole list element or member, with what is open there closed."""
    stack: list[str] = []
    best, closing = 0, ""
    in_string = escaped = False
    for at, character in enumerate(text):
        if in_string:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == '"':
                in_string = False
                if stack and stack[-1] == "]":
                    best, closing = at + 1, "".join(reversed(stack))
        elif character == '"':
            in_string = True
        elif character in "[{":
            stack.append("]" if character == "[" else "}")
        elif character in "]}" and stack:
            stack.pop()
            best, closing = at + 1, "".join(reversed(stack))
        elif character == "," and stack:
            best, closing = at, "".join(reversed(stack))
    return text[:best] + closing
