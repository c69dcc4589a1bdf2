"""What may be asked beside a verdict: each option does what it says, and no other run notices."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from sandbox import job_handle, procfs
from sandbox.errors import InvalidOptions, InvalidSuite
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
    StdioCase,
    StdioSuite,
    Stop,
    Suite,
)

LIMITS = Limits(cpu_s=1, wall_s=6)
FRESH = Options(fresh_interpreter=True)
SHARED = Options(grading="together")
TWICE = Options(check_determinism=True)
THREE = AssertSuite(("assert f(1) == 2", "assert f(2) == 3", "assert f(3) == 4"))


def run(sandbox: Sandbox, source: str, suite: Suite, options: Options, limits: Limits = LIMITS) -> Report:
    return judge(Program("python", source), suite, limits, Stop(), sandbox, options)


def verdicts(report: Report) -> list[str]:
    return [test.verdict.value for test in report.tests]


# --- a fresh interpreter ---------------------------------------------------------------------------------------------

SELF = """
import sys
print(__name__, __file__, sys.argv, sys.path[0], sys.flags.no_site, "site" in sys.modules, "json" in sys.modules)
print(input())
"""


def test_a_fresh_interpreter_is_python3_main_py(sandbox: Sandbox) -> None:
    report = run(sandbox, SELF, StdioSuite((StdioCase("é\n", ""),)), FRESH)
    assert report.tests[0].stdout.splitlines() == ["__main__ /tmp/main.py ['/tmp/main.py'] /tmp 0 True False", "é"]
    assert report.judge == "bytes"
    warm = run(sandbox, SELF, StdioSuite((StdioCase("é\n", ""),)), Options())
    assert warm.tests[0].stdout.splitlines()[0].endswith("True True")  # a warm one holds what most programs import


def test_a_hash_seed_is_that_of_python_with_this_seed(sandbox: Sandbox) -> None:
    program = "print(hash('plaudit'))\n"
    for seed in (0, 7):
        environ = {**os.environ, "PYTHONHASHSEED": str(seed)}
        plain = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True)
        suite = StdioSuite((StdioCase("", plain.stdout),))
        assert run(sandbox, program, suite, replace(FRESH, hash_seed=seed)).verdict.value == "passed"
    value = FunctionSuite("f", (Case((), {}, int(plain.stdout)),))
    served = "def f():\n    return hash('plaudit')\n"
    assert run(sandbox, served, value, replace(FRESH, hash_seed=7)).verdict.value == "passed"
    assert run(sandbox, served, value, FRESH).verdict.value == "wrong_answer"


def test_a_fresh_interpreter_is_judged_and_limited_as_ever(sandbox: Sandbox) -> None:
    for source, verdict in (
        ("print(3)", "passed"),
        ("print(4)", "wrong_answer"),
        ("while True: pass", "time_limit"),
        ("x = [bytearray(1 << 20) for _ in range(4000)]", "memory_limit"),
        ("import sys; sys.exit(3)", "runtime_error"),
        ("import os; os.kill(os.getpid(), 9)", "runtime_error"),
        ("x = (", "compile_error"),
    ):
        limits = replace(LIMITS, memory_mb=64, cpu_s=0.5)
        assert run(sandbox, source, StdioSuite((StdioCase("", "3"),)), FRESH, limits).verdict == verdict, source


def test_a_run_in_a_fresh_interpreter_has_its_files(sandbox: Sandbox) -> None:
    suite = RunSuite("x", (("data.txt", b"hello"),), ("out.txt",))
    source = "open('out.txt', 'w').write(open('data.txt').read() + input())"
    output = run(sandbox, source, suite, FRESH).output
    assert output is not None
    assert (output.exit_code, output.files) == (0, {"out.txt": b"hellox"})


@pytest.mark.parametrize(
    "suite",
    [
        THREE,
        FunctionSuite("f", (Case((1,), {}, 2), Case((2,), {}, 3))),
        CheckSuite("def check(candidate):\n    assert candidate(1) == 2\n", "f"),
        AssertSuite(("x = 1\nassert f(x) == x + 1",), entry_point="f"),
    ],
    ids=["literal", "function", "check", "assert"],
)
@pytest.mark.parametrize("audit", [False, True], ids=["plain", "audit"])
def test_functions_are_served_from_a_fresh_interpreter_too(sandbox: Sandbox, suite: Suite, audit: bool) -> None:
    options = replace(FRESH, audit=audit)
    right = run(sandbox, "import sys\nassert 'json.tool' not in sys.modules\ndef f(x): return x + 1\n", suite, options)
    wrong = run(sandbox, "class Y:\n    def __eq__(s, o): return True\ndef f(x): return Y()\n", suite, options)
    assert (right.verdict, right.judge, right.flags) == ("passed", "split", ())
    assert wrong.passed == 0


# --- one process -----------------------------------------------------------------------------------------------------

COUNTER = """
count = 0
def bump():
    global count
    count += 1
    return helper(count)
