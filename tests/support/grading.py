"""What split grading can and cannot judge: the table in docs/sandbox.md, with a case for each line.

The first part comes from `ordinary.txt` and `alive.txt`. The second has a program and a test a line, and what comes of
them: the verdict of the right program, and who judged.
"""

from __future__ import annotations

from dataclasses import dataclass

from support.ordinary import ROWS

AREAS = {
    "errors": "exceptions: own classes and their order, attributes, text, cause, notes, groups",
    "values": "values as answers: enumerations, subclasses of builtin types, dates, paths, views, streams",
    "arguments": "values, streams and objects of the tests as arguments; changes in place; an argument that comes back",
    "classes": "classes: operators, protocols, contexts, copies, dataclasses, extension by the tests",
    "concurrent": "threads on either side, coroutines, time-outs, tasks, asynchronous contexts and callbacks",
    "extended": "subclasses of dates, decimals, deques, counters, floats, and their own methods",
    "kept": "containers of the tests that the program keeps, and its own that the tests hold: changes either way",
    "systems": "whole systems: accounts, caches, events, machines, matrices, graphs, queues, files, observers",
    "given": "loggers, queues, locks, generators of random numbers, iterators, files of the tests given to the program",
    "numpy": "arrays: changes in place, empty ones, truths, dates, complex numbers, long doubles",
}


JUDGES = {
    "extended": "`split` or `program_methods`",
    "systems": "`split` or `program_methods`",
    "kept": "`split` or `program_methods`",
    "given": "`split` or `program_methods`",
    "classes": "`split` or `program_methods`",
    "concurrent": "`split` or `program_methods`",
}


@dataclass(frozen=True)
class Limit:
    what: str
    verdict: str
    judge: str
    program: str
    test: str


CLASS = """
class V:
    def __init__(self, n): self.n = n
    def __eq__(self, o): return self.n == (o.n if isinstance(o, V) else o)
    def __lt__(self, o): return self.n < (o.n if isinstance(o, V) else o)
    def __sub__(self, o): return self.n - o
    def __contains__(self, x): return x == self.n
    def equals(self, o): return self.n == o
    def double(self): return 2 * self.n
def f(n): return V(n)
def helper(x): return x
def plain(n): return helper(n)
"""

LIMITS = (
    Limit(
        "`==`, `<`, `+` and `in` of a class that the tests name",
        "passed",
        "program_methods",
        CLASS,
        "assert V(1) == V(1) and V(1) < V(2) and 1 in V(1)",
    ),
    Limit("methods of the program's objects", "passed", "program_methods", CLASS, "assert f(2).double() == 4"),
    Limit(
        "functions of the program in a test of another",
        "passed",
        "program_methods",
        CLASS,
        "assert helper(plain(2)) == 2",
    ),
    Limit(
        "attributes, types, enumerations, constants, exceptions",
        "passed",
        "split",
        CLASS,
        "assert f(2).n == 2 and isinstance(f(2), V)",
    ),
    Limit(
        "`==` of two objects whose class the tests do not name", "invalid_result", "split", CLASS, "assert f(1) == f(1)"
    ),
    Limit(
        "a method that belongs to values (`equals`, `startswith`, `issubset`) of such an object",
        "invalid_result",
        "split",
        CLASS,
        "assert f(1).equals(1)",
    ),
    Limit("arithmetic of such an object", "invalid_result", "split", CLASS, "assert abs(f(1) - 1) < 1e-9"),
    Limit(
        "an object that equals a plain value by its own `__eq__`", "wrong_answer", "split", CLASS, "assert V(1) == 1"
    ),
    Limit(
        "an object that is less than a plain value by its own `__lt__`",
        "invalid_result",
        "split",
        CLASS,
        "assert V(1) < 2",
    ),
    Limit(
        "arithmetic of an object with a plain value that gives a plain number",
        "invalid_result",
        "split",
        CLASS,
        "assert V(3) - 1 == 2",
    ),
    Limit(
        "a test that executes the answer (`eval`, `exec`, `pickle.loads`, doctest): alone, and it decides only itself",
        "passed",
        "program_methods",
        CLASS,
        "assert eval(str(f(2).n)) == 2",
    ),
    Limit(
        "a context of the program that swallows an assertion of the test",
        "wrong_answer",
        "program_methods",
        CLASS + "class C:\n    def __enter__(self): return self\n    def __exit__(self, *e): return True\n",
        "with C():\n    assert f(1).n == 2",
    ),
    Limit(
        "a patched name of the program's module",
        "passed",
        "program_methods",
        CLASS,
        "from unittest.mock import patch\nwith patch('__main__.helper', return_value=9):\n    assert plain(1) == 9",
    ),
    Limit(
        "a list that a method of the program returned and the test then changes",
        "passed",
        "program_methods",
        CLASS + "    \nclass B:\n    def __init__(self): self.xs = []\n    def all(self): return self.xs\n",
        "b = B()\nb.all().append(1)\nassert b.xs == [1]",
    ),
)


def grading_rows() -> list[list[str]]:
    """The lines of the table."""
    lines = [
        [text, "judged", f"{JUDGES.get(area, '`split`')}; {sum(row.area == area for row in ROWS)} cases"]
        for area, text in AREAS.items()
    ]
    for limit in LIMITS:
        lines.append([limit.what, f"`{limit.verdict}`" if limit.verdict != "passed" else "judged", f"`{limit.judge}`"])
    return lines
