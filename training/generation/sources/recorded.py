"""Recorded completions: a JSONL file (gzipped or not) of `{"key", "texts"}` or `{"task_id", "completion"}` rows.

For replaying what another run sampled, and for data sets that ship samples. A file of one completion per row gives each
task its completions in the file's order. The file is indexed by byte offset, so it may be larger than memory.
"""

from __future__ import annotations

import gzip
import json
from array import array
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import IO, Any, Self, cast

from plaudit.errors import Invalid, UsageError
from training.generation.sources.base import CompletionReply, CompletionRequest
from training.pipeline import config


class RecordedSource:
    """`path` is the file; `model` names the writer in the data."""

    def __init__(self, settings: config.SourceConfig) -> None:
        self._path = settings.path
        self._name = settings.model or "recorded"
        self._stack = ExitStack()
        self._places: dict[str, array[int]] = {}

    @property
    def name(self) -> str:
        return self._name

    def __enter__(self) -> Self:
        try:
            opened = gzip.open(self._path, "rb") if self._path.endswith(".gz") else open(self._path, "rb")
            self._rows = self._stack.enter_context(cast("IO[bytes]", opened))
        except OSError as error:
            raise UsageError(f"source.path: cannot read it: {error}") from error
        place = 0
        for line in self._rows:
            row = json.loads(line)
            if row.get("texts") or row.get("completion") is not None:
                self._places.setdefault(_key(row), array("q")).append(place)
            place += len(line)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def replies(self, requests: Iterable[CompletionRequest]) -> Iterator[CompletionReply]:
        """Raises `Invalid` for a request with too few recorded completions."""
        for request in requests:
            texts: list[str] = []
            for place in self._places.get(request.key, ()):
                self._rows.seek(place)
                row = json.loads(self._rows.readline())
                texts += row["texts"] if "texts" in row else [row["completion"]]
            if len(texts) < request.n:
                raise Invalid(f"{self._path} has {len(texts)} completions of {request.key}; {request.n} are needed")
            yield CompletionReply(request.key, tuple(texts[: request.n]), ("stop",) * request.n)


def _key(row: dict[str, Any]) -> str:
    return str(row["key"] if "key" in row else row["task_id"])
