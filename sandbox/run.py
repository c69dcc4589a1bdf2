"""One run as the host sees it: start a job, drain its output, hold the clock, classify its exit.

- Who may block: nobody. The host never waits for end-of-file (an orphan may hold a pipe open), and never without a
  deadline: `pump` waits for one tick at most. A run past its budget is killed, then its jail is destroyed. If it does
  not end even then, that is a SandboxError.
- The order of causes after a run: memory, output, time, security, then how the process itself ended. SIGKILL means
  memory or time only if the kernel's counter or our own kill says so.
- A run that was killed for wall time, and waited for a CPU for much of it because of processes that are not its own,
  has no verdict yet: `Starved` is raised, and the judge runs it once more. A run that sleeps, competes with its own
  processes or yields to others would not be faster on an idle host: it is a `time_limit`.
"""

from __future__ import annotations

import math
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from plaudit.grading import Verdict
from sandbox.cgroup import Counters
from sandbox.errors import Interrupted, SandboxError, Starved
from sandbox.jail_job import JailJob, JobExit
from sandbox.job_handle import DEATH_S, JobHandle
from sandbox.last_words import last_line, no_memory, not_parsed
from sandbox.run_records import Purpose, RunRecord, purpose_of

TICK_S = 0.02
STARVED_SHARE = 0.4  # of the second half of its wall time, in which a task was ready and waited behind others
QUIET_S = 0.004  # most programs end within it, and are worth one wake-up, not one for each line they print
FIRST_READ_BYTES = 1 << 12  # what most programs print is less; a larger buffer costs more than the reading
DRAIN_BYTES = 1 << 18  # what one pump takes from one pipe at most, so that a flood does not delay the clock
SAMPLE_S = 0.25  # how often it is looked at whether a run waits for a CPU, where somebody asks
IDLE_NS = 1_000_000  # less CPU time than this is no progress
MB = 1024 * 1024
CPUS = os.cpu_count() or 1


class Starter(Protocol):
    """Whatever can start a job in a jail. `interrupt`, set from any thread, ends what runs."""

    interrupt: threading.Event
    is_last_attempt: bool  # whether a run that gets no CPU is judged all the same
    on_run: Callable[[RunRecord], None] | None  # called with every run that has ended

    def start(self, job: JailJob) -> JobHandle: ...


class OutputCapture:
    """The reading end of a program's output pipe. It keeps up to a cap, and records when the cap is passed."""

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
        """What has come since the last `take`; the cap counts from here again."""
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
class RunBudget:
    """What a run may still use: absolute marks on its CPU counter and on the wall clock."""

    cpu_ns: int
    wall: float
    halfway: float = 0.0  # when the waiting of its tasks is counted from
    spent_at: float = 0.0  # when it can have used all its CPU time at the earliest, on all CPUs of the host


