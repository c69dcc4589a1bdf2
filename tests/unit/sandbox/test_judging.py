"""The judge's decisions that need no jail: verdict order, entry points, refusals, reports."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import plaudit
import sandbox
from plaudit.grading import SEVERITY, Verdict
from plaudit.languages import ALIASES, UnsupportedLanguage, resolve
from sandbox import languages
from sandbox.cgroup import Counters
from sandbox.errors import InvalidSuite, Starved
from sandbox.harness import code_digest
from sandbox.jail_job import JobExit
from sandbox.judge.entry_points import derived_entry_point
from sandbox.judge.report import build_report, worst_verdict
from sandbox.judge.suite_kinds import count_tests
from sandbox.judge.suite_plan import plan_of
from sandbox.limits import JailLimits, check_limits, run_limits
from sandbox.run import RunBudget, classify_exit, flags
from sandbox.types import AssertSuite, CheckSuite, FunctionSuite, Limits, StdioSuite, TestReport

NOTHING = Counters(0, 0, 0, 0)


@dataclass
class FakeCapture:
    overflowed: bool = False
    data: bytes = b""


@dataclass
class FakeRun:
    """What `classify_exit` looks at."""

    job_exit: JobExit | None
    killed_for: str | None = None
    seen: Counters = NOTHING
    budget: RunBudget = field(default_factory=lambda: RunBudget(5_000, 0.0))
    limits: JailLimits = field(default_factory=lambda: run_limits(Limits()))
    stdout: FakeCapture = field(default_factory=FakeCapture)
    stderr: FakeCapture = field(default_factory=FakeCapture)
    starved: bool = False
    is_last_attempt: bool = False

    def counters(self) -> Counters:
        return self.seen


def ended(code: int | None = 0, by: int | None = None, orphans: int = 0) -> JobExit:
    return JobExit(code, by, 1.0, 1.0, orphans, ())


OOM = Counters(0, 0, 1, 0)


@pytest.mark.parametrize(
    ("run", "verdict"),
    [
        (FakeRun(ended(0)), None),
        (FakeRun(ended(1)), Verdict.RUNTIME_ERROR),
        (FakeRun(ended(None, signal.SIGKILL)), Verdict.RUNTIME_ERROR),
        (FakeRun(ended(None, signal.SIGSEGV)), Verdict.RUNTIME_ERROR),
        (FakeRun(ended(None, signal.SIGSYS)), Verdict.SECURITY_VIOLATION),
        (FakeRun(ended(None, signal.SIGXCPU)), Verdict.TIME_LIMIT),
        (FakeRun(ended(None, signal.SIGXFSZ)), Verdict.OUTPUT_LIMIT),
        (FakeRun(ended(None, signal.SIGKILL), "cpu"), Verdict.TIME_LIMIT),
        (FakeRun(ended(None, signal.SIGKILL), "wall"), Verdict.TIME_LIMIT),
        (FakeRun(ended(None, signal.SIGKILL), "stdout"), Verdict.OUTPUT_LIMIT),
        (FakeRun(ended(None, signal.SIGKILL), "memory"), Verdict.MEMORY_LIMIT),
        (FakeRun(ended(0), stdout=FakeCapture(True)), Verdict.OUTPUT_LIMIT),
        (FakeRun(ended(0), seen=OOM), Verdict.MEMORY_LIMIT),
        (FakeRun(ended(0), seen=Counters(5_000, 0, 0, 0)), None),
        (FakeRun(ended(0), seen=Counters(5_001, 0, 0, 0)), Verdict.TIME_LIMIT),
        (FakeRun(ended(None, signal.SIGKILL), "cpu", OOM), Verdict.MEMORY_LIMIT),
        (FakeRun(ended(None, signal.SIGKILL), "cpu", OOM, stdout=FakeCapture(True)), Verdict.MEMORY_LIMIT),
        (FakeRun(ended(None, signal.SIGKILL), "cpu", stdout=FakeCapture(True)), Verdict.OUTPUT_LIMIT),
        (FakeRun(ended(None, signal.SIGSYS), "cpu"), Verdict.TIME_LIMIT),
    ],
)
def test_the_end_of_a_run_becomes_one_verdict(run: Any, verdict: Verdict | None) -> None:
    assert classify_exit(run).verdict is verdict
    assert bool(classify_exit(run).detail) is (verdict is not None)


def test_a_run_that_got_no_cpu_has_no_verdict_until_its_last_attempt() -> None:
    starved: Any = FakeRun(ended(None, signal.SIGKILL), "wall", starved=True)
    with pytest.raises(Starved):
        classify_exit(starved)
    starved.is_last_attempt = True
    assert classify_exit(starved).verdict is Verdict.TIME_LIMIT
    of_memory: Any = FakeRun(ended(None, signal.SIGKILL), "wall", OOM, starved=True)
    assert classify_exit(of_memory).verdict is Verdict.MEMORY_LIMIT


def test_flags_tell_what_the_verdict_does_not() -> None:
    run: Any = FakeRun(ended(0, None, 3), seen=Counters(0, 0, 0, 9), stderr=FakeCapture(True))
    assert flags(run) == {"process_limit", "orphans_killed", "stderr_truncated"}


def test_every_verdict_has_its_place_in_the_order() -> None:
    assert set(SEVERITY) == set(Verdict)
    assert len(SEVERITY) == len(Verdict)


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["passed", "passed"], "passed"),
        (["passed", "wrong_answer"], "wrong_answer"),
        (["wrong_answer", "runtime_error"], "runtime_error"),
        (["runtime_error", "time_limit"], "time_limit"),
        (["time_limit", "output_limit"], "output_limit"),
        (["output_limit", "memory_limit"], "memory_limit"),
        (["invalid_result", "no_result"], "no_result"),
        (["security_violation", "runtime_error"], "security_violation"),
        (["passed", "invalid_result"], "invalid_result"),
    ],
)
def test_a_programs_verdict_is_its_worst_tests(verdicts: list[str], expected: str) -> None:
    assert worst_verdict([Verdict(verdict) for verdict in verdicts]) == expected


def test_tests_that_did_not_run_are_skipped_and_count() -> None:
    tests = [TestReport(Verdict.PASSED), TestReport(Verdict.WRONG_ANSWER)]
    report = build_report(tests, 5, "split", "strong", flags={"b", "a"})
    assert [test.verdict for test in report.tests] == ["passed", "wrong_answer", *["skipped"] * 3]
    assert (report.passed, report.total, report.pass_rate) == (1, 5, 0.2)
    assert report.verdict is Verdict.WRONG_ANSWER
    assert report.flags == ("a", "b")


@pytest.mark.parametrize(
    ("asserts", "setup", "name"),
    [
        (("assert add(1, 2) == 3",), "", "add"),
        (("assert sorted(find(3)) == [1]",), "", "find"),
        (("assert abs(area(2) - math.pi) < 1e-6",), "import math", "area"),
        (("assert same(Node(1), tree())",), "class Node: pass\ndef tree(): pass", "same"),
        (("assert Solution().run(1) == 2",), "", "Solution"),
        (("x = 3\nassert f(x) == 4",), "", "f"),
        (("assert value == 3",), "", "value"),
        (("assert max([1, 2]) == 2",), "", "max"),
    ],
)
def test_the_entry_point_is_what_the_first_test_calls(asserts: tuple[str, ...], setup: str, name: str) -> None:
    assert derived_entry_point(AssertSuite(asserts, setup)) == name


def test_suites_without_tests_or_with_too_many_are_invalid() -> None:
    for suite in (AssertSuite(()), FunctionSuite("f", ()), StdioSuite(())):
        with pytest.raises(InvalidSuite, match="no tests"):
            count_tests(suite)
    with pytest.raises(InvalidSuite, match="at most"):
        count_tests(AssertSuite(("assert f()",) * 10_001))
    assert count_tests(CheckSuite("def check(candidate): pass", "f")) == 1


def test_the_plan_of_a_suite_is_texts_only() -> None:
    plan = plan_of(AssertSuite(("assert f(1) == 2",), "import math"))
    assert plan == {
        "kind": "assert",
        "setup": "import math",
        "helpers": "",
        "entry_point": "f",
        "tests": ["assert f(1) == 2"],
    }


@pytest.mark.parametrize(
    "limits",
    [
        Limits(cpu_s=0),
        Limits(cpu_s=1e9),
        Limits(cpu_s=float("nan")),
        Limits(wall_s=-1),
        Limits(memory_mb=0),
        Limits(memory_mb=10**9),
        Limits(output_kb=0),
        Limits(processes=0),
    ],
)
def test_limits_out_of_range_are_refused(limits: Limits) -> None:
    with pytest.raises(ValueError, match="must be above 0 and at most"):
        check_limits(limits)


def test_the_wall_limit_follows_from_the_cpu_limit() -> None:
    assert (Limits(cpu_s=1).wall, Limits(cpu_s=5).wall, Limits(cpu_s=1, wall_s=9).wall) == (4, 15, 9)


@pytest.mark.parametrize(
    ("spelling", "name"),
    [("python", "python"), ("Python3", "python"), (" py ", "python"), ("C++", "cpp"), ("cc", "cpp"), ("cxx", "cpp")],
)
def test_a_language_has_many_spellings(spelling: str, name: str) -> None:
    assert resolve(spelling) == name


def test_an_unknown_language_is_unsupported() -> None:
    with pytest.raises(UnsupportedLanguage, match="'cobol' is not one of python, cpp"):
        resolve("cobol")


def test_no_spelling_means_two_languages() -> None:
    names = [name for canonical, aliases in ALIASES.items() for name in (canonical, *aliases)]
    assert len(names) == len(set(names))


def test_the_interpreter_is_the_real_one_and_not_this_environment() -> None:
    import sys

    assert languages.python_binary().is_file()
    assert not languages.python_binary().is_relative_to(sys.prefix) or sys.prefix == sys.base_prefix
    assert languages.installed()[0].name == "python"


@pytest.mark.parametrize("file", ["judge/compare.py", "inside/tests.py", "limits.py"])
def test_another_judge_has_another_digest(tmp_path: Path, file: str) -> None:
    """A result that was cached by the version before is not taken for one of this version."""
    shutil.copytree(Path(sandbox.__file__).parent, tmp_path / "sandbox")

    def digest() -> bytes:
        code = "import sys; from sandbox.harness import code_digest; sys.stdout.buffer.write(code_digest())"
        environ = {"PYTHONPATH": f"{tmp_path}:{Path(plaudit.__file__).parents[1]}"}
        return subprocess.run([sys.executable, "-P", "-c", code], env=environ, capture_output=True, check=True).stdout

    before = digest()
    assert before == code_digest()
    with (tmp_path / "sandbox" / file).open("a") as code:
        code.write("# changed\n")
    assert digest() != before


def test_the_digest_depends_on_what_it_is_told() -> None:
    assert languages.toolchain_digest(b"a") == languages.toolchain_digest(b"a")
    assert languages.toolchain_digest(b"a") != languages.toolchain_digest(b"b")
    assert languages.toolchain_digest(b"ab", b"") != languages.toolchain_digest(b"a", b"b")
