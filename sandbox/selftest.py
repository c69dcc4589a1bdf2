"""The self-test of a sandbox: hostile programs take the real path before any other program runs.

A trial has a program, its expected report, and the levels that promise it. If a promise does not hold, the test raises
IsolationUnavailable and names it. All trials take about a second.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from plaudit.grading import Level, Verdict
from sandbox.errors import IsolationUnavailable
from sandbox.judge import judge
from sandbox.types import AssertSuite, Limits, Program, Report, StdioCase, StdioSuite, Stop, Suite

if TYPE_CHECKING:
    from sandbox.sandbox import Sandbox

# Tries every forbidden thing and prints the name of each that worked; {beacon} is a socket that listens outside, as is
# the one at {named_socket}; {harness} is a file of the harness.
BREACHES = """
import ctypes, os, resource, socket
c = ctypes.CDLL(None, use_errno=True)

def opens(path, flags=os.O_RDONLY):
    os.close(os.open(path, flags))

def calls(number, *args):
    if c.syscall(number, *args) < 0:
        raise OSError(ctypes.get_errno(), str(number))

def beacon(kind=socket.SOCK_STREAM):
    s = socket.socket(socket.AF_UNIX, kind)
    s.connect("\\0{beacon}")

def named_socket():
    s = socket.socket(socket.AF_UNIX)
    s.connect("{named_socket}")

def pair():
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    one.sendto(b"x", "\\0{beacon}-datagrams")

def holds(fd):
    os.fstat(fd)

trials = {{
    "an outside socket": beacon,
    "an outside socket with a name": named_socket,
    "an outside socket for datagrams": pair,
    "a vsock": lambda: socket.socket(40, socket.SOCK_STREAM),
    "an internet socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    "a netlink socket": lambda: socket.socket(16, socket.SOCK_RAW),
    "memory of the first process": lambda: opens("/proc/1/mem"),
    "environment of the first process": lambda: opens("/proc/1/environ"),
    "a signal to the first process": lambda: os.kill(1, 0) if {own_uid} else beacon(),
    "a signal to the parent": lambda: os.kill(os.getppid(), 0) if {own_uid} else beacon(),
    "limits of the first process": lambda: resource.prlimit(1, resource.RLIMIT_CPU, (1, 1)),
    "password file": lambda: opens("/etc/shadow"),
    "the system tree": lambda: opens("/usr/plaudit-probe", os.O_CREAT | os.O_WRONLY),
    "the root directory": lambda: opens("/plaudit-probe", os.O_CREAT | os.O_WRONLY),
    "our harness": lambda: opens("{harness}"),
    "our sandbox": lambda: __import__("sandbox.sandbox"),  # an empty folder of that name may be there
    "our service": lambda: __import__("service.settings"),
}}
on_x86_64 = {{  # by number, and the numbers are this machine's
    "ptrace": lambda: calls(101, 0, 0, 0, 0),
    "unshare": lambda: calls(272, 0x10000000),
    "mount": lambda: calls(165, b"none", b"/tmp", b"tmpfs", 0, 0),
    "io_uring": lambda: calls(425, 1, 0),
    "keyctl": lambda: calls(250, 0, -1, 0, 0, 0),
    "bpf": lambda: calls(321, 0, 0, 0),
    "System V memory": lambda: calls(29, 0, 4096, 0o1600),
}}
if os.uname().machine == "x86_64":
    trials |= on_x86_64
if {no_namespace}:  # where elsewhere there is a /tmp, a /dev/shm and a /proc of its own
    trials["the folder of temporary files"] = lambda: opens("/tmp/{beacon}", os.O_CREAT | os.O_WRONLY)
    trials["shared memory"] = lambda: opens("/dev/shm/{beacon}", os.O_CREAT | os.O_WRONLY)
    trials["the list of processes"] = lambda: os.listdir("/proc")
    trials["the users' names"] = lambda: opens("/etc/passwd")
trials |= {{f"descriptor {{fd}}": (lambda fd=fd: holds(fd)) for fd in range(3, 60)}}
for name, trial in trials.items():
    try:
        trial()
    except (OSError, ValueError, ImportError):
        continue
    print(name)
if os.getuid() == 0:
    print("uid 0")
"""

HOARD = "hoard = []\nwhile True:\n    hoard.append(bytearray(8 << 20))\n"
HOLD = """
import time
hoard = bytearray(100 << 20)
hoard[::4096] = b"x" * len(hoard[::4096])
time.sleep(20)
"""
FORK_UNTIL_REFUSED = """
import os, time
started = 0
try:
    while started < 200:
        if os.fork() == 0:
            time.sleep(60)
        started += 1
