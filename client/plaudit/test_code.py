"""Which runner a text of tests is written for, by reading it: pytest, unittest, or none because it runs itself."""

from __future__ import annotations

import ast
from functools import lru_cache
from typing import Literal

MAX_TEXT = 1_000_000
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
NAMESPACES = ("globals", "locals", "vars")  # through which a text may find and call its tests
RUNNERS = frozenset({"main", "run", "TextTestRunner", "run_module", "console_main", "testmod"})


@lru_cache(maxsize=128)
def parsed(text: str) -> ast.Module | None:
    if len(text) > MAX_TEXT:
        return None
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def is_case(node: ast.stmt) -> bool:
    """A class that unittest would run: it has test methods, and a base named like a TestCase, or unittest's own."""
    if not isinstance(node, ast.ClassDef):
        return False
    bases = {base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "") for base in node.bases}
    named = any(base.endswith(("TestCase", "AsyncioTestCase")) for base in bases)
    return named and (has_methods(node) or any(base not in ("TestCase", "IsolatedAsyncioTestCase") for base in bases))


def has_methods(node: ast.ClassDef) -> bool:
    return any(isinstance(child, FUNCTIONS) and child.name.startswith("test") for child in node.body)


def is_pytest_class(node: ast.stmt) -> bool:
    return isinstance(node, ast.ClassDef) and node.name.startswith("Test") and has_methods(node) and not is_case(node)


def is_test_function(node: ast.stmt) -> bool:
    """A function that pytest would collect, unless it takes a `candidate`: that is HumanEval's form."""
    if not isinstance(node, FUNCTIONS) or any(argument.arg == "candidate" for argument in node.args.args):
        return False
    rest = node.name.removeprefix("test")
    return rest != node.name and (not rest or rest[0] in "_0123456789" or rest[0].isupper())


def has_tests(tree: ast.Module) -> bool:
    """Whether it defines tests and runs none of them itself."""
    return runner_of(tree) is not None


def runner_of(tree: ast.Module) -> Literal["pytest", "unittest"] | None:
    """The runner that these definitions wait for; None if they are not tests, or are run by the text itself."""
    functions = [node for node in tree.body if is_test_function(node)]
    cases = [node for node in tree.body if is_case(node)]
    classes = [node for node in tree.body if is_pytest_class(node)]
    if not (functions or cases or classes):
        return None
    names = {node.name for node in (*functions, *cases, *classes) if isinstance(node, (*FUNCTIONS, ast.ClassDef))}
    if runs_itself([node for node in tree.body if node not in functions + cases + classes], names):
        return None
    return "unittest" if cases and not functions and not classes else "pytest"


def runs_itself(body: list[ast.stmt], names: set[str]) -> bool:
    """Whether statements outside the tests call them, by name or through a runner."""
    for top in body:
        if isinstance(top, (*FUNCTIONS, ast.ClassDef)) and not any(
            isinstance(node, ast.Name) and node.id in names for node in ast.walk(top)
        ):
            continue
        for node in ast.walk(top):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in names:
                return True
            if isinstance(node, ast.Attribute) and node.attr in RUNNERS and root_of(node) in ("unittest", "pytest"):
                return True
            if isinstance(node, ast.Name) and node.id in ("TextTestRunner", "TestLoader", "TestSuite"):
                return True
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in NAMESPACES:
                return True
    return False


def root_of(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""
