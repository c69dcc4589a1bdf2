"""The rows that stages pass to each other, and the public data turned into them.

A *problem* has a prompt that ends where the body of its entry point begins; a *program* is one completion of that
prompt with the text that runs. Sources write programs in three ways (what a model wrote after the prompt, a whole
function, a whole file under a preamble of imports); `completion_of` brings all of them to the first.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from plaudit.errors import HostLacks
from training.pipeline.run import read_jsonl

Fold = Literal["train", "validation", "test"]
TestKind = Literal["assert", "check", "function", "script", "stdio"]
Origin = Literal["sample", "canonical", "mutant"]

# 100 independent samples a problem: the rows that best-of-N is measured on.
IID = "codet/"


@dataclass(frozen=True, slots=True)
class Problem:
    """`tests` in the form of their kind (`suites.py`): asserts, or JSON of a case, or one program."""

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


@dataclass(frozen=True, slots=True)
class Program:
    """`program_id` names task and solution: equal programs of one problem are one row, `copies` says how many."""

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
    label: Literal["shipped", "sandbox", "none"] = "none"


def row(value: Problem | Program) -> dict[str, Any]:
    return asdict(value)


def read_problems(path: Path) -> dict[str, Problem]:
    rows = (Problem(**(r | {"tests": tuple(r["tests"])})) for r in read_jsonl(path))
    return {problem.task_id: problem for problem in rows}


def read_programs(path: Path) -> list[Program]:
    return [Program(**(r | {"sample_ids": tuple(r["sample_ids"])})) for r in read_jsonl(path)]


def data_file(data: str, name: str) -> Path:
    """A file of the public data folder; raises `HostLacks` with the setting that says where it is."""
    path = Path(data) / name
    if not path.is_file():
        raise HostLacks(f"no {name} in {data}: point PLAUDIT_DATA or --data at the public data folder")
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


def public_programs(data: str, problems: dict[str, Problem]) -> Iterator[Program]:
    """Every distinct program of these problems with its shipped pass rate, and their reference solutions."""
    labels = read_jsonl(data_file(data, "labels.jsonl.gz"))
    rates = {r["sample_id"]: float(r["gt_rate"]) for r in labels if r.get("gt_rate") is not None}
    merged: dict[str, Program] = {}
    for r in read_jsonl(data_file(data, "samples.python.jsonl.gz")):
        problem = problems.get(r["task_id"])
        if problem is None or r["sample_id"] not in rates:
            continue
        made = program_of(
            problem,
            r["solution"],
            "sample",
            r["source"],
            r["license"],
            completion=r["completion"],
            sample_id=r["sample_id"],
            pass_rate=rates[r["sample_id"]],
        )
        merged[made.program_id] = _merge(merged[made.program_id], made) if made.program_id in merged else made
    for problem in problems.values():
        if problem.canonical is not None:
            made = program_of(problem, problem.canonical, "canonical", problem.source, problem.license, pass_rate=1.0)
            merged.setdefault(made.program_id, made)
    yield from merged.values()


def program_of(
    problem: Problem,
    solution: str,
    origin: Origin,
    source: str,
    license_: str,
    *,
    completion: str | None = None,
    sample_id: str | None = None,
    pass_rate: float | None = None,
) -> Program:
    name = hashlib.sha256(f"{problem.task_id}\0{solution}".encode()).hexdigest()[:20]
    return Program(
        program_id=name,
        task_id=problem.task_id,
        origin=origin,
        source=source,
        license=license_,
        solution=solution,
        completion=completion_of(problem, solution) if completion is None else completion,
        sample_ids=() if sample_id is None else (sample_id,),
        iid_copies=int(sample_id is not None and sample_id.startswith(IID)),
        pass_rate=pass_rate,
        label="none" if pass_rate is None else "shipped",
    )


def _merge(first: Program, again: Program) -> Program:
    # A sample written after the prompt and the same text from a whole file may differ in blanks only: the first stays.
    fields = asdict(first)
    fields["sample_ids"] = (*first.sample_ids, *again.sample_ids)
    fields["copies"] = first.copies + again.copies
    fields["iid_copies"] = first.iid_copies + again.iid_copies
    return Program(**fields)


def example_prompt(question: str, test: str) -> str:
    """A question in words with one of its tests, which is often all that says how the function is called."""
    return f"{question.rstrip()}\n\nFor example:\n\n{test}\n"


def completion_of(problem: Problem, solution: str) -> str:
    """What would follow the prompt in this program: the entry point's body, then its helpers.

    Imports before the function are left out (the prompt has its own), the docstring too. A program that defines no
    such function, or does not parse, is cut behind its signature as text, or given whole.
    """
    if solution.startswith(problem.prompt):
        return solution[len(problem.prompt) :]
    try:
        module = ast.parse(solution)
    except (SyntaxError, ValueError):
        return _cut_as_text(problem, solution)
    functions = [node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == problem.entry_point]
    if not functions:
        return solution
    function = functions[-1]
    lines = solution.splitlines(keepends=True)
    documented = ast.get_docstring(function, clean=False) is not None
    body = function.body[1:] if documented else function.body
    if not body or body[0].lineno == function.lineno:
        return _cut_as_text(problem, solution)
    start = (function.body[0].end_lineno or 0) if documented else _header_end(lines, function)
    text = "".join(lines[start : function.end_lineno])
    helpers = [
        "".join(lines[node.lineno - 1 : node.end_lineno])
        for node in module.body
        if node is not function and not isinstance(node, ast.Import | ast.ImportFrom) and not _is_alias(node)
    ]
    return "\n\n".join([text.strip("\n"), *(helper.strip("\n") for helper in helpers)]) + "\n"


def _header_end(lines: list[str], function: ast.FunctionDef) -> int:
    """Index of the line after the signature; comments between it and the first statement belong to the body."""
    first = function.body[0].lineno - 1
    return next(
        (at + 1 for at in range(function.lineno - 1, first) if lines[at].split("#")[0].rstrip().endswith(":")), first
    )


def _is_alias(node: ast.stmt) -> bool:
    # The repair data puts `_str=str` into its preamble.
    return isinstance(node, ast.Assign) and isinstance(node.value, ast.Name)


def _cut_as_text(problem: Problem, solution: str) -> str:
    header = re.search(rf"^[ \t]*def\s+{re.escape(problem.entry_point)}\b[^\n]*:[ \t]*\n", solution, re.MULTILINE)
    return solution if header is None else solution[header.end() :]
