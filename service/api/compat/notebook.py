"""Cells as one run: what `/run_jupyter` and open-r1's scripts need, the value of the last expression included."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from sandbox.types import Report
from service.api.compat.base import Visit
from service.api.compat.runs import Told, told
from service.api.handlers.run import Order

OUTPUT_KB = 8192


class Cell(BaseModel):
    """What a cell printed, showed and raised. Written by the jailed process, so it is checked like a request."""

    model_config = ConfigDict(frozen=True)

    stdout: str
    stderr: str
    display: list[dict[str, str]]
    error: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Notebook:
    """The process, and its cells as far as they came."""

    run: Told
    cells: list[Cell]


@cache
def _driver() -> str:
    return resources.files("service.api.compat").joinpath("cells.py").read_text("utf-8")


def order(
    visit: Visit,
    cells: list[str],
    *,
    total_s: float,
    cell_s: float = 0.0,
    memory_mb: int | None = None,
    files: tuple[tuple[str, bytes], ...] = (),
    fetch: tuple[str, ...] = (),
) -> Order:
    """The run of some cells; 0 for `cell_s` is no limit of their own."""
    plan = json.dumps({"cells": cells, "cell_s": max(0.0, cell_s)}).encode()
    limits = visit.limits(total_s, memory_mb, wall_s=total_s, output_kb=OUTPUT_KB)
    return Order("python", _driver(), files=(("cells.json", plan), *files), fetch=fetch, limits=limits)


def notebook(report: Report, num_cells: int) -> Notebook:
    """The cells that a run told of; lines that are none are whatever a cell wrote there itself."""
    run = told(report)
    assert run is not None  # Python does not compile first
    cells = []
    for line in run.stdout.splitlines()[:num_cells]:
        try:
            cells.append(Cell.model_validate_json(line))
        except ValidationError:
            break
    return Notebook(run, cells)
