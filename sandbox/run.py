"""The life of one run as the host sees it: start a jail, drain its output, hold the clock, and name its end last.

The host never waits for end-of-file (an orphan may hold a pipe open) and never without a deadline: `pump` waits for one
tick at most, and a run past its budget is killed, then destroyed, then declared our fault.

The order of blame when a run has ended: memory, output, time, security, then how the process itself ended. SIGKILL is
blamed on memory or time only where the kernel's counter or our own hand says so.

A run that was killed for wall time and waited for a CPU for much of it, because of others than its own processes,
has no fate yet: `Starved` is raised, and the judge runs it once more. One that sleeps, crowds itself out or lets others
go first waits for nothing that a host could give, and is a `time_limit`.
"""

from __future__ import annotations

import math
import os
import select
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from plaudit.grading import Verdict
from sandbox.cgroup import Counters
from sandbox.errors import Interrupted, SandboxError, Starved
from sandbox.jail import DEATH_S, Ending, Job, Stay
from sandbox.last_words import last_line, no_memory, not_parsed

TICK_S = 0.02
STARVED = 0.4  # the share of the second half of its wall time that a task stood in line behind others
QUIET_S = 0.004  # most programs end within it, and are worth one wake-up, not one for each line they print
FIRST_READ_BYTES = 1 << 12  # what most programs print is less; a larger buffer costs more than the reading
DRAIN_BYTES = 1 << 18  # most that one pump takes from one pipe, so that a flood cannot hold up the clock
IDLE_NS = 1_000_000  # less CPU time than this is no progress
MB = 1024 * 1024
CPUS = os.cpu_count() or 1


class Starter(Protocol):
    """Whatever can start a job in a jail. `interrupt`, set from any thread, ends what runs."""

    interrupt: threading.Event
    last_try: bool  # whether a run that gets no CPU is judged all the same

    def start(self, job: Job) -> Stay: ...


class Capture:
    """The reading end of a program's output pipe, with a cap on what is kept and a mark when the cap is passed."""

    def __init__(self, cap_bytes: int) -> None:
        self.reader, self.writer = os.pipe2(os.O_CLOEXEC)
        os.fchmod(self.writer, 0o666)  # so that programs of another uid can open /dev/stdout
        os.set_blocking(self.reader, False)
        self.cap_bytes = cap_bytes
        self.data = bytearray()
        self.overflowed = False
        self.open = True

    def started(self) -> None:
        """The job holds the writing end now."""
        os.close(self.writer)
        self.writer = -1

    def drain(self) -> None:
        taken, most = 0, FIRST_READ_BYTES
        while self.open and taken < DRAIN_BYTES:
            try:
                part = os.read(self.reader, most)
            except BlockingIOError:
                return
            if not part:
                self.open = False
                return
            taken, most = taken + len(part), 1 << 16
            room = self.cap_bytes - len(self.data)
            self.data += part[:room]
            if len(part) > room:
                self.overflowed = True

    def take(self) -> bytes:
        """What has come since the last `take`; the cap starts anew."""
        self.drain()
        data = bytes(self.data)
        self.data.clear()
        return data

    def close(self) -> None:
        for fd in (self.reader, self.writer):
            if fd >= 0:
                os.close(fd)
        self.reader = self.writer = -1
        self.open = False


@dataclass(slots=True)
class Budget:
    """What a run may still use: absolute marks on its CPU counter and on the wall clock."""

    cpu_ns: int
    wall: float
    halfway: float = 0.0  # when the waiting of its tasks is counted from
    spent_at: float = 0.0  # when it can have used all its CPU time at the earliest, on all CPUs of the host


