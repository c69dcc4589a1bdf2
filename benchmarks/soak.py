"""50,000 runs in one sandbox, honest and hostile mixed: nothing may leak and no verdict may change.

The same thousand runs, in the same order, again and again. Counted before and after (and printed on the way): processes
below this one, its file descriptors, mounts, the sandbox's cgroups, files in the sandbox's own place,
and this process's resident memory. The first thousand's verdicts must be the last thousand's, program by program.
Exits with 1 if anything has leaked or changed.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from plaudit.grading import Verdict
from sandbox.judge import judge
from sandbox.open import open_sandbox
from sandbox.sandbox import Sandbox
from sandbox.types import (
    AssertSuite,
    Case,
    CheckSuite,
    FunctionSuite,
    Limits,
    Program,
    StdioCase,
    StdioSuite,
    Stop,
    Suite,
)

ROUND = 1000
MAX_GROWTH_MB = 8.0
LEAKS = ("processes", "descriptors", "mounts", "cgroups", "files")
SHORT = Limits(cpu_s=0.1, wall_s=10)
SMALL = Limits(memory_mb=64)  # and time enough to fill it on any host
ECHO = StdioSuite((StdioCase("3 4\n", "7\n"),))
ADD = AssertSuite(("assert add(1, 2) == 3", "assert add(0, 0) == 0"))
ADDED = FunctionSuite("add", (Case((1, 2), {}, 3), Case(((), ()), {}, ())))
CHECKED = CheckSuite("def check(candidate):\n    got = candidate(2, 2)\n    assert got == 4\n", "add")
SUM = "print(sum(map(int, input().split())))\n"
PLUS = "def add(a, b):\n    return a + b\n"

DAEMONS = """
import os, time
for _ in range(5):
    if os.fork() == 0:
        os.setsid()
        time.sleep(99)
"""
YES = """
class Yes(int):
    def __eq__(self, other):
        return True
def add(a, b):
    return Yes()
"""
POOL = """
import multiprocessing
if __name__ == '__main__':
    with multiprocessing.Pool(2) as pool:
        print(sum(pool.map(int, input().split())))
"""
LITTER = "import os\nopen('/tmp/left', 'w').write('x' * 100000)\nos.makedirs('/tmp/a/b/c')\n"

# How often in a thousand, the program, its suite, its limits.
MIX: list[tuple[int, str, Suite, Limits]] = [
    (300, SUM, ECHO, Limits()),
    (200, PLUS, ADD, Limits()),
    (100, PLUS, CHECKED, Limits()),
    (80, PLUS, ADDED, Limits()),
    (60, "print(8)\n", ECHO, Limits()),
    (60, "def add(a, b):\n    return a - b\n", ADD, Limits()),
    (40, "raise SystemExit(3)\n", ECHO, Limits()),
    (30, "import os\nos._exit(0)\n", ADD, Limits()),
    (20, DAEMONS + SUM, ECHO, Limits()),
    (20, LITTER + SUM, ECHO, Limits()),
    (20, "open('/dev/shm/left', 'w').write('x')\n" + SUM, ECHO, Limits()),
    (15, YES, ADD, Limits()),
    (15, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n", ECHO, Limits()),
    (10, POOL, ECHO, Limits()),
    (10, "import threading\nthreading.Thread(target=lambda: print(7)).start()\n", ECHO, Limits()),
    (8, "hoard = []\nwhile True:\n    hoard.append(bytearray(8 << 20))\n", ECHO, SMALL),
    (6, "while True:\n    pass\n", ECHO, SHORT),
    (3, "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass\n", ECHO, SHORT),
    (3, "print('y' * (2 << 20))\n", ECHO, Limits()),
]


@dataclass(frozen=True)
class LeakCount:
    """What could leak."""

    processes: int
    descriptors: int
    mounts: int
    cgroups: int
    files: int
    resident_mb: float

    @classmethod
    def take(cls, sandbox: Sandbox) -> LeakCount:
        assert sandbox.jail_config.cgroups is not None
        return cls(
            processes=len(below(os.getpid())),
            descriptors=len(os.listdir("/proc/self/fd")),
            mounts=len(Path("/proc/self/mountinfo").read_text().splitlines()),
            cgroups=sum(1 for tree in sandbox.jail_config.cgroups.trees for _ in tree.base.glob(f"{sandbox.name}-*")),
            files=len(list(sandbox.home.rglob("*"))),
            resident_mb=int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20,
        )

    def __str__(self) -> str:
        return (
            f"{self.processes} processes, {self.descriptors} descriptors, {self.mounts} mounts, "
            f"{self.cgroups} cgroups, {self.files} files, {self.resident_mb:.1f} MB"
        )


def below(pid: int) -> list[int]:
    """All processes that descend from this one."""
    found, waiting = [], [pid]
    while waiting:
        try:
            children = Path(f"/proc/{waiting[0]}/task/{waiting.pop(0)}/children").read_text().split()
        except FileNotFoundError:
            continue
        found += children
        waiting += map(int, children)
    return [int(one) for one in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=50_000)
    flags = parser.parse_args()
    runs = [at for at, (share, *_) in enumerate(MIX) for _ in range(share)]
    random.Random(0).shuffle(runs)
    assert len(runs) == ROUND, len(runs)
    first: list[Verdict] = []
    began = time.monotonic()
    with open_sandbox() as sandbox:
        verdicts: list[Verdict] = []
        for turn in range(flags.runs // ROUND):
            verdicts = []
            for at in runs:
                _, source, suite, limits = MIX[at]
                verdicts.append(judge(Program("python", source), suite, limits, Stop(), sandbox).verdict)
            if not turn:
                first, before = verdicts, LeakCount.take(sandbox)
                print(f"after {ROUND}: {before}; {dict(Counter(verdicts))}", flush=True)
            elif turn % 10 == 9:
                print(f"after {ROUND * (turn + 1)}: {LeakCount.take(sandbox)}", flush=True)
        sandbox.collect(0)
        after = LeakCount.take(sandbox)
    seconds = time.monotonic() - began
    changed = [(MIX[at][1], a, b) for at, a, b in zip(runs, first, verdicts, strict=True) if a is not b]
    print(
        f"{flags.runs} runs in {seconds:.0f} s ({flags.runs / seconds:.0f} a second)\nbefore {before}\nafter  {after}"
    )
    print(f"verdicts changed between the first and the last {ROUND}: {len(changed)}")
    for source, was, became in changed[:20]:
        print(f"  {was} became {became}: {source!r}")
    grown = after.resident_mb - before.resident_mb
    leaked = [name for name in LEAKS if getattr(after, name) > getattr(before, name)]
    print(f"leaked: {leaked or 'nothing'}")
    sys.exit(bool(changed or leaked) or grown > MAX_GROWTH_MB)


if __name__ == "__main__":
    main()
