"""What a program sees before its first line, which names are its own, and modules that are not here."""

from __future__ import annotations

import pytest

from sandbox.errors import InvalidSuite, ModuleUnavailable
from sandbox.judge import judge
from sandbox.packages import packages, python_lacks
from sandbox.sandbox import Sandbox
from sandbox.types import (
    NO_OPTIONS,
    AssertSuite,
    Case,
    CheckSuite,
    FunctionSuite,
    Limits,
    Options,
    Program,
    Report,
    RunSuite,
    ScriptSuite,
    StdioCase,
    StdioSuite,
    Stop,
    Suite,
)

LIMITS = Limits(cpu_s=5)
PRELUDE = (
    "from heapq import *\nfrom math import *\nfrom typing import *\nfrom collections import *\n"
    "class Node:\n    def __init__(self, value):\n        self.value = value\n"
)
USES = "def f(x: List[int]) -> int:\n    return factorial(max(Counter(x)))"
WRONG = "def f(x: List[int]) -> int:\n    return gamma(3.5)"


def run(sandbox: Sandbox, source: str, suite: Suite, options: Options = NO_OPTIONS, language: str = "python") -> Report:
    return judge(Program(language, source), suite, LIMITS, Stop(), sandbox, options)


def function(name: str, argument: object, expected: object, prelude: str = "", *also: object) -> FunctionSuite:
    return FunctionSuite(name, (Case((argument,), {}, expected, also),), prelude=prelude)


KINDS: dict[str, Suite] = {
    "assert": AssertSuite(("assert f([3]) == 6",), prelude=PRELUDE),
    "assert, not literal": AssertSuite(("x = [3]\nassert f(x) == 6",), prelude=PRELUDE),
    "function": function("f", [3], 6, PRELUDE),
    "check": CheckSuite("def check(candidate):\n    assert candidate([3]) == 6", "f", prelude=PRELUDE),
    "script": ScriptSuite("assert f([3]) == 6", prelude=PRELUDE),
}


