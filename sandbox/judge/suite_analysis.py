"""Reads the text of a suite before anything runs: which tests would execute an answer, and which names they use.

- The result is the same for every program. The test process gets it with its plan (`read`), because it has no parser.
- `executing`: which tests would execute an answer of the program (`eval`, `exec`, `pickle.loads`, doctest, a
  subprocess). Code that runs in the test process can decide what that process reports, so each such test gets a
  process of its own and decides its own verdict only.
"""

from __future__ import annotations

import ast
import builtins
import keyword
from functools import lru_cache
from typing import Any

from sandbox.errors import InvalidSuite

EXECUTING_CALLS = frozenset({"eval", "exec", "compile", "__import__", "execfile"})
EXECUTING_MODULES = frozenset(
    {
        "pickle",
        "_pickle",
        "cPickle",
        "dill",
        "cloudpickle",
        "joblib",
        "marshal",
        "shelve",
        "jsonpickle",
        "doctest",
        "subprocess",
        "importlib",
        "imp",
        "runpy",
        "code",
        "codeop",
        "pdb",
        "bdb",
        "trace",
        "timeit",
        "cProfile",
        "profile",
        "ctypes",
        "multiprocessing",
        "zipimport",
        "pty",
        "ast",
        "yaml",
    }
)
HARMLESS: dict[str, set[str]] = {  # of those modules: what executes nothing that it is given
    "pickle": {"dumps", "dump", "HIGHEST_PROTOCOL", "DEFAULT_PROTOCOL", "PickleError", "PicklingError", "Pickler"},
    "marshal": {"dumps", "dump"},
    "ast": {"literal_eval", "parse", "dump", "walk", "NodeVisitor", "iter_child_nodes", "unparse"},
    "yaml": {"safe_load", "safe_dump", "dump", "safe_load_all", "YAMLError"},
    "ctypes": {"sizeof"},
    "timeit": {"default_timer"},
    "importlib": {"import_module", "metadata", "util", "reload"},
    "multiprocessing": {"cpu_count"},
    "subprocess": {"PIPE", "CalledProcessError", "TimeoutExpired", "DEVNULL", "STDOUT"},
}
EXECUTING_ATTRIBUTES = frozenset(
    {  # of `os` and its like, however they were reached
        "system",
        "popen",
        "execv",
        "execve",
        "execl",
        "execlp",
        "execvp",
        "spawnl",
        "spawnv",
        "posix_spawn",
        "fork",
        "Unpickler",
        "run_path",
        "run_module",
        "run_docstring_examples",
        "get_type_hints",
        "read_pickle",
        "runctx",
    }
)
MAX_CUTS = 200  # of a prompt that is not a program by itself


@lru_cache(maxsize=64)
def read(setup: str, helpers: str, tests: tuple[str, ...], entry_point: str) -> dict[str, Any]:
    """What the test process gets besides the texts."""
    context = [tree for text in (setup, helpers) if (tree := parsed(text)) is not None]
    trees = [parsed(text) for text in tests]
    aliases = {name: module for tree in (*context, *trees) if tree for name, module in executing_names(tree).items()}
    everywhere = any(executes(tree, aliases) for tree in context)
    first = entry_point.partition(".")[0]
    attributes: dict[str, list[str]] = {}
    for tree in (*context, *trees):
        for node in ast.walk(tree) if tree else ():
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                attributes.setdefault(node.value.id, []).append(node.attr)
    return {
        "executing": [everywhere or (tree is not None and executes(tree, aliases)) for tree in trees],
        "mentions": [tree is None or bool({first, "candidate"} & loaded(tree)) for tree in trees],
        "attributes": {name: sorted(set(used)) for name, used in attributes.items()},
        "roles": sorted(set().union(*(class_roles(tree) for tree in (*context, *trees) if tree))),
    }


def parsed(text: str) -> ast.Module | None:
    """The tree of a text; None if it does not parse, in which case the test process rejects it as well."""
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def loaded(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def executing_names(tree: ast.AST) -> dict[str, str]:
    """Names under which a text has imported something that executes what it is given."""
    bindings = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                root = alias.name.partition(".")[0]
                if root in EXECUTING_MODULES or alias.name in EXECUTING_MODULES:
                    bindings[alias.asname or root] = root
        elif isinstance(node, ast.ImportFrom) and node.module:
            root = node.module.partition(".")[0]
            harmless = HARMLESS.get(root, set())
            for alias in node.names:
                if root in EXECUTING_MODULES and alias.name not in harmless:
                    bindings[alias.asname or alias.name] = ""
                if alias.name in EXECUTING_ATTRIBUTES or (root == "builtins" and alias.name in EXECUTING_CALLS):
                    bindings[alias.asname or alias.name] = ""
    return bindings


def executes(tree: ast.AST, aliases: dict[str, str]) -> bool:
    """Whether a text uses anything that executes what it is given."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "eval_str":
            return True
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            if node.id in EXECUTING_CALLS or aliases.get(node.id) == "":
                return True
            continue
        if not isinstance(node, ast.Attribute):
            continue
        if node.attr in EXECUTING_ATTRIBUTES:
            return True
        if isinstance(node.value, ast.Name):
            module = aliases.get(node.value.id, node.value.id if node.value.id in EXECUTING_MODULES else "")
            harmless = HARMLESS.get(module, set())
            if module and node.attr not in harmless:
                return True
            if node.value.id in ("builtins", "__builtins__") and node.attr in EXECUTING_CALLS:
                return True
    return False


def class_roles(tree: ast.AST) -> set[str]:
    """Names that a text uses the way only classes are used: in `isinstance`, `except`, as a base, with attributes."""
    names: set[str] = set()

    def note(node: ast.AST | None) -> None:
        for part in ast.walk(node) if node is not None else ():
            if isinstance(part, ast.Name):
                names.add(part.id)

    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            note(node.type)
        elif isinstance(node, ast.ClassDef):
            for base in node.bases:
                note(base)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            names.add(node.value.id)
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("isinstance", "issubclass")
            and len(node.args) == 2
        ):
            note(node.args[1])
    return names


def complete_part(text: str) -> str:
    """The top-level statements of a prompt that ends in an open `def`: everything before the one that is not whole."""
    if parsed(text) is not None:
        return text
    lines = text.splitlines(keepends=True)
    starts = [at for at, line in enumerate(lines) if line[:1].strip() and not line.startswith(("#", ")", "]", "}"))]
    for at in reversed(starts[-MAX_CUTS:]):
        part = "".join(lines[:at])
        if parsed(part) is not None:
            return part
    return ""


def check_entry_point(kind: str, entry_point: str) -> None:
    """Raises InvalidSuite for a name that belongs to the harness or to the language and cannot be a program's."""
    parts = entry_point.split(".")
    reserved = {"check": {"check"}}.get(kind, set())
    if parts[0] in reserved:
        raise InvalidSuite(f"entry_point: {parts[0]!r} is the function of the test, so a program cannot define it")
    if parts[0].startswith("__") and parts[0].endswith("__"):
        raise InvalidSuite(f"entry_point: {parts[0]!r} is a name of the language; give the name of a function or class")
    if not all(part.isidentifier() and not keyword.iskeyword(part) for part in parts):
        raise InvalidSuite(f"entry_point: {entry_point[:100]!r} is not a name of Python, so no program can define it")
    if parts[0] in DECIDING and hasattr(builtins, parts[0]):
        raise InvalidSuite(f"entry_point: the tests need {parts[0]!r} themselves, so it cannot be the program's")


DECIDING = frozenset({"isinstance", "issubclass", "AssertionError", "bool", "all", "any", "callable", "hasattr"})
