"""Problems that come with an input generator instead of tests: the sandbox makes the tests.

- The generator draws seeded inputs, and the reference solution's answers to them are the expected values.
- Kept are problems whose answers are JSON values, are the same when computed twice, and differ from input to input.
- Problems are kept out that share their statement with one of the problems beside them (`ContaminationIndex`).
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from plaudit.errors import InfraError
from sandbox.errors import SandboxError
from sandbox.types import Limits, Program, RunSuite, Stop
from training.data.decontaminate import ContaminationIndex
from training.data.judge_local import local_sandbox
from training.data.programs import imports_of
from training.data.public_data import data_file
from training.pipeline import config
from training.pipeline.files import read_jsonl
from training.pipeline.progress import StageProgress
from training.pipeline.records import Problem
from training.pipeline.run import Run

if TYPE_CHECKING:
    from sandbox.sandbox import Sandbox

FILE = "problems.codeio.jsonl.gz"
MAX_CHARACTERS = 1600  # of a reference solution; a longer one is more than a small model reads
MAX_CASE_CHARACTERS = 1500
NUM_DRAWN, MIN_CASES, MAX_CASES = 16, 4, 8
HEAVY = frozenset({"numpy", "scipy", "pandas", "sympy", "networkx"})  # half a second of imports in every run
MARK = "\x1e"
# Comments of the form that the data set was made with; they say nothing about the program.
BOILERPLATE = re.compile(
    r"^[ \t]*#[^\n]*(?:serializable|necessary packages|main function|class and function definitions)[^\n]*\n",
    re.MULTILINE,
)

# Draws inputs, calls the reference twice on each, and prints the cases after a mark that no program prints by chance.
DRIVER = """
import copy as _copy, inspect as _inspect, json as _json
from random import Random
{reference}
{generator}
def _cases():
    names = list(_inspect.signature({entry_point}).parameters)
    cases = []
    for seed in range({drawn}):
        try:
            given = _json.loads(_json.dumps(generate_input(Random(seed)), allow_nan=False))
            if sorted(given) != sorted(names):
                return []
            args = [given[name] for name in names]
            first, again = ({entry_point}(*_copy.deepcopy(args)) for _ in range(2))
            text = _json.dumps(first, allow_nan=False)
            if first is None or first != again or _json.loads(text) != first:
                return []
            cases.append({{"args": args, "expected": first}})
        except Exception:
            continue
    return cases
print("{mark}" + _json.dumps(_cases()))
"""


def generated_problems(recipe: config.Recipe, run: Run, beside: Sequence[Problem]) -> Iterator[Problem]:
    """Up to `collect.generated` problems with tests that the sandbox made, in the file's order.

    Args:
        recipe: names the data folder and the number.
        run: shows the progress.
        beside: problems whose statements and solutions no generated problem may contain.

    Raises:
        HostLacks: where the data file or a sandbox is missing.
        InfraError: where the sandbox could not run most of the generators.
    """
    texts = ((p.task_id, [p.prompt, *([p.canonical] if p.canonical else [])]) for p in beside)
    index = ContaminationIndex(texts, recipe.split.ngram)
    rows = [row for row in read_jsonl(data_file(recipe.data, FILE)) if is_usable(row)]
    progress = StageProgress(run, "collect: generated inputs", len(rows))
    num_made = num_failed = 0
    with local_sandbox() as sandbox:
        for at, row in enumerate(rows, start=1):
            if num_made >= recipe.collect.generated:
                break
            progress.at(at)
            if index.hit(row["description"]) or index.hit(row["reference"]):
                continue
            try:
                tests = cases_of(row, sandbox)
            except SandboxError:
                num_failed += 1
                if num_failed > max(20, at // 2):
                    raise InfraError("the sandbox could not run most of the input generators") from None
                continue
            if tests:
                num_made += 1
                yield problem_of(row, tests)


def is_usable(row: dict[str, Any]) -> bool:
    """Whether a row has a reference that parses, is short, defines its entry point and imports nothing heavy."""
    if len(row["reference"]) > MAX_CHARACTERS:
        return False
    try:
        module = ast.parse(row["reference"])
        ast.parse(row["input_generator"])
    except (SyntaxError, ValueError):
        return False
    names = {node.name for node in module.body if isinstance(node, ast.FunctionDef)}
    modules = {alias.name.split(".")[0] for n in ast.walk(module) if isinstance(n, ast.Import) for alias in n.names}
    modules |= {(n.module or "").split(".")[0] for n in ast.walk(module) if isinstance(n, ast.ImportFrom)}
    return row["entry_point"] in names and not modules & HEAVY


def problem_of(row: dict[str, Any], tests: tuple[str, ...]) -> Problem:
    """The row as a problem whose prompt is the signature with the description as its docstring."""
    module = ast.parse(row["reference"])
    function = next(n for n in reversed(module.body) if isinstance(n, ast.FunctionDef) and n.name == row["entry_point"])
    returns = f" -> {ast.unparse(function.returns)}" if function.returns else ""
    text = f"{row['description']}\n\n{row['io_spec']}".replace('"""', "'''").replace("\\", "")
    docstring = "\n".join(f"    {line}".rstrip() for line in text.splitlines())
    head = f"def {row['entry_point']}({ast.unparse(function.args)}){returns}:"
    return Problem(
        task_id=row["task_id"],
        base_id=row["task_id"],
        prompt=f'{imports_of(row["reference"])}\n{head}\n    """\n{docstring}\n    """\n',
        entry_point=row["entry_point"],
        canonical=BOILERPLATE.sub("", row["reference"]).strip() + "\n",
        test_setup="",
        tests=tests,
        source=row["source"],
        license=row["license"],
        kind="function",
    )


def cases_of(row: dict[str, Any], sandbox: Sandbox) -> tuple[str, ...]:
    """Test cases of a row as JSON, none where its answers cannot be tests. Raises `SandboxError` for a broken run."""
    from sandbox.judge import judge

    script = DRIVER.format(
        reference=row["reference"],
        generator=row["input_generator"],
        entry_point=row["entry_point"],
        drawn=NUM_DRAWN,
        mark=MARK,
    )
    report = judge(Program("python", script), RunSuite(), Limits(cpu_s=2.0), Stop(), sandbox)
    if report.output is None or report.output.exit_code != 0:
        return ()
    text = report.output.stdout.decode("utf-8", "replace").rpartition(MARK)[2]
    try:
        cases = json.loads(text)
    except ValueError:
        return ()
    return chosen_cases(cases)


def chosen_cases(cases: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """Up to `MAX_CASES` short cases, those with different answers first; none if there are too few to tell apart."""
    by_answer: dict[str, list[str]] = {}
    for case in cases:
        text = json.dumps(case)
        if len(text) <= MAX_CASE_CHARACTERS:
            by_answer.setdefault(json.dumps(case["expected"]), []).append(text)
    if len(by_answer) < 2:
        return ()
    rounds = [text for depth in range(NUM_DRAWN) for texts in by_answer.values() for text in texts[depth : depth + 1]]
    kept = tuple(dict.fromkeys(rounds))[:MAX_CASES]
    return kept if len(kept) >= MIN_CASES else ()
