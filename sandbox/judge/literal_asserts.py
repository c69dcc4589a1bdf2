"""Asserts that need no test process: a call with literal arguments, compared with a literal.

Most asserts of the benchmarks are `assert f(1, [2]) == 3`. This process can judge them itself: it sends the arguments,
rebuilds the returned value as exact builtin types, and compares with Python's own `==`. That saves the test process.
Anything else (a name, a helper, a comparison of two calls, an answer that is not a plain value) is left to the test
process. `Undecided` is raised if only the answer shows it.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

from plaudit.grading import Verdict
from sandbox.judge import bounds, codec
from sandbox.judge.function_calls import EntryPointCall, Undecided
from sandbox.run import RunOutcome

PLAIN_TAGS = frozenset({"tuple", "dict", "set", "frozenset", "int", "float", "complex", "bytes"})
MAX_ITEMS = 2_000  # of an answer that is compared here; one that is larger goes the long way
HASHED_WEIGHT = 4  # of one that is an item of a set or a dict: hashes of numbers can be made to collide
MAX_TEXT = 20_000  # of a test that is parsed here


@lru_cache(maxsize=64)
def literal_calls(asserts: Sequence[str], setup: str, entry_point: str) -> list[EntryPointCall] | None:
    """The calls that these asserts make, or None if any of them, or the setup, is more than that."""
    if not only_imports(setup, entry_point):
        return None
    calls = []
    for text in asserts:
        call = literal_call(text, entry_point)
        if call is None:
            return None
        calls.append(call)
    return calls


def parsed(text: str) -> list[ast.stmt] | None:
    try:
        return ast.parse(text).body if len(text) <= MAX_TEXT else None
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def only_imports(setup: str, entry_point: str) -> bool:
    """Whether a setup only imports from the standard library, which literal tests cannot notice."""
    if not setup.strip():
        return True
    names: list[str] = []
    for node in parsed(setup) or [ast.Pass()]:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.append(node.module)
        else:
            return False
        if any((alias.asname or alias.name) in (entry_point, "*") for alias in node.names):
            return False
    return all(name in sys.stdlib_module_names for name in names)  # a submodule may be missing: the long way says so


def argument(node: ast.expr) -> Any:
    """The value that the compiled test would pass. Raises what `ast.literal_eval` does for anything but a literal.

    A set is built as the compiler builds it, because that decides its iteration order. If the order depends on this
    process's hashes (of texts), only the test process can build it.
    """
    value = ast.literal_eval(node)
    sets = [part for part in ast.walk(node) if isinstance(part, ast.Set)]
    if sets:
        parts = (part for item in sets for part in ast.walk(item) if isinstance(part, ast.Constant))
        if not all(isinstance(part.value, int | float | complex) for part in parts):
            raise ValueError("a set of other things than numbers")
        code = compile(ast.Expression(node), "<literal>", "eval", dont_inherit=True)
        value = eval(code, {"__builtins__": {"set": set}})  # literal_eval has seen that there is nothing else in it
    return value


def literal_call(text: str, entry_point: str) -> EntryPointCall | None:
    body = parsed(text)
    if body is None or len(body) != 1 or not isinstance(body[0], ast.Assert):
        return None
    message, reason = body[0].msg, text.strip()
    if message is not None:
        if not isinstance(message, ast.Constant) or not isinstance(message.value, str):
            return None
        reason = message.value or reason
    test, wanted = body[0].test, True
    while isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        test, wanted = test.operand, not wanted
    how, expected = "truth", None
    if isinstance(test, ast.Compare):
        if len(test.ops) != 1:
            return None
        how = {ast.Eq: "==", ast.NotEq: "!=", ast.Is: "is", ast.IsNot: "is not"}.get(type(test.ops[0]), "")
        left, right = test.left, test.comparators[0]
        call, other = (left, right) if isinstance(left, ast.Call) else (right, left)
        try:
            expected = ast.literal_eval(other)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            return None
        if not how or (how.startswith("is") and not isinstance(expected, bool | None)):
            return None
        test = call
    if not (isinstance(test, ast.Call) and isinstance(test.func, ast.Name) and test.func.id == entry_point):
        return None
    if any(keyword.arg is None for keyword in test.keywords):
        return None
    try:
        args = [argument(node) for node in test.args]
        args += [argument(keyword.value) for keyword in test.keywords]
        trees = [codec.encode(value) for value in args]
        codec.dumps(trees)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError, codec.CodecError):
        return None
    judge = partial(judge_literal, how=how, expected=expected, wanted=wanted, reason=reason[: bounds.MAX_REASON])
    return EntryPointCall(
        trees, [keyword.arg for keyword in test.keywords if keyword.arg], judge, max_bytes=bounds.MAX_LITERAL_BYTES
    )


def judge_literal(tree: Any, how: str, expected: Any, wanted: bool, reason: str) -> RunOutcome:
    """The verdict of one assert on one answer. Raises Undecided."""
    if count_plain(tree) > MAX_ITEMS:
        raise Undecided("the answer is too large to be compared here")
    try:
        value = codec.decode(tree)
    except codec.CodecError as error:
        return RunOutcome(Verdict.INVALID_RESULT, bounds.text(str(error)))
    if how == "truth":
        holds = bool(value)
    elif how.startswith("is"):
        holds = (value is expected) == (how == "is")
    else:
        holds = bool(value == expected) == (how == "==")
    return RunOutcome(Verdict.PASSED) if holds == wanted else RunOutcome(Verdict.WRONG_ANSWER, reason)


def count_plain(tree: Any) -> int:
    """How many values a tree holds; more than MAX_ITEMS, where it holds too many, are not counted on.

    Raises Undecided for one that is not of the plain kinds.
    """
    count, waiting = 0, [tree]
    while waiting and count + len(waiting) <= MAX_ITEMS:
        tree = waiting.pop()
        count += 1
        if type(tree) is list:
            waiting += tree
        elif type(tree) is dict:
            tag = tree.get("t")
            if type(tag) is not str or tag not in PLAIN_TAGS:  # a list would not even be looked up
                raise Undecided(f"an answer of the kind {bounds.text(tag, 50)}")
            if type(tree.get("v")) is list:
                waiting += tree["v"]
                if tag in ("dict", "set", "frozenset"):
                    count += (HASHED_WEIGHT - 1) * len(tree["v"])
    return count + len(waiting)
