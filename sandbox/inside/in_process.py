"""Runs tests in the program's own process, and counts the assertions that were executed.

Nothing here is trusted: the program shares this process and can change all of it. This module only prevents accidental
passes. Each place where a test could fail (an assert, a call named like an assertion, an `if` that raises, a handler
that stands for the expected outcome) counts when it is reached. A test that reached none of its places has not passed.
"""

from __future__ import annotations

import os
import sys

from sandbox.inside import test_runners
from sandbox.inside.framing import attempt
from sandbox.inside.program_modules import PROGRAM_MODULES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

COUNT = "__assertion_reached__"
NAMED = ("assert", "fail", "raises", "warns", "deprecated_call")


class NothingAsserted(AssertionError):
    """The test ended well without having reached any of its assertions."""


def counting_class() -> Any:
    import ast  # only where a test is judged here

    class Counting(ast.NodeTransformer):
        """Makes a text count the places where it could fail as they are reached."""

        def __init__(self) -> None:
            self.places = 0

        def reached(self) -> ast.stmt:
            self.places += 1
            return ast.Expr(ast.Call(ast.Name(COUNT, ast.Load()), [], []))

        def visit_Assert(self, node: ast.Assert) -> Any:
            self.generic_visit(node)
            return [self.reached(), node]

        def visit_Call(self, node: ast.Call) -> Any:
            self.generic_visit(node)
            func = node.func
            name = func.id if isinstance(func, ast.Name) else func.attr if isinstance(func, ast.Attribute) else ""
            if name.startswith(NAMED):
                self.places += 1
                node.func = ast.Call(ast.Name(COUNT, ast.Load()), [func], [])
            return node

        def visit_If(self, node: ast.If) -> Any:
            self.generic_visit(node)
            if any(isinstance(child, ast.Raise) for child in (*node.body, *node.orelse)):
                return [self.reached(), node]
            return node

        def visit_Try(self, node: ast.Try) -> Any:
            fails = any(
                isinstance(child, (ast.Assert, ast.Raise))
                for part in (*node.body, *node.orelse, *(child for other in node.handlers for child in other.body))
                for child in ast.walk(part)
            )
            self.generic_visit(node)
            if fails:
                for handler in node.handlers:
                    handler.body.insert(0, self.reached())
            return node

    return Counting


def compiled(text: str, name: str) -> tuple[Any, int]:
    """The code of a text that counts, and how many places it has. Raises SyntaxError."""
    import ast

    counting = counting_class()()
    tree = ast.fix_missing_locations(counting.visit(ast.parse(text, name)))
    return compile(tree, name, "exec", dont_inherit=True), counting.places


class Count:
    """Counts the places that have been reached. Called with a function, it returns that function."""

    def __init__(self) -> None:
        self.reached = 0

    def __call__(self, function: Any = None) -> Any:
        self.reached += 1
        return function


def prepare(plan: dict[str, Any]) -> list[Any]:
    """The codes of setup and test. Raises SyntaxError."""
    name = f"{os.getcwd()}/{test_runners.FILE}" if plan["kind"] in test_runners.KINDS else "<test>"
    return [compiled(plan["setup"], "<setup>")[0], *compiled(plan["test"], name)]


def take(main: Any, codes: list[Any], plan: dict[str, Any], resolve: Any) -> None:
    """Run one test of the plan in the program's process. Raises the exception that makes it fail."""
    setup, test, places = codes
    namespace = main.__dict__
    count = Count()
    namespace[COUNT] = count
    for name in PROGRAM_MODULES:
        if not os.path.exists(f"{os.getcwd()}/{name}.py") or name == "main":
            sys.modules[name] = main
    if plan["kind"] in test_runners.KINDS:
        take_from_file(main, test, plan, count)
    else:
        function, _ = attempt(lambda: resolve(namespace, plan["entry_point"]))
        namespace.setdefault("candidate", function)
        exec(setup, namespace)
        exec(test, namespace)
        if plan["kind"] == "check":
            namespace["check"](resolve(namespace, plan["entry_point"]))
    if places and plan["asserts"] and not count.reached:
        raise NothingAsserted("the test ends without having reached any of its assertions")


class ProgramGlobals(dict):  # type: ignore[type-arg]
    """The globals of a test file: its own names, then the program's as they are now."""

    def __init__(self, main: Any) -> None:
        super().__init__(__name__=test_runners.MODULE, __builtins__=__builtins__)
        self.main = main

    def __missing__(self, name: str) -> Any:
        return self.main.__dict__[name]


class LocalEndpoint:
    """Takes the place of the wire to the program, because the program is in this process."""

    def __init__(self, main: Any) -> None:
        self.main = main

    def request(self, op: str, name: str) -> Any:
        if name not in self.main.__dict__:
            raise NameError(f"name {name!r} is not defined")
        return self.main.__dict__[name]


def take_from_file(main: Any, code: Any, plan: dict[str, Any], count: Count) -> None:
    sys.path.insert(0, plan["runner"])
    whole = plan | {"tests": [plan["test"]]}
    tests = test_runners.ModuleTests(whole, LocalEndpoint(main), ProgramGlobals(main))
    tests.code = code
    tests.prepare()
    count.reached = 0
    outcome: list[Any] = []

    class Done(BaseException):
        """The one test has been run."""

    def serve(names: list[str], skips: list[int], run: Any) -> None:
        wanted = [name.partition("[")[0] for name in plan["names"]]
        if [name.partition("[")[0] for name in names] != wanted:
            raise AssertionError("the program changes which tests the file has")
        outcome.append(run(plan["number"]))
        raise Done

    _, ended = attempt(lambda: tests.serve(serve, lambda number, text, work: attempt(work)[1]))
    if not outcome:
        raise ended or AssertionError("the test has not run")
    if outcome[0] is not None:
        raise outcome[0]