class JailRun:
    """One job under watch. Use as a context manager."""

    def __init__(
        self, starter: Starter, job: JailJob, *, stdin: int | None = None, purpose: Purpose | None = None
    ) -> None:
        """`job.fds` names what the job gets beside stdin, stdout and stderr, which are made here.

        `purpose`: of its record; None: what its role says.
        """
        self.limits = job.limits
        self.purpose = purpose or purpose_of(job.role)
        self.on_run = starter.on_run
        self.starved_s = 0.0  # as last sampled
        self.interrupt = starter.interrupt
        self.is_last_attempt = starter.is_last_attempt
        self.starved = False
        self.stdout = OutputCapture(job.limits.stdout_bytes)
        self.stderr = OutputCapture(job.limits.stderr_bytes)
        self.killed_for: str | None = None  # "cpu", "wall", "idle", "memory", "files" or "stdout", if we killed it
        self.killed_at = 0.0
        self.job_exit: JobExit | None = None
        self.job_handle: JobHandle | None = None
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC) if stdin is None else -1
        fds = {0: null if stdin is None else stdin, 1: self.stdout.writer, 2: self.stderr.writer, **job.fds}
        try:
            self.job_handle = starter.start(replace(job, fds=fds))
        except BaseException:
            self.close()
            raise
        finally:
            if null >= 0:
                os.close(null)
        self.stdout.started()
        self.stderr.started()
        self.began = time.monotonic()
        self.budget = RunBudget(0, 0.0, 0.0)
        self.last_progress = (0, self.began)  # CPU time when it last had grown, and when that was
        self.sample_at = math.inf if self.on_run is None else self.began + SAMPLE_S
        self.grant()

    def grant(self, *, wall: bool = True) -> None:
        """Give the run a new CPU and wall budget, from now on.

        Without `wall` the wall clock is not reset: the first test gets the time that loading has left, so that a
        program that loads slowly each time gains none.
        """
        now = time.monotonic()
        cpu_ns = self.handle.cpu_ns() + int(self.limits.cpu_s * 1e9)
        if wall:
            self.budget = RunBudget(cpu_ns, now + self.limits.wall_s, now + self.limits.wall_s / 2)
        else:
            self.budget = RunBudget(cpu_ns, self.budget.wall, self.budget.halfway)
        self.budget.spent_at = now + self.limits.cpu_s / CPUS
        self.halfway: tuple[dict[int, float], int] | None = None  # waits of its tasks, and its CPU time, at that moment

    @property
    def handle(self) -> JobHandle:
        if self.job_handle is None:
            raise SandboxError("the run has not started")
        return self.job_handle

    def check(self) -> float:
        """Enforce the budget; returns how long the next wait may take."""
        now = time.monotonic()
        if self.interrupt.is_set():
            raise Interrupted("the run was interrupted by its caller")
        if self.killed_for is not None:
            if now > self.killed_at + DEATH_S:
                self.handle.destroy()
            if now > self.killed_at + 2 * DEATH_S:
                raise SandboxError("a killed run does not end, although its jail was destroyed")
            return TICK_S
        if now > self.sample_at:
            self.sample_at = now + SAMPLE_S
            self.starved_s = max(self.starved_s, self.handle.starved_s())
        if self.stdout.overflowed:
            self.kill("stdout")
        elif now > self.budget.wall:
            self.starved = self.waited_for_others_s() > STARVED_SHARE * self.limits.wall_s / 2
            self.kill("wall")
        else:
            if self.halfway is None and now > self.budget.halfway:
                self.halfway = self.handle.waits_s(), self.handle.cpu_ns()
            if now < self.budget.spent_at and self.handle.is_counted() and self.limits.idle_s == math.inf:
                return min(TICK_S, max(self.budget.spent_at - now, 0.001), max(self.budget.wall - now, 0.001))
            used_ns = self.handle.cpu_ns()
            left = (self.budget.cpu_ns - used_ns) / 1e9
            self.budget.spent_at = now + left / CPUS
            if left <= 0:
                self.kill("cpu")
            elif self.limits.idle_s < math.inf and self.is_idle(now, used_ns):
                self.kill("idle")
            elif self.handle.exceeds_memory():
                self.kill("memory")
            elif self.handle.exceeds_disk():
                self.kill("files")
            return min(TICK_S, max(left, 0.001), max(self.budget.wall - now, 0.001))
        return TICK_S

    def waited_for_others_s(self) -> float:
        """Lower bound of how long the job's longest waiting task has waited behind other processes since halfway.

        A task that waits for a CPU waits for another task on it. Time that the job's own tasks ran does not count.
        """
        if self.halfway is None:
            return 0.0
        before, cpu_ns = self.halfway
        waited = max((wait - before.get(task, 0.0) for task, wait in self.handle.waits_s().items()), default=0.0)
        return waited - (self.handle.cpu_ns() - cpu_ns) / 1e9

    def is_idle(self, now: float, used_ns: int) -> bool:
        """Whether no task of the job has run, or was ready to run, for as long as its limits allow."""
        if used_ns > self.last_progress[0] + IDLE_NS:
            self.last_progress = used_ns, now
        elif now > self.last_progress[1] + self.limits.idle_s:
            if not self.handle.is_running():
                return True
            self.last_progress = used_ns, now
        return False

    def kill(self, reason: str) -> None:
        self.killed_for = reason
        self.killed_at = time.monotonic()
        self.handle.kill()

    def drain(self) -> None:
        self.stdout.drain()
        self.stderr.drain()

    def finish(self) -> None:
        """Pump until the job has ended, and take its last output."""
        while self.job_exit is None:
            pump([self])

    def counters(self) -> Counters:
        return self.handle.counters()

    def close(self) -> None:
        try:
            if self.job_handle is not None:
                self.job_handle.close()
                on_run, self.on_run = self.on_run, None
                if on_run is not None:
                    cpu_ms = self.job_handle.spent_ns / 1e6
                    on_run(RunRecord(self.purpose, self.began, time.monotonic(), cpu_ms, 1000 * self.starved_s))
        finally:
            self.stdout.close()
            self.stderr.close()

    def __enter__(self) -> JailRun:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def pump(runs: Sequence[JailRun], extra: int | None = None) -> bool:
    """Wait for one event or one tick, then drain, enforce and poll. True if `extra` became readable."""
    wait = TICK_S
    poller = select.poll()
    for run in runs:
        if run.job_exit is not None:
            continue
        wait = min(wait, run.check())
        poller.register(run.handle.fileno(), select.POLLIN)
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
        if run.job_exit is not None:
            continue
        run.drain()
        if run.handle.fileno() in ready:
            try:
                run.job_exit = run.handle.poll()
            except SandboxError:
                if run.killed_for is None:
                    raise
                run.job_exit = JobExit(None, int(signal.SIGKILL), 0.0, 0.0, 0, ())
            run.drain()
    return extra in ready


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a run, or one test in it, ended; `verdict` is None for a clean exit with code 0."""

    verdict: Verdict | None
    detail: str = ""


def classify_exit(run: JailRun) -> RunOutcome:
    """The outcome of an ended run: the one place where an exit becomes a verdict. Raises Starved."""
    job_exit, counters = run.job_exit, run.counters()
    if job_exit is None:
        raise SandboxError("the run has not ended")
    if counters.oom_kills or run.killed_for == "memory":
        return over_memory(run)
    if run.stdout.overflowed or run.killed_for == "stdout":
        return over_output(run)
    if run.killed_for == "files":
        most = f"{run.limits.tmp_bytes // MB} MB in {run.limits.tmp_inodes} files"
        return RunOutcome(Verdict.OUTPUT_LIMIT, f"more than {most} were written")
    if job_exit.signal == signal.SIGXFSZ:
        return RunOutcome(Verdict.OUTPUT_LIMIT, f"a file grew past {run.limits.file_bytes // MB} MB")
    if run.killed_for == "cpu" or job_exit.signal == signal.SIGXCPU or counters.cpu_ns > run.budget.cpu_ns:
        return over_cpu(run)
    if run.killed_for == "wall":
        if run.starved and not run.is_last_attempt:
            raise Starved(f"the host gave the run no CPU for much of {run.limits.wall_s:g} s")
        idle = ", most of them idle" if counters.cpu_ns < run.limits.wall_s * 0.5e9 else ""
        return RunOutcome(Verdict.TIME_LIMIT, f"wall: not done after {run.limits.wall_s:g} s{idle}")
    if run.killed_for == "idle":
        return RunOutcome(Verdict.TIME_LIMIT, f"wall: it used no CPU time for {run.limits.idle_s:g} s")
    if job_exit.signal == signal.SIGSYS:
        return RunOutcome(Verdict.SECURITY_VIOLATION, "a forbidden system call interface was used (SIGSYS)")
    if job_exit.signal is not None:
        return failure(run, f"killed by {signal_name(job_exit.signal)}")
    if job_exit.exit_code:
        return failure(run, f"exit code {job_exit.exit_code}")
    return RunOutcome(None)


def failure(run: JailRun, detail: str) -> RunOutcome:
    """The verdict on a run that failed by itself: a `runtime_error`, unless its last lines on stderr say more."""
    stderr = bytes(run.stderr.data)
    if no_memory(stderr):
        return RunOutcome(Verdict.MEMORY_LIMIT, f"the program was refused more memory ({detail})")
    if not_parsed(stderr):
        return RunOutcome(Verdict.COMPILE_ERROR, last_line(stderr).decode("utf-8", "replace")[:200])
    return RunOutcome(Verdict.RUNTIME_ERROR, detail)


def over_memory(run: JailRun) -> RunOutcome:
    return RunOutcome(Verdict.MEMORY_LIMIT, f"more than {run.limits.memory_bytes // MB} MB were needed")


def over_output(run: JailRun) -> RunOutcome:
    return RunOutcome(Verdict.OUTPUT_LIMIT, f"more than {run.limits.stdout_bytes // 1024} KB were printed")


def over_cpu(run: JailRun) -> RunOutcome:
    return RunOutcome(Verdict.TIME_LIMIT, f"cpu: more than {run.limits.cpu_s:g} s were used")


def signal_name(number: int) -> str:
    try:
        return f"{signal.Signals(number).name} (signal {number})"
    except ValueError:
        return f"signal {number}"


def flags(run: JailRun) -> set[str]:
    """The flags of a run, beside its verdict."""
    reported = set()
    if run.counters().fork_failures:
        reported.add("process_limit")
    if run.job_exit is not None and run.job_exit.orphans:
        reported.add("orphans_killed")
    if run.stderr.overflowed:
        reported.add("stderr_truncated")
    return reported
