"""Judges by calls: arguments go to the program's process, and the returned value is compared here."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from plaudit.grading import Verdict
from sandbox.errors import InvalidSuite
from sandbox.judge import bounds, codec
from sandbox.judge.audit import AuditPipe, early_exit_flags
from sandbox.judge.compare import Opaque, same_value
from sandbox.judge.frame_channel import FrameChannel
from sandbox.judge.isolated_tests import LOST_S, candidate_outcome
from sandbox.judge.meter import TestMeter
from sandbox.judge.python_jobs import serve_job
from sandbox.judge.report import build_report
from sandbox.judge.request import JudgeRequest
from sandbox.run import JailRun, RunOutcome, flags, pump
from sandbox.types import FunctionSuite, Report, TestReport

TOO_MUCH_MEMORY = RunOutcome(Verdict.INVALID_RESULT, "the answer needs more memory than its judge has")


class Undecided(Exception):
    """The answer is not a plain value: only the test process can decide this test.

    Verdicts before it are kept: `reports`, and the `flags` of the run.
    """

    reports: Sequence[TestReport] = ()
    flags: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class EntryPointCall:
    """One call of the entry point, and the function that judges the returned tree of the codec."""

    args: list[Any]  # trees, those of `names` last
    names: list[str]
    judge: Callable[[Any], RunOutcome]
    max_bytes: int = bounds.MAX_MESSAGE_BYTES  # an answer of more bytes is not judged here: Undecided


class CandidateProcess:
    """The program's process, seen from here."""

    def __init__(self, request: JudgeRequest, num_tests: int) -> None:
        host_end, jail_end = socket.socketpair()
        self.channel = FrameChannel(host_end)
        self.audit_pipe = AuditPipe(request.options.audit)
        self.next_id = 0
        try:
            job = serve_job(request, num_tests, jail_end.fileno())
            self.run = JailRun(request.sandbox, self.audit_pipe.attached_to(job))
        except BaseException:
            self.channel.close()
            self.audit_pipe.close()
            raise
        finally:
            jail_end.close()

    def receive(self, max_bytes: int = bounds.MAX_MESSAGE_BYTES) -> dict[str, Any] | RunOutcome:
        """The program's next message, or how it ended instead. Raises Undecided for more than `max_bytes`."""
        closed_at: float | None = None
        while True:
            if pump([self.run], None if self.channel.closed else self.channel.fileno()):
                self.channel.fill()
            try:
                data = self.channel.frame()
                if data is not None and self.run.killed_for is None:
                    if len(data) > max_bytes:
                        raise Undecided("the answer is too large to be compared here")
                    message = codec.loads(data, bounds.MAX_JUDGED_CONTAINERS)
                    if not isinstance(message, dict):
                        raise codec.CodecError("a message that is not an object")
                    return message
            except codec.CodecError as error:
                return RunOutcome(Verdict.INVALID_RESULT, bounds.text(str(error)))
            if self.run.job_exit is not None:
                return candidate_outcome(self.run)
            if self.channel.closed:
                closed_at = closed_at or time.monotonic()
                if time.monotonic() > closed_at + LOST_S:
                    return RunOutcome(Verdict.INVALID_RESULT, "the program broke the connection to its judge")

    def send(self, message: dict[str, Any]) -> None:
        """Write a message. Waits for the program at most until its budget is spent."""
        data = codec.dumps(message)
        view = memoryview(len(data).to_bytes(4, "big") + data)
        while view and self.run.job_exit is None and not self.channel.closed:
            try:
                view = view[self.channel.sock.send(view) :]
            except BlockingIOError:
                pump([self.run])
            except OSError:
                return

    def call(self, entry_point: str, call: EntryPointCall) -> RunOutcome:
        """Make a call and judge the returned value. Raises Undecided."""
        try:
            return self._call(entry_point, call)
        except MemoryError:  # only this answer can have taken it
            return TOO_MUCH_MEMORY

    def greeting(self) -> RunOutcome | None:
        """Why the program could not be loaded; None if it could."""
        try:
            return greeting_outcome(self.receive())
        except MemoryError:
            return TOO_MUCH_MEMORY

    def _call(self, entry_point: str, call: EntryPointCall) -> RunOutcome:
        self.next_id += 1
        message = {"op": "call", "id": self.next_id, "name": entry_point, "args": call.args, "names": call.names}
        self.send(message)
        reply = self.receive(call.max_bytes)
        return reply if isinstance(reply, RunOutcome) else reply_outcome(reply, self.next_id, call)

    def flags(self) -> set[str]:
        """The flags of the run so far."""
        return flags(self.run) | self.audit_pipe.flags()

    def close(self) -> None:
        try:
            self.run.close()
        finally:
            self.channel.close()
            self.audit_pipe.close()

    def __enter__(self) -> CandidateProcess:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def reply_outcome(reply: dict[str, Any], number: int, call: EntryPointCall) -> RunOutcome:
    """The verdict on a program's reply to call `number`. Raises Undecided."""
    if reply.get("id") != number:
        return RunOutcome(Verdict.INVALID_RESULT, "a reply to no request")
    if "wall" in reply:
        return RunOutcome(Verdict.INVALID_RESULT, bounds.text(reply["wall"]))
    if "error" in reply:
        return error_outcome(reply["error"])
    return call.judge(reply.get("ok"))


