"""What is said about a run beside right or wrong: which limit is blamed first, what was used, what was printed."""

from __future__ import annotations

import pytest

from plaudit.grading import Compare, Verdict
from sandbox.judge import judge
from sandbox.sandbox import Sandbox
from sandbox.types import (
    AssertSuite,
    Case,
    FunctionSuite,
    Limits,
    Program,
    Report,
    RunSuite,
    StdioCase,
    StdioSuite,
    Stop,
    Suite,
)

LIMITS = Limits(cpu_s=5)
SMALL = Limits(cpu_s=5, memory_mb=64, output_kb=64)
MB = 1 << 20
WAYS: dict[str, Suite] = {
    "assert": AssertSuite(("x = 1\nassert f(x) == 2", "x = 2\nassert f(x) == 3"), "", "f"),
    "literal": AssertSuite(("assert f(1) == 2", "assert f(2) == 3")),
    "function": FunctionSuite("f", (Case((1,), {}, 2), Case((2,), {}, 3))),
}
ALL = pytest.mark.parametrize("way", WAYS)

HOARD = """
import os
def hoard_in_a_child():
    pid = os.fork()
    if pid == 0:
        hoard = []
        while True: hoard.append(bytearray(b"x" * (1 << 20)))
    os.waitpid(pid, 0)
"""


def stdio(
    sandbox: Sandbox, source: str, stdout: str = "", limits: Limits = LIMITS, compare: Compare = "rstrip"
) -> Report:
    return judge(Program("python", source), StdioSuite((StdioCase("", stdout),), compare), limits, Stop(), sandbox)


def calls(sandbox: Sandbox, source: str, way: str, limits: Limits = LIMITS) -> Report:
    return judge(Program("python", source), WAYS[way], limits, Stop(), sandbox)


# blame


@pytest.mark.parametrize(
    ("source", "verdict", "reason"),
    [
        (HOARD + "hoard_in_a_child()\nprint('right')", Verdict.MEMORY_LIMIT, "more than 64 MB"),
        (HOARD + "hoard_in_a_child()\nprint('x' * 10**6)", Verdict.MEMORY_LIMIT, "more than 64 MB"),
        (HOARD + "hoard_in_a_child()\nwhile True: pass", Verdict.MEMORY_LIMIT, "more than 64 MB"),
        ("print('x' * 10**6, flush=True)\nwhile True: pass", Verdict.OUTPUT_LIMIT, "more than 64 KB"),
        ("print('x' * 10**6, flush=True)\nraise ValueError", Verdict.OUTPUT_LIMIT, "more than 64 KB"),
        ("import os; print('right', flush=True); os.kill(os.getpid(), 9)", Verdict.RUNTIME_ERROR, "SIGKILL"),
        ("import os; print('right', flush=True); os.kill(os.getpid(), 31)", Verdict.SECURITY_VIOLATION, "SIGSYS"),
        ("print('right'); raise SystemExit(3)", Verdict.RUNTIME_ERROR, "exit code 3"),
        ("print('right'); 1 / 0", Verdict.RUNTIME_ERROR, "exit code 1"),
        ("print('wrong'); 1 / 0", Verdict.RUNTIME_ERROR, "exit code 1"),
        ("print('wrong')", Verdict.WRONG_ANSWER, "the output differs"),
        ("print('right')", Verdict.PASSED, ""),
    ],
)
def test_the_worst_cause_is_blamed(sandbox: Sandbox, source: str, verdict: Verdict, reason: str) -> None:
    report = stdio(sandbox, source, "right", Limits(cpu_s=1, wall_s=6, memory_mb=64, output_kb=64))
    assert report.verdict is verdict
    assert reason in report.tests[0].detail


@ALL
def test_a_right_answer_does_not_outweigh_a_limit(sandbox: Sandbox, way: str) -> None:
    """The child dies of hunger, the flood is still in the pipe, the time is up: the value comes all the same."""
    report = calls(sandbox, HOARD + "def f(x):\n    if x == 1: hoard_in_a_child()\n    return x + 1", way, SMALL)
    assert [test.verdict for test in report.tests] == ["memory_limit", "passed"]
    report = calls(sandbox, "def f(x):\n    if x == 1: print('y' * 66000)\n    return x + 1", way, SMALL)
    assert [test.verdict for test in report.tests] == ["output_limit", "passed"]
    slow = "import time\ndef f(x):\n    while x == 1 and time.process_time() < 0.6: pass\n    return x + 1"
    report = calls(sandbox, slow, way, Limits(cpu_s=0.5, wall_s=10))
    assert [test.verdict for test in report.tests] == ["time_limit", "passed"]


@ALL
def test_printing_within_the_limit_in_every_test_is_no_flood(sandbox: Sandbox, way: str) -> None:
    report = calls(sandbox, "def f(x):\n    print('y' * 60000)\n    return x + 1", way, SMALL)
    assert report.verdict is Verdict.PASSED
    assert all(len(test.stdout) > 3000 for test in report.tests)


# flags


def test_flags_say_what_else_happened(sandbox: Sandbox) -> None:
    orphan = "import os, time\nif os.fork() == 0: time.sleep(100)\nprint('ok')"
    assert stdio(sandbox, orphan, "ok").flags == ("orphans_killed",)
    crowd = """
import os, time
try:
    while True:
        if os.fork() == 0: time.sleep(100)
except BlockingIOError:
    print("ok")
"""
    assert stdio(sandbox, crowd, "ok").flags == ("orphans_killed", "process_limit")
    loud = "import sys\nsys.stderr.write('e' * 100_000)\nprint('ok')"
    assert stdio(sandbox, loud, "ok").flags == ("stderr_truncated",)
    assert stdio(sandbox, "print('ok')", "ok").flags == ()


