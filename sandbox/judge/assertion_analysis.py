"""Reads a test's assertions: whether it has any, whether one must be reached, and what they look at.

Static analysis (`ast`). In doubt a test counts as asserting.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

MAX_TEXT = 1_000_000  # of a test that is read here; a longer one is left to the control run
MAY_ACT = frozenset(
    {
        "exec",
        "eval",
        "compile",
        "__import__",
        "exit",
        "quit",
        "open",
        "setattr",
        "delattr",
        "next",
        "getattr",
        "super",
        "input",
        "breakpoint",
        "map",
        "filter",
    }
)
CONSUMING = frozenset(
    {"list", "tuple", "set", "frozenset", "dict", "sum", "sorted", "max", "min", "enumerate", "zip", "iter", "reversed"}
)  # a bare call of these asserts at least that there is an end
HARMLESS = frozenset(name for name in dir(builtins) if not name.startswith("_")) - MAY_ACT
ASSERTING = re.compile(r"assert|raises|fail|warns|expect|check|verify|approx|should|ensure|validate", re.IGNORECASE)
COMPARING = ("assertEqual", "assertAlmostEqual", "assertListEqual", "assertDictEqual", "assertTrue", "assertFalse")
ENDING = ("exit", "_exit", "quit", "abort")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def parsed(text: str) -> ast.Module | None:
    if len(text) > MAX_TEXT:
        return None
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


class AssertionReader:
    """Whether statements can assert anything, given the functions that the texts define and the program's names."""

    def __init__(self, trees: Iterable[ast.AST], program: Iterable[str]) -> None:
        self.defined: dict[str, ast.AST] = {}
        self.harmless = HARMLESS | set(program)
        for tree in trees:
            for node in ast.walk(tree):
                if isinstance(node, FUNCTIONS):
                    self.defined[node.name] = node
        self.harmless -= set(self.defined)
        self.entered: set[str] = set()

    def asserts(self, nodes: Iterable[ast.AST]) -> bool:
        return any(self.may_assert(node) for node in nodes)

    def may_assert(self, node: ast.AST) -> bool:
        waiting: list[ast.AST] = [node]
        while waiting:
            node = waiting.pop()
            if isinstance(node, ast.Expr) and is_idle(node.value):
                if any(isinstance(child, ast.Call) and named_asserting(child) for child in ast.walk(node.value)):
                    return True
                continue
            if isinstance(node, ast.Raise):
                return True
            if isinstance(node, ast.Assert) and not always_true(node.test):
                return True
            if isinstance(node, ast.Call) and self.call_may_assert(node):
                return True
            if isinstance(node, FUNCTIONS):
                waiting += node.decorator_list
            elif not isinstance(node, ast.Lambda):
                waiting += ast.iter_child_nodes(node)
        return False

    def call_may_assert(self, call: ast.Call) -> bool:
        if isinstance(call.func, ast.Lambda):
            return self.may_assert(call.func.body)
        if not isinstance(call.func, ast.Name):
            return True
        name = call.func.id
        if name in self.harmless:
            return False
        body = self.defined.get(name)
        if body is None:
            return True
        if name in self.entered:
            return False
        self.entered.add(name)
        return isinstance(body, FUNCTIONS) and self.asserts(body.body)


def is_idle(value: ast.expr) -> bool:
    """An expression statement whose value is dropped, and was meant to be asserted; what it calls only computes it."""
    if isinstance(value, ast.Call):
        return isinstance(value.func, ast.Name) and value.func.id == "print"
    return isinstance(value, ast.Compare | ast.UnaryOp | ast.BoolOp | ast.Tuple | ast.List)


def named_asserting(call: ast.Call) -> bool:
    func = call.func
    name = func.id if isinstance(func, ast.Name) else func.attr if isinstance(func, ast.Attribute) else ""
    return bool(ASSERTING.search(name)) or name in ENDING


def always_true(node: ast.expr) -> bool:
    """Whether an expression is true whatever any program answers."""
    if isinstance(node, ast.Constant):
        return bool(node.value)
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return any(not isinstance(child, ast.Starred) for child in node.elts)
    if isinstance(node, ast.Dict):
        return any(key is not None for key in node.keys)
    if isinstance(node, ast.Lambda | ast.GeneratorExp):
        return True
    if isinstance(node, ast.JoinedStr):
        return any(isinstance(part, ast.Constant) and part.value for part in node.values)
    if isinstance(node, ast.BoolOp):
        whole = any if isinstance(node.op, ast.Or) else all
        return whole(always_true(value) for value in node.values)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        inner = node.operand
        return isinstance(inner, ast.Constant) and not inner.value
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and isinstance(node.ops[0], ast.Eq):
        left, right = node.left, node.comparators[0]
        return isinstance(left, ast.Constant) and isinstance(right, ast.Constant) and left.value == right.value
    return False


def bound(body: Iterable[ast.stmt]) -> set[str]:
    """The names that statements bind, at any depth."""
    names: set[str] = set()
    for top in body:
        for node in ast.walk(top):
            if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
                names.add(node.id)
            elif isinstance(node, (*FUNCTIONS, ast.ClassDef)):
                names.add(node.name)
            elif isinstance(node, ast.alias):
                names.add((node.asname or node.name).partition(".")[0])
    return names