def helper(n): return n
"""
POKES = AssertSuite(
    (
        "count = 41\nassert bump() == 42",
        "bump()\nassert count == 1",
        "import sys\nme = sys.modules['__main__']\nme.helper = lambda n: n * 100\nassert bump() == 100",
        "assert bump() == 2",
    ),
    entry_point="bump",
)


def test_tests_that_poke_at_globals_need_the_shared_process_and_the_report_says_so(sandbox: Sandbox) -> None:
    report = run(sandbox, COUNTER, POKES, SHARED)
    assert verdicts(report) == ["passed", "passed", "passed", "wrong_answer"]  # each starts from the program anew
    assert (report.judge, report.passed, report.total) == ("shared_process", 3, 4)
    split = run(sandbox, COUNTER, POKES, Options())
    assert split.judge == "split"
    assert split.passed < 3


def test_what_cannot_be_split_passes_in_one_process(sandbox: Sandbox) -> None:
    source = "class V:\n    def __add__(self, o): return 3\n    def __lt__(self, o): return True\ndef f(): return V()"
    suite = AssertSuite(("assert f() + 1 == 3", "assert f() < 1"))
    assert verdicts(run(sandbox, source, suite, Options())) == ["invalid_result"] * 2
    assert run(sandbox, source, suite, SHARED).verdict == "passed"


@pytest.mark.parametrize(
    ("source", "verdict"),
    [
        ("def f(x): return x + 1", "passed"),
        ("def f(x): return x", "wrong_answer"),
        ("def f(x): raise ValueError('no')", "runtime_error"),
        ("def f(x): assert False", "runtime_error"),  # its own assertion, not the test's
        ("def g(x): return 1", "runtime_error"),
        ("x = (", "compile_error"),
        ("import sys; sys.exit(0)", "no_result"),
        ("import os; os._exit(0)", "no_result"),
        ("def f(x): exit()", "no_result"),
        ("def f(x):\n    while True: pass", "time_limit"),
        ("def f(x): return bytearray(1 << 30)", "memory_limit"),
        ("def f(x):\n    import os; os.kill(os.getpid(), 11)", "runtime_error"),
        ("def f(x):\n    while True: print('x' * 1000)", "output_limit"),
    ],
)
def test_a_shared_process_is_judged_as_well_as_can_be(sandbox: Sandbox, source: str, verdict: str) -> None:
    limits = Limits(cpu_s=0.5, wall_s=6, memory_mb=128, output_kb=64)
    for suite in (
        AssertSuite(("assert f(1) == 2",)),
        CheckSuite("def check(candidate):\n    assert candidate(1) == 2\n", "f"),
    ):
        report = run(sandbox, source, suite, SHARED, limits)
        assert report.verdict == verdict, report.tests[0].detail


def test_a_setup_and_the_stop_rule_hold_in_one_process(sandbox: Sandbox) -> None:
    suite = AssertSuite(("assert f(N) == 4", "assert f(0) == N", "assert f(1) == 2"), "N = 3\n", "f")
    report = judge(Program("python", "def f(x): return x + 1"), suite, LIMITS, Stop(1), sandbox, SHARED)
    assert verdicts(report) == ["passed", "wrong_answer", "skipped"]


def test_tests_that_cannot_be_used_are_nobodys_verdict_in_one_process_either(sandbox: Sandbox) -> None:
    with pytest.raises(InvalidSuite, match="SyntaxError"):
        run(sandbox, "def f(x): return 1", AssertSuite(("assert f(1) ==",), entry_point="f"), SHARED)
    forged = 'import os\nb = b\'{"invalid":"not my fault"}\'\nos.write(3, len(b).to_bytes(4, "big") + b)\nos._exit(0)\n'
    assert run(sandbox, forged, AssertSuite(("assert f(1) == 2",)), SHARED).verdict == "invalid_result"


# --- determinism -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "differs"),
    [
        ("print(sorted({'a', 'b', 'c'}))", False),
        ("print({'a', 'b', 'c'})", False),  # the hash seed is fixed
        ("import random; print(random.random())", True),
        ("import os; print(os.urandom(8))", True),
        ("import time; print(time.time())", True),
        ("import random; random.seed(1); print(random.random())", False),
        ("import random, sys; sys.exit(0 if random.random() < 2 else 1)", False),
    ],
)
@pytest.mark.parametrize("suite", [StdioSuite((StdioCase("", "x"),)), RunSuite("")], ids=["stdio", "run"])
def test_what_differs_from_run_to_run_is_said(sandbox: Sandbox, source: str, differs: bool, suite: Suite) -> None:
    assert ("nondeterministic" in run(sandbox, source, suite, TWICE).flags) is differs


def test_a_verdict_that_differs_from_run_to_run_is_said(sandbox: Sandbox) -> None:
    source = "import time\ndef f(x): return time.monotonic_ns() // 1000\nA = f(0)\ndef g(): return A\n"
    suite = AssertSuite(("assert g() == g()", "assert g() % 1_000_003 == 5"))
    assert run(sandbox, source, suite, TWICE).flags == ()  # right once, wrong once, in both
    flaky = "import os\ndef f(x): return x + (os.urandom(1)[0] % 2)\n"
    many = AssertSuite(tuple(f"assert f({n}) == {n}" for n in range(40)))
    assert "nondeterministic" in run(sandbox, flaky, many, TWICE).flags


# --- what cannot be asked for ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("language", "suite", "options", "names"),
    [
        ("cpp", StdioSuite((StdioCase("", ""),)), Options(audit=True), "options.audit"),
        ("python", StdioSuite((StdioCase("", ""),)), SHARED, "options.grading"),
        ("python", FunctionSuite("f", (Case((), {}, 1),)), SHARED, "options.grading"),
        ("python", RunSuite("", (("main.py", b""),)), FRESH, "options.fresh_interpreter"),
        ("python", THREE, Options(hash_seed=1), "options.hash_seed"),
        ("cpp", StdioSuite((StdioCase("", ""),)), replace(FRESH, hash_seed=1), "options.hash_seed"),
        ("python", THREE, replace(SHARED, fresh_interpreter=True), "options.fresh_interpreter"),
    ],
)
def test_an_option_that_cannot_be_is_refused_by_its_name(
    sandbox: Sandbox, language: str, suite: Suite, options: Options, names: str
) -> None:
    with pytest.raises(InvalidOptions, match=names):
        judge(Program(language, "int main() {}"), suite, LIMITS, Stop(), sandbox, options)


# --- a host that gives no CPU ----------------------------------------------------------------------------------------

SPIN = "import time\nwhile time.process_time() < {:g}: pass\nprint('done')\n"
DONE = StdioSuite((StdioCase("", "done"),))


def spin(cpu: int) -> None:
    os.setsid()  # the scheduler shares a CPU out by sessions first
    os.sched_setaffinity(0, {cpu})
    while True:
        pass


@contextmanager
def crowded(neighbours: int) -> Iterator[None]:
    """This process and its children on one CPU, with neighbours that leave them little of it."""
    before = os.sched_getaffinity(0)
    cpu = min(before)
    spinners = [multiprocessing.get_context("fork").Process(target=spin, args=(cpu,)) for _ in range(neighbours)]
    os.sched_setaffinity(0, {cpu})
    for one in spinners:
        one.start()

    try:
        yield
    finally:
        for one in spinners:
            one.kill()
            one.join()
        os.sched_setaffinity(0, before)


@pytest.fixture
def no_cpu_at_first(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scheduler's account says of every thread that it waits for a CPU all the time, until the last attempt.

    How long a thread really waits depends on how busy the host is, and on how its scheduler groups processes.
    """
    monkeypatch.setattr(
        job_handle, "waited_s", lambda task: 0.0 if sandbox.is_last_attempt else 2 * time.monotonic()
    )  # twice as fast as the clock, because what the job itself uses meanwhile is taken off


