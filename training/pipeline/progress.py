"""Progress of a stage: a bar on a terminal, elsewhere a line every few seconds; always a file, for `status`."""

from __future__ import annotations

import sys
import time
from typing import Any

from training.pipeline.run import Run


class StageProgress:
    """How far one part of a stage is, how fast it runs and how long it will take.

    Args:
        run: where the progress is written.
        part: what is counted, as shown.
        total: the count at the end; 0 where it is not known.
        every_s: seconds between two reports; by default 0.5 on a terminal and 10 elsewhere.
    """

    def __init__(self, run: Run, part: str, total: float, every_s: float | None = None) -> None:
        self._run, self._part, self._total = run, part, total
        self._on_terminal = sys.stderr.isatty() and not run.quiet
        self._every_s = every_s if every_s is not None else 0.5 if self._on_terminal else 10.0
        self._started_s = self._reported_s = time.monotonic()
        self._first: float | None = None
        self._bar: Any = None
        run.write_progress(part, 0.0, total, 0.0, None, "")

    def at(self, done: float, note: str = "") -> None:
        """Report that this much is done, unless the last report is too recent. The first call says where it began."""
        now_s = time.monotonic()
        if self._first is None:
            self._first = done
            self._bar = self._open_bar(done)
        if self._bar is not None:
            self._draw(done, note)
        if now_s - self._reported_s < self._every_s:
            return
        self._reported_s = now_s
        rate = (done - self._first) / (now_s - self._started_s)
        left_s = (self._total - done) / rate if rate and self._total else None
        self._run.write_progress(self._part, done, self._total, rate, left_s, note)
        if self._bar is None:
            total, left = (f"/{self._total:.0f}", f"{left_s:.0f} s left") if left_s is not None else ("", "")
            self._run.say(f"{self._part}: {done:.0f}{total}  {rate:.1f}/s  {left}  {note}".rstrip())

    def _open_bar(self, done: float) -> Any:
        if not self._on_terminal:
            return None
        from tqdm import tqdm  # type: ignore[import-untyped]

        return tqdm(desc=self._part, initial=done, total=self._total or None, dynamic_ncols=True, file=sys.stderr)

    def _draw(self, done: float, note: str) -> None:
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(done - self._bar.n)
        if self._total and done >= self._total:
            self._bar.close()
