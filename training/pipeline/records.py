"""The rows that stages pass to each other.

A *problem* has a prompt that ends where the body of its entry point begins. A *program* is one completion of that
prompt, with the text that runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from training.pipeline.files import read_jsonl

Fold = Literal["train", "validation", "test"]
TestKind = Literal["assert", "check", "function", "script", "stdio", "suite"]
Origin = Literal["sample", "canonical", "mutant"]


@dataclass(frozen=True, slots=True)
class Problem:
    """`tests` in the form of their kind (`data/test_formats.py`): asserts, or JSON of a case, or one program.

    `stop`: texts that end a completion which continues the prompt, beside those of the sampler.
    """

    task_id: str
    base_id: str
    prompt: str
    entry_point: str
    canonical: str | None
    test_setup: str
    tests: tuple[str, ...]
    source: str
    license: str
    fold: Fold = "train"
    language: str = "python"
    kind: TestKind = "assert"
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ProgramRecord:
    """A program of a problem. `program_id` names both: equal programs are one row, and `copies` says how many.

    `label`: where the pass rate comes from; `combined` is a shipped one over the problem's tests and further ones.
    """

    program_id: str
    task_id: str
    origin: Origin
    completion: str
    solution: str
    source: str
    license: str
    sample_ids: tuple[str, ...] = ()
    copies: int = 1
    iid_copies: int = 0
    pass_rate: float | None = None
    label: Literal["shipped", "combined", "sandbox", "none"] = "none"


def as_row(value: Problem | ProgramRecord) -> dict[str, Any]:
    """As a JSON object of a file; `stop` only where there is one."""
    row = {field.name: getattr(value, field.name) for field in fields(value)}
    if not row.get("stop", True):
        del row["stop"]
    return row


def read_problems(path: Path) -> dict[str, Problem]:
    """The problems of a file by `task_id`, in its order."""
    rows = (Problem(**(r | {"tests": tuple(r["tests"]), "stop": tuple(r.get("stop", ()))})) for r in read_jsonl(path))
    return {problem.task_id: problem for problem in rows}


def read_programs(path: Path) -> list[ProgramRecord]:
    """The programs of a file, in its order."""
    return list(each_program(path))


def each_program(path: Path) -> Iterator[ProgramRecord]:
    """The programs of a file one by one, in its order."""
    for row in read_jsonl(path):
        yield ProgramRecord(**(row | {"sample_ids": tuple(row["sample_ids"])}))
