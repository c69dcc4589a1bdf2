"""`plaudit-train status RUN`: how far a run is, from its folder alone, while it runs or long after."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from training.pipeline.config import Recipe
from training.pipeline.run import Run


def status_lines(recipe: Recipe, run: Run) -> list[str]:
    """One line per stage: done with its summary, running with its rate and time left, stopped, or to do."""
    lines = [f"{recipe.name}: {run.folder}"]
    for name in recipe.stages:
        record, progress = run.record(name), read_progress(run, name)
        if progress is not None and is_running(progress):
            lines.append(f"  {name:<11} running  {_progress_text(progress)}")
        elif record is not None:
            summary = ", ".join(f"{key} {value}" for key, value in record["summary"].items())
            lines.append(f"  {name:<11} done     {record['wall_s']:.0f} s  {summary}")
        elif progress is not None:
            lines.append(f"  {name:<11} stopped  {_progress_text(progress)}; run the same command again to go on")
        else:
            lines.append(f"  {name:<11} to do")
    return lines


def read_progress(run: Run, stage: str) -> dict[str, Any] | None:
    """The last progress of a stage, or None where it has not begun or has finished."""
    path = run.folder / "stages" / f"{stage}.progress"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def is_running(progress: dict[str, Any]) -> bool:
    """Whether the process that wrote this progress exists; on another host, whether it wrote in the last minute."""
    if progress["host"] != os.uname().nodename:
        return time.time() - float(progress["at"]) < 60.0
    try:
        os.kill(progress["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _progress_text(progress: dict[str, Any]) -> str:
    if not progress["total"]:
        return str(progress["note"] or "at its beginning")
    share = progress["done"] / progress["total"]
    left = "" if progress["left_s"] is None else f"  {progress['left_s']:.0f} s left"
    text = f"{share:4.0%}  {progress['part']}: {progress['done']:.0f} of {progress['total']:.0f}"
    return f"{text}  {progress['rate']:.1f}/s{left}  {progress['note']}".rstrip()
