"""The public data folder as problems and programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from plaudit.errors import HostLacks
from training.data.programs import program_of
from training.pipeline.files import read_jsonl
from training.pipeline.records import Problem, ProgramRecord

MAX_EXTRA = 6  # of EvalPlus's tests that a problem gets


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


def with_extra_tests(
    data: str, problems: Sequence[Problem], programs: Sequence[ProgramRecord]
) -> tuple[list[Problem], list[ProgramRecord]]:
    """MBPP's problems with some of the tests that EvalPlus made for them, and the samples' rates on all of these.

    MBPP's own three asserts are a weak judge: 18 to 28 % of the programs that pass them fail one of EvalPlus's. A
    sample whose shipped label does not cover these loses its rate, and `verify` runs it on the problem's tests, as it
    does mutants: `MAX_EXTRA` of EvalPlus's, because a mutant that never ends costs its time limit under every test.
    """
    rows = read_jsonl(data_file(data, "plus_tests.jsonl.gz"))
    extra = {r["task_id"]: tuple(r["tests"]) for r in rows if r["task_id"].startswith("MBPP/")}
    shipped = {r["sample_id"]: r for r in read_jsonl(data_file(data, "labels.jsonl.gz"))}
    num_own = {problem.task_id: len(problem.tests) for problem in problems}
    longer = []
    for problem in problems:
        tests = extra.get(problem.task_id, ())
        step = max(1, len(tests) // MAX_EXTRA)
        longer.append(dataclasses.replace(problem, tests=(*problem.tests, *tests[::step][:MAX_EXTRA])))
    rated = []
    for program in programs:
        tests = extra.get(program.task_id, ())
        if tests and program.origin == "sample" and program.pass_rate is not None:
            label = shipped.get(program.sample_ids[0], {})
            if label.get("n_plus") == len(tests):
                own = num_own[program.task_id]
                rate = (program.pass_rate * own + label["plus_passed"]) / (own + len(tests))
                program = dataclasses.replace(program, pass_rate=rate, label="combined")
            else:
                program = dataclasses.replace(program, pass_rate=None, label="none")
        rated.append(program)
    return longer, rated


def _merge(first: ProgramRecord, again: ProgramRecord) -> ProgramRecord:
    # A sample written after the prompt and the same text from a whole file may differ in blanks only: the first stays.
    fields = asdict(first)
    fields["sample_ids"] = (*first.sample_ids, *again.sample_ids)
    fields["copies"] = first.copies + again.copies
    fields["iid_copies"] = first.iid_copies + again.iid_copies
    return ProgramRecord(**fields)
