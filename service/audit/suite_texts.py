"""What a suite says without being run: its tests' names, which are equal, and which answers it shows.

Texts are untrusted: they are parsed and never evaluated, and one that is not Python is a text.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator, Sequence

from pydantic_core import to_json

from plaudit.schemas import AssertTests, CheckTests, FunctionTests, InlineTests, PytestTests, StdioTests, UnittestTests
from plaudit.test_code import parsed

EQUALITIES = frozenset(
    [
        "assertEqual",
        "assertEquals",
        "assertIs",
        "assertListEqual",
        "assertDictEqual",
        "assertTupleEqual",
        "assertSetEqual",
        "assertSequenceEqual",
        "assertMultiLineEqual",
        "assertAlmostEqual",
    ]
)
SAID = {"assertTrue": True, "assertFalse": False, "assertIsNone": None}
MAX_NAME = 300  # characters of a test in a report


def test_texts(tests: InlineTests) -> list[str] | None:
    """The suite's tests in order, as texts that are equal for equal tests; None where only a run can split it."""
    if isinstance(tests, AssertTests):
        return [normalized(text) for text in tests.asserts]
    if isinstance(tests, FunctionTests | StdioTests):
        return [to_json(case).decode() for case in tests.cases]
    return None


def test_names(tests: InlineTests, run_names: Sequence[str]) -> list[str]:
    """How a report names the tests; `run_names` are those that a run gave them, one each."""
    if isinstance(tests, AssertTests):
        texts = list(tests.asserts)
    elif isinstance(tests, FunctionTests | StdioTests):
        texts = [case.model_dump_json(exclude_defaults=True) for case in tests.cases]
    else:
        texts = [name or f"{tests.kind} {at}" for at, name in enumerate(run_names)]
    return [text if len(text) <= MAX_NAME else text[: MAX_NAME - 1] + "…" for text in texts]


def duplicates(texts: Sequence[str]) -> list[int | None]:
    """For each text the index of the first equal one before it."""
    first: dict[str, int] = {}
    places = [first.setdefault(text, at) for at, text in enumerate(texts)]
    return [None if place == at else place for at, place in enumerate(places)]


def same_bodies(source: str, names: Sequence[str]) -> list[int | None]:
    """Duplicates among the named test functions of a file: equal signatures and bodies, whatever their names."""
    tree = parsed(source)
    bodies = {} if tree is None else dict(_bodies(tree))
    keys = []
    for at, name in enumerate(names):
        parts = name.replace("::", ".").split(".")
        # Of a parametrized test each case has its own arguments, which its body does not show.
        keys.append(str(at) if "[" in name else bodies.get(".".join(parts[-2:])) or bodies.get(parts[-1]) or str(at))
    return duplicates(keys)


def _bodies(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in tree.body:
        functions = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
        for function in functions:
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                parts = [function.args, *function.decorator_list, *function.body]
                yield prefix + function.name, prefix + "\n".join(_dump(part) for part in parts)


def normalized(text: str) -> str:
    """A Python text without what does not change its meaning: blanks, quotes, brackets, comments."""
    tree = parsed(text)
    return text.strip() if tree is None else _dump(tree)


def _dump(node: ast.AST) -> str:
    try:
        return ast.dump(node)
    except RecursionError:
        return str(id(node))


def entry_point_of(tests: InlineTests) -> str | None:
    """The name that the suite calls, where it says so or its asserts show it."""
    given: str | None = getattr(tests, "entry_point", None)
    if given is not None:
        return given.split("|")[0]
    if isinstance(tests, AssertTests):
        for text in tests.asserts:
            for called, _, _ in shown_calls(text):
                return called
        for text in tests.asserts:
            for node in ast.walk(parsed(text) or ast.Module([], [])):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Name)
                    and not hasattr(builtins, node.func.id)
                ):
                    return node.func.id
    return None


def shown_calls(source: str, called: str | None = None) -> Iterator[tuple[str, str, str]]:
    """What the assertions of a text show: (f, arguments, value) of `assert f(arguments) == value` and its like.

    Read are `assert` with `==` or `is`, also bare and with `not`, and unittest's assertEqual, assertIs, assertTrue,
    assertFalse and assertIsNone, with the call on either side.

    Args:
        source: Python, or else nothing is shown.
        called: only calls of this name.
    """
    tree = parsed(source)
    for node in () if tree is None else ast.walk(tree):
        for call, value in _asserted(node):
            try:
                name = ast.unparse(call.func).replace("()", "")
                arguments = ", ".join(
                    [*map(ast.unparse, call.args)]
                    + [
                        f"{k.arg}={ast.unparse(k.value)}" if k.arg else f"**{ast.unparse(k.value)}"
                        for k in call.keywords
                    ]
                )
                shown = ast.unparse(value)
            except RecursionError:
                continue
            if called is None or name == called:
                yield name, arguments, shown


def _asserted(node: ast.AST) -> Iterator[tuple[ast.Call, ast.expr]]:
    """The calls that a statement or an expression compares with a value, each with the value."""
    match node:
        case ast.Assert(test=ast.Compare(left=left, ops=[ast.Eq() | ast.Is()], comparators=[right])):
            yield from _call_of(left, right)
        case ast.Assert(test=ast.UnaryOp(op=ast.Not(), operand=ast.Call() as call)):
            yield call, ast.Constant(False)
        case ast.Assert(test=ast.Call() as call):
            yield call, ast.Constant(True)
        case ast.Call(func=ast.Attribute(attr=name), args=[left, right, *_]) if name in EQUALITIES:
            yield from _call_of(left, right)
        case ast.Call(func=ast.Attribute(attr=name), args=[ast.Call() as call, *_]) if name in SAID:
            yield call, ast.Constant(SAID[name])
        case ast.Call(
            func=ast.Attribute(attr="assertTrue"),
            args=[ast.Compare(left=left, ops=[ast.Eq() | ast.Is()], comparators=[right]), *_],
        ):
            yield from _call_of(left, right)


def _call_of(left: ast.expr, right: ast.expr) -> Iterator[tuple[ast.Call, ast.expr]]:
    """The call of an equality, on whichever side it stands, and the value; the left one of two calls."""
    if isinstance(left, ast.Call):
        yield left, right
    elif isinstance(right, ast.Call):
        yield right, left


def shown_answers(tests: InlineTests, entry_point: str | None) -> list[tuple[str, str]]:
    """(arguments, value) as Python source of the calls whose values the suite shows, in its order."""
    if isinstance(tests, FunctionTests):
        shown = []
        for case in tests.cases:
            parts = [*map(repr, case.args), *(f"**{{{name!r}: {value!r}}}" for name, value in case.kwargs.items())]
            shown.append((", ".join(parts), repr(case.expected)))
        return shown
    if isinstance(tests, AssertTests):
        texts, called = tests.asserts, entry_point
    elif isinstance(tests, CheckTests):
        texts, called = [tests.test], "candidate"
    elif isinstance(tests, PytestTests | UnittestTests):
        texts, called = [tests.source], entry_point
    else:
        return []
    if called is None:
        return []
    shown = [(arguments, value) for text in texts for _, arguments, value in shown_calls(text, called)]
    return [(arguments, value) for arguments, value in shown if _stands_alone(f"f({arguments}), {value}")]


def _stands_alone(expression: str) -> bool:
    """Whether an expression uses no name of the suite, which a program of its own does not have."""
    names = {node.id for node in ast.walk(ast.parse(expression, mode="eval")) if isinstance(node, ast.Name)}
    return all(name == "f" or hasattr(builtins, name) for name in names)
