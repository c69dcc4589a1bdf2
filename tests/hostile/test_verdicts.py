"""Programs that want a verdict they have not earned, and honest ones that make the split work for it."""

from __future__ import annotations

import pytest

from plaudit.grading import Verdict
from sandbox.errors import InvalidSuite
from sandbox.judge import judge
from sandbox.sandbox import Sandbox
from sandbox.types import AssertSuite, Case, CheckSuite, FunctionSuite, Limits, Program, Report, Stop, Suite

LIMITS = Limits(cpu_s=1, wall_s=4)
THREE = AssertSuite(("assert f(1) == 2", "assert f(2) == 3", "assert f(3) == 4"))
CALLS = FunctionSuite("f", (Case((1,), {}, 2), Case((2,), {}, 3), Case((3,), {}, 4)))
CHECK = CheckSuite("def check(candidate):\n    assert candidate(1) == 2\n    assert candidate(2) == 3\n", "f")


def run(sandbox: Sandbox, source: str, suite: Suite, limits: Limits = LIMITS) -> Report:
    return judge(Program("python", source), suite, limits, Stop(), sandbox)


def verdicts(report: Report) -> list[str]:
    return [test.verdict.value for test in report.tests]


EXPLOITS = {
    "equal to everything": """
class Yes:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
def f(x): return Yes()
""",
    "an int equal to everything": """
class Yes(int):
    def __eq__(self, other): return True
    def __hash__(self): return 0
def f(x): return Yes(99)
""",
    "a str, a list and a dict equal to everything": """
class A(str):
    def __eq__(self, other): return True
class B(list):
    def __eq__(self, other): return True
class C(dict):
    def __eq__(self, other): return True
def f(x): return [A("x"), B([1]), C()][x - 1]
""",
    "a liar about its class": """
class Yes:
    def __eq__(self, other): return True
    @property
    def __class__(self): return int
def f(x): return Yes()
""",
    "a metaclass equal to everything": """
class M(type):
    def __eq__(self, other): return True
    def __hash__(self): return 0
class Yes(metaclass=M): pass
def f(x): return Yes
""",
    "frame walk": """
import sys
def f(x):
    frame = sys._getframe()
    while frame:
        for name, value in list(frame.f_locals.items()) + list(frame.f_globals.items()):
            if name in ("expected", "verdict", "passed", "result", "tests", "codes"):
                return value
        frame = frame.f_back
    return None
""",
    "gc walk": """
import gc
def f(x):
    for o in gc.get_objects():
        if isinstance(o, dict) and "expected" in o:
            return o["expected"]
    return None
""",
    "AssertionError is patched": """
import builtins
builtins.AssertionError = type("Quiet", (BaseException,), {})
def f(x): raise builtins.AssertionError()
""",
    "builtins are patched": """
import builtins, operator, json, sys
builtins.all = builtins.any = builtins.isinstance = lambda *a: True
json.dumps = lambda *a, **k: '{"id":1,"ok":2}'
operator.eq = lambda a, b: True
def f(x): return 0
""",
    "the harness is patched": """
import gc, types
for o in gc.get_objects():
    if isinstance(o, types.FunctionType) and o.__name__ in ("encode", "same_value", "judge", "check", "_same"):
        o.__code__ = (lambda *a, **k: True).__code__
def f(x): return 0
""",
    "atexit and exit code": """
import atexit, os
atexit.register(lambda: os._exit(0))
def f(x): raise SystemExit(0)
""",
    "unittest and pytest are patched": """
import sys, types
fake = types.ModuleType("pytest")
fake.approx = lambda *a, **k: type("Yes", (), {"__eq__": lambda s, o: True})()
sys.modules["pytest"] = fake
import unittest
unittest.TestCase.assertEqual = lambda *a: None
def f(x): return 0
""",
    "a value that lies about its length and items": """
class Yes:
    def __len__(self): return 10**9
    def __iter__(self): return iter([])
    def __contains__(self, x): return True
    def __bool__(self): return True
    def __lt__(self, o): return True
    def __sub__(self, o): return 0
    def __abs__(self): return 0
def f(x): return Yes()
""",
}


@pytest.mark.parametrize("name", EXPLOITS)
@pytest.mark.parametrize("suite", [THREE, CALLS, CHECK], ids=["assert", "function", "check"])
def test_an_exploit_passes_nothing(sandbox: Sandbox, name: str, suite: Suite) -> None:
    report = run(sandbox, EXPLOITS[name], suite)
    assert report.passed == 0
    assert report.judge == "split"


FORGERIES = {
    "a verdict": b'{"done":["passed",""]}',
    "a reply to come": b'{"id":2,"ok":2}',
    "a reply without a number": b'{"ok":2}',
    "a list": b"[]",
    "no JSON": b"\xff\xfe{",
    "deep nesting": b"[" * 100_000,
    "an unknown tag": b'{"id":1,"ok":{"t":"pickle","v":"cos\\nsystem"}}',
    "a constructor": b'{"id":1,"ok":{"t":"type","v":"os.system"}}',
    "a handle never lent": b'{"id":1,"ok":{"t":"h","mine":false,"id":77}}',
    "a call of what was never lent": b'{"op":"call","h":0,"id":5,"args":[],"names":[]}',
}


