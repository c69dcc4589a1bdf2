"""Level userns: no cgroups, so the host counts through /proc, and the same verdicts come out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sandbox.judge import judge
from sandbox.selftest import prove
from sandbox.types import AssertSuite, Limits, Program, Report, StdioCase, StdioSuite, Stop, Verdict
from sandbox.walls import Sandbox, Walls, state_directory


@pytest.fixture(scope="module")
def low() -> Iterator[Sandbox]:
    with Sandbox(Walls("userns", ("cgroups",), ""), state_directory()) as sandbox:
        yield sandbox


def run(box: Sandbox, source: str, stdout: str = "", limits: Limits = Limits(cpu_s=0.5)) -> Report:  # noqa: B008
    return judge(Program("python", source), StdioSuite((StdioCase("", stdout),)), limits, Stop(), box)


def test_the_walls_that_this_level_claims_hold(low: Sandbox) -> None:
    prove(low)
    assert low.plan.cgroups is None
    assert run(low, "print(1)", "1").isolation == "userns"


def test_cpu_time_of_all_processes_is_counted(low: Sandbox) -> None:
    report = run(low, "import os\nos.fork()\nwhile True: pass")
    assert report.verdict is Verdict.TIME_LIMIT
    assert report.tests[0].detail.startswith("cpu")


def test_memory_is_sampled_and_limited(low: Sandbox) -> None:
    source = "import time\nhoard = bytearray(100 << 20)\nhoard[::4096] = b'x' * len(hoard[::4096])\ntime.sleep(5)"
    report = run(low, source, limits=Limits(cpu_s=2, memory_mb=64))
    assert report.verdict is Verdict.MEMORY_LIMIT


def test_processes_are_limited_by_their_uid(low: Sandbox) -> None:
    source = """
import os, time
n = 0
try:
    while True:
        if os.fork() == 0: time.sleep(100)
        n += 1
except BlockingIOError:
    print(n < 40)
"""
    report = run(low, source, "True", Limits(cpu_s=2, processes=32))
    assert (report.verdict, report.flags) == (Verdict.PASSED, ("orphans_killed",))


def test_a_hanging_test_costs_only_itself(low: Sandbox) -> None:
    source = "def f(x):\n    while x == 2: pass\n    return x"
    suite = AssertSuite(("assert f(1) == 1", "assert f(2) == 2", "assert f(3) == 3"))
    report = judge(Program("python", source), suite, Limits(cpu_s=0.5), Stop(), low)
    assert [test.verdict for test in report.tests] == ["passed", "time_limit", "passed"]
