"""What a jailed process may use: the numbers behind `Limits`, per mechanism.

`JailLimits` is the full set for one jailed run. The cgroup and the watching host decide the verdicts; the rlimits are
backstops. CPU time decides `time_limit`; wall time is the safety net.
"""

from __future__ import annotations

import math
import resource
from dataclasses import dataclass
from functools import lru_cache

from sandbox.types import Limits

MB = 1024 * 1024

# What any request may ask for at most; the service's own ceilings are lower.
MAX_CPU_S = 120.0
MAX_WALL_S = 600.0
MAX_MEMORY_MB = 16 * 1024
MAX_OUTPUT_KB = 64 * 1024
MAX_PROCESSES = 1024

MAX_SOURCE_BYTES = 1 * MB
MAX_TESTS = 10_000
MAX_STDIN_BYTES = 16 * MB
MAX_ARTIFACT_BYTES = 64 * MB
MAX_FILES = 24  # files put beside a program; each is a descriptor in one message
MAX_FILES_BYTES = 16 * MB  # all of them
MAX_FETCHED = 8
MAX_ARGUMENTS = 256
MAX_ARGUMENTS_BYTES = 64 * 1024  # all of them; the kernel takes 128 kB of one
UNBOUNDED = 1 << 62  # for what a mechanism can not measure sensibly
MANAGED_MB = 512  # what a runtime with a heap and threads of its own gets beside its program: JVM, V8, Go, Mono
MANAGED_PROCESSES = 64
MAX_FETCHED_BYTES = 4 * MB  # each
COMPILE_WALL_S = 15.0  # beside the wall time of the program's limits
MAX_COMPILE_WALL_S = 45.0
COMPILE_IDLE_S = 2.0  # a compiler that uses no CPU for so long waits for itself


@dataclass(frozen=True, slots=True)
class JailLimits:
    """The limits of one jailed process group, in the units of the kernel interfaces that enforce them."""

    cpu_s: float
    wall_s: float
    memory_bytes: int
    address_space_bytes: int
    stack_bytes: int
    file_bytes: int
    tmp_bytes: int
    tmp_inodes: int
    processes: int
    open_files: int
    stdout_bytes: int
    stderr_bytes: int
    idle_s: float = math.inf  # after how long without any CPU time the job is ended

    def rlimits(self, num_budgets: int = 1, *, count_processes: bool = False) -> list[tuple[int, int]]:
        """The rlimits of the job; `num_budgets` CPU budgets may be spent by one process that serves many tests.

        `count_processes` limits processes by the uid, for want of a cgroup.
        """
        return clamped(self, num_budgets, count_processes)


@lru_cache(256)
def clamped(jail_limits: JailLimits, num_budgets: int, count_processes: bool) -> list[tuple[int, int]]:
    """The rlimits of a job, none above the hard limits of this host."""
    more = [(resource.RLIMIT_NPROC, jail_limits.processes + 1)] if count_processes else []
    wanted = [
        *more,
        (resource.RLIMIT_CPU, int(jail_limits.cpu_s * num_budgets) + 3),
        (resource.RLIMIT_AS, jail_limits.address_space_bytes),
        (resource.RLIMIT_STACK, jail_limits.stack_bytes),
        (resource.RLIMIT_FSIZE, jail_limits.file_bytes),
        (resource.RLIMIT_NOFILE, jail_limits.open_files),
        (resource.RLIMIT_CORE, 1),  # with 0 the kernel would still hand a dump to the host's crash handler
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ]
    hard = {which: resource.getrlimit(which)[1] for which, _ in wanted}
    more = [(resource.RLIMIT_DATA, resource.getrlimit(resource.RLIMIT_DATA)[1])]  # the executor's own is not theirs
    return more + [
        (which, value if hard[which] == resource.RLIM_INFINITY else min(value, hard[which])) for which, value in wanted
    ]


def check_limits(limits: Limits) -> Limits:
    """`limits`, or ValueError naming the one that is out of range."""
    for name, value, most in (
        ("cpu_s", limits.cpu_s, MAX_CPU_S),
        ("wall_s", limits.wall, MAX_WALL_S),
        ("memory_mb", limits.memory_mb, MAX_MEMORY_MB),
        ("output_kb", limits.output_kb, MAX_OUTPUT_KB),
        ("processes", limits.processes, MAX_PROCESSES),
    ):
        if not 0 < value <= most:
            raise ValueError(f"{name} must be above 0 and at most {most}, not {value}")
    return limits


def run_limits(limits: Limits, *, native: bool = False, managed: bool = False) -> JailLimits:
    """The limits of a program's run.

    Native programs get the deep stack that contest programs expect. Managed runtimes reserve address space by the
    gigabyte and start threads of their own: they get memory and threads beside the program's.
    """
    memory_mb = limits.memory_mb + (MANAGED_MB if managed else 0)
    return JailLimits(
        cpu_s=limits.cpu_s,
        wall_s=limits.wall,
        memory_bytes=memory_mb * MB,
        address_space_bytes=UNBOUNDED if managed else max(4096, 2 * memory_mb) * MB,
        stack_bytes=(256 if native else 64) * MB,
        file_bytes=16 * MB,
        tmp_bytes=64 * MB,
        tmp_inodes=4096,
        processes=limits.processes + (MANAGED_PROCESSES if managed else 0),
        open_files=128,
        stdout_bytes=limits.output_kb * 1024,
        stderr_bytes=64 * 1024,
    )


def suite_limits(limits: Limits) -> JailLimits:
    """The limits of the test process: room for the values it compares, and the candidate's budgets plus a little."""
    return JailLimits(
        cpu_s=limits.cpu_s + 2,
        wall_s=limits.wall + 2,
        memory_bytes=max(512, limits.memory_mb) * MB,
        address_space_bytes=max(4096, 2 * limits.memory_mb) * MB,
        stack_bytes=64 * MB,
        file_bytes=16 * MB,
        tmp_bytes=16 * MB,
        tmp_inodes=1024,
        processes=16,
        open_files=64,
        stdout_bytes=64 * 1024,
        stderr_bytes=64 * 1024,
    )


def compile_limits(limits: Limits | None = None) -> JailLimits:
    """The limits of a compiler: its wall time is the program's and `COMPILE_WALL_S` more."""
    wall_s = (limits or Limits()).wall
    return JailLimits(
        cpu_s=15,
        wall_s=min(wall_s + COMPILE_WALL_S, MAX_COMPILE_WALL_S),
        idle_s=COMPILE_IDLE_S,
        memory_bytes=2048 * MB,
        address_space_bytes=UNBOUNDED,
        stack_bytes=64 * MB,
        file_bytes=256 * MB,
        tmp_bytes=512 * MB,
        tmp_inodes=4096,
        processes=256,
        open_files=1024,
        stdout_bytes=64 * 1024,
        stderr_bytes=64 * 1024,
    )