@pytest.mark.parametrize("name", FORGERIES)
@pytest.mark.parametrize("suite", [THREE, CALLS], ids=["assert", "function"])
def test_a_forged_message_is_no_right_answer(sandbox: Sandbox, name: str, suite: Suite) -> None:
    frame = len(FORGERIES[name]).to_bytes(4, "big") + FORGERIES[name]
    source = f"import os\ndef f(x):\n    os.write(3, {frame!r})\n    return 0\n"
    report = run(sandbox, source, suite)
    # A forged reply can at best be one value, and the message after it is one that nobody asked for.
    assert report.passed <= 1
    assert report.verdict is not Verdict.PASSED


def test_an_announced_giant_is_refused(sandbox: Sandbox) -> None:
    source = "import os, time\ndef f(x):\n    os.write(3, b'\\xff\\xff\\xff\\xff')\n    time.sleep(100)\n"
    for suite in (THREE, CALLS):
        report = run(sandbox, source, suite, Limits(cpu_s=1, wall_s=2))
        assert set(verdicts(report)) <= {"invalid_result", "time_limit"}


def test_the_test_side_never_lends_its_own_insides(sandbox: Sandbox) -> None:
    """What the program gets as an argument is a handle: no frames, no globals, no code behind it.

    Attributes of the tests' objects, private ones as well, are the argument itself.
    """
    source = """
def f(callback, node):
    found = []
    for name in ("__globals__", "__code__", "__self__", "__closure__", "gi_frame", "__class__", "__func__", "__init__"):
        for thing in (callback, node):
            try:
                value = getattr(thing, name)
            except BaseException:
                continue
            if name not in ("__class__", "__init__"):
                found.append(name)
    return [found, callback(20), node.value, node._secret]
"""
    setup = """
EXPECTED = 77
class Node:
    def __init__(self): self.value, self._secret = 5, "own"
"""
    suite = AssertSuite(("assert f(lambda x: x + 1, Node()) == [[], 21, 5, 'own']",), setup, "f")
    report = run(sandbox, source, suite)
    assert verdicts(report) == ["passed"], report


def test_a_lent_eval_cannot_be_called_on_the_test_side(sandbox: Sandbox) -> None:
    source = """
def f(g):
    return g("__import__('sys').modules['__main__'].__dict__.get('EXPECTED', 'mine')")
"""
    report = run(sandbox, source, AssertSuite(("assert f(eval) == 'mine'",), "EXPECTED = 77", "f"))
    assert verdicts(report) == ["passed"], report


def test_swallowing_every_exception_in_a_test_saves_no_dead_program(sandbox: Sandbox) -> None:
    test = "try:\n    f(1)\nexcept BaseException:\n    pass"
    report = run(sandbox, "import os\ndef f(x): os._exit(0)", AssertSuite((test, "assert f"), entry_point="f"))
    assert verdicts(report)[0] == "no_result"


def test_a_reference_solution_among_the_tests_does_not_answer_for_the_program(sandbox: Sandbox) -> None:
    reference = "def f(x): return x + 1\n"
    wrong = "def f(x): return 0"
    assert run(sandbox, wrong, AssertSuite(THREE.asserts, reference, "f")).passed == 0
    assert run(sandbox, "", AssertSuite(THREE.asserts, reference, "f")).passed == 0
    assert run(sandbox, wrong, CheckSuite(reference + CHECK.test, "f")).passed == 0
    assert run(sandbox, "", CheckSuite(reference + CHECK.test, "f")).passed == 0
    stub = "def f(x):\n    return x + 1\n"
    assert run(sandbox, "    return 0\ndef f(x): return 0\n", CheckSuite(CHECK.test, "f", stub)).passed == 0


def test_one_bad_test_costs_only_itself(sandbox: Sandbox) -> None:
    source = """
import os, sys
def f(x):
    if x == 2: sys.exit(0)
    if x == 3: os._exit(0)
    if x == 4:
        while True: pass
    if x == 5: os.kill(os.getpid(), 11)
    if x == 6: raise ValueError("six")
    if x == 7: return object()
    if x == 8: bytearray(1 << 40)
    return x + 1
"""
    wanted = ["passed", "no_result", "no_result", "time_limit", "runtime_error", "runtime_error"]
    numbers = range(1, 10)
    asserts = AssertSuite(tuple(f"assert f({n}) == {n + 1}" for n in numbers))
    report = run(sandbox, source, asserts)
    assert verdicts(report) == [*wanted, "wrong_answer", "memory_limit", "passed"]
    assert report.verdict is Verdict.MEMORY_LIMIT
    assert (report.passed, report.total) == (2, 9)
    calls = FunctionSuite("f", tuple(Case((n,), {}, n + 1) for n in numbers))
    report = run(sandbox, source, calls)
    assert verdicts(report) == [*wanted, "invalid_result", "memory_limit", "passed"]
    assert report.tests[5].detail == "ValueError: six"