class Run:
    """One job under watch. Use as a context manager."""

    def __init__(self, starter: Starter, job: Job, *, stdin: int | None = None) -> None:
        """`job.fds` names what the job gets beside stdin, stdout and stderr, which are made here."""
        self.fence = job.fence
        self.interrupt = starter.interrupt
        self.last_try = starter.last_try
        self.starved = False
        self.stdout = Capture(job.fence.stdout_bytes)
        self.stderr = Capture(job.fence.stderr_bytes)
        self.killed_for: str | None = None  # "cpu", "wall", "memory", "files" or "stdout": by our own hand
        self.killed_at = 0.0
        self.ending: Ending | None = None
        self.stay: Stay | None = None
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC) if stdin is None else -1
        fds = {0: null if stdin is None else stdin, 1: self.stdout.writer, 2: self.stderr.writer, **job.fds}
        try:
            self.stay = starter.start(replace(job, fds=fds))
        except BaseException:
            self.close()
            raise
        finally:
            if null >= 0:
                os.close(null)
        self.stdout.started()
        self.stderr.started()
        self.began = time.monotonic()
        self.budget = Budget(0, 0.0, 0.0)
        self.moved = (0, self.began)  # CPU time at the last look that found more of it, and when that was
        self.grant()

    def grant(self, *, wall: bool = True) -> None:
        """A fresh CPU and wall budget from now on. Without `wall` the clock goes on: a program's first test has what
        its loading has left, so that no test takes longer for one that loads slowly again and again."""
        now = time.monotonic()
        cpu_ns = self.box.cpu_ns() + int(self.fence.cpu_s * 1e9)
        if wall:
            self.budget = Budget(cpu_ns, now + self.fence.wall_s, now + self.fence.wall_s / 2)
        else:
            self.budget = Budget(cpu_ns, self.budget.wall, self.budget.halfway)
        self.budget.spent_at = now + self.fence.cpu_s / CPUS
        self.halfway: tuple[dict[int, float], int] | None = None  # waits of its tasks, and its CPU time, at that moment

    @property
    def box(self) -> Stay:
        if self.stay is None:
            raise SandboxError("the run has not started")
        return self.stay

    def check(self) -> float:
        """Enforce the budget; returns how long the next wait may take."""
        now = time.monotonic()
        if self.interrupt.is_set():
            raise Interrupted("nobody wants this run any more")
        if self.killed_for is not None:
            if now > self.killed_at + DEATH_S:
                self.box.destroy()
            if now > self.killed_at + 2 * DEATH_S:
                raise SandboxError("a killed run does not end")
            return TICK_S
        if self.stdout.overflowed:
            self.kill("stdout")
        elif now > self.budget.wall:
            self.starved = self.waited_for_others_s() > STARVED * self.fence.wall_s / 2
            self.kill("wall")
        else:
            if self.halfway is None and now > self.budget.halfway:
                self.halfway = self.box.waits_s(), self.box.cpu_ns()
            if now < self.budget.spent_at and self.box.is_counted() and self.fence.idle_s == math.inf:
                return min(TICK_S, max(self.budget.spent_at - now, 0.001), max(self.budget.wall - now, 0.001))
            used_ns = self.box.cpu_ns()
            left = (self.budget.cpu_ns - used_ns) / 1e9
            self.budget.spent_at = now + left / CPUS
            if left <= 0:
                self.kill("cpu")
            elif self.fence.idle_s < math.inf and self.is_idle(now, used_ns):
                self.kill("idle")
            elif self.box.exceeds_memory():
                self.kill("memory")
            elif self.box.exceeds_room():
                self.kill("files")
            return min(TICK_S, max(left, 0.001), max(self.budget.wall - now, 0.001))
        return TICK_S

    def waited_for_others_s(self) -> float:
        """How long that task which waited longest has stood in line since halfway, at least, behind others' tasks.

        Who waits for a CPU waits for another task on it. What the job itself has run cannot have been others'.
        """
        if self.halfway is None:
            return 0.0
        before, cpu_ns = self.halfway
        waited = max((wait - before.get(task, 0.0) for task, wait in self.box.waits_s().items()), default=0.0)
        return waited - (self.box.cpu_ns() - cpu_ns) / 1e9

    def is_idle(self, now: float, used_ns: int) -> bool:
        """Whether nothing of the job has run for as long as its fence allows, nor was ready to."""
        if used_ns > self.moved[0] + IDLE_NS:
            self.moved = used_ns, now
        elif now > self.moved[1] + self.fence.idle_s:
            if not self.box.is_running():
                return True
            self.moved = used_ns, now
        return False

    def kill(self, reason: str) -> None:
        self.killed_for = reason
        self.killed_at = time.monotonic()
        self.box.kill()

    def drain(self) -> None:
        self.stdout.drain()
        self.stderr.drain()

    def finish(self) -> None:
        """Pump until the job has ended, and take its last output."""
        while self.ending is None:
            pump([self])

    def counters(self) -> Counters:
        return self.box.counters()

    def close(self) -> None:
        try:
            if self.stay is not None:
                self.stay.close()
        finally:
            self.stdout.close()
            self.stderr.close()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def pump(runs: Sequence[Run], extra: int | None = None) -> bool:
    """Wait for one event or one tick, then drain, enforce and poll. True if `extra` became readable."""
    wait = TICK_S
    poller = select.poll()
    for run in runs:
        if run.ending is not None:
            continue
        wait = min(wait, run.check())
        poller.register(run.box.fileno(), select.POLLIN)
        quiet = run.began + QUIET_S - time.monotonic()
        if quiet > 0:
            wait = min(wait, quiet)
            continue
        for capture in (run.stdout, run.stderr):
            if capture.open:
                poller.register(capture.reader, select.POLLIN)
    if extra is not None:
        poller.register(extra, select.POLLIN)
    ready = {fd for fd, _ in poller.poll(math.ceil(wait * 1000))}
    for run in runs:
        if run.ending is not None:
            continue
        run.drain()
        if run.box.fileno() in ready:
            try:
                run.ending = run.box.poll()
            except SandboxError:
                if run.killed_for is None:
                    raise
                run.ending = Ending(None, int(signal.SIGKILL), 0.0, 0.0, 0, ())
            run.drain()
    return extra in ready


