"""The entry point: the name that a suite requires of the program."""

from __future__ import annotations

import ast
import builtins
from functools import lru_cache

from sandbox.errors import InvalidSuite
from sandbox.types import AssertSuite, Suite


def entry_point_of(suite: Suite) -> str:
    """The name that a suite requires of the program; empty if it requires none."""
    if isinstance(suite, AssertSuite):
        return suite.entry_point or derived_entry_point(suite)
    return getattr(suite, "entry_point", None) or ""


@lru_cache(maxsize=64)
def derived_entry_point(suite: AssertSuite) -> str:
    """The function that the first test is about: the name it calls that neither Python nor the setup defines."""
    try:
        defined = defined_names(ast.parse(suite.setup))
        nodes = list(ast.walk(ast.parse(suite.asserts[0])))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InvalidSuite(f"the tests cannot be used: {type(error).__name__}: {error}") from None
    called = [node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    names = [node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
    for name in [*called, *names]:
        if name not in defined and not hasattr(builtins, name):
            return name
    for name in called:
        return name
    raise InvalidSuite("no entry point: the first test uses nothing that a program could define")


def defined_names(tree: ast.AST) -> set[str]:
    """The names that a setup assigns, defines or imports."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.alias):
            names.add((node.asname or node.name).partition(".")[0])
    return names
