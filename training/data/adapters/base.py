"""What an adapter makes of a row."""

from __future__ import annotations

from dataclasses import dataclass

from training.pipeline.records import Problem, ProgramRecord


@dataclass(frozen=True, slots=True)
class DatasetEntry:
    """A problem with what the data set has of programs; `pairs`: (chosen, rejected) by program_id."""

    problem: Problem
    programs: tuple[ProgramRecord, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
