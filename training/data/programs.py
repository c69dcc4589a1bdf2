"""A text of a model or a data set as a program: what runs, and what stands after the prompt.

Sources write programs in three ways: what a model wrote after the prompt, a whole function, or a whole file under a
preamble of imports. `completion_of` brings all of them to the first.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from plaudit.extract import closed, code_of
from training.pipeline.records import Origin, Problem, ProgramRecord

# sample_ids of 100 independent samples per problem begin so: the rows on which best-of-N is measured.
IID = "codet/"
GREEDY = "#greedy"  # ends the sample_id of a problem's greedy program, which is not an independent sample


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
) -> ProgramRecord:
    """A program of a problem, named by both; its completion is worked out where it is not given."""
    name = hashlib.sha256(f"{problem.task_id}\0{solution}".encode()).hexdigest()[:20]
    return ProgramRecord(
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


PROMPT = (
    "Solve the task below in {language}. Answer with one complete program in a single ```{language} code block: all"
    " imports and helpers it needs, no example calls, nothing read or printed that the task does not ask for.\n\n"
    "{prompt}"
)


def chat_question(problem: Problem) -> str:
    """The question as a chat model is asked it."""
    return PROMPT.format(language=problem.language, prompt=problem.prompt)


class SampledText(NamedTuple):
    """One sample of a problem: the program that runs, the completion that is scored, and where it comes from."""

    solution: str
    completion: str
    sample_id: str
    source: str
    pass_rate: float | None = None  # as it was shipped


def distinct_programs(
    problem: Problem, samples: Sequence[SampledText], license_: str, *, independent: bool = True
) -> list[ProgramRecord]:
    """One program for equal solutions, with the first one's completion and the number of copies.

    Args:
        problem: the problem that all samples answer.
        samples: in the order in which they came.
        license_: of the samples.
        independent: the samples were drawn independently of each other, so best-of-N may be measured on them.
    """
    by_solution: dict[str, list[SampledText]] = {}
    for sample in samples:
        by_solution.setdefault(sample.solution, []).append(sample)
    programs = []
    for solution, equal in by_solution.items():
        first = equal[0]
        program = program_of(
            problem,
            solution,
            "sample",
            first.source,
            license_,
            completion=first.completion,
            pass_rate=first.pass_rate,
        )
        iid_copies = sum(not sample.sample_id.endswith(GREEDY) for sample in equal) if independent else 0
        sample_ids = tuple(sample.sample_id for sample in equal)
        programs.append(dataclasses.replace(program, sample_ids=sample_ids, copies=len(equal), iid_copies=iid_copies))
    return programs


def solution_of(problem: Problem, text: str, chat: bool) -> str:
    """The program that runs: the prompt continued, or the answer's code under the imports that the prompt shows."""
    if not chat:
        return problem.prompt + closed(text)
    code = code_of(text, problem.language)
    if code is None:
        return ""
    return imports_of(problem.prompt) + code.text if problem.language == "python" else code.text


def opens_program(problem: Problem) -> bool:
    """Whether the prompt is code that a completion goes on with, and not a question in words."""
    if problem.language != "python":
        return problem.kind == "script"  # MultiPL-E; the other sets ask in words
    for body in ("", "    pass\n"):
        with contextlib.suppress(SyntaxError, ValueError):
            return bool(ast.parse(f"{problem.prompt}{body}").body)
    return False


@lru_cache(maxsize=64)  # all programs of a problem have one prompt
def imports_of(prompt: str) -> str:
    """The import lines of a prompt that is code; models often answer without repeating them."""
    try:
        module = ast.parse(prompt)
    except (SyntaxError, ValueError):
        return ""
    lines = [ast.unparse(node) for node in module.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return "\n".join(lines) + "\n" if lines else ""


def example_prompt(question: str, test: str) -> str:
    """A question in words with one of its tests, which is often the only place that names the function."""
    return f"{question.rstrip()}\n\nFor example:\n\n{test}\n"


def completion_of(problem: Problem, solution: str) -> str:
    """What stands after the prompt in this program: the entry point's body, then its helpers.

    Imports before the function are left out, because the prompt has its own; so is the docstring. A program that does
    not define the function, or does not parse, is cut after its signature as text, or given whole.
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