def test_a_run_that_got_no_cpu_is_run_once_more_within_the_same_limits(sandbox: Sandbox, no_cpu_at_first: None) -> None:
    began = time.monotonic()
    report = run(sandbox, "import time; time.sleep(100)", DONE, Options(), Limits(cpu_s=2, wall_s=1))
    took = time.monotonic() - began
    assert (report.verdict, report.flags) == ("time_limit", ("rerun_alone",)), report.tests[0].detail
    assert 2 <= took < 2 * 1.2 + 2  # twice the limit; the rest is how late a busy host is


def test_how_long_a_thread_has_waited_is_read_from_the_scheduler() -> None:
    if not os.path.exists("/proc/self/schedstat"):
        pytest.skip("this kernel keeps no account")
    before = procfs.waited_s(os.getpid())
    assert 0 <= before <= procfs.waited_s(os.getpid()) < time.monotonic()


CROWD = """
import os, sys, threading, time
def burn(seconds):
    while time.process_time() < seconds: pass
{how}
for _ in range({children}):
    if os.fork() == 0:
        burn({seconds})
        time.sleep(1000)
time.sleep(1000)
"""


@pytest.mark.parametrize(
    "how",
    [
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})",
        "",
        "os.nice(19)",
        "os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))",
        "open('/proc/self/autogroup', 'w').write('19')",
    ],
)
def test_who_crowds_itself_out_is_not_run_again(sandbox: Sandbox, how: str) -> None:
    if os.getloadavg()[0] > 2 * len(os.sched_getaffinity(0)):
        pytest.skip("this host is starved indeed")
    source = CROWD.format(how=how, children=40, seconds=0.9 / 40)
    began = time.monotonic()
    report = run(sandbox, source, DONE, Options(), Limits(cpu_s=2, wall_s=2.4))
    assert report.verdict in ("time_limit", "runtime_error")  # not every kernel lets a program write its autogroup
    assert "rerun_alone" not in report.flags
    assert time.monotonic() - began < 1.2 * 2.4


