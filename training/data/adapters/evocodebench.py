"""EvoCodeBench and sets of its form: functions of repositories, each under the tests that its repository has for it.

A row: `namespace, type, project_path, completion_path, signature_position, body_position, requirement {Functionality,
Arguments}, dependency {intra_class, intra_file, cross_file}, tests ["file::name", "file::Class::name"]`. Lines count
from 1. The repositories lie in the folder `hub.sources` (the set's `Source_Code`).

- The prompt is the function's head with the requirement as its docstring; what stands in the repository is not shown.
- The program is the function. It runs behind the rest of its file (`prelude`), so what the file defines and imports is
  there for it, and the program process holds no test.
- The tests are the named ones of their file, in the form of pytest or unittest; where they import from the function's
  file, they import from the program.
- Unusable, and named so: methods, functions that need other files of their repository, tests of several files, and
  tests that import something else of it. Packages that are not installed fail in the sandbox, which says so.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from plaudit.errors import HostLacks, Invalid
from plaudit.test_code import runner_of
from training.data.adapters.base import DatasetEntry, labelled_entry
from training.pipeline import config

LICENSE = "see the repository"


def entries(rows: Iterable[dict[str, Any]], hub: config.HubConfig) -> Iterator[DatasetEntry]:
    folder = Path(hub.sources)
    if not hub.sources or not folder.is_dir():
        raise HostLacks(f"hub.sources: no folder {hub.sources!r} with the repositories of the data set")
    for row in rows:
        yield _entry(row, folder)


def _entry(row: Mapping[str, Any], folder: Path) -> DatasetEntry:
    name = str(row["namespace"]).rpartition(".")[2]
    label: dict[str, Any] | None = None
    head, solution, reason = "", "", ""
    try:
        prelude, head, solution = _parts(row, folder, name)
        source, kind = _tests(row, folder)
        label = {"kind": kind, "source": source, "prelude": prelude, "entry_point": name}
    except Invalid as error:
        reason = error.detail
    entry = labelled_entry(
        f"EvoCodeBench/{row['namespace']}",
        head or str(row["namespace"]),
        label,
        "tests",
        source="EvoCodeBench",
        license_=LICENSE,
        right=[solution] if solution else [],
        entry_point=name,
    )
    return DatasetEntry(entry.problem, entry.programs, entry.pairs, reason) if reason else entry


def _parts(row: Mapping[str, Any], folder: Path, name: str) -> tuple[str, str, str]:
    """The rest of the function's file, the function's head with its requirement, and the function."""
    if row["type"] != "function":
        raise Invalid(f"type: a {row['type']} is judged in its class, and only functions are taken")
    if cross := (row.get("dependency") or {}).get("cross_file"):
        raise Invalid(f"dependency.cross_file: it needs {cross[0]} of another file")
    path = folder / row["completion_path"]
    text, tree = _parsed(path, "completion_path")
    first, last = row["signature_position"][0], row["body_position"][1]
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    function = next((node for node in found if node.lineno == first), None)
    if function is None or function.end_lineno is None:
        raise Invalid(f"signature_position: {row['completion_path']} has no function {name} at line {first}")
    if relative := next((n for n in tree.body if isinstance(n, ast.ImportFrom) and n.level), None):
        raise Invalid(f"completion_path: line {relative.lineno} imports another file of the repository")
    project = _package(row)
    if other := next((module for module in _imports(tree) if module.partition(".")[0] == project), None):
        raise Invalid(f"completion_path: it imports {other} of the repository")
    lines = text.splitlines(keepends=True)
    begin = min((node.lineno for node in function.decorator_list), default=first) - 1
    end = max(function.end_lineno, last)
    signature = "".join(lines[begin : row["signature_position"][1]])
    return "".join(lines[:begin] + lines[end:]), signature + _docstring(row), "".join(lines[begin:end])


def _docstring(row: Mapping[str, Any]) -> str:
    requirement = row.get("requirement") or {}
    said = [str(requirement[part]).strip() for part in ("Functionality", "Arguments") if requirement.get(part)]
    text = "\n\n".join(said).replace("\\", "\\\\").replace('"""', "'''")
    body = "\n".join(f"    {line}".rstrip() for line in text.splitlines())
    return f'    """\n{body}\n    """\n'


