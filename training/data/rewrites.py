"""Programs made of reference solutions, beside mutants: the same behavior in other words, answers to other questions.

- A rewrite renames local variables, so a model cannot take a reference's names for its correctness.
- A stranger is the right program of another problem, under this problem's signature. It looks as good as the reference,
  and only the prompt tells them apart.

As with mutants nothing is labelled by how it was made: `verify` runs them all.
"""

from __future__ import annotations

import ast
import builtins
import math
import random
from collections.abc import Sequence

SHORT = ("x", "y", "a", "b", "n", "m", "k", "res", "out", "tmp", "val", "cur", "item", "ans", "temp", "result", "acc")
LONG = ("current_value", "answer", "output", "collected", "element", "position", "total_so_far", "candidate", "helper")


class _Renamer(ast.NodeTransformer):
    """Gives names other names, wherever they are bound or used."""

    def __init__(self, names: dict[str, str]) -> None:
        self._names = names

    def visit_Name(self, node: ast.Name) -> ast.Name:
        node.id = self._names.get(node.id, node.id)
        return node

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.arg = self._names.get(node.arg, node.arg)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.name = self._names.get(node.name, node.name)
        self.generic_visit(node)
        return node


def renamed(source: str, draw: random.Random) -> str | None:
    """The program with most of its local variables renamed, as `ast.unparse` prints it.

    Args:
        source: Python.
        draw: draws which, and their names.

    Returns:
        None where it has no variable that can be renamed.
    """
    module = _parsed(source)
    if module is None:
        return None
    nodes = list(ast.walk(module))
    taken = {node.id for node in nodes if isinstance(node, ast.Name)} | {n.arg for n in nodes if isinstance(n, ast.arg)}
    fixed = {node.arg for node in nodes if isinstance(node, ast.arg)} | set(dir(builtins))
    fixed |= {name for node in nodes if isinstance(node, ast.Global | ast.Nonlocal) for name in node.names}
    fixed |= {node.id for top in module.body if not isinstance(top, ast.FunctionDef) for node in _names(top)}
    variables = sorted({node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)})
    free = [name for name in (*SHORT, *LONG) if name not in taken]
    draw.shuffle(free)
    local = [name for name in variables if name not in fixed]
    if not local:
        return None
    chosen = draw.sample(local, min(len(free), math.ceil(0.8 * len(local))))
    return _printed(_Renamer(dict(zip(chosen, free, strict=False))).visit(module))


def as_answer(source: str, name: str, parameters: Sequence[str], entry_point: str) -> str | None:
    """The program of another problem under this signature, as `ast.unparse` prints it.

    Args:
        source: the other problem's reference solution.
        name: its entry point.
        parameters: names of this problem's parameters.
        entry_point: of this problem.

    Returns:
        None where the other takes another number of arguments, or uses one of the names for something else.
    """
    module, own = _parsed(source), parameters_of(source, name)
    if module is None or own is None or len(own) != len(parameters):
        return None
    used = {node.id for node in _names(module)} | {n.name for n in ast.walk(module) if isinstance(n, ast.FunctionDef)}
    if (used - set(own) - {name}) & {*parameters, entry_point}:
        return None
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is not None and len(node.body) > 1:
            del node.body[0]
    return _printed(_Renamer({name: entry_point, **dict(zip(own, parameters, strict=True))}).visit(module))


def parameters_of(source: str, name: str) -> list[str] | None:
    """Names of the positional parameters of a function, None where it is not there or takes others, too."""
    module = _parsed(source)
    for node in reversed(module.body if module else []):
        if isinstance(node, ast.FunctionDef) and node.name == name:
            given = node.args
            plain = not (given.vararg or given.kwarg or given.kwonlyargs or given.posonlyargs)
            return [argument.arg for argument in given.args] if plain else None
    return None


def _names(tree: ast.AST) -> list[ast.Name]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Name)]


def _parsed(source: str) -> ast.Module | None:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _printed(module: ast.AST) -> str:
    return ast.unparse(ast.fix_missing_locations(module)) + "\n"
