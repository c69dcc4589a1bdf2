"""Split grading: the tests in one jail, the program in another, values between them, the verdict here.

- Who runs where: for suites of code a test process T (role `tests`) drives the candidate's process C (role `serve`)
  over a socket that only those two hold. T tells this process the verdict of each test over another socket. For
  `function` suites there is no T: this process sends the arguments itself and compares what comes back
  (`function_calls.py`).
- A test that exceeds its budget, or in which C ends, fails alone: both processes are discarded, and a new pair
  continues with the next test.
- Not promised: that state which the program keeps between tests survives this.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from typing import Any

from plaudit.grading import Verdict
from sandbox.errors import InvalidSuite, SandboxError
from sandbox.judge import bounds, codec
from sandbox.judge.audit import AuditPipe
from sandbox.judge.frame_channel import FrameChannel
from sandbox.judge.meter import TestMeter
from sandbox.judge.python_jobs import serve_job
from sandbox.judge.request import JudgeRequest
from sandbox.judge.suite_analysis import read
from sandbox.judge.suite_plan import MODULE_KINDS, check_plan, num_tests, same_tests, tests_job
from sandbox.run import JailRun, RunOutcome, classify_exit, flags, pump
from sandbox.types import TestReport

LOST_S = 2.0  # how long after C is lost its exit may take to be reported


class ProcessPair:
    """T and C, started together, ended together."""

    def __init__(self, request: JudgeRequest, plan: dict[str, Any], num_tests: int) -> None:
        host_end, jail_end = socket.socketpair()
        left, right = socket.socketpair()
        nowhere = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)  # what the tests print is dropped
        self.channel = FrameChannel(host_end, bounds.MAX_WORD_BYTES)
        self.audit_pipe = AuditPipe(request.options.audit)
        self.tests: JailRun | None = None
        self.candidate: JailRun | None = None
        try:
            fds = {1: nowhere, 3: left.fileno(), 4: jail_end.fileno()}
            self.tests = JailRun(request.sandbox, tests_job(plan, request.limits, num_tests, fds))
            job = serve_job(request, num_tests, right.fileno())
            self.candidate = JailRun(request.sandbox, self.audit_pipe.attached_to(job))
        except BaseException:
            self.close()
            raise
        finally:
            os.close(nowhere)
            for sock in (jail_end, left, right):
                sock.close()

    def order(self, number: int) -> None:
        """Tell T to run a test."""
        self.channel.send({"run": number})

    def answer(self) -> dict[str, Any] | RunOutcome:
        """T's next message, or how the candidate or the test process ended instead."""
        t, c = self.runs()
        lost_at: float | None = None
        while True:
            if pump([t, c], self.channel.fileno() if not self.channel.closed else None):
                self.channel.fill()
            message = self.message()
            if isinstance(message, RunOutcome):
                return message
            if message is not None and "lost" not in message:
                return message
            if message is not None:
                lost_at = time.monotonic()
            if c.job_exit is not None and (lost_at is not None or c.killed_for is not None):
                return candidate_outcome(c)
            if t.job_exit is not None and lost_at is None and not self.channel.pending:
                return tests_outcome(t)
            if lost_at is not None and c.job_exit is None and time.monotonic() > lost_at + LOST_S:
                return RunOutcome(Verdict.INVALID_RESULT, "the program broke the connection to its judge")

    def answer_alone(self) -> dict[str, Any] | RunOutcome:
        """The same for a test that may have executed an answer: nothing that it reports makes the suite invalid."""
        answer = self.answer()
        if isinstance(answer, dict) and "done" not in answer:
            why = bounds.text(answer.get("invalid"))
            return RunOutcome(Verdict.INVALID_RESULT, f"in a test that executes the answer: {why}")
        return answer

    def message(self) -> dict[str, Any] | RunOutcome | None:
        """T's next message if it is there.

        T's own code makes readable messages. An unreadable one means that a test has executed an answer (by `eval`,
        for example): that is the program's result, and never makes the suite invalid.
        """
        try:
            data = self.channel.frame()
            message = None if data is None else codec.loads(data)
        except codec.CodecError as error:
            return unreadable(str(error))
        return message if isinstance(message, dict | None) else unreadable("not an object")

    def runs(self) -> tuple[JailRun, JailRun]:
        if self.tests is None or self.candidate is None:
            raise SandboxError("the pair has not started")
        return self.tests, self.candidate

    def close(self) -> None:
        try:
            for run in (self.candidate, self.tests):
                if run is not None:
                    run.close()
        finally:
            self.channel.close()
            self.audit_pipe.close()

    def __enter__(self) -> ProcessPair:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def unreadable(why: str) -> RunOutcome:
    return RunOutcome(Verdict.INVALID_RESULT, f"the message of the test process cannot be read: {bounds.text(why)}")


def candidate_outcome(run: JailRun) -> RunOutcome:
    """The verdict of a test in which the candidate ended; a clean exit is no answer."""
    outcome = classify_exit(run)
    if outcome.verdict is None:
        return RunOutcome(Verdict.NO_RESULT, "the program exits instead of answering")
    return outcome