def _tests(row: Mapping[str, Any], folder: Path) -> tuple[str, str]:
    """The named tests of their file, and the runner that they are written for."""
    named = [str(test).split("::") for test in row["tests"]]
    files = {test[0] for test in named}
    if len(files) != 1 or any(len(test) not in (2, 3) for test in named):
        raise Invalid(f"tests: {', '.join(map(str, row['tests']))[:120]} are not tests of one file, as file::name")
    _, tree = _parsed(folder / row["project_path"] / named[0][0], "tests")
    wanted = [tuple(part.partition("[")[0] for part in test[1:]) for test in named]  # without a parameter's id
    tree.body = [node for node in tree.body if _is_wanted(node, wanted)]
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            node.body = [child for child in node.body if _is_wanted(child, wanted, node.name)]
    target = _module(row)
    tree = _Redirected(target, _package(row), str(row["namespace"]).rpartition(".")[2]).visit(tree)
    kind = runner_of(tree)
    if kind is None:
        raise Invalid(f"tests: {named[0][0]} has no test {'::'.join(wanted[0])}")
    return ast.unparse(ast.fix_missing_locations(tree)) + "\n", kind


def _is_wanted(node: ast.stmt, wanted: Sequence[tuple[str, ...]], parent: str = "") -> bool:
    """Whether a statement of a test file is kept: helpers and named tests are, other tests are not."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        named = (parent, node.name) if parent else (node.name,)
        return not node.name.startswith("test") or named in wanted
    if isinstance(node, ast.ClassDef) and not parent:
        has_tests = any(isinstance(n, ast.FunctionDef) and n.name.startswith("test") for n in node.body)
        return not has_tests or any(test[0] == node.name for test in wanted)
    return True


class _Redirected(ast.NodeTransformer):
    """Imports of the function's module become imports of the program. Raises `Invalid` for others of the package."""

    def __init__(self, target: str, package: str, function: str) -> None:
        self._target, self._package, self._function = target, package, function

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.stmt:
        if node.module == self._target:
            if other := next((alias.name for alias in node.names if alias.name != self._function), None):
                raise Invalid(f"tests: line {node.lineno} imports {other} beside the function, from its file")
            return ast.ImportFrom("solution", node.names, 0)
        names = [f"{node.module}.{alias.name}" for alias in node.names]
        if names == [self._target]:
            return ast.Import([ast.alias("solution", node.names[0].asname or node.names[0].name)])
        if node.level or (node.module or "").partition(".")[0] == self._package:
            raise Invalid(f"tests: line {node.lineno} imports {names[0]} of the repository")
        return node

    def visit_Import(self, node: ast.Import) -> ast.stmt:
        for alias in node.names:
            if alias.name == self._target and (alias.asname or "." not in alias.name):
                return ast.Import([ast.alias("solution", alias.asname or alias.name)])
            if alias.name.partition(".")[0] == self._package:
                raise Invalid(f"tests: line {node.lineno} imports {alias.name} of the repository")
        return node


def _module(row: Mapping[str, Any]) -> str:
    """The importable name of the function's file: the namespace without the function."""
    return str(row["namespace"]).rpartition(".")[0]


def _package(row: Mapping[str, Any]) -> str:
    return _module(row).partition(".")[0]


def _imports(tree: ast.Module) -> list[str]:
    modules = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    return modules + [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]


def _parsed(path: Path, field: str) -> tuple[str, ast.Module]:
    try:
        text = path.read_text(encoding="utf-8")
        return text, ast.parse(text)
    except (OSError, ValueError, SyntaxError) as error:
        raise Invalid(f"{field}: {path.name} cannot be read: {error}") from error
