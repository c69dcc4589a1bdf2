"""Results by key, appended as they come, so that a kill costs a stage only what was in flight.

- A row is one line, flushed before the next begins.
- A last line that a kill cut short is removed when the file is opened again.
- Of two rows with one key the later counts.
- Memory holds the keys and where their rows are; a row is read from the file when it is asked for.
"""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import msgspec

READ_BYTES = 1 << 14  # at first; a longer row takes more reads


class _Keyed(msgspec.Struct, frozen=True):
    key: str


class Journal(Mapping[str, dict[str, Any]]):
    """A mapping of recorded rows by their `key`, readable at any time; a context manager for who adds to it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._places: dict[str, int] = {}
        self._end = 0
        if path.is_file():
            self._read_places()
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        weakref.finalize(self, os.close, self._descriptor)

    def __enter__(self) -> Self:
        self._out = self._path.open("ab")
        return self

    def __exit__(self, *error: object) -> None:
        self._out.close()

    def __getitem__(self, key: str) -> dict[str, Any]:
        place, line = self._places[key], b""
        while not line.endswith(b"\n"):
            read = os.pread(self._descriptor, max(READ_BYTES, len(line)), place + len(line))
            head, newline, _ = read.partition(b"\n")
            line += head + newline
            if not read:
                raise KeyError(f"{self._path}: the row of {key} has been cut since it was read")
        return dict(json.loads(line))

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def add(self, row: dict[str, Any]) -> None:
        """Append a row; from then on a kill of this process does not lose it."""
        line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
        self._out.write(line)
        self._out.flush()
        self._places[row["key"]] = self._end
        self._end += len(line)

    def _read_places(self) -> None:
        decoder = msgspec.json.Decoder(_Keyed)
        with self._path.open("r+b") as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    lines.truncate(self._end)
                    break
                self._places[decoder.decode(line).key] = self._end
                self._end += len(line)
