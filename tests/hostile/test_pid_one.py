"""Programs that go for the first process of their jail: it outlives them, and serves the next run as it should."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from plaudit.grading import Verdict
from sandbox.judge import judge
from sandbox.sandbox import Sandbox
from sandbox.types import AssertSuite, Limits, Program, Report, StdioCase, StdioSuite, Stop

LIMITS = Limits(cpu_s=5)
QUICK = Limits(cpu_s=0.5, wall_s=3)
PROBE = """
import os, sys
print(os.getcwd(), sorted(os.listdir("/tmp")), os.listdir("/dev/shm"), [p for p in os.listdir("/proc") if p.isdigit()]
      == [str(os.getpid())], oct(os.stat("/tmp").st_mode), oct(os.umask(0o22)), os.getpriority(os.PRIO_PROCESS, 0))
"""
UNTOUCHED = f"/tmp ['main.py'] [] True 0o41777 0o22 {os.getpriority(os.PRIO_PROCESS, 0)}\n"


def run(sandbox: Sandbox, source: str, stdout: str = "", limits: Limits = LIMITS) -> Report:
    return judge(Program("python", source), StdioSuite((StdioCase("", stdout),)), limits, Stop(), sandbox)


@pytest.fixture(autouse=True)
def the_next_run_is_as_ever(sandbox: Sandbox) -> Iterator[None]:
    """After every test here, of whatever kind: the next program finds its jail as if it were the first."""
    yield
    report = run(sandbox, PROBE, UNTOUCHED)
    assert (report.verdict, report.tests[0].stdout) == (Verdict.PASSED, UNTOUCHED)
    suite = AssertSuite(("x = 2\nassert f(x) == 2",), "", "f")
    assert judge(Program("python", "def f(x): return x"), suite, LIMITS, Stop(), sandbox).passed == 1


def tried(sandbox: Sandbox, *trials: str, setup: str = "") -> list[str]:
    """What each trial raises, by name; "-" where it works."""
    lines = ["import ctypes, errno, fcntl, os, resource, signal, socket, stat", setup]
    for trial in trials:
        lines += ["try:", f"    {trial}", "    print('-')", "except OSError as error:"]
        lines += ["    print(errno.errorcode.get(error.errno, error.errno))"]
    report = run(sandbox, "\n".join(lines))
    assert report.tests[0].stderr == ""
    return report.tests[0].stdout.split()


SYSCALL = """
c = ctypes.CDLL(None, use_errno=True)
def call(number, *args):
    if c.syscall(number, *args) < 0:
        raise OSError(ctypes.get_errno(), "")
"""


def test_no_signal_reaches_it(sandbox: Sandbox) -> None:
    assert set(tried(sandbox, *[f"os.kill(1, {number})" for number in range(1, 65)])) == {"EPERM"}
    others = ["os.killpg(os.getpgid(1), 9)", "signal.pidfd_send_signal(os.pidfd_open(1), 9)"]
    queue = ["call(129, 1, 9, 0)", "call(297, 1, 1, 9, 0)"]  # rt_sigqueueinfo, rt_tgsigqueueinfo
    assert set(tried(sandbox, *others, *queue, setup=SYSCALL)) <= {"EPERM", "ESRCH", "EFAULT"}


def test_it_is_not_to_be_traced_read_or_stepped_into(sandbox: Sandbox) -> None:
    trials = [f"os.readlink('/proc/1/{name}')" for name in ("cwd", "root", "exe", "fd/0", "ns/pid")]
    trials += ["os.listdir('/proc/1/root/tmp')", "open('/proc/1/oom_score_adj', 'w')", "os.chdir('/proc/1/cwd')"]
    assert set(tried(sandbox, *trials)) <= {"ENOENT", "EPERM", "EACCES"}
    calls = ["call(101, 16, 1, 0, 0)", "call(101, 0x4206, 1, 0, 0)", "call(312, 1, os.getpid(), 0, 0, 0)"]
    calls += ["call(438, os.pidfd_open(1), 3, 0)", "call(310, 1, 0, 0, 0, 0, 0)", "call(311, 1, 0, 0, 0, 0, 0)"]
    assert set(tried(sandbox, *calls, setup=SYSCALL)) == {"EPERM"}


def test_its_priority_limits_and_processors_stay(sandbox: Sandbox) -> None:
    trials = ["os.setpriority(os.PRIO_PROCESS, 1, 19)", "os.sched_setaffinity(1, {0})"]
    trials += [f"resource.prlimit(1, {number}, (0, 0))" for number in range(16)]
    trials += ["os.setpriority(os.PRIO_USER, 0, 19)"]
    assert set(tried(sandbox, *trials)) == {"EPERM"}
    feigned = "os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0))"  # says that it is done
    assert tried(sandbox, feigned, "os.close(-1 if os.sched_getscheduler(1) == os.SCHED_OTHER else 0)") == [
        "-",
        "EBADF",
    ]


def test_none_of_its_descriptors_is_handed_down(sandbox: Sandbox) -> None:
    source = "import os\nprint([os.readlink(f'/proc/self/fd/{fd}').split(':')[0] for fd in (0, 1, 2)])\n"
    source += "print(len(os.listdir('/proc/self/fd')))"
    assert run(sandbox, source).tests[0].stdout.splitlines()[1] == "4"  # and the one that lists them
    suite = AssertSuite(("assert f() == 5",))
    source = "import os\ndef f(): return len(os.listdir('/proc/self/fd'))"  # and the wire
    assert judge(Program("python", source), suite, LIMITS, Stop(), sandbox).verdict is Verdict.PASSED


def test_its_folders_cannot_be_taken_from_it(sandbox: Sandbox) -> None:
    trials = ["os.rmdir('/tmp')", "os.rename('/tmp', '/tmp2')", "os.chmod('/tmp', 0)", "os.chown('/tmp', 1, 1)"]
    trials += ["os.chmod('/dev/shm', 0)", "os.rmdir('/dev/shm')", "os.setxattr('/tmp', 'user.x', b'1')"]
    trials += ["os.utime('/tmp', (0, 0))", "os.symlink('/tmp', '/dev/shm/../x')", "os.mkdir('/proc/x')"]
    got = tried(sandbox, *trials)
    assert "-" not in got, dict(zip(trials, got, strict=True))


def test_short_memory_takes_the_program_and_not_its_keeper(sandbox: Sandbox) -> None:
    """Many small hoarders that volunteer last, so that the kernel looks at the jail's first process as well."""
    source = """
import os, time
def modest():
    try:
        open("/proc/self/oom_score_adj", "w").write("0")
    except OSError:
        pass
modest()
for _ in range(30):
    if os.fork() == 0:
        modest()
        hoard = []
        while True:
            hoard.append(bytearray(1 << 20))
            time.sleep(0.001)
while True:
    try: os.wait()
    except ChildProcessError: break
"""
    report = run(sandbox, source, limits=Limits(cpu_s=3, memory_mb=64))
    assert report.verdict is Verdict.MEMORY_LIMIT


