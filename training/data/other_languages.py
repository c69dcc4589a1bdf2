"""Problems and samples in C++, Java and JavaScript: HumanEval-X and MBXP of the public data.

- Their samples come with a verdict each, of their source or measured for the data, and are not run here.
- A problem that has both a passing and a failing program is kept; the reference solution is one of them.
- They are in the fold of the Python problem that they translate.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import Any

from training.data.programs import program_of
from training.data.public_data import data_file
from training.pipeline.files import read_jsonl
from training.pipeline.records import Problem, ProgramRecord


def other_languages(
    data: str, languages: Sequence[str], originals: Iterable[Problem]
) -> tuple[list[Problem], list[ProgramRecord]]:
    """Problems in these languages and their labelled programs.

    Args:
        data: the public data folder.
        languages: of the rows to take, as `cpp`.
        originals: the Python problems, in folds.

    Raises:
        HostLacks: where a file is missing.
    """
    folds = {problem.base_id: problem.fold for problem in originals}
    labels = {row["sample_id"]: row for row in read_jsonl(data_file(data, "labels.jsonl.gz"))}
    samples: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in read_jsonl(data_file(data, "samples.multilang.jsonl.gz")):
        samples[row["task_id"]].append(row)
    problems, programs = [], []
    for row in read_jsonl(data_file(data, "problems.multilang.jsonl.gz")):
        if row["language"] not in languages or row["task_id"] not in samples or row["base_id"] not in folds:
            continue
        problem = dataclasses.replace(_problem_of(row), fold=folds[row["base_id"]])
        own = _programs_of(problem, row, samples[row["task_id"]], labels)
        if {program.pass_rate for program in own} == {0.0, 1.0}:
            problems.append(problem)
            programs += own
    return problems, programs


def references(data: str, languages: Sequence[str], without: Container[str]) -> Iterator[tuple[str, str, str]]:
    """Language, prompt and completion of MBXP's programs that are not known to fail, as text to read.

    Args:
        data: the public data folder.
        languages: of the rows to take.
        without: base problems to leave out.
    """
    for row in read_jsonl(data_file(data, "problems.multilang.jsonl.gz")):
        text = row["canonical_solution"] or ""
        if row["language"] not in languages or not row["base_id"].startswith("MBPP/") or row["base_id"] in without:
            continue
        if text.startswith(row["prompt"]) and row.get("canonical_passes_tests") is not False:
            yield row["language"], row["prompt"], text[len(row["prompt"]) :].rstrip() + "\n"


def _problem_of(row: dict[str, Any]) -> Problem:
    return Problem(
        task_id=row["task_id"],
        base_id=row["base_id"],
        prompt=row["prompt"],
        entry_point="",
        canonical=row["canonical_solution"],
        test_setup="",
        tests=(row["test_code"],),
        source=row["source"],
        license=row["license"],
        language=row["language"],
        kind="script",
    )


def _programs_of(
    problem: Problem, row: dict[str, Any], samples: Sequence[dict[str, Any]], labels: dict[str, dict[str, Any]]
) -> list[ProgramRecord]:
    """The distinct programs that have a verdict. An MBXP reference is a model's program: it counts if it was run."""
    by_id: dict[str, ProgramRecord] = {}
    for sample in samples:
        label = labels.get(sample["sample_id"], {})
        verdict = label.get("gt_pass") if label.get("gt_pass") is not None else label.get("source_label")
        text = sample["completion"]
        if verdict is None or text is None:
            continue
        program = program_of(
            problem,
            sample["solution"],
            "sample",
            sample["source"],
            sample["license"],
            completion=text,
            sample_id=sample["sample_id"],
            pass_rate=float(verdict),
        )
        by_id.setdefault(program.program_id, program)
    reference = problem.canonical or ""
    start = reference.rfind(problem.prompt.splitlines()[-1]) if problem.prompt.strip() else -1
    if row.get("canonical_passes_tests", True) and start >= 0:
        body = reference[reference.index("\n", start) + 1 :].rstrip() + "\n"
        program = program_of(
            problem, reference, "canonical", problem.source, problem.license, completion=body, pass_rate=1.0
        )
        by_id.setdefault(program.program_id, program)
    return list(by_id.values())
