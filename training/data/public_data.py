"""The public data folder as problems and programs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from plaudit.errors import HostLacks
from training.data.programs import program_of
from training.pipeline.files import read_jsonl
from training.pipeline.records import Problem, ProgramRecord


def data_file(data: str, name: str) -> Path:
    """A file of the public data folder. Raises `HostLacks` where it is missing."""
    path = Path(data) / name
    if not path.is_file():
        raise HostLacks(f"no {name} in {data}: set PLAUDIT_DATA or --data to the public data folder")
    return path


def public_problems(data: str) -> list[Problem]:
    """Every Python problem that has tests, in the file's order."""
    return [
        Problem(
            task_id=r["task_id"],
            base_id=r["base_id"],
            prompt=r["prompt"],
            entry_point=r["entry_point"],
            canonical=r["canonical_solution"],
            test_setup=r["test_setup"] or "",
            tests=tuple(r["tests"]),
            source=r["source"],
            license=r["license"],
        )
        for r in read_jsonl(data_file(data, "problems.python.jsonl.gz"))
        if r["tests"]
    ]


def public_programs(data: str, problems: dict[str, Problem]) -> Iterator[ProgramRecord]:
    """Every distinct program of these problems with its shipped pass rate, and their reference solutions."""
    labels = read_jsonl(data_file(data, "labels.jsonl.gz"))
    rates = {r["sample_id"]: float(r["gt_rate"]) for r in labels if r.get("gt_rate") is not None}
    merged: dict[str, ProgramRecord] = {}
    for r in read_jsonl(data_file(data, "samples.python.jsonl.gz")):
        problem = problems.get(r["task_id"])
        if problem is None or r["sample_id"] not in rates:
            continue
        program = program_of(
            problem,
            r["solution"],
            "sample",
            r["source"],
            r["license"],
            completion=r["completion"],
            sample_id=r["sample_id"],
            pass_rate=rates[r["sample_id"]],
        )
        first = merged.get(program.program_id)
        merged[program.program_id] = program if first is None else _merge(first, program)
    for problem in problems.values():
        if problem.canonical is not None:
            program = program_of(
                problem, problem.canonical, "canonical", problem.source, problem.license, pass_rate=1.0
            )
            merged.setdefault(program.program_id, program)
    yield from merged.values()


def _merge(first: ProgramRecord, again: ProgramRecord) -> ProgramRecord:
    # A sample written after the prompt and the same text from a whole file may differ in blanks only: the first stays.
    fields = asdict(first)
    fields["sample_ids"] = (*first.sample_ids, *again.sample_ids)
    fields["copies"] = first.copies + again.copies
    fields["iid_copies"] = first.iid_copies + again.iid_copies
    return ProgramRecord(**fields)
