"""Program and test in one process, for tests that cannot be separated from it, such as those that set its globals.

- Every test gets a run of its own: the program, the setup and the test in one module (role `shared`).
- The outcome comes over a descriptor that the program holds as well, so it can be forged. The report says so with
  `judge: "shared_process"`. Consider that before training on it.
- The limits cannot be forged, nor that the tests themselves can be used: that is reported before the program starts.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

from plaudit.grading import Verdict
from sandbox import languages
from sandbox.errors import InvalidSuite
from sandbox.jail_job import JailJob
from sandbox.judge import bounds, codec
from sandbox.judge.assertion_analysis import can_assert
from sandbox.judge.audit import AuditPipe
from sandbox.judge.frame_channel import FrameChannel
from sandbox.judge.meter import TestMeter
from sandbox.judge.prelude import parted
from sandbox.judge.request import JudgeRequest
from sandbox.judge.run_report import left_by_itself
from sandbox.judge.suite_plan import MODULE_KINDS, num_tests, without_parameters
from sandbox.limits import run_limits
from sandbox.run import JailRun, RunOutcome, classify_exit, flags
from sandbox.types import TestReport

Files = Sequence[tuple[str, bytes]]


def judge_in_process(request: JudgeRequest, plan: dict[str, Any]) -> tuple[list[TestReport], set[str]]:
    """Run each test of `plan` with the program. Raises InvalidSuite for tests that cannot be used."""
    reports: list[TestReport] = []
    run_flags: set[str] = set()
    failures = 0
    uncounted = plan.get("uncounted", ())
    for number in range(num_tests(plan)):
        if request.enough_failures(failures):
            break
        report, more = judge_test_in_process(request, plan, number)
        reports.append(report)
        run_flags |= more
        failures += report.verdict is not Verdict.PASSED and number not in uncounted
    return reports, run_flags


def judge_test_in_process(request: JudgeRequest, plan: dict[str, Any], number: int) -> tuple[TestReport, set[str]]:
    """One test of a plan, in a run of its own."""
    message = {name: plan[name] for name in ("kind", "setup", "entry_point")}
    message |= {"program": request.source.decode("latin-1"), "asserts": True}
    files: Files = ()
    if plan["kind"] in MODULE_KINDS:
        message |= {"test": plan["tests"][0], "number": number, "names": plan["names"]}
        message["asserts"] = can_assert(plan["tests"][0], without_parameters(plan["names"][number]))
        files = plan["files"]
    else:
        message["test"] = plan["tests"][number]
    try:
        data = codec.dumps(message)
    except codec.CodecError as error:
        raise InvalidSuite(f"the tests are too large: {error}") from None
    return run_test(request, data, files)


def run_test(request: JudgeRequest, message: bytes, files: Files) -> tuple[TestReport, set[str]]:
    host_end, jail_end = socket.socketpair()
    channel = FrameChannel(host_end, bounds.MAX_WORD_BYTES)
    try:
        with AuditPipe(request.options.audit) as audit_pipe:
            try:
                job = shared_job(request, message, files, jail_end.fileno())
                run = JailRun(request.sandbox, audit_pipe.attached_to(job))
            finally:
                jail_end.close()
            with run:
                meter = TestMeter(run)
                run.finish()
                channel.fill()
                outcome = reported_outcome(channel, classify_exit(run))
                report = meter.report(outcome.verdict or Verdict.NO_RESULT, outcome.detail)
                return report, flags(run) | audit_pipe.flags(complete=left_by_itself(run))
    finally:
        channel.close()


def shared_job(request: JudgeRequest, message: bytes, files: Files, wire: int) -> JailJob:
    """Program and test as one job; `message` says what the test is, and `wire` is where its outcome goes."""
    options = request.options
    return JailJob(
        role="audited_shared" if options.audit else "shared",
        name="__main__" if options.run_main else "main",
        argv=("/tmp/main.py",),
        limits=run_limits(request.limits),
        fds={3: wire},
        source=message,
        files=(("/tmp/main.py", parted(request.source)[1]), *files),
        jail_kind="science" if languages.wants_numpy(request.source) else "usual",
    )


def reported_outcome(channel: FrameChannel, ended: RunOutcome) -> RunOutcome:
    """What the process reported of its test, unless its end says more. Raises InvalidSuite."""
    try:
        frames = [channel.frame(), channel.frame()]
        first, second = (None if frame is None else codec.loads(frame) for frame in frames)
        if isinstance(first, dict) and "invalid" in first:
            raise InvalidSuite(f"the tests cannot be used: {bounds.text(first['invalid'], bounds.MAX_DETAIL)}")
        if ended.verdict is not None:
            return ended
        if second is None:
            return RunOutcome(Verdict.NO_RESULT, "the program exits instead of answering")
        verdict, detail = second["done"]
        if verdict == "skipped":
            return RunOutcome(Verdict.INVALID_RESULT, f"the test skips itself: {bounds.text(detail)}")
        return RunOutcome(Verdict(verdict), bounds.text(detail, bounds.MAX_DETAIL))
    except (codec.CodecError, TypeError, ValueError, KeyError) as error:
        return RunOutcome(
            Verdict.INVALID_RESULT, f"the program tampered with the report of its test: {type(error).__name__}"
        )
