"""The metrics of a fit: rows in `fit.jsonl`, and the same numbers as TensorBoard events in `tensorboard/`."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Mapping
from typing import Any, Self

from training.pipeline.files import read_jsonl, write_jsonl
from training.pipeline.run import Run


class MetricsLog:
    """A context manager that keeps the rows of `NAME.jsonl`.

    Args:
        run: the run folder.
        name: of the log, `fit`.
        first: the step at which a resumed fit goes on, else 0. `rows` begins with the recorded rows up to it.
    """

    def __init__(self, run: Run, name: str, first: int) -> None:
        self._path = run.path(f"{name}.jsonl")
        self._events = run.folder / "tensorboard" / name
        self._run = run
        self._first = first
        recorded = read_jsonl(self._path) if first and self._path.is_file() else ()
        self.rows = [row for row in recorded if row["step"] <= first]
        self._writer: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def add(self, row: Mapping[str, float]) -> None:
        """Append a row with its `step`. It is on disk when this returns."""
        if self._writer is None:
            self._writer = self._events_writer()
        self.rows.append(dict(row))
        write_jsonl(self._path, self.rows)
        if self._writer is not None:
            for name, value in row.items():
                if name != "step":
                    self._writer.add_scalar(name, value, int(row["step"]))
            self._writer.flush()

    def _events_writer(self) -> Any:
        if importlib.util.find_spec("tensorboard") is None:
            if len(self.rows) == 0:
                self._run.say("no TensorBoard events: the package tensorboard is not installed")
            return None
        from torch.utils.tensorboard import SummaryWriter

        if not self._first:
            shutil.rmtree(self._events, ignore_errors=True)  # of another fit
        return SummaryWriter(str(self._events), purge_step=self._first + 1 if self._first else None)