@dataclass(frozen=True, slots=True)
class Fate:
    """How a run ended, in the judge's words; `verdict` is None for a clean exit with code 0."""

    verdict: Verdict | None
    detail: str = ""


def fate(run: Run) -> Fate:
    """Decide what to say about an ended run; the one place where an ending becomes a verdict."""
    ending, counters = run.ending, run.counters()
    if ending is None:
        raise SandboxError("the run has not ended")
    if counters.oom_kills or run.killed_for == "memory":
        return over_memory(run)
    if run.stdout.overflowed or run.killed_for == "stdout":
        return over_output(run)
    if run.killed_for == "files":
        most = f"{run.fence.tmp_bytes // MB} MB in {run.fence.tmp_inodes} files"
        return Fate(Verdict.OUTPUT_LIMIT, f"more than {most} were written")
    if ending.signal == signal.SIGXFSZ:
        return Fate(Verdict.OUTPUT_LIMIT, f"a file grew past {run.fence.file_bytes // MB} MB")
    if run.killed_for == "cpu" or ending.signal == signal.SIGXCPU or counters.cpu_ns > run.budget.cpu_ns:
        return over_cpu(run)
    if run.killed_for == "wall":
        if run.starved and not run.last_try:
            raise Starved(f"no CPU to be had for much of {run.fence.wall_s:g} s")
        idle = ", most of them idle" if counters.cpu_ns < run.fence.wall_s * 0.5e9 else ""
        return Fate(Verdict.TIME_LIMIT, f"wall: not done after {run.fence.wall_s:g} s{idle}")
    if run.killed_for == "idle":
        return Fate(Verdict.TIME_LIMIT, f"wall: it used no CPU time for {run.fence.idle_s:g} s")
    if ending.signal == signal.SIGSYS:
        return Fate(Verdict.SECURITY_VIOLATION, "a forbidden system call interface was used (SIGSYS)")
    if ending.signal is not None:
        return failure(run, f"killed by {signal_name(ending.signal)}")
    if ending.exit_code:
        return failure(run, f"exit code {ending.exit_code}")
    return Fate(None)


def failure(run: Run, detail: str) -> Fate:
    """The verdict on a run that ended by itself and not well: a `runtime_error`, unless its last words say more."""
    said = bytes(run.stderr.data)
    if no_memory(said):
        return Fate(Verdict.MEMORY_LIMIT, f"no more memory was to be had ({detail})")
    if not_parsed(said):
        return Fate(Verdict.COMPILE_ERROR, last_line(said).decode("utf-8", "replace")[:200])
    return Fate(Verdict.RUNTIME_ERROR, detail)


def over_memory(run: Run) -> Fate:
    return Fate(Verdict.MEMORY_LIMIT, f"more than {run.fence.memory_bytes // MB} MB were needed")


def over_output(run: Run) -> Fate:
    return Fate(Verdict.OUTPUT_LIMIT, f"more than {run.fence.stdout_bytes // 1024} KB were printed")


def over_cpu(run: Run) -> Fate:
    return Fate(Verdict.TIME_LIMIT, f"cpu: more than {run.fence.cpu_s:g} s were used")


def signal_name(number: int) -> str:
    try:
        return f"{signal.Signals(number).name} (signal {number})"
    except ValueError:
        return f"signal {number}"


def flags(run: Run) -> set[str]:
    """What is worth saying about a run beside its verdict."""
    found = set()
    if run.counters().fork_failures:
        found.add("process_limit")
    if run.ending is not None and run.ending.orphans:
        found.add("orphans_killed")
    if run.stderr.overflowed:
        found.add("stderr_truncated")
    return found
