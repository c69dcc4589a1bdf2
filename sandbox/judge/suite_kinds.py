"""Finds the runner that a suite is written for: pytest and unittest run tests that the text itself does not run.

A text that runs its tests itself (`unittest.main()`, `pytest.main()`, a call of the test function) stays a plain text.
"""

from __future__ import annotations

import ast
from functools import lru_cache

from plaudit.test_code import FUNCTIONS, is_case, is_pytest_class, is_test_function, parsed, runner_of
from sandbox.errors import InvalidSuite
from sandbox.limits import MAX_TESTS
from sandbox.types import (
    AssertSuite,
    CheckSuite,
    FunctionSuite,
    ObserveSuite,
    PytestSuite,
    RunSuite,
    ScriptSuite,
    StdioSuite,
    Suite,
    UnittestSuite,
)

# What reads stdin can as well be run without a judgement.
KIND_OF: dict[type, str] = {
    AssertSuite: "assert",
    FunctionSuite: "function",
    CheckSuite: "check",
    PytestSuite: "pytest",
    UnittestSuite: "unittest",
    StdioSuite: "stdio",
    ScriptSuite: "script",
    RunSuite: "stdio",
}

RUN_AS_MAIN = ("stdio", "script")  # the kinds that run a program; the others load it as a module and ask it


def kind_of(suite: Suite) -> str:
    """The kind by which languages say what they can be judged by."""
    if isinstance(suite, ObserveSuite):
        return "function" if suite.entry_point else "stdio"
    return KIND_OF[type(suite)]


CODE_KINDS = ("assert", "check", "pytest", "unittest")  # of tests that could be in the program's own process

KINDS: dict[str, type[PytestSuite] | type[UnittestSuite]] = {"pytest": PytestSuite, "unittest": UnittestSuite}
RUN_CLASSES = (
    "\nimport unittest as _unittest\n"
    "for _case in ({names},):\n"
    "    _result = _unittest.TestResult()\n"
    "    _unittest.defaultTestLoader.loadTestsFromTestCase(_case).run(_result)\n"
    "    for _test, _text in _result.failures + _result.errors:\n"
    "        raise AssertionError(f'{{_test}}: {{_text[-1500:]}}')\n"
    "    for _test in _result.unexpectedSuccesses:\n"
    "        raise AssertionError(f'{{_test}}: it passes, and was expected to fail')\n"
)


def count_tests(suite: Suite) -> int:
    """How many tests a suite has, as far as its text says. Raises InvalidSuite for none, and for too many."""
    if isinstance(suite, CheckSuite | PytestSuite | UnittestSuite | RunSuite | ScriptSuite):
        return 1
    if isinstance(suite, ObserveSuite):
        total = len(suite.calls)
    else:
        total = len(suite.asserts) if isinstance(suite, AssertSuite) else len(suite.cases)
    if not total:
        raise InvalidSuite("the suite has no tests")
    if total > MAX_TESTS:
        raise InvalidSuite(f"the suite has {total} tests; at most {MAX_TESTS} are allowed")
    return total


def recognised(suite: Suite, language: str) -> Suite:
    """The suite as the runner's own kind where it is written for one."""
    if language != "python":
        return suite
    if isinstance(suite, ScriptSuite):
        tree = parsed(suite.source)
        kind = None if tree is None else runner_of(tree)
        return suite if kind is None else KINDS[kind](suite.source, prelude=suite.prelude)
    if isinstance(suite, CheckSuite):
        tree = parsed(suite.test)
        kind = None if tree is None or defines_check(tree) else runner_of(tree)
        return suite if kind is None else KINDS[kind](suite.test, (), suite.entry_point, suite.prelude)
    return of_asserts(suite) if isinstance(suite, AssertSuite) else suite


def defines_check(tree: ast.Module) -> bool:
    return any(isinstance(node, FUNCTIONS) and node.name == "check" for node in tree.body)


@lru_cache(maxsize=64)
def of_asserts(suite: AssertSuite) -> Suite:
    """Entries that only define tests: all of them as one test file, or, among others, each with a call at its end."""
    trees = [parsed(text) for text in suite.asserts]
    if any(tree is None for tree in trees):
        return suite
    kinds = [None if tree is None else runner_of(tree) for tree in trees]
    if not any(kinds):
        return suite
    quiet = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.ClassDef, *FUNCTIONS)
    if all(
        kind is not None or all(isinstance(node, quiet) for node in tree.body)
        for kind, tree in zip(kinds, trees, strict=True)
        if tree is not None
    ):
        runner = "unittest" if all(kind in (None, "unittest") for kind in kinds) else "pytest"
        return KINDS[runner]("\n".join([suite.setup, *suite.asserts]), (), suite.entry_point, suite.prelude)
    entries = tuple(
        text if kind is None or tree is None else text + calls_of(tree)
        for text, kind, tree in zip(suite.asserts, kinds, trees, strict=True)
    )
    return AssertSuite(entries, suite.setup, suite.entry_point, suite.prelude)


def calls_of(tree: ast.Module) -> str:
    """Statements that call the tests of a text, for use without a runner."""
    functions = [node.name for node in tree.body if is_test_function(node) and isinstance(node, ast.FunctionDef)]
    waiting = [node.name for node in tree.body if is_test_function(node) and isinstance(node, ast.AsyncFunctionDef)]
    cases = [node.name for node in tree.body if is_case(node) and isinstance(node, ast.ClassDef)]
    classes = [node for node in tree.body if is_pytest_class(node) and isinstance(node, ast.ClassDef)]
    text = "".join(f"\n{name}()" for name in functions)
    text += "".join(f"\n__import__('asyncio').run({name}())" for name in waiting)
    for node in classes:
        text += "".join(
            f"\n{node.name}().{child.name}()"
            for child in node.body
            if isinstance(child, ast.FunctionDef) and child.name.startswith("test")
        )
    return text + (RUN_CLASSES.format(names=", ".join(cases)) if cases else "\n")
