"""Results by key, appended as they come: what a kill takes from a stage is what was in flight.

A row is one line, flushed before the next begins; a last line that a kill cut short is taken off when the file is
opened again, or the next row would be glued to it. Of two rows with one key the later counts.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Self

from training.pipeline.run import read_jsonl


class Journal:
    """A context manager. `rows` is everything on record, by the row's `key`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, dict[str, Any]] = {}
        if path.is_file():
            text = path.read_bytes()
            if text and not text.endswith(b"\n"):
                path.write_bytes(text[: text.rfind(b"\n") + 1])
            self.rows = {row["key"]: row for row in read_jsonl(path)}

    def __enter__(self) -> Self:
        self._out = self.path.open("a", encoding="utf-8")
        return self

    def __exit__(self, *error: object) -> None:
        self._out.close()

    def add(self, row: dict[str, Any]) -> None:
        self._out.write(json.dumps(row, ensure_ascii=False) + "\n")
        self._out.flush()
        self.rows[row["key"]] = row
