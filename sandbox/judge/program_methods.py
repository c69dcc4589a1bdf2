"""Reads what a test asks beyond values; the program's answers play no part in it.

Such a test needs the program's own process: it looks at the program's source, traces it or loads it again.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

MODULE_KINDS = ("pytest", "unittest")
LOOKING = {
    "getsource": "the source of the program",
    "getsourcelines": "the source of the program",
    "getsourcefile": "the source file of the program",
    "reload": "the program to be loaded again",
    "settrace": "to trace the program",
    "setprofile": "to trace the program",
    "__globals__": "the globals of the program",
}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def asked_beyond(plan: dict[str, Any], names: Sequence[str]) -> Mapping[int, str]:
    """Per test, what it asks that values cannot give."""
    if plan["kind"] in MODULE_KINDS:
        return of_file(plan["tests"][0], tuple(names))
    asked = {}
    for number, text in enumerate(plan["tests"]):
        reason = of_text(text)
        if reason:
            asked[number] = reason
    return asked


def parsed(text: str) -> ast.Module | None:
    if not any(word in text for word in LOOKING):
        return None
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


@lru_cache(maxsize=512)
def of_text(text: str) -> str:
    tree = parsed(text)
    if tree is None:
        return ""
    return next(reasons(tree), "")


@lru_cache(maxsize=128)
def of_file(source: str, names: tuple[str, ...]) -> dict[int, str]:
    tree = parsed(source)
    if tree is None:
        return {}
    by_number: dict[int, str] = {}
    shared = fixtures(tree)
    for number, name in enumerate(names):
        path = name.partition("[")[0].replace("::", ".").split(".")
        reason = next(of_test(tree, path), "")
        if not reason:
            asked = {argument for node in functions_of(tree, path) for argument in arguments(node)}
            reason = next((shared[fixture] for fixture in sorted(asked) if fixture in shared), "")
        if reason:
            by_number[number] = reason
    return by_number


def fixtures(tree: ast.Module) -> dict[str, str]:
    """The fixtures of the file that ask beyond values."""
    by_name = {}
    for node in ast.walk(tree):
        if isinstance(node, FUNCTIONS) and any(
            "fixture" in ast.unparse(decorator) for decorator in node.decorator_list
        ):
            reason = next(reasons(node), "")
            if reason:
                by_name[node.name] = reason
    return by_name


def arguments(node: ast.AST) -> list[str]:
    return [argument.arg for argument in node.args.args] if isinstance(node, FUNCTIONS) else []


def functions_of(tree: ast.AST, path: list[str]) -> list[ast.AST]:
    """The definitions that a test's name leads to: its classes, with what runs around their tests, and itself."""
    body: list[ast.stmt] = list(getattr(tree, "body", []))
    nodes: list[ast.AST] = []
    for step in path:
        node = next(
            (child for child in body if isinstance(child, (*FUNCTIONS, ast.ClassDef)) and child.name == step), None
        )
        if node is None:
            break
        body = list(node.body)
        if isinstance(node, ast.ClassDef):
            nodes += node.decorator_list
            around = ("setUp", "setUpClass", "setup_method", "setup_class", "asyncSetUp")
            nodes += [child for child in node.body if isinstance(child, FUNCTIONS) and child.name in around]
        else:
            nodes.append(node)
    return nodes


def of_test(tree: ast.Module, path: list[str]) -> Iterator[str]:
    for node in functions_of(tree, path):
        yield from reasons(node)


def reasons(tree: ast.AST) -> Iterator[str]:
    """What is asked beyond values, one reason after the other."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            name = node.attr if isinstance(node, ast.Attribute) else node.id
            if name in LOOKING:
                yield f"the test asks for {LOOKING[name]} ({name})"