except BlockingIOError:
    pass
print(started < 40)
"""
FORK_BOMB = "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass\n"
DAEMON = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(60)
    os._exit(0)
print("done")
"""
ALWAYS_EQUAL = """
class AlwaysEqual(int):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
def f(x): return AlwaysEqual()
"""
PROBE_CPU_S = 0.3


@dataclass(frozen=True, slots=True)
class Trial:
    """One program, and what makes its report a proof that the promise holds."""

    promise: str
    source: str
    suite: Suite
    limits: Limits
    holds: Callable[[Report], bool]
    levels: tuple[Level, ...] = ("strong", "userns", "landlock", "none")


def silent(stdout: str = "") -> StdioSuite:
    return StdioSuite((StdioCase("", stdout),))


def trials(names: Mapping[str, object]) -> list[Trial]:
    """All of them; `names` fills the gaps in `BREACHES`."""
    return [
        Trial(
            "what a program can reach",
            BREACHES.format(**names),
            silent(),
            Limits(cpu_s=2),
            lambda report: report.verdict is Verdict.PASSED,
            ("strong", "userns", "landlock"),
        ),
        Trial(
            "memory",
            HOARD,
            silent(),
            Limits(cpu_s=2, memory_mb=64),
            lambda report: report.verdict is Verdict.MEMORY_LIMIT,
            ("strong",),
        ),
        Trial(
            "number of processes",
            FORK_BOMB,
            silent(),
            Limits(cpu_s=PROBE_CPU_S, processes=16),
            lambda report: report.verdict is Verdict.TIME_LIMIT and "process_limit" in report.flags,
            ("strong",),
        ),
        Trial(
            "memory, which is looked at now and then",
            HOLD,
            silent(),
            Limits(cpu_s=2, memory_mb=64),
            lambda report: report.verdict is Verdict.MEMORY_LIMIT,
            ("userns", "landlock", "none"),
        ),
        Trial(
            "number of processes of a uid",
            FORK_UNTIL_REFUSED,
            silent("True"),
            Limits(cpu_s=2, processes=16),
            lambda report: report.verdict is Verdict.PASSED,
            ("userns", "landlock"),
        ),
        Trial(
            "processes left behind",
            DAEMON,
            silent("done"),
            Limits(cpu_s=2),
            lambda report: report.verdict is Verdict.PASSED and report.tests[0].wall_ms < 30_000,
        ),
        Trial(
            "the verdict",
            ALWAYS_EQUAL,
            AssertSuite(("assert f(1) == 5", "assert f(1) == 0")),
            Limits(cpu_s=2),
            lambda report: [test.verdict for test in report.tests] == [Verdict.WRONG_ANSWER, Verdict.PASSED],
        ),
    ]


def prove(sandbox: Sandbox, slowness: float = 1.0) -> None:
    """Raises IsolationUnavailable for the first promise that does not hold. `slowness`: as in `open_sandbox`."""
    beacon = f"{sandbox.name}-{os.urandom(4).hex()}"
    named_socket = str(sandbox.home / "socket")
    names = {
        "beacon": beacon,
        "named_socket": named_socket,
        "harness": sandbox.jail_config.harness / "zygote.pyc",
        "own_uid": sandbox.jail_config.uid is not None,
        "no_namespace": sandbox.jail_config.no_namespace is not None,
    }
    with ExitStack() as outside:
        # A socket's address has at most 107 bytes, and the path of the folder may be longer.
        home = os.open(sandbox.home, os.O_PATH | os.O_CLOEXEC)
        outside.callback(os.close, home)
        for kind, address in (
            (socket.SOCK_STREAM, f"\0{beacon}"),
            (socket.SOCK_STREAM, f"/proc/self/fd/{home}/socket"),
            (socket.SOCK_DGRAM, f"\0{beacon}-datagrams"),
        ):
            listener = outside.enter_context(socket.socket(socket.AF_UNIX, kind))
            listener.bind(address)
            if kind == socket.SOCK_STREAM:
                listener.listen()
        os.chmod(named_socket, 0o777)
        outside.callback(os.unlink, named_socket)
        for trial in trials(names):
            if sandbox.level not in trial.levels:
                continue
            limits = replace(trial.limits, cpu_s=trial.limits.cpu_s * slowness)
            report = judge(Program("python", trial.source), trial.suite, limits, Stop(), sandbox)
            if not trial.holds(report):
                outcomes = "; ".join(f"{test.verdict}: {test.stdout or test.detail}" for test in report.tests)
                raise IsolationUnavailable(
                    f"isolation of {trial.promise} does not hold here: {outcomes} {report.flags}"
                )
