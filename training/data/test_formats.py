"""A problem's tests in their three forms: strings in a file, the sandbox's types, and the contract's types.

| kind | a string of `tests` | judged |
|---|---|---|
| assert | one assert statement (or block) | each on its own |
| function | JSON `{"args": [...], "expected": ...}`, called on the entry point | each on its own |
| stdio | JSON `{"stdin": "...", "stdout": "..."}` | each on its own |
| check | HumanEval's form, a module that defines `check(candidate)` | as one test |
| script | MultiPL-E's form, text that follows the program; exit code 0 | as one test |
| suite | JSON of a whole suite as `POST /execute` takes it, of any kind | as that kind |
"""

from __future__ import annotations

import ast
import builtins
import json
from collections import Counter
from collections.abc import Iterable, Sequence

from pydantic import TypeAdapter, ValidationError

from plaudit.errors import Invalid
from plaudit.schemas import AssertTests, CheckTests, FunctionTests, ScriptTests, StdioTests, Tests
from sandbox import types as sandbox
from service.judging import to_suite
from training.pipeline.records import Problem, TestKind

WIRE: TypeAdapter[Tests] = TypeAdapter(Tests)


def sandbox_suite(kind: TestKind, tests: Sequence[str], setup: str, entry_point: str) -> sandbox.Suite:
    """As the sandbox takes it."""
    if kind == "assert":
        return sandbox.AssertSuite(tuple(tests), setup, entry_point)
    if kind == "function":
        cases = (json.loads(test) for test in tests)
        return sandbox.FunctionSuite(
            entry_point, tuple(sandbox.Case(tuple(case["args"]), {}, case["expected"]) for case in cases)
        )
    if kind == "stdio":
        return sandbox.StdioSuite(tuple(sandbox.StdioCase(**json.loads(test)) for test in tests))
    (source,) = tests
    if kind == "suite":
        return to_suite(WIRE.validate_json(source))
    return sandbox.CheckSuite(source, entry_point) if kind == "check" else sandbox.ScriptSuite(source)


def wire_suite(kind: TestKind, tests: Sequence[str], setup: str, entry_point: str) -> Tests:
    """As `POST /execute` takes it. Raises `Invalid` for tests that the contract does not allow."""
    try:
        if kind == "assert":
            return AssertTests(kind=kind, asserts=list(tests), setup=setup, entry_point=entry_point)
        if kind == "function":
            return FunctionTests(kind=kind, entry_point=entry_point, cases=[json.loads(test) for test in tests])
        if kind == "stdio":
            return StdioTests(kind=kind, cases=[json.loads(test) for test in tests])
        (source,) = tests
        if kind == "suite":
            return WIRE.validate_json(source)
        if kind == "check":
            return CheckTests(kind=kind, test=source, entry_point=entry_point)
        return ScriptTests(kind=kind, source=source)
    except ValidationError as error:
        raise Invalid(f"{kind} tests that POST /execute does not allow: {error}") from error


def label_of(problem: Problem) -> str:
    """A problem's tests as a trainer's row has them, in JSON. Raises `Invalid` for tests that are not allowed."""
    suite = wire_suite(problem.kind, problem.tests, problem.test_setup, problem.entry_point)
    return json.dumps({"tests": suite.model_dump(mode="json"), "language": problem.language})


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