@pytest.mark.parametrize("suite", [THREE, CALLS, CHECK], ids=["assert", "function", "check"])
@pytest.mark.parametrize(
    ("source", "verdict"),
    [
        ("import sys; sys.exit(0)", Verdict.NO_RESULT),
        ("import os; os._exit(0)", Verdict.NO_RESULT),
        ("import os; os._exit(3)", Verdict.RUNTIME_ERROR),
        ("raise ValueError(1)", Verdict.RUNTIME_ERROR),
        ("def f(x: return", Verdict.COMPILE_ERROR),
        ("", Verdict.RUNTIME_ERROR),
        ("while True: pass", Verdict.TIME_LIMIT),
        ("x = [0]\nwhile True: x += x", Verdict.MEMORY_LIMIT),
        ("while True: print('x' * 10000)", Verdict.OUTPUT_LIMIT),
        ("import ctypes; ctypes.CDLL(None).syscall(0x40000000 + 39)", Verdict.SECURITY_VIOLATION),
    ],
)
def test_a_program_that_does_not_load_fails_every_test(
    sandbox: Sandbox, suite: Suite, source: str, verdict: Verdict
) -> None:
    report = run(sandbox, source, suite, Limits(cpu_s=0.5, wall_s=3, memory_mb=128))
    assert {test.verdict for test in report.tests} == {verdict}
    assert report.verdict is verdict


def test_a_test_that_never_ends_is_stopped(sandbox: Sandbox) -> None:
    suite = AssertSuite(("while f(1) == 2: pass", "assert f(1) == 2"))
    report = run(sandbox, "def f(x): return 2", suite, Limits(cpu_s=0.3, wall_s=3))
    assert verdicts(report) == ["time_limit", "passed"]
    assert "cpu" in report.tests[0].detail


def test_an_endless_generator_is_consumed_within_limits(sandbox: Sandbox) -> None:
    source = "def f():\n    n = 0\n    while True:\n        yield n\n        n += 1\n"
    suite = AssertSuite(("import itertools\nassert list(itertools.islice(f(), 3)) == [0, 1, 2]", "list(f())"))
    report = run(sandbox, source, suite, Limits(cpu_s=0.5, wall_s=2))
    assert verdicts(report) == ["passed", "time_limit"]


def test_output_is_kept_per_test(sandbox: Sandbox) -> None:
    report = run(sandbox, "def f(x):\n    print('got', x)\n    return x + 1", THREE)
    assert [test.stdout for test in report.tests] == ["got 1\n", "got 2\n", "got 3\n"]


@pytest.mark.parametrize(
    ("suite", "said"),
    [
        (AssertSuite(("assert f(1) ==",)), "SyntaxError"),
        (AssertSuite(("assert f(1) == 2", "assert (")), "SyntaxError"),
        (AssertSuite(("assert f(1) == 2",), setup="def g(:"), "SyntaxError"),
        (AssertSuite(("assert f(1) == 2",), setup="import no_such_module"), "no_such_module"),
        (AssertSuite(("assert 1 == 1",)), "no entry point"),
        (AssertSuite(()), "no tests"),
        (FunctionSuite("f", ()), "no tests"),
        (FunctionSuite("f", (Case((object(),), {}, 1),)), "cannot cross"),
        (CheckSuite("def check(candidate): assert (", "f"), "SyntaxError"),
        (CheckSuite("def test(candidate): assert candidate(1) == 2", "f"), "does not define"),
    ],
)
def test_a_suite_that_cannot_be_used_is_not_the_programs_fault(sandbox: Sandbox, suite: Suite, said: str) -> None:
    with pytest.raises(InvalidSuite, match=said):
        run(sandbox, "def f(x): return x + 1\ndef check(candidate): pass", suite)


def test_a_program_cannot_make_its_suite_look_invalid(sandbox: Sandbox) -> None:
    for source in (
        "def f(x): raise ImportError('no_such_module')",
        "def f(x): raise SyntaxError('x')",
        "import types\nf = types.ModuleType('scipy.nothing')",
        "raise ImportError('x')",
    ):
        assert run(sandbox, source, THREE).passed == 0


def test_stopping_early_skips_the_rest(sandbox: Sandbox) -> None:
    program = Program("python", "def f(x): return x if x > 1 else 2")
    for suite in (THREE, CALLS):
        report = judge(program, suite, LIMITS, Stop(after_failures=1), sandbox)
        assert verdicts(report) == ["passed", "wrong_answer", "skipped"]
        assert (report.passed, report.total, report.verdict) == (1, 3, Verdict.WRONG_ANSWER)
        assert report.pass_rate == pytest.approx(1 / 3)
