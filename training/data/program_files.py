"""Programs of several files in the order of their problems, read one by one: memory holds two numbers per program."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import msgspec

from training.pipeline.records import ProgramRecord


class ProgramHeader(msgspec.Struct, frozen=True):
    """What an order of programs needs of a row."""

    program_id: str
    task_id: str
    pass_rate: float | None = None
    label: str = "none"


class ProgramFiles:
    """Rows of files of programs, ordered by the place of their problem, and as they came where that is the same.

    Args:
        places: of the problems, by task id.
    """

    def __init__(self, places: Mapping[str, int]) -> None:
        self._places = places
        self._paths: list[Path] = []
        self._files, self._offsets, self._order = array("H"), array("q"), array("q")

    def __len__(self) -> int:
        return len(self._offsets)

    def add(self, path: Path, offset: int, task_id: str) -> None:
        """Take the row that begins at this byte of the file."""
        if path not in self._paths:
            self._paths.append(path)
        self._files.append(self._paths.index(path))
        self._offsets.append(offset)
        self._order.append(self._places[task_id])

    def add_file(self, path: Path) -> None:
        """Take every row of the file."""
        for offset, header in headers(path):
            self.add(path, offset, header.task_id)

    def __iter__(self) -> Iterator[ProgramRecord]:
        decoder = msgspec.json.Decoder(ProgramRecord)
        with ExitStack() as stack:
            streams: list[IO[bytes]] = [stack.enter_context(path.open("rb")) for path in self._paths]
            for number in sorted(range(len(self)), key=self._order.__getitem__):
                stream = streams[self._files[number]]
                stream.seek(self._offsets[number])
                yield decoder.decode(stream.readline())


def headers(path: Path) -> Iterator[tuple[int, ProgramHeader]]:
    """(where it begins, its header) of every row of a file; a last line without a line break is left out."""
    decoder, offset = msgspec.json.Decoder(ProgramHeader), 0
    with path.open("rb") as lines:
        for line in lines:
            if not line.endswith(b"\n"):
                return
            yield offset, decoder.decode(line)
            offset += len(line)