def test_its_room_for_processes_and_descriptors_is_not_used_up(sandbox: Sandbox) -> None:
    source = """
import os, time
for _ in range(60):
    if os.fork() == 0:
        try:
            while True: os.dup(0)
        except OSError:
            time.sleep(100)
print("ok")
"""
    report = run(sandbox, source, "ok", Limits(cpu_s=5, processes=64))
    assert (report.verdict, report.flags) == (Verdict.PASSED, ("orphans_killed",))


def test_processes_that_replace_themselves_faster_than_they_die(sandbox: Sandbox) -> None:
    source = """
import os
for _ in range(8):
    if os.fork() == 0:
        while True:
            try:
                if os.fork(): os._exit(0)
            except OSError:
                pass
            try: os.setsid()
            except OSError: pass
print("ok", flush=True)
"""
    assert run(sandbox, source, "ok").verdict in (Verdict.PASSED, Verdict.TIME_LIMIT)


def test_orphans_may_be_adopted_by_the_program_itself(sandbox: Sandbox) -> None:
    source = """
import ctypes, os, signal, time
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
if os.fork() == 0:
    for _ in range(5):
        if os.fork() == 0:
            os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(100)
    os._exit(0)
time.sleep(0.05)
print("ok")
"""
    report = run(sandbox, source, "ok")
    assert (report.verdict, report.flags) == (Verdict.PASSED, ("orphans_killed",))


@pytest.mark.parametrize(
    "option", ["1, 9", "4, 0", "15, b'[zygote]'", "23, 0", "35, 1", "41, 1", "1499557217, -1", "29, 1000000000"]
)
def test_what_a_process_may_ask_for_itself_ends_with_it(sandbox: Sandbox, option: str) -> None:
    """Signals at the parent's death, dumpability, name, bounding set, memory map, huge pages, tracers, timer slack."""
    source = f"import ctypes\nctypes.CDLL(None).prctl({option}, 0, 0, 0)\nprint('ok')"
    assert run(sandbox, source, "ok").verdict is Verdict.PASSED


def test_becoming_another_program_does_not_leave_the_jail(sandbox: Sandbox) -> None:
    source = "import os, sys\nos.execv(sys.executable, ['zygote', '-S', '-c', 'import os; print(os.getuid() > 0)'])"
    assert run(sandbox, source, "True").verdict is Verdict.PASSED
    assert run(sandbox, source.replace("-S", "/harness/zygote.pyc"), "True").verdict is not Verdict.PASSED


def test_a_stopped_program_with_stopped_children_is_ended(sandbox: Sandbox) -> None:
    source = """
import os, signal, time
for _ in range(10):
    if os.fork() == 0:
        signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
        os.kill(os.getpid(), signal.SIGSTOP)
os.kill(os.getpid(), signal.SIGSTOP)
"""
    assert run(sandbox, source, limits=Limits(cpu_s=0.5, wall_s=0.7)).verdict is Verdict.TIME_LIMIT


def test_the_harness_files_can_be_read_and_not_changed(sandbox: Sandbox) -> None:
    """They hold no secret: the same text is public. What matters is that they stay what they are."""
    inside = [f"sandbox/inside/{name}" for name in ("candidate", "tests", "rpc", "proxy", "framing")]
    names = ["zygote", *inside, "sandbox/judge/codec"]
    assert tried(sandbox, *[f"open('/harness/{name}.pyc', 'rb')" for name in names]) == ["-"] * len(names)
    trials = [f"open('/harness/{name}.pyc', 'r+b')" for name in names] + [f"os.unlink('/harness/{names[1]}.pyc')"]
    trials += ["open('/harness/__init__.py', 'w')", "os.rename('/harness', '/tmp/harness')"]
    assert set(tried(sandbox, *trials)) <= {"EROFS", "EACCES", "EXDEV", "EPERM", "EBUSY"}


def test_many_quick_daemons_do_not_use_up_the_room_for_processes(sandbox: Sandbox) -> None:
    """Orphans that have ended are nobody's processes any more, also while the program goes on."""
    source = """
import os, time
for _ in range(150):
    time.sleep(0.003)  # on a busy host the undertaker needs his turn
    pid = os.fork()
    if pid == 0:
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
    os.waitpid(pid, 0)
print("ok")
"""
    report = run(sandbox, source, "ok")
    assert report.verdict is Verdict.PASSED
    assert "process_limit" not in report.flags
