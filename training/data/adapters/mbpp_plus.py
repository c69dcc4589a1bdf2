"""MBPP+: MBPP's fields and `test`, a program that calls the function on every input of EvalPlus, judged as one test.

The statements of that program from the first that calls the function on are put into `check(candidate)`, where the
function's name stands for the candidate. So the test runs in a process of its own, and a program that ends its process
passes nothing.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

from training.data.adapters.base import DatasetEntry
from training.data.adapters.mbpp import problem_of
from training.pipeline import config

DEFINITIONS = (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)


def entries(rows: Iterable[dict[str, Any]], hub: config.HubConfig) -> Iterator[DatasetEntry]:
    for row in rows:
        problem = problem_of(row)
        tests, unusable = tuple[str, ...](), ""
        try:
            tests = (check_of(row["test"], problem.entry_point),)
        except (SyntaxError, ValueError) as error:
            unusable = f"test: {error}"
        yield DatasetEntry(
            dataclasses.replace(
                problem, tests=tests, test_setup="", kind="check", source="MBPP+", license="Apache-2.0"
            ),
            unusable=unusable,
        )


def check_of(test: str, entry_point: str) -> str:
    """The test program as a module that defines `check(candidate)`.

    Raises `SyntaxError` for a text that is no program, `ValueError` for one that never calls the function.
    """
    body = ast.parse(test).body
    calling = [at for at, node in enumerate(body) if not isinstance(node, DEFINITIONS) and _names(node, entry_point)]
    if not calling:
        raise ValueError(f"nothing in it calls {entry_point}")
    before, checked = body[: calling[0]], body[calling[0] :]
    lines = [ast.unparse(node) for node in before]
    check = ast.parse(f"def check(candidate):\n    {entry_point} = candidate").body[0]
    assert isinstance(check, ast.FunctionDef)
    check.body += checked
    return "\n".join([*lines, ast.unparse(check), ""])


def _names(node: ast.AST, name: str) -> bool:
    return any(isinstance(inner, ast.Name) and inner.id == name for inner in ast.walk(node))
