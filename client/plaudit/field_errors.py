"""What is wrong with a request, field by field, in words for whoever wrote it.

Client, command line and service say it alike. An unknown field comes first: where a name is misspelt, the field that is
missing is the same mistake.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

MAX_SHOWN = 3  # in one sentence


def by_field(errors: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """Path, message and type of each of pydantic's errors, unknown fields first.

    Args:
        errors: What `ValidationError.errors()` gives, or the framework's with "body" before each path.

    Returns:
        The path is empty where the message itself says which field it is about.
    """
    rows = [(_path(error["loc"]), error) for error in errors]
    missing = {path for path, error in rows if error["type"] == "missing"}
    described = [(path, _message(path, error, missing), str(error["type"])) for path, error in rows]
    return sorted(described, key=lambda row: row[2] != "extra_forbidden")


def sentence(errors: Sequence[Mapping[str, Any]]) -> str:
    """The first few errors in one line, and how many more there are."""
    rows = by_field(errors)
    shown = "; ".join(f"{path}: {message}" if path else message for path, message, _ in rows[:MAX_SHOWN])
    return f"{shown} (and {len(rows) - MAX_SHOWN} more)" if len(rows) > MAX_SHOWN else shown


def not_json(message: str, position: int, text: str) -> str:
    """Where a body stops being JSON.

    Args:
        message: The parser's own, such as "Expecting value".
        position: Of the character, from 0.
        text: The whole body, as far as it could be decoded; empty: the line is not known.
    """
    if not text:
        return f"not JSON: {message} at character {position + 1}"
    line, column = text.count("\n", 0, position) + 1, position - text.rfind("\n", 0, position)
    return f"not JSON: {message} at line {line}, column {column}"


def _path(location: Sequence[Any]) -> str:
    return ".".join(str(name) for name in location if name != "body")


def _message(path: str, error: Mapping[str, Any], missing: set[str]) -> str:
    match error["type"]:
        case "missing":
            return "is missing"
        case "extra_forbidden":
            parent, _, name = path.rpartition(".")
            siblings = [other.rpartition(".")[2] for other in missing if other.rpartition(".")[0] == parent]
            close = difflib.get_close_matches(name, siblings, n=1)
            return f"there is no such field; did you mean {close[0]!r}?" if close else "there is no such field"
    return str(error["msg"]).removeprefix("Value error, ")
