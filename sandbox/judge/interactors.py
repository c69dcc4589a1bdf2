"""Interactive problems: the program and a suite's interactor in two jails, joined by two pipes.

    program stdout → interactor stdin        interactor stdout → program stdin

- The dialogue does not pass through this process, so its length costs nothing here. (Only what the interactor writes
  after its program has ended is read here, and dropped.)
- The interactor starts with `input.txt`, `output.txt` (empty, for a log) and `answer.txt`, and their names as its
  arguments, as testlib's `registerInteraction` wants them. How it ends is its verdict (`checker_verdicts.py`).
- Who decides: first the program's own end (a limit, a crash), then the interactor. A program that met the closed end of
  a pipe because the interactor had ended did not crash by itself: the interactor decides. Once the interactor has
  rejected, the program is ended.
- If the two wait for each other, the program reaches its wall limit, which is a `time_limit`. The interactor's limits
  are wider, so it never reaches its own first by waiting.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from plaudit.grading import Verdict
from sandbox.jail_job import JailJob
from sandbox.judge.audit import AuditPipe
from sandbox.judge.checker_verdicts import CheckerVerdict, apply_checker_verdict, checker_verdict
from sandbox.judge.checkers import with_case
from sandbox.judge.run_report import left_by_itself, run_report
from sandbox.judge.streams import readable
from sandbox.run import JailRun, RunOutcome, Starter, classify_exit, flags, pump
from sandbox.types import StdioCase, TestReport

UNFLUSHED = 120  # the exit code of a Python whose last flush fails
SLACK_S = 5.0  # how much longer than its program an interactor may take
# How the runtimes of the languages say that the other end of a pipe was closed.
CLOSED = re.compile(
    rb"EOFError|BrokenPipe|Broken pipe|EPIPE|NoSuchElement|NullPointer|end of file|end-of-file|\bEOF\b", re.IGNORECASE
)


@contextmanager
def pipe() -> Iterator[list[int]]:
    """Both ends of a pipe; the caller removes an end that it has passed on.

    Both sides can open it by name (`/dev/stdin`, `/dev/stdout`). One that opens the wrong end reads itself.
    """
    ends = list(os.pipe2(os.O_CLOEXEC))
    try:
        os.fchmod(ends[0], 0o666)
        yield ends
    finally:
        for fd in ends:
            os.close(fd)


@dataclass(frozen=True, slots=True)
class Interactor:
    """One suite's interactor, ready to run."""

    job: JailJob
    starter: Starter
    who: str = "interactor"

    def control(self, case: StdioCase, output: bytes) -> CheckerVerdict:
        """Its verdict on a program that outputs exactly `output`, whatever it reads."""
        with (
            readable(output) as stdin,
            JailRun(self.starter, with_case(self.job, case, b""), stdin=stdin, purpose="interactor") as run,
        ):
            run.finish()
            return checker_verdict(run, speaks=False)

    def takes_answer(self) -> bool:
        return False

    def judge_case(self, job: JailJob, case: StdioCase, *, audit: bool = False) -> tuple[TestReport, set[str]]:
        """One dialogue."""
        referee = with_case(self.job, case, b"")
        jail_limits = replace(referee.limits, wall_s=max(referee.limits.wall_s, job.limits.wall_s + SLACK_S))
        with AuditPipe(audit) as audit_pipe, pipe() as to_interactor, pipe() as to_program:
            interactor_job = replace(referee, limits=jail_limits, fds={1: to_program[1]})
            with JailRun(self.starter, interactor_job, stdin=to_interactor[0], purpose="interactor") as interactor:
                program_job = audit_pipe.attached_to(replace(job, fds={**job.fds, 1: to_interactor[1]}))
                with JailRun(self.starter, program_job, stdin=to_program[0]) as run:
                    replies = to_program.pop(0)
                    for ends in (to_interactor, to_program):
                        while ends:  # or neither would see the other close its end
                            os.close(ends.pop())
                    to_program.append(replies)
                    wall_ms, dismissed = run_dialogue(run, interactor, replies)
                    end, gives_way = program_outcome(run, dismissed=dismissed)
                    verdict = None if end.verdict is not None and not gives_way else interactor_verdict(interactor)
                    report = run_report(run, end, wall_ms, b"")
                    run_flags = flags(run) | audit_pipe.flags(complete=left_by_itself(run) and not gives_way)
        if verdict is None:
            return replace(report, score=0.0), run_flags
        report, more = apply_checker_verdict(replace(report, verdict=Verdict.PASSED, detail=""), verdict, self.who)
        return report, run_flags | more


def run_dialogue(run: JailRun, interactor: JailRun, replies: int) -> tuple[float, bool]:
    """Hold both clocks until both have ended. Returns the program's wall time, and whether a rejection ended it.

    `replies` reads what the interactor writes after its program has ended. A last reply without a reader must not end
    the interactor, or the verdict would depend on which of the two was quicker.
    """
    wall_ms: float | None = None
    dismissed = released = silent = False
    while run.job_exit is None or interactor.job_exit is None:
        # Only after the program has ended: what is read here, the program would not get.
        if pump([run, interactor], replies if run.job_exit is not None and not silent else None):
            silent = not os.read(replies, 1 << 18)
        if run.job_exit is not None and wall_ms is None:
            wall_ms = 1000 * (time.monotonic() - run.began)
        if (
            interactor.job_exit is not None
            and interactor.job_exit.exit_code != 0
            and run.job_exit is None
            and not dismissed
        ):
            dismissed = True
            run.handle.kill()
        if run.killed_for is not None and interactor.job_exit is None and not released:
            released = True  # the program's limit is the verdict; nothing that the interactor says would change it
            interactor.handle.kill()
    return wall_ms or 0.0, dismissed


def interactor_verdict(interactor: JailRun) -> CheckerVerdict:
    """The interactor's verdict. If it broke on a closed pipe, its program ended before the dialogue did."""
    verdict = checker_verdict(interactor, speaks=False)
    if verdict.score is None and met_closed_pipe(interactor):
        return CheckerVerdict(0.0, "the program ended before the dialogue did")
    return verdict


def program_outcome(run: JailRun, *, dismissed: bool) -> tuple[RunOutcome, bool]:
    """How the program ended, and whether the interactor's verdict takes precedence."""
    end = classify_exit(run)
    if end.verdict is Verdict.TIME_LIMIT and run.killed_for == "wall":
        hint = "; program and interactor waited for each other (was the program's output flushed?)"
        return RunOutcome(end.verdict, end.detail + (hint if "idle" in end.detail else "")), False
    if end.verdict is not Verdict.RUNTIME_ERROR or run.job_exit is None:
        return end, False
    return end, met_closed_pipe(run) or (dismissed and run.job_exit.signal == signal.SIGKILL)


def met_closed_pipe(run: JailRun) -> bool:
    """Whether a run ended because the other end of its pipe was closed, by signal, code or its runtime's last words."""
    if run.job_exit is None or run.job_exit.signal is not None:
        return run.job_exit is not None and run.job_exit.signal == signal.SIGPIPE
    return run.job_exit.exit_code == UNFLUSHED or CLOSED.search(bytes(run.stderr.data[-4096:])) is not None
