"""The metrics of a training: rows in `NAME.jsonl`, and the same numbers in the trackers that the recipe names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from training.pipeline.files import read_jsonl, write_jsonl
from training.pipeline.run import Run
from training.pipeline.trackers import Tracker, open_trackers


class MetricsLog:
    """A context manager that keeps the rows of `NAME.jsonl`.

    Args:
        run: the run folder.
        name: of the log, `fit`.
        first: the step at which a resumed training goes on, else 0. `rows` begins with the recorded rows up to it.
        trackers: names of `training.pipeline.trackers`.
        settings: of the training, shown beside the curves.
        count: the name of the number that counts, `step` or `iteration`.
    """

    def __init__(
        self,
        run: Run,
        name: str,
        first: int,
        trackers: Sequence[str] = (),
        settings: Mapping[str, Any] | None = None,
        *,
        count: str = "step",
    ) -> None:
        self._path = run.path(f"{name}.jsonl")
        self._count = count
        recorded = read_jsonl(self._path) if first and self._path.is_file() else ()
        self.rows = [row for row in recorded if row[count] <= first]
        self._opening = (trackers, run, name, first, settings)
        self._trackers: list[Tracker] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for tracker in self._trackers or ():
            tracker.close()

    def add(self, row: Mapping[str, float]) -> None:
        """Append a row with its count. It is on disk when this returns."""
        if self._trackers is None:
            self._trackers = open_trackers(*self._opening)
        self.rows.append(dict(row))
        write_jsonl(self._path, self.rows)
        shown = {name: value for name, value in row.items() if name != self._count}
        for tracker in self._trackers:
            tracker.add(int(row[self._count]), shown)