@pytest.mark.parametrize(
    "options",
    [
        NO_OPTIONS,
        Options(audit=True),
        Options(fresh_interpreter=True),
        Options(fresh_interpreter=True, audit=True),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_program_sees_its_prelude_in_every_kind(sandbox: Sandbox, kind: str, options: Options) -> None:
    assert run(sandbox, USES, KINDS[kind], options).verdict == "passed"
    assert run(sandbox, WRONG, KINDS[kind], options).verdict in ("wrong_answer", "runtime_error")


@pytest.mark.parametrize("options", [NO_OPTIONS, Options(fresh_interpreter=True)])
def test_a_program_that_prints_sees_it_too(sandbox: Sandbox, options: Options) -> None:
    suite = StdioSuite((StdioCase("3\n", "6\n"), StdioCase("4\n", "25\n")), prelude=PRELUDE)
    report = run(sandbox, "print(factorial(int(input())))", suite, options)
    assert [test.verdict for test in report.tests] == ["passed", "wrong_answer"]


def test_together_a_program_sees_it_too(sandbox: Sandbox) -> None:
    suite = AssertSuite(("assert f([3]) == 6", "assert f([3]) == 7"), prelude=PRELUDE)
    report = run(sandbox, USES, suite, Options(grading="together"))
    assert [test.verdict for test in report.tests] == ["passed", "wrong_answer"]


@pytest.mark.parametrize(
    "source",
    [
        "from __future__ import annotations\nx: Nowhere = 1\nprint(factorial(3))",
        "'''A text.'''\nfrom __future__ import annotations\nprint(__doc__ == 'A text.' and factorial(3))",
        "# -*- coding: utf-8 -*-\nprint(factorial(3))",
        "#!/usr/bin/env python3\nimport sys\nprint(factorial(3), file=sys.stdout)",
        "import linecache\nassert open(__file__).read().startswith('import')\nprint(factorial(3))",
        "def f():\n    global pi\n    pi = 6\nf()\nprint(pi)",
    ],
)
def test_a_program_under_a_prelude_is_still_itself(sandbox: Sandbox, source: str) -> None:
    assert run(sandbox, source, StdioSuite((StdioCase("", "6"),), prelude=PRELUDE)).verdict == "passed"


def test_lines_of_a_traceback_are_the_program_s(sandbox: Sandbox) -> None:
    report = run(sandbox, "x = 1\n\ny = x / 0\n", StdioSuite((StdioCase("", ""),), prelude=PRELUDE))
    assert 'File "/tmp/main.py", line 3, in <module>\n    y = x / 0' in report.tests[0].stderr


@pytest.mark.parametrize(
    ("prelude", "why"),
    [
        ("import nowhere_at_all", "nowhere_at_all"),
        ("x =", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError"),
        ("raise SystemExit(3)", "exit code 3"),
        ("x" * 300_000, "at most"),
    ],
)
@pytest.mark.parametrize("source", ["def f(x): return 1", "def f(", "raise SystemExit"])
def test_a_prelude_that_does_not_run_is_the_suite_s_fault(
    sandbox: Sandbox, prelude: str, why: str, source: str
) -> None:
    with pytest.raises(InvalidSuite, match=f"(?s)prelude: .*{why}"):
        run(sandbox, source, function("f", 1, 1, prelude))


@pytest.mark.parametrize(
    ("language", "prelude", "source"),
    [
        ("cpp", "#include <cstdio>", 'int main() { printf("6"); }'),
        ("c++20", "#include <cstdio>\nint six() { return 6; }\n", 'int main() { printf("%d", six()); }'),
        ("javascript", "const six = 6", "console.log(six)"),
        ("ruby", "SIX = 6", "puts SIX"),
        (
            "java",
            "import java.util.*;",
            "class M { public static void main(String[] a) { System.out.println(List.of(6).get(0)); } }",
        ),
    ],
)
def test_other_languages_have_it_before_the_program(sandbox: Sandbox, language: str, prelude: str, source: str) -> None:
    assert (
        run(sandbox, source, StdioSuite((StdioCase("", "6"),), prelude=prelude), language=language).verdict == "passed"
    )


def test_a_compiler_counts_the_program_s_own_lines(sandbox: Sandbox) -> None:
    report = run(
        sandbox, "int main() {\n  six();\n}", StdioSuite((StdioCase("", ""),), prelude="//\n//"), language="cpp"
    )
    assert report.compile is not None
    assert "main.cpp:2:3: error" in report.compile.stderr


@pytest.mark.parametrize("language", ["go", "rust", "php"])
def test_a_language_without_preludes_says_so(sandbox: Sandbox, language: str) -> None:
    with pytest.raises(InvalidSuite, match=f"prelude: {language} programs take none"):
        run(sandbox, "", StdioSuite((StdioCase("", ""),), prelude="x"), language=language)


@pytest.mark.parametrize("source", ["\0prelude 9 f\nx = 1 / 0\n", "\0prelude ", "\0prelude -1\n", "\0prelude x\n1/0"])
@pytest.mark.parametrize("suite", [function("f", 1, 1), StdioSuite((StdioCase("", ""),))])
def test_a_program_cannot_bring_a_prelude_of_its_own(sandbox: Sandbox, source: str, suite: Suite) -> None:
    assert run(sandbox, source, suite).verdict == "compile_error"


# --- whose names -----------------------------------------------------------------------------------------------------

OWN: list[tuple[str, str, object, object, str]] = [  # method, program, argument, expected, verdict
    (
        "merge",
        "from heapq import *\nclass Solution:\n    def merge(self, a):\n        return sorted(a)",
        [2, 1],
        [1, 2],
        "passed",
    ),
    ("search", "from re import *\nclass Solution:\n    def search(self, a):\n        return a", 1, 1, "passed"),
    (
        "factorial",
        "from math import *\nclass Solution:\n    def factorial(self, n):\n        return 0",
        5,
        120,
        "wrong_answer",
    ),
    (
        "gcd",
        "import math\nfrom math import *\nclass Solution:\n    def gcd(self, n):\n        return n",
        5,
        5,
        "passed",
    ),
    (
        "reduce",
        "from functools import *\nclass Solution:\n    def reduce(self, a):\n        return sum(a)",
        [1, 2],
        3,
        "passed",
    ),
    ("f", "class Solution:\n    def f(self, a):\n        return a\ndef f(a):\n    return 0", 1, 1, "passed"),
    (
        "f",
        "def f(a, lo):\n    return a + lo\nclass Solution:\n    def f(self, a):\n        return f(a, 0)",
        1,
        1,
        "passed",
    ),
    ("f", "class Solution:\n    def g(self, a):\n        return 0\ndef f(a):\n    return a", 1, 1, "passed"),
    ("f", "f = lambda a: a", 1, 1, "passed"),
    ("f", "class Solution:\n    @staticmethod\n    def f(a):\n        return a", 1, 1, "passed"),
    ("factorial", "from math import factorial", 5, 120, "passed"),
    ("factorial", "import math\nfactorial = math.factorial", 5, 120, "passed"),
    ("factorial", "def g():\n    global factorial\n    from math import factorial\ng()", 5, 120, "passed"),
    ("factorial", "exec('def factorial(n):\\n    return 120')", 5, 120, "passed"),
    ("factorial", "from math import *", 5, 120, "runtime_error"),
    ("heapify", "from heapq import *\ndef g():\n    heapify = 1", [1], None, "runtime_error"),
    ("dumps", "from json import *\nclass Solution:\n    pass", 1, "1", "runtime_error"),
]


@pytest.mark.parametrize("prelude", ["", PRELUDE])
@pytest.mark.parametrize(("name", "source", "argument", "expected", "verdict"), OWN)
def test_solution_is_asked_first_and_never_a_library(
    sandbox: Sandbox, name: str, source: str, argument: object, expected: object, verdict: str, prelude: str
) -> None:
    report = run(sandbox, source, function(f"Solution.{name}|{name}", argument, expected, prelude))
    assert report.verdict == verdict, report
    if verdict == "runtime_error":
        assert "is not defined" in report.tests[0].detail


@pytest.mark.parametrize(
    "suite",
    [
        function("factorial", 5, 120, PRELUDE),
        AssertSuite(("assert factorial(5) == 120",), prelude=PRELUDE),
        AssertSuite(("x = factorial(5)\nassert x == 120",), prelude=PRELUDE),
        CheckSuite("def check(c):\n    assert c(5) == 120", "factorial", prelude=PRELUDE),
    ],
)
def test_what_only_the_prelude_defines_is_no_answer(sandbox: Sandbox, suite: Suite) -> None:
    assert run(sandbox, "x = 1", suite).verdict == "runtime_error"
    assert run(sandbox, "def factorial(n):\n    return round(gamma(n + 1))", suite).verdict == "passed"


def test_tests_may_use_the_prelude_s_classes(sandbox: Sandbox) -> None:
    suite = AssertSuite(("assert f(Node(3)) == 3", "assert f(Node(4)) == 5"), prelude=PRELUDE)
    report = run(sandbox, "def f(node: Node):\n    return node.value", suite)
    assert [test.verdict for test in report.tests] == ["passed", "wrong_answer"]


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [("[3]", "passed"), ("3", "passed"), ("(3,)", "passed"), ("[3, 3]", "wrong_answer"), ("4", "wrong_answer")],
)
def test_several_values_may_be_right(sandbox: Sandbox, answer: str, verdict: str) -> None:
    assert run(sandbox, f"def f(x):\n    return {answer}", function("f", 1, [3], "", 3)).verdict == verdict


# --- modules that are not here ---------------------------------------------------------------------------------------

LACKING = [
    "import nowhere_at_all",
    "import os, nowhere_at_all.core as n",
    "from nowhere_at_all.x import y",
    "def f():\n    import nowhere_at_all\nf()",
    "if 1: import nowhere_at_all",
    "class A:\n    from nowhere_at_all import (a,\n        b)",
]
NOT_LACKING = [
    "raise ModuleNotFoundError(\"No module named 'nowhere_at_all'\")",
    "x = 'import nowhere_at_all'\nraise ModuleNotFoundError(\"No module named 'nowhere_at_all'\")",
    "import json.nowhere",
    "import nowhere_at_all_2 if 0 else 1",
    "import json\nraise ModuleNotFoundError(\"No module named 'json'\")",
    "import sys\nsys.stderr.write(\"ModuleNotFoundError: No module named 'nowhere_at_all'\")\nsys.exit(1)",
]


@pytest.mark.parametrize("source", LACKING)
def test_a_missing_module_is_a_failure_that_is_named(sandbox: Sandbox, source: str) -> None:
    suite = StdioSuite((StdioCase("", ""),))
    report = run(sandbox, source, suite)
    assert (report.verdict, report.flags) == ("runtime_error", ("module_unavailable:nowhere_at_all",))
    with pytest.raises(ModuleUnavailable, match="nowhere_at_all"):
        run(sandbox, source, suite, Options(missing_modules="invalid"))


@pytest.mark.parametrize("source", NOT_LACKING)
def test_who_pretends_to_lack_a_module_has_failed(sandbox: Sandbox, source: str) -> None:
    report = run(sandbox, source, StdioSuite((StdioCase("", ""),)), Options(missing_modules="invalid"))
    assert report.verdict in ("runtime_error", "compile_error")
    assert report.flags == ()


@pytest.mark.parametrize(
    "suite",
    [
        function("f", 1, 1),
        AssertSuite(("assert f(1) == 1",)),
        AssertSuite(("x = 1\nassert f(x) == 1",)),
        CheckSuite("def check(c):\n    assert c(1) == 1", "f"),
        ScriptSuite("assert f(1) == 1"),
        RunSuite(),
    ],
)
def test_it_is_named_in_every_kind(sandbox: Sandbox, suite: Suite) -> None:
    report = run(sandbox, "import nowhere_at_all\ndef f(x):\n    return x", suite)
    assert report.flags == ("module_unavailable:nowhere_at_all",)
    report = run(
        sandbox, "try:\n    import nowhere_at_all\nexcept ImportError:\n    pass\ndef f(x):\n    return x", suite
    )
    assert (report.verdict, report.flags) == ("passed", ())


def test_node_s_missing_packages_are_named_too(sandbox: Sandbox) -> None:
    for source, flags in (
        ("require('nowhere-at-all')", ("module_unavailable:nowhere-at-all",)),
        ("import x from '@no/where';\nconsole.log(x)", ("module_unavailable:@no/where",)),
        ("require('./nowhere')", ()),
        ("throw new Error(\"Cannot find module 'nowhere-at-all'\")", ()),
    ):
        assert run(sandbox, source, RunSuite(), language="javascript").flags == flags


def test_what_is_listed_can_be_imported(sandbox: Sandbox) -> None:
    listed = dict(packages("python"))
    assert all(version for version in listed.values())
    for name, module in (
        ("numpy", "numpy"),
        ("pandas", "pandas"),
        ("matplotlib", "matplotlib.pyplot"),
        ("scikit-learn", "sklearn"),
    ):
        report = run(sandbox, f"import {module} as m\nprint(m.__name__)", StdioSuite((StdioCase("", module),)))
        assert (report.verdict == "passed") == (name in listed), report
        assert python_lacks(module.partition(".")[0]) == (name not in listed)