def loaded(body: Iterable[ast.stmt]) -> set[str]:
    return {
        node.id
        for top in body
        for node in ast.walk(top)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }


def called_first(tree: ast.Module, defined: set[str]) -> set[str]:
    """The name that the first entry calls and that neither Python nor the setup defines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            name = node.func.id
            if name not in defined and not hasattr(builtins, name):
                return {name}
    return set()


def can_assert(source: str, name: str) -> bool:
    """Whether the test function (or `Class.method`) of this name holds what looks like an assertion; "": the text."""
    named_test = tests_named(source, name)
    if named_test is None:
        return True
    tree, nodes = named_test
    return not nodes or any(looks_asserting(node, tree) for node in nodes)


def looks_asserting(node: ast.AST, tree: ast.AST) -> bool:
    """Whether an assert, a raise or a call that is named like an assertion is in it, or in what it calls by name."""
    functions = {child.name: child for child in ast.walk(tree) if isinstance(child, FUNCTIONS)}
    waiting, entered = [node], {id(node)}
    while waiting:
        for child in ast.walk(waiting.pop()):
            if isinstance(child, ast.Raise) or (isinstance(child, ast.Assert) and not always_true(child.test)):
                return True
            if isinstance(child, ast.Call):
                func = child.func
                called = func.id if isinstance(func, ast.Name) else func.attr if isinstance(func, ast.Attribute) else ""
                if named_asserting(child):
                    return True
                body = functions.get(called)
                if body is not None and id(body) not in entered:
                    entered.add(id(body))
                    waiting.append(body)
    return False


def tests_named(source: str, name: str) -> tuple[ast.Module, list[ast.AST]] | None:
    """A text's tree, and what in it runs as the test of this name: functions, or "" for all of it."""
    tree = parsed(source)
    if tree is None:
        return None
    if not name:
        return tree, [tree]
    last = name.rpartition(".")[2].rpartition("::")[2].partition("[")[0]
    return tree, [node for node in ast.walk(tree) if isinstance(node, FUNCTIONS) and node.name == last]


@lru_cache(maxsize=1024)
def surely_asserts(source: str, name: str) -> bool:
    """Whether the test itself has an assertion about a computed value, which nothing skips or swallows."""
    named_test = tests_named(source, name)
    if named_test is None:
        return True
    _, nodes = named_test
    return bool(nodes) and all(asserts_at_once(getattr(node, "body", [])) and not is_decorated(node) for node in nodes)


def is_decorated(node: ast.AST) -> bool:
    """Whether a decorator may turn failure into success."""
    return isinstance(node, FUNCTIONS) and any("parametrize" not in ast.unparse(child) for child in node.decorator_list)


def asserts_at_once(body: Sequence[ast.stmt]) -> bool:
    for node in body:
        if isinstance(node, ast.Assert):
            if is_computed(node.test) and not always_true(node.test):
                return True
        elif isinstance(node, ast.Expr):
            call = node.value
            if isinstance(call, ast.Call) and is_asserting_method(call):
                return True
        elif not isinstance(
            node, ast.Assign | ast.AnnAssign | ast.AugAssign | ast.Import | ast.ImportFrom | ast.ClassDef | ast.Pass
        ) and not isinstance(node, FUNCTIONS):
            return False
    return False


def is_asserting_method(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    parts = call.args[:2]
    return name in COMPARING and any(
        isinstance(child, ast.Name | ast.Call) for part in parts for child in ast.walk(part)
    )


def is_computed(test: ast.expr) -> bool:
    """Whether an expression compares, or tests an answer's truth. `is not` alone is left to the control run."""
    if isinstance(test, ast.Compare) and all(isinstance(op, ast.Is | ast.IsNot) for op in test.ops):
        return False
    return any(isinstance(node, ast.Name | ast.Call) for node in ast.walk(test))


@lru_cache(maxsize=1024)
def looks_at_raised(source: str, name: str) -> bool:
    """Whether a test asserts something about an exception that it caught: no returned value leads there."""
    named_test = tests_named(source, name)
    if named_test is None:
        return True
    for test in named_test[1]:
        for node in ast.walk(test):
            if isinstance(node, ast.ExceptHandler) and node.name and asserts_about_exception(node):
                return True
            if isinstance(node, ast.Try | ast.TryStar) and distinguishes_exceptions(node):
                return True
    return False


def distinguishes_exceptions(node: ast.Try | ast.TryStar) -> bool:
    """Whether some exceptions make a test fail that another handler lets pass."""
    failing = [
        any(isinstance(child, ast.Raise | ast.Assert) for part in handler.body for child in ast.walk(part))
        for handler in node.handlers
    ]
    return any(failing) and not all(failing)


def asserts_about_exception(handler: ast.ExceptHandler) -> bool:
    """Whether a handler has an assertion about what it has caught."""
    for node in ast.walk(handler):
        part: ast.AST | None = node.test if isinstance(node, ast.Assert) else None
        if isinstance(node, ast.Call) and named_asserting(node):
            part = node
        if part is not None and any(
            isinstance(child, ast.Name) and child.id == handler.name for child in ast.walk(part)
        ):
            return True
    return False
