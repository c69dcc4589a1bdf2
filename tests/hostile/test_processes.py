"""Programs that will not end, will not die, multiply, or leave something behind."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from plaudit.grading import Verdict
from sandbox.judge import judge
from sandbox.sandbox import Sandbox
from sandbox.types import Limits, Program, Report, StdioCase, StdioSuite, Stop

QUICK = Limits(cpu_s=0.5, wall_s=10)  # CPU time decides, also on a busy machine


def run(sandbox: Sandbox, source: str, stdout: str = "", *, stdin: str = "", limits: Limits = QUICK) -> Report:
    return judge(Program("python", source), StdioSuite((StdioCase(stdin, stdout),)), limits, Stop(), sandbox)


@pytest.fixture(autouse=True)
def nothing_is_left(sandbox: Sandbox) -> Iterator[None]:
    """After every test here: no process of the jails' uids, no cgroup but those of warm jails, one process in each."""
    yield
    sandbox.collect(0)
    assert sandbox.jail_config.uid is not None
    assert sandbox.jail_config.cgroups is not None
    uids = {sandbox.jail_config.uid, sandbox.jail_config.uid + 1}
    alive = [path for path in Path("/proc").glob("[0-9]*") if path.exists() and owner(path) in uids]
    assert alive == []
    waiting = {
        path for jails in sandbox.idle.values() for jail in jails if jail.cgroup for _, path in jail.cgroup.places
    }
    assert {g for tree in sandbox.jail_config.cgroups.trees for g in tree.base.glob(f"{sandbox.name}-*")} == waiting
    assert [path for path in waiting if len((path / "cgroup.procs").read_text().split()) != 1] == []


def owner(path: Path) -> int:
    try:
        return path.stat().st_uid
    except FileNotFoundError:
        return -1


def test_an_endless_loop_is_stopped_by_its_cpu_time(sandbox: Sandbox) -> None:
    report = run(sandbox, "while 1: pass")
    assert report.verdict is Verdict.TIME_LIMIT
    assert report.tests[0].detail.startswith("cpu")
    assert 450 <= report.tests[0].cpu_ms <= 800


def test_sleeping_is_stopped_by_the_wall_clock(sandbox: Sandbox) -> None:
    report = run(sandbox, "import time; time.sleep(100)", limits=Limits(cpu_s=0.5, wall_s=1))
    assert report.verdict is Verdict.TIME_LIMIT
    assert report.tests[0].detail.startswith("wall")


def test_stopping_oneself_is_a_time_limit(sandbox: Sandbox) -> None:
    source = "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)"
    assert run(sandbox, source, limits=Limits(cpu_s=0.5, wall_s=1)).verdict is Verdict.TIME_LIMIT


def test_ignoring_every_signal_does_not_help(sandbox: Sandbox) -> None:
    source = """
import signal
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
while True: pass
"""
    assert run(sandbox, source).verdict is Verdict.TIME_LIMIT


@pytest.mark.parametrize(
    "source",
    [
        "10 ** 10 ** 9",
        "import re; re.match('(a+)+$', 'a' * 40 + 'b')",
        "sorted(range(10 ** 7), key=lambda x: -x)",
    ],
    ids=["huge power", "regular expression", "huge sort"],
)
def test_work_inside_the_interpreter_is_stopped_as_well(sandbox: Sandbox, source: str) -> None:
    assert run(sandbox, source, limits=Limits(cpu_s=0.5, memory_mb=4096)).verdict is Verdict.TIME_LIMIT


def test_a_right_answer_before_an_endless_loop_is_no_pass(sandbox: Sandbox) -> None:
    report = run(sandbox, "print(45, flush=True)\nwhile True: pass", "45")
    assert report.verdict is Verdict.TIME_LIMIT
    assert report.tests[0].stdout == "45\n"


def test_a_fork_bomb_meets_the_process_limit(sandbox: Sandbox) -> None:
    source = "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass"
    report = run(sandbox, source)
    assert report.verdict is Verdict.TIME_LIMIT
    assert "process_limit" in report.flags


def test_a_shell_fork_bomb_leaves_nothing_behind(sandbox: Sandbox) -> None:
    source = "import subprocess; subprocess.run(['bash', '-c', ':(){ :|:& };:'])"
    report = run(sandbox, source, limits=Limits(cpu_s=0.5, wall_s=2))
    assert report.verdict in (Verdict.PASSED, Verdict.RUNTIME_ERROR, Verdict.TIME_LIMIT)


