"""Structured logs on stderr: one JSON object per line; on a terminal a line that people read, with the same fields.

Prompts, completions and programs are not logged unless `log_payloads` is set.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any, Literal

# Attributes that every record has; any other came with `extra` and becomes a field of the line.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


class JsonFormatter(logging.Formatter):
    """A record as one line: time (UTC), level, logger, message, the fields of `extra`, and the exception if any."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextFormatter(logging.Formatter):
    """A record as a line for people: local time, level, logger, message, fields; a traceback below it."""

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%H:%M:%S", time.localtime(record.created)) + f".{int(record.msecs):03d}"
        fields = "".join(f"  {name}={_word(value)}" for name, value in _fields(record).items() if value != "")
        name = record.name.removeprefix("plaudit.")
        line = f"{at} {record.levelname.lower():<7} {name}: {record.getMessage()}{fields}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """What came with `extra`."""
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _word(value: Any) -> str:
    """A value that cannot be taken for two fields, nor end the line."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if text.isprintable() and not any(char in text for char in ' "=') else json.dumps(text)


def configure(level: str, form: Literal["auto", "text", "json"] = "auto") -> None:
    """Send the logs of this process to stderr, from a level on; replaces the root logger's handlers.

    Args:
        level: The lowest that is logged.
        form: "auto" is "text" where stderr is a terminal, and "json" elsewhere.
    """
    handler = logging.StreamHandler(sys.stderr)
    text = form == "text" or (form == "auto" and sys.stderr.isatty())
    handler.setFormatter(TextFormatter() if text else JsonFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for noisy in ("httpx", "httpcore", "urllib3", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
