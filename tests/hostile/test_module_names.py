"""Which name a program has: a module where it is asked for something, `__main__` where it is run."""

from __future__ import annotations

import pytest

from sandbox.errors import InvalidOptions
from sandbox.judge import judge
from sandbox.sandbox import Sandbox
from sandbox.types import (
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

LIMITS = Limits(cpu_s=3)
GUARDS = {
    "input": "if __name__ == '__main__':\n    print(f(list(map(int, input().split()))))\n",
    "unittest": "import unittest\nclass T(unittest.TestCase): pass\nif __name__ == '__main__':\n    unittest.main()\n",
    "exit": "import sys\nif __name__ == '__main__':\n    sys.exit(0)\n",
    "a failing test of its own": "if __name__ == '__main__':\n    assert f([1]) == 7\n",
    "a loop": "if __name__ == '__main__':\n    while True: pass\n",
    "none": "",
}
PROGRAM = "def f(a):\n    return sum(a)\n"
SUITES: dict[str, Suite] = {
    "assert": AssertSuite(("assert f([1, 2]) == 3",)),
    "assert, test process": AssertSuite(("x = f([1, 2])\nassert x == 3",)),
    "function": FunctionSuite("f", (Case(([1, 2],), {}, 3),)),
    "check": CheckSuite("def check(candidate):\n    assert candidate([1, 2]) == 3\n", "f"),
}


def verdict(sandbox: Sandbox, source: str, suite: Suite, options: Options | None = None) -> Report:
    return judge(Program("python", source), suite, LIMITS, Stop(), sandbox, options or Options())


@pytest.mark.parametrize("kind", SUITES)
@pytest.mark.parametrize("guard", GUARDS)
def test_a_guard_is_not_run_where_a_function_is_asked_for(sandbox: Sandbox, kind: str, guard: str) -> None:
    suite = SUITES[kind]
    assert verdict(sandbox, PROGRAM + GUARDS[guard], suite).verdict == "passed"
    wrong = PROGRAM.replace("sum(a)", "0") + GUARDS[guard]
    assert verdict(sandbox, wrong, suite).verdict == "wrong_answer"


@pytest.mark.parametrize(
    "options", [Options(fresh_interpreter=True), Options(audit=True), Options(fresh_interpreter=True, audit=True)]
)
def test_a_guard_is_not_run_in_any_interpreter(sandbox: Sandbox, options: Options) -> None:
    for suite in SUITES.values():
        assert verdict(sandbox, PROGRAM + GUARDS["exit"], suite, options).verdict == "passed"


def test_a_guard_is_not_run_beside_the_test_in_one_process(sandbox: Sandbox) -> None:
    report = verdict(sandbox, PROGRAM + GUARDS["input"], SUITES["check"], Options(grading="together"))
    assert report.verdict == "passed"


@pytest.mark.parametrize("options", [Options(), Options(fresh_interpreter=True), Options(audit=True)])
def test_a_guard_is_run_where_a_program_is_run(sandbox: Sandbox, options: Options) -> None:
    source = "if __name__ == '__main__':\n    print(int(input()) + 1)\n"
    assert verdict(sandbox, source, StdioSuite((StdioCase("4", "5"),)), options).verdict == "passed"
    ran = verdict(sandbox, source, RunSuite("4"), options).output
    assert ran is not None
    assert ran.stdout == b"5\n"
    guarded = "import sys\nx = 1\nif __name__ == '__main__':\n    x = 2\n"
    assert verdict(sandbox, guarded, ScriptSuite("assert x == 2"), options).verdict == "passed"


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("audit", [False, True])
def test_an_option_overrides_the_name(sandbox: Sandbox, *, fresh: bool, audit: bool) -> None:
    source = "x = 1\nif __name__ == '__main__':\n    x = 2\ndef f(): return x\nprint(x)\n"
    function = FunctionSuite("f", (Case((), {}, 2),))
    for run_main in (True, False):
        options = Options(run_main=run_main, fresh_interpreter=fresh, audit=audit)
        assert (verdict(sandbox, source, function, options).verdict == "passed") is run_main
        output = StdioSuite((StdioCase("", "2"),))
        assert (verdict(sandbox, source, output, options).verdict == "passed") is run_main


def test_only_python_has_a_guard(sandbox: Sandbox) -> None:
    with pytest.raises(InvalidOptions, match="run_main"):
        judge(Program("bash", "echo"), RunSuite(), LIMITS, Stop(), sandbox, Options(run_main=True))


MODULE = """
import concurrent.futures, copy, dataclasses, enum, inspect, multiprocessing, pickle, sys, typing

@dataclasses.dataclass
class Point:
    x: 'int'
    y: 'typing.Optional[Point]' = None

class Colour(enum.Enum):
    RED = 1

class Pair(typing.NamedTuple):
    left: int

def double(x): return 2 * x
def names(): return [__name__, __file__, Point.__module__, sys.modules[__name__].double is double]
def pickled():
    values = [Point(1, Point(2)), Colour.RED, Pair(3), double]
    return pickle.loads(pickle.dumps(values)) == values and copy.deepcopy(values) == values
def hints(): return sorted(typing.get_type_hints(Point)) + [typing.get_type_hints(Point)['x'] is int]
def main():
    import __main__
    return __main__.double is double and __main__ is sys.modules['main']
def processes():
    with multiprocessing.Pool(2) as pool:
        return pool.map(double, [1, 2])
def spawned():
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as pool:
        return [*pool.map(double, [1, 2])]
def source(): return inspect.getsource(double)
"""


@pytest.mark.parametrize("fresh", [False, True])
def test_a_program_loaded_as_a_module_is_a_whole_one(sandbox: Sandbox, *, fresh: bool) -> None:
    for name, expected in (
        ("names", ["main", "/tmp/main.py", "main", True]),
        ("pickled", True),
        ("hints", ["x", "y", True]),
        ("main", True),
        ("processes", [2, 4]),
        ("spawned", [2, 4]),
        ("source", "def double(x): return 2 * x\n"),
    ):
        report = verdict(
            sandbox, MODULE, FunctionSuite(name, (Case((), {}, expected),)), Options(fresh_interpreter=fresh)
        )
        assert report.verdict == "passed", (name, report.tests[0])