def test_children_that_outlive_their_parent_are_killed(sandbox: Sandbox) -> None:
    source = "import os, time\nfor _ in range(40):\n    if os.fork() == 0:\n        time.sleep(100)\nprint('ok')"
    report = run(sandbox, source, "ok")
    assert report.verdict is Verdict.PASSED
    assert "orphans_killed" in report.flags


def test_a_daemon_that_holds_stdout_holds_up_nobody(sandbox: Sandbox) -> None:
    source = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(100)
    os._exit(0)
os.wait()
print("ok")
"""
    began = time.monotonic()
    report = run(sandbox, source, "ok")
    assert report.verdict is Verdict.PASSED
    assert time.monotonic() - began < 2


def test_a_thread_bomb_is_a_runtime_error(sandbox: Sandbox) -> None:
    source = """
import threading, time
for _ in range(1000):
    threading.Thread(target=time.sleep, args=(100,), daemon=True).start()
"""
    report = run(sandbox, source)
    assert report.verdict is Verdict.RUNTIME_ERROR
    assert "can't start new thread" in report.tests[0].stderr


def test_a_thread_left_sleeping_is_waited_for_as_python_does(sandbox: Sandbox) -> None:
    source = "import threading, time\nthreading.Thread(target=time.sleep, args=(100,)).start()\nprint('ok')"
    assert run(sandbox, source, "ok", limits=Limits(cpu_s=0.5, wall_s=1)).verdict is Verdict.TIME_LIMIT


def test_killing_oneself_is_neither_time_nor_memory(sandbox: Sandbox) -> None:
    report = run(sandbox, "import os; os.kill(os.getpid(), 9)")
    assert report.verdict is Verdict.RUNTIME_ERROR
    assert report.tests[0].detail == "killed by SIGKILL (signal 9)"


@pytest.mark.parametrize("target", ["-1", "1", "os.getppid()"])
def test_nobody_else_can_be_killed(sandbox: Sandbox, target: str) -> None:
    source = f"""
import os
try:
    os.kill({target}, 9)
except (PermissionError, ProcessLookupError) as error:
    print(type(error).__name__)
"""
    report = run(sandbox, source)
    assert report.tests[0].stdout in ("PermissionError\n", "ProcessLookupError\n")


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import os; os.abort()", "SIGABRT"),
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
    ],
    ids=["abort", "null pointer"],
)
def test_a_crash_is_a_runtime_error_with_its_signal(sandbox: Sandbox, source: str, name: str) -> None:
    report = run(sandbox, source, limits=Limits(cpu_s=2))
    assert report.verdict is Verdict.RUNTIME_ERROR
    assert name in report.tests[0].detail


def test_an_overflow_of_the_machine_stack_is_a_runtime_error(sandbox: Sandbox) -> None:
    source = """
int f(int n) { volatile char room[4096]; room[0] = n; return f(n + 1) + room[0]; }
int main() { return f(0); }
"""
    suite = StdioSuite((StdioCase("", ""),))
    report = judge(Program("cpp", source), suite, Limits(cpu_s=2), Stop(), sandbox)
    assert report.verdict is Verdict.RUNTIME_ERROR
    assert "SIGSEGV" in report.tests[0].detail


def test_deep_recursion_is_a_runtime_error(sandbox: Sandbox) -> None:
    report = run(sandbox, "def f(n): return f(n + 1)\nf(0)")
    assert report.verdict is Verdict.RUNTIME_ERROR
    assert "RecursionError" in report.tests[0].stderr


def test_many_copies_at_once_are_not_slow_programs() -> None:
    """Eight sandboxes at once on few cores: CPU time decides, so none of them is over its limit."""
    script = """
from sandbox.judge import judge
from sandbox.types import *
from sandbox.open import open_sandbox
with open_sandbox() as sandbox:
    source = "x = 0\\nfor i in range(2_000_000): x += i\\nprint(x)"
    suite = StdioSuite((StdioCase("", "1999999000000"),))
    print(judge(Program("python", source), suite, Limits(cpu_s=2), Stop(), sandbox).verdict)
"""
    import sys

    running = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(6)
    ]
    assert [process.communicate(timeout=60)[0].strip() for process in running] == ["passed"] * 6


ROOT = Path(__file__).resolve().parents[2]