def error_outcome(tree: Any) -> RunOutcome:
    """The verdict on an exception that the program describes."""
    described = tree if isinstance(tree, dict) else {}
    base = described.get("base")
    if base == "SystemExit":
        return RunOutcome(Verdict.NO_RESULT, "the program exits instead of answering")
    name = bounds.text(described.get("name"), bounds.MAX_NAME)
    message = bounds.text(described.get("message"), bounds.MAX_ERROR)
    verdict = Verdict.MEMORY_LIMIT if base == "MemoryError" else Verdict.RUNTIME_ERROR
    return RunOutcome(verdict, f"{name}: {message}")


def calls_of(suite: FunctionSuite) -> list[EntryPointCall]:
    """The calls of a suite. Raises InvalidSuite for a case whose values cannot cross to the program."""
    calls = []
    for number, case in enumerate(suite.cases):
        trees = {}
        also = [("also", value) for value in case.also]
        values = [("args", [*case.args]), ("kwargs", [*case.kwargs.values()]), ("expected", case.expected), *also]
        for what, value in values:
            try:
                trees[what] = codec.encode(value)
                codec.dumps(trees[what])
            except codec.CodecError as error:
                raise InvalidSuite(f"case {number}: {what}: {error}") from None
        judge: Callable[[Any], RunOutcome] = partial(judge_value, expected=case.expected, rel_tol=suite.rel_tol)
        if case.also:
            judge = partial(judge_values, expected=(case.expected, *case.also), rel_tol=suite.rel_tol)
        calls.append(EntryPointCall([*trees["args"], *trees["kwargs"]], list(case.kwargs), judge))
    return calls


def judge_value(tree: Any, expected: Any, rel_tol: float | None) -> RunOutcome:
    """The verdict on a returned value, by the rules of JSON-like expected values (`compare.same_value`)."""
    try:
        right = same_value(tree, expected, rel_tol)
    except (Opaque, codec.CodecError) as error:
        return RunOutcome(Verdict.INVALID_RESULT, bounds.text(str(error)))
    if right:
        return RunOutcome(Verdict.PASSED)
    return RunOutcome(Verdict.WRONG_ANSWER, f"returned {codec.beginning(tree, 300)}")


def judge_values(tree: Any, expected: Sequence[Any], rel_tol: float | None) -> RunOutcome:
    """The same if several values are right."""
    outcomes = [judge_value(tree, value, rel_tol) for value in expected]
    return next((outcome for outcome in outcomes if outcome.verdict is Verdict.PASSED), outcomes[0])


def judge_function_suite(request: JudgeRequest, suite: FunctionSuite) -> Report:
    """Judge the cases of a `function` suite. Raises InvalidSuite."""
    calls = calls_of(suite)
    tests, run_flags = judge_calls(request, suite.entry_point, calls)
    run_flags |= early_exit_flags(tests, request.options)
    return build_report(tests, len(calls), "split", request.sandbox.level, flags=run_flags)


def judge_calls(
    request: JudgeRequest, entry_point: str, calls: Sequence[EntryPointCall]
) -> tuple[list[TestReport], set[str]]:
    """Make the calls one after another; one that ends the program costs a fresh process for the next.

    Returns:
        The reports of the calls that were made, in order, and flags.

    Raises:
        Undecided: an answer cannot be compared here.
    """
    reports: list[TestReport] = []
    run_flags: set[str] = set()
    failures = 0
    while len(reports) < len(calls) and not request.enough_failures(failures):
        with CandidateProcess(request, len(calls)) as candidate:
            meter = TestMeter(candidate.run)
            outcome = candidate.greeting()
            if outcome is not None:
                report = meter.report(outcome.verdict or Verdict.NO_RESULT, outcome.detail)
                missing = len(calls) - len(reports)
                if request.stop.after_failures is not None:
                    missing = min(missing, request.stop.after_failures - failures)
                reports += [report] * missing
                run_flags |= candidate.flags()
                break
            stuck, loading = False, True
            while not stuck and len(reports) < len(calls) and not request.enough_failures(failures):
                candidate.run.grant(wall=not loading)
                loading = False
                try:
                    outcome = meter.with_limits(candidate.call(entry_point, calls[len(reports)]))
                except Undecided as undecided:
                    undecided.reports = reports
                    undecided.flags = frozenset(run_flags | candidate.flags())
                    raise
                gone = candidate.run.job_exit is not None or candidate.run.killed_for is not None
                stuck = gone or outcome.verdict in (Verdict.OUTPUT_LIMIT, Verdict.INVALID_RESULT)
                reports.append(meter.report(outcome.verdict or Verdict.NO_RESULT, outcome.detail))
                failures += outcome.verdict is not Verdict.PASSED
                meter = meter.next()
            run_flags |= candidate.flags()
    return reports, run_flags


def greeting_outcome(hello: dict[str, Any] | RunOutcome) -> RunOutcome | None:
    """Why the program could not be loaded; None if it could."""
    if isinstance(hello, RunOutcome):
        return hello
    if hello.get("hello") is not True:
        return RunOutcome(Verdict.INVALID_RESULT, "no greeting")
    if "exit" in hello:
        return RunOutcome(
            Verdict.NO_RESULT, f"the program exits with {bounds.text(hello['exit'], 20)} while it is loaded"
        )
    if hello.get("parsed") is False:
        return RunOutcome(Verdict.COMPILE_ERROR, error_outcome(hello.get("error")).detail)
    if "error" in hello:
        return error_outcome(hello["error"])
    return None
