"""Program and test in one process, for tests that cannot be told apart from it: those that poke at its globals.

Every test gets a run of its own: the program, the setup, the test, in one module (role `shared`), and the outcome comes
over a descriptor that the program holds as well. So it can be forged, by design of what is asked for; the report says
`judge: "shared_process"`, and nobody should train on it without thinking. What cannot be forged: limits, and that the
tests themselves can be used, which is told before the program's first line.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

from plaudit.grading import Verdict
from sandbox import languages
from sandbox import limits as fences
from sandbox.errors import InvalidSuite
from sandbox.jail import Job
from sandbox.judge import bounds, codec
from sandbox.judge.audit import Watch
from sandbox.judge.isolated_tests import MODULE_KINDS, Channel, Meter, bare_name, num_tests
from sandbox.judge.prelude import parted
from sandbox.judge.stdio import left_by_itself
from sandbox.judge.suite_checks import can_assert
from sandbox.run import Fate, Run, Starter, fate, flags
from sandbox.types import Limits, Options, TestReport

Files = Sequence[tuple[str, bytes]]


def shared_job(source: bytes, plan: dict[str, Any], files: Files, limits: Limits, options: Options, wire: int) -> Job:
    return Job(
        role="audited_shared" if options.audit else "shared",
        name="__main__" if options.run_main else "main",
        argv=("/tmp/main.py",),
        fence=fences.for_run(limits),
        fds={3: wire},
        source=codec.dumps(plan),
        files=(("/tmp/main.py", parted(source)[1]), *files),
        flavour="science" if languages.wants_numpy(source) else "usual",
    )


def judge_shared(
    starter: Starter,
    source: bytes,
    plan: dict[str, Any],
    limits: Limits,
    allowed_failures: int | None,
    options: Options,
) -> tuple[list[TestReport], set[str]]:
    """Run each test of `plan` with the program. Raises InvalidSuite for tests that cannot be used."""
    reports: list[TestReport] = []
    found: set[str] = set()
    failures = 0
    uncounted = plan.get("uncounted", ())
    for number in range(num_tests(plan)):
        if allowed_failures is not None and failures >= allowed_failures:
            break
        report, seen = judge_number(starter, source, plan, number, limits, options)
        reports.append(report)
        found |= seen
        failures += report.verdict is not Verdict.PASSED and number not in uncounted
    return reports, found


def judge_number(
    starter: Starter, source: bytes, plan: dict[str, Any], number: int, limits: Limits, options: Options
) -> tuple[TestReport, set[str]]:
    """One test of a plan, in a run of its own."""
    one = {name: plan[name] for name in ("kind", "setup", "entry_point")}
    one |= {"program": source.decode("latin-1"), "asserts": True}
    files: Files = ()
    if plan["kind"] in MODULE_KINDS:
        one |= {"test": plan["tests"][0], "number": number, "names": plan["names"]}
        one["asserts"] = can_assert(plan["tests"][0], bare_name(plan["names"][number]))
        files = plan["files"]
    else:
        one["test"] = plan["tests"][number]
    try:
        codec.dumps(one)
    except codec.CodecError as error:
        raise InvalidSuite(f"the tests are too large: {error}") from None
    return judge_one(starter, source, one, files, limits, options)


def judge_one(
    starter: Starter, source: bytes, plan: dict[str, Any], files: Files, limits: Limits, options: Options
) -> tuple[TestReport, set[str]]:
    ours, theirs = socket.socketpair()
    channel = Channel(ours, bounds.MAX_WORD_BYTES)
    try:
        with Watch(options.audit) as watch:
            try:
                run = Run(starter, watch.join(shared_job(source, plan, files, limits, options, theirs.fileno())))
            finally:
                theirs.close()
            with run:
                meter = Meter(run)
                run.finish()
                channel.fill()
                end = outcome(channel, fate(run))
                report = meter.report(end.verdict or Verdict.NO_RESULT, end.detail)
                return report, flags(run) | watch.flags(whole=left_by_itself(run))
    finally:
        channel.close()


def outcome(channel: Channel, end: Fate) -> Fate:
    """What the process said of itself, unless its end says more. Raises InvalidSuite."""
    try:
        frames = [channel.frame(), channel.frame()]
        first, second = (None if frame is None else codec.loads(frame) for frame in frames)
        if isinstance(first, dict) and "invalid" in first:
            raise InvalidSuite(f"the tests cannot be used: {bounds.text(first['invalid'], bounds.MAX_DETAIL)}")
        if end.verdict is not None:
            return end
        if second is None:
            return Fate(Verdict.NO_RESULT, "the program exits instead of answering")
        verdict, detail = second["done"]
        if verdict == "skipped":
            return Fate(Verdict.INVALID_RESULT, f"the test skips itself: {bounds.text(detail)}")
        return Fate(Verdict(verdict), bounds.text(detail, bounds.MAX_DETAIL))
    except (codec.CodecError, TypeError, ValueError, KeyError) as error:
        return Fate(Verdict.INVALID_RESULT, f"the program tampers with its judge: {type(error).__name__}")
