"""A problem's tests in the three forms that they travel in: strings in a file, the sandbox's types, the service's JSON.

| kind | a string of `tests` | judged |
|---|---|---|
| assert | one assert statement (or block) | each alone |
| function | JSON `{"args": [...], "expected": ...}`, called on the entry point | each alone |
| stdio | JSON `{"stdin": "...", "stdout": "..."}` | each alone |
| check | HumanEval's form, a module that defines `check(candidate)` | as one |
| script | MultiPL-E's form, text that follows the program; exit code 0 | as one |
"""

from __future__ import annotations

import ast
import builtins
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from sandbox import types as sandbox
from training.pipeline.records import TestKind


def sandbox_suite(kind: TestKind, tests: Sequence[str], setup: str, entry_point: str) -> sandbox.Suite:
    """As the engine takes it."""
    if kind == "assert":
        return sandbox.AssertSuite(tuple(tests), setup, entry_point)
    if kind == "function":
        cases = (json.loads(test) for test in tests)
        return sandbox.FunctionSuite(
            entry_point, tuple(sandbox.Case(tuple(case["args"]), {}, case["expected"]) for case in cases)
        )
    if kind == "stdio":
        return sandbox.StdioSuite(tuple(sandbox.StdioCase(**json.loads(test)) for test in tests))
    (only,) = tests
    return sandbox.CheckSuite(only, entry_point) if kind == "check" else sandbox.ScriptSuite(only)


def wire_suite(kind: TestKind, tests: Sequence[str], setup: str, entry_point: str) -> dict[str, Any]:
    """As `POST /execute` takes it."""
    if kind == "assert":
        return {"kind": kind, "asserts": list(tests), "setup": setup, "entry_point": entry_point}
    if kind in ("function", "stdio"):
        named = {"entry_point": entry_point} if kind == "function" else {}
        return {"kind": kind, "cases": [json.loads(test) for test in tests], **named}
    (only,) = tests
    if kind == "check":
        return {"kind": kind, "test": only, "entry_point": entry_point}
    return {"kind": kind, "source": only}


def entry_point_of(asserts: Iterable[str]) -> str:
    """The function that most of these asserts call and that Python does not have itself; "" where there is none."""
    calls: Counter[str] = Counter()
    for text in asserts:
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError):
            continue
        calls.update(
            {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
        )
    return next((name for name, _ in calls.most_common() if not hasattr(builtins, name)), "")
