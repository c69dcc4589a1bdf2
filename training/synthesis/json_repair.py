"""JSON as models write it: fenced, with a sentence before it, cut off at the token limit, with quotes or commas wrong.

What is valid JSON is read as it is. The rest goes to the `json-repair` package, with two rules of our own:

- Nothing is invented: where the reply was cut inside a string, that string is dropped with its member or element.
- An object in Python's spelling is read by Python. One that was cut is not repaired, because its quotes do not say
  where a string ends.
"""

from __future__ import annotations

import ast
import json
import re
from typing import Any

from plaudit.extract import answer, last_fence

_ESCAPED = re.compile(r"\\.", re.DOTALL)
_PYTHON = re.compile(r"\{\s*'")


def object_of(text: str) -> tuple[dict[str, Any], bool] | None:
    """The JSON object in a model's reply, and whether it was repaired; None for what is beyond repair."""
    body = answer(text).strip()
    if not body.startswith("{"):
        body = (last_fence(text) or body[max(body.find("{"), 0) :]).strip()
    try:
        value, end = json.JSONDecoder(strict=False).raw_decode(body)  # models break lines inside strings
    except (ValueError, RecursionError):
        repaired = _repaired(body)
        return (repaired, True) if isinstance(repaired, dict) else None
    return (value, end < len(body)) if isinstance(value, dict) else None


def _repaired(body: str) -> Any:
    if _PYTHON.match(body):
        try:
            return ast.literal_eval(body)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
    import json_repair

    try:
        value = json_repair.loads(body, skip_json_loads=True)
    except ValueError:  # nested too deeply
        return None
    if isinstance(value, list):  # the object, and what the package took for another one behind it
        value = next((item for item in value if isinstance(item, dict)), None)
    if value and isinstance(value, dict) and _ESCAPED.sub("", body).count('"') % 2:
        _drop_last(value)
    return value


def _drop_last(value: Any) -> None:
    """Remove the innermost last member or element of an object or a list that is not empty."""
    place = next(reversed(value)) if isinstance(value, dict) else len(value) - 1
    if isinstance(value[place], dict | list) and value[place]:
        _drop_last(value[place])
    else:
        del value[place]