def test_a_sleeper_is_a_time_limit_and_not_run_again(sandbox: Sandbox) -> None:
    sandbox.discard()
    with crowded(neighbours=3):
        report = run(sandbox, "import time; time.sleep(100)", DONE, Options(), Limits(cpu_s=1, wall_s=1))
    sandbox.discard()
    assert (report.verdict, report.flags) == ("time_limit", ())
    assert "idle" in report.tests[0].detail
    assert report.tests[0].wall_ms < 3000


def test_what_the_jail_itself_has_waited_for_is_not_the_next_runs_wait(sandbox: Sandbox) -> None:
    sandbox.discard()
    with crowded(neighbours=3):
        for _ in range(12):
            run(sandbox, SPIN.format(0.05), DONE, Options())
    report = run(sandbox, "import time; time.sleep(100)", DONE, Options(), Limits(cpu_s=1, wall_s=0.5))
    sandbox.discard()
    assert (report.verdict, report.flags) == ("time_limit", ())


def test_the_second_try_counts_whatever_it_is(sandbox: Sandbox, no_cpu_at_first: None) -> None:
    report = run(
        sandbox,
        "def f(x):\n    while True: pass\n",
        AssertSuite(("assert f(1) == 2",)),
        Options(),
        Limits(cpu_s=20, wall_s=1),
    )
    assert (report.verdict, report.flags) == ("time_limit", ("rerun_alone",))
    assert report.tests[0].wall_ms < 1200 + 500  # the same limits as at first
