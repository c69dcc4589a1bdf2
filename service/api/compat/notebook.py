"""Notebook cells as one run, for `/run_jupyter` and open-r1's scripts; a cell's last expression is its value."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from sandbox.types import Report
from service.api.compat.base import CompatCall
from service.api.compat.process_outcome import ProcessOutcome, process_outcome
from service.api.handlers.run import RunRequest

OUTPUT_KB = 8192


class NotebookCell(BaseModel):
    """What a cell printed, displayed and raised. The jailed process writes it, so it is validated like a request."""

    model_config = ConfigDict(frozen=True)

    stdout: str
    stderr: str
    display: list[dict[str, str]]
    error: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class NotebookRun:
    """The process, and the cells that it finished."""

    process: ProcessOutcome
    cells: list[NotebookCell]


@cache
def _runner_source() -> str:
    return resources.files("service.api.compat").joinpath("notebook_runner.py").read_text("utf-8")


def notebook_request(
    call: CompatCall,
    cells: list[str],
    *,
    total_s: float,
    cell_s: float = 0.0,
    memory_mb: int | None = None,
    files: tuple[tuple[str, bytes], ...] = (),
    fetch: tuple[str, ...] = (),
) -> RunRequest:
    """The run of some cells.

    Args:
        call: whose deployment bounds the limits.
        cells: their sources.
        total_s: time for all cells, in seconds.
        cell_s: time per cell, in seconds; 0 for no limit per cell.
        memory_mb: of the process.
        files: names and contents beside it.
        fetch: names of files that are read back.
    """
    plan = json.dumps({"cells": cells, "cell_s": max(0.0, cell_s)}).encode()
    limits = call.limits(total_s, memory_mb, wall_s=total_s, output_kb=OUTPUT_KB)
    return RunRequest("python", _runner_source(), files=(("cells.json", plan), *files), fetch=fetch, limits=limits)


def notebook_run(report: Report, num_cells: int) -> NotebookRun:
    """The cells that a run finished. A line that is not a cell was printed by one, and ends the list."""
    process = process_outcome(report)
    assert process is not None  # Python does not compile first
    cells = []
    for line in process.stdout.splitlines()[:num_cells]:
        try:
            cells.append(NotebookCell.model_validate_json(line))
        except ValidationError:
            break
    return NotebookRun(process, cells)