def tests_outcome(run: JailRun) -> RunOutcome:
    """The verdict of a test in which the test process ended, because of what the program answered."""
    outcome = classify_exit(run)
    if outcome.verdict in (Verdict.TIME_LIMIT, Verdict.MEMORY_LIMIT):
        return RunOutcome(outcome.verdict, f"in the test itself: {outcome.detail}")
    return RunOutcome(Verdict.INVALID_RESULT, f"the test process ended: {outcome.detail or 'it exited'}")


def judge_isolated(
    request: JudgeRequest, plan: dict[str, Any], decided: Sequence[TestReport] = ()
) -> tuple[list[TestReport], set[str]]:
    """Run the tests of `plan` against the program. Raises InvalidSuite.

    Args:
        request: the program, and the failures after which judging stops.
        plan: the suite, as `suite_plan.plan_of` has it, with names and uncounted tests from its control run.
        decided: reports of the first tests, where these have been decided already.

    Returns:
        The reports of the tests that ran, in order, and flags.
    """
    total = num_tests(plan)
    uncounted = plan.get("uncounted", ())
    plan = plan | read(plan["setup"], plan["helpers"], tuple(plan["tests"]), plan["entry_point"])
    if plan["kind"] in MODULE_KINDS:  # where the file executes an answer somewhere, each of its tests is alone
        plan["executing"] = [any(plan["executing"])] * total
    executing: list[bool] = plan["executing"]
    check_plan(plan)
    reports: list[TestReport] = [*decided]
    run_flags: set[str] = set()
    failures = sum(report.verdict is not Verdict.PASSED for report in reports)
    while len(reports) < total and not request.enough_failures(failures):
        with ProcessPair(request, plan, total) as pair:
            t, c = pair.runs()
            meter = TestMeter(c)
            start = started(pair.answer(), plan, executing)
            if start is not None:
                # Every further test would meet the same end: the program does not load, or the setup does not run.
                report = meter.report(start.verdict or Verdict.NO_RESULT, start.detail)
                while len(reports) < total and not request.enough_failures(failures):
                    failures += len(reports) not in uncounted
                    reports.append(report)
                run_flags |= flags(c) | pair.audit_pipe.flags()
                break
            stuck, loading = False, True
            while not stuck and len(reports) < total and not request.enough_failures(failures):
                alone = executing[len(reports)]  # it may execute what the program says, and decides only for itself
                if alone and not loading:
                    break
                c.grant(wall=not loading)
                t.grant()
                loading = False
                pair.order(len(reports))
                answer = pair.answer_alone() if alone else pair.answer()
                if isinstance(answer, dict) and "invalid" in answer:
                    raise InvalidSuite(f"the tests cannot be used: {bounds.text(answer['invalid'], bounds.MAX_DETAIL)}")
                leaned = alone or (isinstance(answer, dict) and answer.get("leaned") is True)
                if isinstance(answer, RunOutcome):
                    outcome, stuck = answer, True
                else:
                    outcome = outcome_of(answer.get("done"))
                    stuck = bool(answer.get("last"))
                outcome = meter.with_limits(outcome)
                stuck = stuck or outcome.verdict is Verdict.OUTPUT_LIMIT
                reports.append(meter.report(outcome.verdict or Verdict.NO_RESULT, outcome.detail))
                failures += outcome.verdict is not Verdict.PASSED and len(reports) - 1 not in uncounted
                if leaned and outcome.verdict is Verdict.PASSED:
                    run_flags.add("program_methods")
                stuck = stuck or alone or any(run.job_exit or run.killed_for for run in (t, c))
                meter = meter.next()
            run_flags |= flags(c) | pair.audit_pipe.flags()
    return reports, run_flags


def started(answer: dict[str, Any] | RunOutcome, plan: dict[str, Any], executing: list[bool]) -> RunOutcome | None:
    """Why no test can run, from T's first message; None if T is ready. Raises InvalidSuite."""
    if isinstance(answer, RunOutcome):
        return answer
    if "invalid" in answer:
        why = bounds.text(answer["invalid"], bounds.MAX_DETAIL)
        if not all(executing):
            raise InvalidSuite(f"the tests cannot be used: {why}")
        # The setup executes answers, so this message may be the program's.
        return outcome_of(["invalid_result", f"in a setup that executes the answer: {why}"])
    if "ready" not in answer:
        return outcome_of(answer.get("failed"))
    if not same_tests(answer.get("names"), plan.get("names")):
        return RunOutcome(Verdict.INVALID_RESULT, "the program's answers change which tests the file has")
    return None


def outcome_of(words: Any) -> RunOutcome:
    """A verdict and a reason as T sends them. A test that skips itself only for this program has not passed."""
    try:
        verdict, detail = words
        if verdict == "skipped":
            why = f"the test skips itself for what the program answers: {bounds.text(detail)}"
            return RunOutcome(Verdict.INVALID_RESULT, why)
        return RunOutcome(Verdict(verdict), bounds.text(detail, bounds.MAX_DETAIL))
    except (TypeError, ValueError):
        return unreadable("not a verdict and a reason")
