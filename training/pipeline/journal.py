"""Results by key, appended as they come, so that a kill costs a stage only what was in flight.

- A row is one line, flushed before the next begins.
- A last line that a kill cut short is removed when the file is opened again.
- Of two rows with one key the later counts.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Self

from training.pipeline.files import read_jsonl


class Journal:
    """A context manager. `rows` holds every recorded row by its `key`."""

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
        """Append a row; from then on a kill of this process does not lose it."""
        self._out.write(json.dumps(row, ensure_ascii=False) + "\n")
        self._out.flush()
        self.rows[row["key"]] = row
