"""What a test asks beyond values, found by reading it: no program's answers have a part in that.

Such a test would need the program's own process: it replaces what the program calls, or looks at how it is written.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

MODULE_KINDS = ("pytest", "unittest")
PROGRAM_MODULES = frozenset(
    {
        "solution",
        "solutions",
        "main",
        "program",
        "submission",
        "candidate",
        "your_module",
        "my_module",
        "answer",
        "__main__",
    }
)
SHOWN_TO_PROGRAMS = frozenset(
    {
        "sys.stdin",
        "sys.stdout",
        "sys.stderr",
        "sys.argv",
        "builtins.input",
        "builtins.print",
        "builtins.open",
        "os.environ",
    }
)
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
    """By test, what it asks that values cannot give."""
    if plan["kind"] in MODULE_KINDS:
        return of_file(plan["tests"][0], tuple(names))
    found = {}
    for number, text in enumerate(plan["tests"]):
        reason = of_text(text, plan["setup"])
        if reason:
            found[number] = reason
    return found


def parsed(text: str) -> ast.Module | None:
    if not any(word in text for word in ("patch", "setattr", "sys.modules", *LOOKING)):
        return None
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


@lru_cache(maxsize=512)
def of_text(text: str, setup: str) -> str:
    tree = parsed(text)
    if tree is None:
        return ""
    before = whole(setup)
    return next(reasons(tree, defined(tree) | defined(before), libraries(tree) | libraries(before)), "")


def whole(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ast.Module([], [])


@lru_cache(maxsize=128)
def of_file(source: str, names: tuple[str, ...]) -> dict[int, str]:
    tree = parsed(source)
    if tree is None:
        return {}
    own, modules = defined(tree), libraries(tree)
    found: dict[int, str] = {}
    shared = fixtures(tree, own, modules)
    for number, name in enumerate(names):
        path = name.partition("[")[0].replace("::", ".").split(".")
        reason = next(of_test(tree, path, own, modules), "")
        if not reason:
            asked = {argument for node in functions_of(tree, path) for argument in arguments(node)}
            reason = next((shared[one] for one in sorted(asked) if one in shared), "")
        if reason:
            found[number] = reason
    return found


def fixtures(tree: ast.Module, own: set[str], modules: set[str]) -> dict[str, str]:
    """The fixtures of the file that ask beyond values."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, FUNCTIONS) and any("fixture" in ast.unparse(one) for one in node.decorator_list):
            reason = next(reasons(node, own, modules), "")
            if reason:
                found[node.name] = reason
    return found


def arguments(node: ast.AST) -> list[str]:
    return [one.arg for one in node.args.args] if isinstance(node, FUNCTIONS) else []


def functions_of(tree: ast.AST, path: list[str]) -> list[ast.AST]:
    """The definitions that a test's name leads to: its classes, with what runs around their tests, and itself."""
    body: list[ast.stmt] = list(getattr(tree, "body", []))
    found: list[ast.AST] = []
    for step in path:
        node = next((one for one in body if isinstance(one, (*FUNCTIONS, ast.ClassDef)) and one.name == step), None)
        if node is None:
            break
        body = list(node.body)
        if isinstance(node, ast.ClassDef):
            found += node.decorator_list
            around = ("setUp", "setUpClass", "setup_method", "setup_class", "asyncSetUp")
            found += [one for one in node.body if isinstance(one, FUNCTIONS) and one.name in around]
        else:
            found.append(node)
    return found


def of_test(tree: ast.Module, path: list[str], own: set[str], modules: set[str]) -> Iterator[str]:
    for node in functions_of(tree, path):
        yield from reasons(node, own, modules)


def defined(tree: ast.AST) -> set[str]:
    """What a text defines itself: classes and functions, whose parts it may replace as it likes."""
    return {node.name for node in ast.walk(tree) if isinstance(node, (*FUNCTIONS, ast.ClassDef))}


def libraries(tree: ast.AST) -> set[str]:
    """The names under which a text imports modules."""
    return {
        (alias.asname or alias.name).partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }


def dotted(node: ast.AST) -> str:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def reasons(tree: ast.AST, own: set[str], modules: set[str]) -> Iterator[str]:
    """What is asked beyond values, one reason after the other."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            name = node.attr if isinstance(node, ast.Attribute) else node.id
            if name in LOOKING:
                yield f"the test asks for {LOOKING[name]} ({name})"
        if isinstance(node, ast.Subscript) and dotted(node.value) == "sys.modules":
            yield "the test looks into sys.modules, which the program does not share"
        if isinstance(node, ast.Call):
            target = replaced(node, modules)
            root = target.partition(".")[0]
            if target and root not in own and root != "test_suite" and target not in SHOWN_TO_PROGRAMS:
                where = "in the program" if root in PROGRAM_MODULES else "where the program never sees it"
                yield f"the test replaces {target} {where}"


def replaced(call: ast.Call, modules: set[str]) -> str:
    """What a call of mock or monkeypatch replaces in a module, as a dotted name; empty for any other call."""
    name = dotted(call.func)
    first = call.args[0] if call.args else None
    if name == "patch" or name.endswith(".patch"):
        return first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""
    of_object = name.endswith("patch.object") or name == "monkeypatch.setattr"
    if not of_object or first is None:
        return ""
    if isinstance(first, ast.Constant):
        return str(first.value) if isinstance(first.value, str) else ""
    attribute = call.args[1] if len(call.args) > 1 else None
    place = dotted(first)
    if place.partition(".")[0] not in modules or not isinstance(attribute, ast.Constant):
        return ""
    return f"{place}.{attribute.value!s}"
