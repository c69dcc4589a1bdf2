"""Finds entries of a suite that cannot assert anything, and suggests what their author probably meant.

Static analysis (`ast`), cheap enough for the API. In doubt an entry is accepted, and the control run (`control_run.py`)
finds out. Only what cannot assert under any program is rejected: a comparison without `assert`, a print, a plain call
of the entry point, an assert that is always true, definitions that are not called.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from plaudit.test_code import has_tests
from sandbox.judge.assertion_analysis import CONSUMING, FUNCTIONS, AssertionReader, bound, called_first, loaded, parsed
from sandbox.types import AssertSuite, CheckSuite, PytestSuite, ScriptSuite, Suite, UnittestSuite

MAX_READ = 128 * 1024  # characters of a suite's code
SHOWN = 120  # characters of an entry that a message repeats
PLAIN = (
    ast.Expr,
    ast.Assert,
    ast.Pass,
    ast.Assign,
    ast.AnnAssign,
    ast.AugAssign,
    ast.Import,
    ast.ImportFrom,
    ast.ClassDef,
    *FUNCTIONS,
)
LINE_COMMENTS = {
    "python": "#",
    "bash": "#",
    "ruby": "#",
    "perl": "#",
    "r": "#",
    "julia": "#",
    "elixir": "#",
    "nim": "#",
    "javascript": "//",
    "typescript": "//",
    "go": "//",
    "rust": "//",
    "c": "//",
    "cpp": "//",
    "java": "//",
    "csharp": "//",
    "kotlin": "//",
    "scala": "//",
    "swift": "//",
    "d": "//",
    "dart": "//",
    "php": "//",
    "lua": "--",
    "haskell": "--",
    "ada": "--",
    "racket": ";",
    "clojure": ";",
}
C_LIKE = frozenset(name for name, mark in LINE_COMMENTS.items() if mark == "//")


@dataclass(frozen=True, slots=True)
class SuiteFlaw:
    """Why a part of a suite cannot be used: the part, as a path below `tests`, and the reason with a way out."""

    field: str
    reason: str

    def __str__(self) -> str:
        return f"{self.field}: {self.reason}"


def suite_flaw(suite: Suite, language: str = "") -> SuiteFlaw | None:
    """The first part of a suite that can assert nothing. A text that does not parse has none: others tell of that.

    Nor has a suite of more than `MAX_READ` characters: reading it would take long, and the control run tries it anyway.
    """
    if _num_characters(suite) > MAX_READ:
        return None
    if isinstance(suite, AssertSuite):
        return flaw_of_asserts(suite.asserts, suite.setup, suite.entry_point or "")
    if isinstance(suite, CheckSuite):
        return flaw_of_check(suite.test, suite.entry_point)
    if isinstance(suite, ScriptSuite):
        return flaw_of_script(suite.source, language)
    if isinstance(suite, PytestSuite | UnittestSuite):
        return flaw_of_module(suite.source, isinstance(suite, UnittestSuite))
    return None


def _num_characters(suite: Suite) -> int:
    if isinstance(suite, AssertSuite):
        return len(suite.setup) + sum(map(len, suite.asserts))
    if isinstance(suite, CheckSuite):
        return len(suite.test)
    return len(suite.source) if isinstance(suite, ScriptSuite | PytestSuite | UnittestSuite) else 0


def shown(node: ast.AST) -> str:
    text = ast.unparse(node)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def suggestion(body: Sequence[ast.stmt]) -> str:
    """Describes an entry that asserts nothing, and says what to write in its place."""
    if not body:
        return "nothing but comments and blanks; write an assert, or leave it out"
    if all(isinstance(node, (*FUNCTIONS, ast.ClassDef)) for node in body):
        name = getattr(body[-1], "name", "it")
        return f"only definitions; call {name}() in the same entry, or name it test_{name} to have it run"
    node = body[-1]
    if isinstance(node, ast.Assert):
        test = node.test
        if isinstance(test, ast.Tuple) and test.elts:
            first = shown(test.elts[0])
            rest = f", {shown(test.elts[1])}" if len(test.elts) > 1 and isinstance(test.elts[1], ast.Constant) else ""
            return f"an assert of a tuple, which is always true; write `assert {first}{rest}`"
        return f"`{shown(node)}` is always true; compare an answer of the program with what it must be"
    if isinstance(node, ast.Expr):
        value = node.value
        if isinstance(value, ast.Compare):
            return f"a comparison whose outcome is not checked; write `assert {shown(value)}`"
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "print":
            inner = shown(value.args[0]) if value.args else "…"
            wanted = inner if value.args and isinstance(value.args[0], ast.Compare) else f"{inner} == …"
            return f"a print, which checks nothing; write `assert {wanted}`"
        if isinstance(value, ast.Call):
            return f"a call whose answer is not checked; write `assert {shown(value)} == …`"
        if isinstance(value, ast.Lambda):
            return "a lambda that is not called; write an assert"
        if isinstance(value, ast.Constant):
            return "a constant; write an assert"
        return f"an expression whose value is not checked; write `assert {shown(value)}`"
    if isinstance(node, ast.Pass):
        return "`pass`; write an assert, or leave it out"
    return "no assertion that can run; write an assert"


@lru_cache(maxsize=128)
def flaw_of_asserts(asserts: tuple[str, ...], setup: str, entry_point: str) -> SuiteFlaw | None:
    trees = [parsed(text) for text in asserts]
    before = parsed(setup)
    if before is None or any(tree is None for tree in trees):
        return None
    whole = [tree for tree in trees if tree is not None]
    defined = bound([*before.body, *(node for tree in whole for node in tree.body)])
    first = {entry_point} if entry_point else called_first(whole[0], defined)
    used = [loaded(tree.body) for tree in whole]
    for number, tree in enumerate(whole):
        reading = AssertionReader([before, *whole], first)
        if reading.asserts(tree.body) or has_tests(tree):
            continue
        names = bound(tree.body)
        others = (used[other] for other in range(len(whole)) if other != number)
        if names and any(names & other for other in others):
            continue  # it prepares what other entries look at
        if any(not isinstance(node, PLAIN) for node in tree.body) or consumes(tree.body):
            continue  # loops, attempts and the like: what comes of them is seen in the control run
        if tree.body and all(isinstance(node, ast.Import | ast.ImportFrom) for node in tree.body):
            continue
        return SuiteFlaw(f"asserts.{number}", f"it can assert nothing: {suggestion(tree.body)}")
    return None


@lru_cache(maxsize=128)
def flaw_of_check(test: str, entry_point: str) -> SuiteFlaw | None:
    tree = parsed(test)
    if tree is None:
        return None
    if "check" not in bound(tree.body):
        may_bind = any(
            isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names) for node in tree.body
        ) or any(isinstance(node, ast.Name) and node.id in ("exec", "globals", "setattr") for node in ast.walk(tree))
        if may_bind or has_tests(tree):
            return None
        return SuiteFlaw(
            "test", "it does not define check(candidate); write `def check(candidate): assert candidate(…) == 3`"
        )
    checks = [node for node in ast.walk(tree) if isinstance(node, FUNCTIONS) and node.name == "check"]
    if not checks:
        return None  # assigned, or imported
    for function in checks:
        arguments = {argument.arg for argument in (*function.args.posonlyargs, *function.args.args)}
        reading = AssertionReader([tree], {entry_point, *arguments})
        reading.entered.add("check")
        if reading.asserts(function.body):
            return None
    top = AssertionReader([tree], {entry_point})
    top.entered.add("check")
    if top.asserts(tree.body):
        return None
    body = [node for node in checks[-1].body if not is_docstring(node)]
    return SuiteFlaw("test", f"check() can assert nothing: {suggestion(body)}")


def consumes(body: Sequence[ast.stmt]) -> bool:
    last = body[-1] if body else None
    call = last.value if isinstance(last, ast.Expr) else None
    return isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in CONSUMING


def is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


@lru_cache(maxsize=128)
def flaw_of_module(source: str, of_classes: bool) -> SuiteFlaw | None:
    tree = parsed(source)
    if tree is None or any(
        isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names) for node in ast.walk(tree)
    ):
        return None
    names = bound(tree.body)
    if any(name.startswith("test") or name.startswith("Test") for name in names) or any(
        isinstance(node, ast.ClassDef) for node in ast.walk(tree)
    ):
        return None
    if any(isinstance(node, ast.Name) and node.id in ("exec", "globals", "setattr") for node in ast.walk(tree)):
        return None
    wanted = "a TestCase class with methods named test…" if of_classes else "a function or method named test…"
    return SuiteFlaw("source", f"no test is defined in it; write {wanted}")


@lru_cache(maxsize=128)
def flaw_of_script(source: str, language: str) -> SuiteFlaw | None:
    if is_blank(source, language):
        return SuiteFlaw("source", "it can assert nothing: nothing but comments and blanks; write a test that can fail")
    if language != "python":
        return None
    tree = parsed(source)
    if tree is None or has_tests(tree):
        return None
    body = [node for node in tree.body if not isinstance(node, ast.Import | ast.ImportFrom) and not is_docstring(node)]
    if body and not all(isinstance(node, (ast.Pass, ast.Expr, ast.Assert, ast.ClassDef, *FUNCTIONS)) for node in body):
        return None
    if AssertionReader([tree], called_first(tree, bound(tree.body))).asserts(body):
        return None
    return SuiteFlaw("source", f"it can assert nothing: {suggestion(body)}")


def is_blank(source: str, language: str) -> bool:
    """Whether a text holds nothing but blanks and comments, of the language's usual kinds."""
    text = source.strip()
    if not text:
        return True
    if language in C_LIKE:
        text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL).removeprefix("<?php").strip()
    mark = LINE_COMMENTS.get(language)
    if mark is None:
        return not text
    lines = (line.strip() for line in text.splitlines())
    marks = (mark, "#") if language == "php" else (mark,)
    return all(not line or (line.startswith(marks) and not line.startswith("#[")) for line in lines)
