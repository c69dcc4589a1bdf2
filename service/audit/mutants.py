"""Near misses of a Python program: one operator, constant, name or statement changed."""

from __future__ import annotations

import ast
import copy
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.GtE),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
OPERATORS: dict[type[ast.operator], tuple[type[ast.operator], ...]] = {
    ast.Add: (ast.Sub, ast.Mult),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Add, ast.Pow),
    ast.Div: (ast.FloorDiv, ast.Mult),
    ast.FloorDiv: (ast.Div, ast.Mod),
    ast.Mod: (ast.FloorDiv,),
    ast.Pow: (ast.Mult,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd, ast.BitXor),
    ast.BitXor: (ast.BitAnd,),
    ast.LShift: (ast.RShift,),
    ast.RShift: (ast.LShift,),
}
CALLS = {
    "min": "max",
    "max": "min",
    "sum": "len",
    "len": "sum",
    "any": "all",
    "all": "any",
    "sorted": "list",
    "set": "list",
    "list": "set",
    "int": "float",
    "str": "int",
    "lower": "upper",
    "upper": "lower",
    "append": "extend",
    "isdigit": "isalpha",
    "isalpha": "isdigit",
    "floor": "ceil",
    "ceil": "floor",
}


@dataclass(frozen=True, slots=True)
class Mutation:
    """One possible edit: applied to the node at this place of the walk."""

    place: int
    apply: Callable[[ast.AST], None]


def mutants_of(source: str, count: int, draw: random.Random) -> list[str]:
    """Up to `count` distinct programs, each one edit (now and then two) from this one.

    The program is printed by `ast.unparse`, and so is an unchanged copy at the head of the list: otherwise the
    printer's style alone would tell mutants from the rest. Edits are inside functions; of a program without any,
    anywhere.

    Args:
        source: Python; a text that is not, or is nested too deep to be walked, has no mutants and no copy.
        count: of the mutants, the unchanged copy not included.
        draw: chooses the edits; the same state gives the same programs.
    """
    try:
        return _mutants(ast.parse(source), count, draw)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []


def _mutants(original: ast.Module, count: int, draw: random.Random) -> list[str]:
    texts = [ast.unparse(original)]
    for _ in range(count * 4):
        if len(texts) > count:
            break
        tree = copy.deepcopy(original)
        for _ in range(1 if draw.random() < 0.75 else 2):
            changes = list(_changes(tree))
            if not changes:
                return texts
            change = draw.choice(changes)
            change.apply(list(ast.walk(tree))[change.place])
        try:
            text = ast.unparse(ast.fix_missing_locations(tree))
        except ValueError:
            continue
        if text not in texts:
            texts.append(text)
    return texts


def _changes(tree: ast.Module) -> Iterator[Mutation]:
    names = sorted({node.id for node in ast.walk(tree) if isinstance(node, ast.Name)})
    functions: list[ast.AST] = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    inside = {id(child) for node in functions or [tree] for child in ast.walk(node)}
    # An edit inside a `while` mostly makes an endless loop: seconds of judging for one easy negative.
    inside -= {id(child) for node in ast.walk(tree) if isinstance(node, ast.While) for child in ast.walk(node)}
    for place, node in enumerate(ast.walk(tree)):
        if id(node) not in inside:
            continue
        for apply in _edits(node, names):
            yield Mutation(place, apply)


def _edits(node: ast.AST, names: list[str]) -> Iterator[Callable[[ast.AST], None]]:
    if isinstance(node, ast.Compare):
        for kind in COMPARISONS.get(type(node.ops[0]), ()):
            yield lambda at, kind=kind: at.ops.__setitem__(0, kind())  # type: ignore[misc]
    if isinstance(node, ast.BinOp | ast.AugAssign):
        for operator in OPERATORS.get(type(node.op), ()):
            yield lambda at, operator=operator: setattr(at, "op", operator())  # type: ignore[misc]
        if isinstance(node, ast.BinOp):
            yield _swap_sides
    if isinstance(node, ast.BoolOp):
        yield lambda at: setattr(at, "op", ast.Or() if isinstance(at.op, ast.And) else ast.And())  # type: ignore[attr-defined]
    if isinstance(node, ast.Constant) and isinstance(node.value, int):  # bool included
        wrong = [not node.value] if isinstance(node.value, bool) else [node.value + 1, node.value - 1, 0]
        for value in wrong:
            if value != node.value:
                yield lambda at, value=value: setattr(at, "value", value)  # type: ignore[misc]
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        other = CALLS.get(node.id)
        if other is not None:
            yield lambda at: setattr(at, "id", other)
        elif len(names) > 1:
            neighbour = names[(names.index(node.id) + 1) % len(names)]
            yield lambda at: setattr(at, "id", neighbour)
    if isinstance(node, ast.Attribute) and node.attr in CALLS:
        yield lambda at: setattr(at, "attr", CALLS[at.attr])  # type: ignore[attr-defined]
    if isinstance(node, ast.If | ast.IfExp):
        yield lambda at: setattr(at, "test", ast.UnaryOp(ast.Not(), at.test))  # type: ignore[attr-defined]
    if isinstance(node, ast.Return) and node.value is not None:
        yield lambda at: setattr(at, "value", None)
    for field in ("body", "orelse"):
        statements = getattr(node, field, None)
        if isinstance(statements, list) and len(statements) > 1:
            for index in range(len(statements)):
                if not isinstance(statements[index], ast.FunctionDef | ast.Import | ast.ImportFrom | ast.Expr):
                    yield lambda at, field=field, index=index: getattr(at, field).pop(index)  # type: ignore[misc]


def _swap_sides(node: ast.AST) -> None:
    assert isinstance(node, ast.BinOp)
    node.left, node.right = node.right, node.left
