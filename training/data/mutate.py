"""`mutate`: near misses of the training problems' reference solutions.

Most problems of the public data come with a handful of model samples. A reference solution with one operator, constant,
name or statement changed reads like a correct program and mostly is not one: a scorer must learn that difference.
Mutants have no label; `verify` runs them. Only training problems are mutated.
"""

from __future__ import annotations

import ast
import copy
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from training.data.programs import program_of
from training.pipeline.config import Recipe
from training.pipeline.files import write_jsonl
from training.pipeline.records import Problem, as_row, read_problems, read_programs
from training.pipeline.run import Run

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


def mutate_solutions(recipe: Recipe, run: Run) -> dict[str, object]:
    """Write `mutants.jsonl`: unlabelled programs, distinct from each other and from every known program."""
    problems = read_problems(run.path("problems.jsonl"))
    known = {program.program_id for program in read_programs(run.path("programs.jsonl"))}
    rows = []
    for problem in problems.values():
        if problem.fold != "train" or problem.canonical is None:
            continue
        for solution in mutants(problem, recipe.mutate.per_problem, random.Random(f"{recipe.seed}:{problem.task_id}")):
            program = program_of(problem, solution, "mutant", problem.source, problem.license)
            if program.program_id not in known:
                known.add(program.program_id)
                rows.append(as_row(program))
    write_jsonl(run.path("mutants.jsonl"), rows)
    return {"mutants": len(rows), "problems": len({r["task_id"] for r in rows})}


def mutants(problem: Problem, count: int, draw: random.Random) -> list[str]:
    """Up to `count` distinct programs, each one edit (now and then two) from the reference solution.

    The program is printed by `ast.unparse`, and so is an unchanged copy at the head of the list: otherwise the
    printer's style alone would tell mutants from the rest.
    """
    assert problem.canonical is not None
    try:
        original = ast.parse(problem.canonical)
    except SyntaxError:
        return []
    printed = ast.unparse(original)
    texts = [printed]
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
    inside = {id(child) for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) for child in ast.walk(node)}
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
