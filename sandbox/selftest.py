"""The proof of the walls: hostile programs through the real path, before any other program is let in.

Each trial is a program and what must become of it. A wall that is claimed and does not hold is WallsMissing, naming
the wall; which walls are claimed depends on the level. Takes about a second.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandbox.errors import WallsMissing
from sandbox.judge import judge
from sandbox.types import AssertSuite, Level, Limits, Program, Report, StdioCase, StdioSuite, Stop, Suite, Verdict

if TYPE_CHECKING:
    from sandbox.walls import Sandbox

# Tries every forbidden thing and prints the name of each that worked; {beacon} is a socket that listens outside.
BREACHES = """
import ctypes, os, resource, socket
c = ctypes.CDLL(None, use_errno=True)

def opens(path, flags=os.O_RDONLY):
    os.close(os.open(path, flags))

def calls(number, *args):
    if c.syscall(number, *args) < 0:
        raise OSError(ctypes.get_errno(), str(number))

def beacon():
    s = socket.socket(socket.AF_UNIX)
    s.connect("\\0{beacon}")

def holds(fd):
    os.fstat(fd)

trials = {{
    "an outside socket": beacon,
    "a vsock": lambda: socket.socket(40, socket.SOCK_STREAM),
    "an internet socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    "a netlink socket": lambda: socket.socket(16, socket.SOCK_RAW),
    "memory of the first process": lambda: opens("/proc/1/mem"),
    "environment of the first process": lambda: opens("/proc/1/environ"),
    "a signal to the first process": lambda: os.kill(1, 0) if {own_uid} else beacon(),
    "limits of the first process": lambda: resource.prlimit(1, resource.RLIMIT_CPU, (1, 1)),
    "password file": lambda: opens("/etc/shadow"),
    "the system tree": lambda: opens("/usr/plaudit-probe", os.O_CREAT | os.O_WRONLY),
    "the root directory": lambda: opens("/plaudit-probe", os.O_CREAT | os.O_WRONLY),
    "our sandbox": lambda: __import__("sandbox.walls"),  # an empty folder of that name may be there
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
    """One program, and what makes its report a proof that the wall holds."""

    wall: str
    source: str
    suite: Suite
    limits: Limits
    holds: Callable[[Report], bool]
    levels: tuple[Level, ...] = ("strong", "userns")


def silent(stdout: str = "") -> StdioSuite:
    return StdioSuite((StdioCase("", stdout),))


def trials(beacon: str, *, own_uid: bool) -> list[Trial]:
    return [
        Trial(
            "what a program can reach",
            BREACHES.format(beacon=beacon, own_uid=own_uid),
            silent(),
            Limits(cpu_s=2),
            lambda report: report.verdict is Verdict.PASSED,
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
            "processes left behind",
            DAEMON,
            silent("done"),
            Limits(cpu_s=2),
            lambda report: report.verdict is Verdict.PASSED and report.tests[0].wall_ms < 2000,
        ),
        Trial(
            "the verdict",
            ALWAYS_EQUAL,
            AssertSuite(("assert f(1) == 5", "assert f(1) == 0")),
            Limits(cpu_s=2),
            lambda report: [test.verdict for test in report.tests] == [Verdict.WRONG_ANSWER, Verdict.PASSED],
        ),
    ]


def prove(box: Sandbox) -> None:
    """Raises WallsMissing for the first wall that does not hold."""
    beacon = f"{box.name}-{os.urandom(4).hex()}"
    with socket.socket(socket.AF_UNIX) as outside:
        outside.bind(f"\0{beacon}")
        outside.listen()
        for trial in trials(beacon, own_uid=box.plan.uid is not None):
            if box.level not in trial.levels:
                continue
            report = judge(Program("python", trial.source), trial.suite, trial.limits, Stop(), box)
            if not trial.holds(report):
                said = "; ".join(f"{test.verdict}: {test.stdout or test.detail}" for test in report.tests)
                raise WallsMissing(f"the wall around {trial.wall} does not hold here: {said} {report.flags}")
