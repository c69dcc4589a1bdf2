"""Names the modules that programs import and this host does not have. The failure is judged like any other.

The name comes from the program's own error message, so it is reported only if it is a top-level module, this host has
no such module, and the program's text imports it. A program that forges the message gains nothing: it has failed.
(Under `missing_modules: invalid` it gets no verdict; that option is for labelling data.)
"""

from __future__ import annotations

import re

from plaudit.grading import Verdict
from plaudit.languages import base
from sandbox.packages import node_lacks, python_lacks
from sandbox.types import TestReport

FLAG = "module_unavailable:"
MAX_NAMED = 4
PYTHON = re.compile(r"ModuleNotFoundError: No module named '(\w{1,100})(?:\.[\w.]{0,200})?'")
NODE = re.compile(r"Cannot find (?:module|package) '((?:@[\w.-]{1,100}/)?[\w.-]{1,100})(?:/[\w./-]{0,200})?'")
CLEAN = frozenset({Verdict.PASSED, Verdict.SKIPPED, Verdict.WRONG_ANSWER})


def missing_modules(language: str, source: bytes, tests: list[TestReport] | tuple[TestReport, ...]) -> list[str]:
    """Modules whose absence failed tests and that are nowhere on this host, sorted."""
    name = base(language)
    if name not in ("python", "javascript", "typescript"):
        return []
    pattern, lacks, imports = NODE, node_lacks, needs_node
    if name == "python":
        pattern, lacks, imports = PYTHON, python_lacks, imports_python
    names: set[str] = set()
    for report in tests:
        if report.verdict in CLEAN or len(names) >= MAX_NAMED:
            continue
        for text in (report.detail, report.stderr):
            names |= {match[1] for match in pattern.finditer(text)}
    return sorted(module for module in names if lacks(module) and imports(source, module))[:MAX_NAMED]


def imports_python(source: bytes, module: str) -> bool:
    """Whether the text has an import statement of a module; in time proportional to the text."""
    name = re.escape(module.encode())
    return any(
        re.search(rb"(?:import|,)[ \t\\]*" + name + rb"(?![\w])|from[ \t\\]+" + name + rb"(?![\w])", line)
        for line in IMPORTING.findall(source)
    )


IMPORTING = re.compile(rb"(?:^|[;:])[ \t]*((?:import|from)[ \t\\][^\n;]*)", re.MULTILINE)


def needs_node(source: bytes, module: str) -> bool:
    name = re.escape(module.encode())
    return re.search(rb"(?:require|import|from)[ \t]*\(?[ \t]*[\"'`]" + name + rb"[\"'`/]", source) is not None
