"""A run folder: what a stage wrote, and under which recipe it wrote it.

A stage is a function from files to files in one folder. When it has finished, `stages/NAME.json` says so, with a key
over the recipe's sections it read and the keys of the stages before it: running the same thing again is free, and
changing a recipe runs again exactly what depends on the change. A stage that was killed runs again from the last file
it completed (`verify`: from the last program; `pretrain` and `fit`: from the last saved step).
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


class Run:
    """One run folder. `say` writes progress lines to stderr, because stdout is for summaries."""

    def __init__(self, folder: Path, *, quiet: bool = False) -> None:
        self.folder = folder
        self.quiet = quiet
        self.stage = ""
        (folder / "stages").mkdir(parents=True, exist_ok=True)

    def path(self, name: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def say(self, text: str) -> None:
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def record(self, stage: str) -> dict[str, Any] | None:
        """What the finished stage noted, or None if it has not finished."""
        path = self.folder / "stages" / f"{stage}.json"
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None

    def finish(self, stage: str, key: str, summary: dict[str, Any], wall_s: float, cpu_s: float) -> None:
        note = {"key": key, "summary": summary, "wall_s": round(wall_s, 1), "cpu_s": round(cpu_s, 1)}
        write_text(self.path(f"stages/{stage}.json"), json.dumps(note, indent=2) + "\n")

        self.path(f"stages/{stage}.progress").unlink(missing_ok=True)

    def begin(self, stage: str) -> None:
        """From here on, progress is this stage's; what a killed one left half written is removed."""
        sweep(self.folder)
        self.stage = stage
        self.progress(stage, 0.0, 0.0, 0.0, None, "")

    def progress(self, part: str, done: float, total: float, rate: float, left_s: float | None, note: str) -> None:
        """Write down how far the stage is, where `status` looks."""
        if self.stage:
            now = {
                "part": part,
                "done": done,
                "total": total,
                "rate": round(rate, 3),
                "left_s": left_s,
                "note": note,
                "pid": os.getpid(),
                "host": os.uname().nodename,
                "at": time.time(),
            }
            write_text(self.path(f"stages/{self.stage}.progress"), json.dumps(now) + "\n")

    def resumable_key(self, name: str, key: str) -> bool:
        """Whether partial work under `name` was begun with this key; if not, the key is noted and it starts anew."""
        path = self.path(f"stages/{name}.begun")
        if path.is_file() and path.read_text(encoding="utf-8") == key:
            return True
        write_text(path, key)
        return False


class Progress:
    """How far, how fast, how much longer: a bar on a terminal, elsewhere a line every few seconds.

    The same lies in the folder, for `status`.
    """

    def __init__(self, run: Run, part: str, total: float, every_s: float | None = None) -> None:
        self._run, self._part, self._total = run, part, total
        self._bar = sys.stderr.isatty() and not run.quiet
        self._every_s = every_s if every_s is not None else 0.5 if self._bar else 10.0
        self._start = self._last = time.monotonic()
        self._from: float | None = None
        run.progress(part, 0.0, total, 0.0, None, "")

    def at(self, done: float, note: str = "") -> None:
        now = time.monotonic()
        if self._from is None:
            self._from = done
        if now - self._last < self._every_s:
            return
        self._last = now
        rate = (done - self._from) / (now - self._start)
        left = (self._total - done) / rate if rate and self._total else None
        self._run.progress(self._part, done, self._total, rate, left, note)
        total, wait = (f"/{self._total:.0f}", f"{left:.0f} s left") if left is not None else ("", "")
        text = f"{self._part}: {done:.0f}{total}  {rate:.1f}/s  {wait}  {note}".rstrip()
        if not self._bar:
            self._run.say(text)
            return
        share = min(1.0, done / self._total) if self._total else 0.0
        end = "\n" if share == 1.0 else ""
        print(f"\r\x1b[K[{'#' * int(20 * share):.<20}] {text}", end=end, file=sys.stderr, flush=True)


def digest(*parts: object) -> str:
    """A short name for these JSON-like values."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a JSON-lines file, gzipped or not; a last line cut by a kill is left out."""
    import gzip

    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        for line in lines:
            if not line.endswith("\n"):
                return
            yield json.loads(line)


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """All rows or nothing: the file appears under its name when it is complete. Returns how many."""
    count = 0
    scratch = _scratch(path)
    with scratch.open("w", encoding="utf-8") as out:
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    scratch.replace(path)
    return count


def write_text(path: Path, text: str) -> None:
    scratch = _scratch(path)
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(path)


def _scratch(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}")


def sweep(folder: Path) -> None:
    """Remove the unfinished files of processes of this host that are gone."""
    for path in folder.rglob(f".*.{os.uname().nodename}.*"):
        pid = path.name.rpartition(".")[2]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            path.unlink(missing_ok=True)