@ALL
def test_flags_are_found_behind_calls_as_well(sandbox: Sandbox, way: str) -> None:
    crowd = """
import os, time
def f(x):
    if x == 2: return 3
    try:
        while True:
            if os.fork() == 0: time.sleep(100)
    except BlockingIOError:
        return 2
"""
    report = calls(sandbox, crowd, way)
    assert report.verdict is Verdict.PASSED
    assert "process_limit" in report.flags


# what was used


@ALL
def test_memory_and_time_are_each_tests_own(sandbox: Sandbox, way: str) -> None:
    source = """
import time
def f(x):
    if x == 1:
        hoard = bytearray(100 << 20)
        hoard[::4096] = b"x" * len(hoard[::4096])
        while time.process_time() < 0.3: pass
    return x + 1
"""
    first, second = calls(sandbox, source, way).tests
    assert first.peak_memory_mb > 90
    assert second.peak_memory_mb < 60
    assert first.cpu_ms > 150
    assert second.cpu_ms < 150
    assert 0 < first.wall_ms < 20_000


def test_a_run_tells_its_peak_and_its_time(sandbox: Sandbox) -> None:
    source = "import time\nx = bytearray(50 << 20)\nx[::4096] = b'x' * len(x[::4096])\n"
    source += "while time.process_time() < 0.3: pass"
    test = stdio(sandbox, source).tests[0]
    assert 45 < test.peak_memory_mb < 120
    assert 280 < test.cpu_ms < 2000
    assert test.wall_ms >= test.cpu_ms * 0.5


def test_children_count_for_both(sandbox: Sandbox) -> None:
    source = """
import os, time
for _ in range(3):
    if os.fork() == 0:
        hoard = bytearray(30 << 20)
        hoard[::4096] = b"x" * len(hoard[::4096])
        while time.process_time() < 0.2: pass
        time.sleep(0.2)
        os._exit(0)
for _ in range(3): os.wait()
"""
    test = stdio(sandbox, source).tests[0]
    assert test.cpu_ms > 500
    assert test.peak_memory_mb > 60


# what was printed


@pytest.mark.parametrize("compare", ["exact", "rstrip", "tokens"])
def test_sixteen_megabytes_are_compared_whole(sandbox: Sandbox, compare: Compare) -> None:
    roomy = Limits(cpu_s=20, output_kb=16 * 1024)
    line = "x" * 1023
    expected = (line + "\n") * (16 * 1024)
    source = f"import sys\nsys.stdout.write(({line!r} + '\\n') * (16 * 1024))"
    assert stdio(sandbox, source, expected, roomy, compare).verdict is Verdict.PASSED
    wrong = f"import sys\nsys.stdout.write(({line!r} + '\\n') * (16 * 1024 - 1) + {(line[:-1] + 'y')!r} + '\\n')"
    assert stdio(sandbox, wrong, expected, roomy, compare).verdict is Verdict.WRONG_ANSWER
    more = source + "\nsys.stdout.write('z')"
    assert stdio(sandbox, more, expected, roomy, compare).verdict is Verdict.OUTPUT_LIMIT


def test_a_run_may_print_as_much_as_it_is_allowed(sandbox: Sandbox) -> None:
    limits = Limits(cpu_s=20, output_kb=24 * 1024)
    source = "import sys\nfor n in range(24): sys.stdout.buffer.write(bytes([n]) * (1 << 20))"
    report = judge(Program("python", source), RunSuite(), limits, Stop(), sandbox)
    assert report.verdict is Verdict.PASSED
    assert report.output is not None
    assert report.output.stdout == b"".join(bytes([n]) * MB for n in range(24))


def test_bytes_that_are_no_text_are_compared_as_bytes(sandbox: Sandbox) -> None:
    raw = "import sys; sys.stdout.buffer.write(bytes(range(256)))"
    exactly = bytes(range(256)).decode("utf-8", "surrogateescape")
    assert stdio(sandbox, raw, exactly, compare="exact").verdict is Verdict.PASSED
    for broken in (exactly.replace("\udcff", "\udcfe"), exactly[:-1], exactly.replace("\0", ""), exactly + "\n"):
        assert stdio(sandbox, raw, broken, compare="exact").verdict is Verdict.WRONG_ANSWER
    replaced = "import sys; sys.stdout.buffer.write(b'a\\xffb')"
    assert stdio(sandbox, replaced, "a\ufffdb").verdict is Verdict.WRONG_ANSWER
    assert stdio(sandbox, replaced, "a\udcffb", compare="tokens").verdict is Verdict.PASSED
    shown = stdio(sandbox, replaced, "").tests[0].stdout
    assert shown == "a\ufffdb"


def test_no_comparison_is_looser_than_its_name(sandbox: Sandbox) -> None:
    cases: tuple[tuple[str, str, Compare, bool], ...] = (
        ("a  b \n\n", "a  b", "rstrip", True),
        ("a b\n", "a  b\n", "rstrip", False),
        (" a", "a", "rstrip", False),
        ("a\n\nb", "a\nb", "rstrip", False),
        ("a\r\nb\r\n", "a\nb\n", "rstrip", True),
        ("a\tb\n c", "a b c", "tokens", True),
        ("ab", "a b", "tokens", False),
        ("1.0000000001 x", "1 x", "float", True),
        ("1.1 x", "1 x", "float", False),
        ("nan", "nan", "float", True),
        ("nan", "1", "float", False),
        ("1 2", "1", "float", False),
        ("1_0", "10", "float", False),
        ("", "0", "float", False),
        ("PASSED", "", "rstrip", False),
    )
    for printed, expected, compare, same in cases:
        report = stdio(sandbox, f"print({printed!r}, end='')", expected, compare=compare)
        assert (report.verdict is Verdict.PASSED) == same, (printed, expected, compare)
