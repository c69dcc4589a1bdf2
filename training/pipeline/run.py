"""A run folder: what a stage wrote, and under which recipe it wrote it.

- A stage is a function from files to files in one folder.
- `stages/NAME.json` is the record of a finished stage. Its key covers the recipe's sections that the stage read and the
  keys of the stages before it. So a finished stage is not run again, and a changed recipe repeats what depends on it.
- `stages/NAME.progress` is the progress of an unfinished stage.
- A killed stage continues from what is on disk: `verify` from the last program, `pretrain` and `fit` from the last
  saved step, others from the last whole file.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from training.pipeline.files import remove_unfinished, write_text


class Run:
    """One run folder.

    Args:
        folder: is made where it does not exist.
        quiet: `say` prints nothing.
    """

    def __init__(self, folder: Path, *, quiet: bool = False) -> None:
        self.folder = folder
        self.quiet = quiet
        self.stage = ""
        (folder / "stages").mkdir(parents=True, exist_ok=True)

    def path(self, name: str) -> Path:
        """The path of a file in this run; its folder is made."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def say(self, text: str) -> None:
        """Print a line to standard error; standard output is for summaries."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def record(self, stage: str) -> dict[str, Any] | None:
        """The record of a finished stage (`key`, `summary`, `wall_s`, `cpu_s`), or None."""
        path = self.folder / "stages" / f"{stage}.json"
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None

    def finish(self, stage: str, key: str, summary: dict[str, Any], wall_s: float, cpu_s: float) -> None:
        """Record that the stage has finished under this key."""
        record = {"key": key, "summary": summary, "wall_s": round(wall_s, 1), "cpu_s": round(cpu_s, 1)}
        write_text(self.path(f"stages/{stage}.json"), json.dumps(record, indent=2) + "\n")
        self.path(f"stages/{stage}.progress").unlink(missing_ok=True)

    def begin(self, stage: str) -> None:
        """Remove what a killed stage left half written; progress belongs to this stage from here on."""
        remove_unfinished(self.folder)
        self.stage = stage
        self.write_progress(stage, 0.0, 0.0, 0.0, None, "")

    def write_progress(
        self, part: str, done: float, total: float, rate: float, left_s: float | None, note: str
    ) -> None:
        """Write `stages/NAME.progress`, which `status` reads. Does nothing outside of a stage."""
        if self.stage:
            progress = {
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
            write_text(self.path(f"stages/{self.stage}.progress"), json.dumps(progress) + "\n")

    def resumable_key(self, name: str, key: str) -> bool:
        """Whether partial work under `name` was begun with this key; if not, the key is written and work restarts."""
        path = self.path(f"stages/{name}.begun")
        if path.is_file() and path.read_text(encoding="utf-8") == key:
            return True
        write_text(path, key)
        return False
