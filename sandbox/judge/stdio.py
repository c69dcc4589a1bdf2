"""Judges by standard input and output: one run per case, and the bytes are compared here, outside the jail.

A checker may decide instead, in its own jail, after the program has ended (`checkers.py`); or an interactor, while the
program runs (`interactors.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from plaudit.grading import Verdict
from sandbox.jail_job import JailJob
from sandbox.judge.audit import AuditPipe
from sandbox.judge.build import ProgramText, ready
from sandbox.judge.checker_verdicts import CheckerVerdict, apply_checker_verdict
from sandbox.judge.checkers import Checker, helper_job, helper_limits, vacuous_cases
from sandbox.judge.compare import same_output
from sandbox.judge.interactors import Interactor
from sandbox.judge.report import build_report
from sandbox.judge.request import JudgeRequest
from sandbox.judge.run_report import left_by_itself, run_report
from sandbox.judge.stdio_cases import answers_of, check_cases, with_files
from sandbox.judge.streams import encoded, readable
from sandbox.run import JailRun, RunOutcome, classify_exit, flags
from sandbox.types import Report, StdioCase, StdioSuite, TestReport

NOT_COMPILED = TestReport(Verdict.COMPILE_ERROR, detail="the program does not compile")

Rule = Callable[[bytes], CheckerVerdict]  # a checker's verdict on the output of one case


def judge_stdio(request: JudgeRequest, suite: StdioSuite) -> Report:
    """Run the program once per case. Raises InvalidSuite, also for a checker or an interactor that does not work."""
    check_cases(suite, request.limits)
    isolation, total = request.sandbox.level, len(suite.cases)
    with (
        referee_of(request, suite) as (referee, vacuous),
        ready(request, ProgramText(request.source)) as (job, compiled),
    ):
        if job is None:
            return build_report([NOT_COMPILED], total, "bytes", isolation, flags=set(), compiled=compiled)
        tests, run_flags = judge_cases(request, suite, job, referee)
        if vacuous:
            tests = [replace(test, vacuous=at in vacuous) for at, test in enumerate(tests)]
        return build_report(tests, total, "bytes", isolation, flags=run_flags, compiled=compiled)


@contextmanager
def referee_of(
    request: JudgeRequest, suite: StdioSuite
) -> Iterator[tuple[Checker | Interactor | None, frozenset[int]]]:
    """The checker or interactor, tried before any program is judged; and which cases are vacuous."""
    program = suite.checker or suite.interactor
    if program is None:
        yield None, frozenset()
        return
    sandbox, limits = request.sandbox, helper_limits(request.limits)
    with helper_job("checker" if suite.checker else "interactor", program, limits, sandbox) as job:
        referee = Checker(job, sandbox) if suite.checker else Interactor(job, sandbox)
        vacuous = vacuous_cases(referee, suite, limits, sandbox) if request.options.control else frozenset()
        yield referee, vacuous


def judge_cases(
    request: JudgeRequest, suite: StdioSuite, job: JailJob, referee: Checker | Interactor | None
) -> tuple[list[TestReport], set[str]]:
    """The reports of the cases, up to the failure that ends the judging."""
    reports: list[TestReport] = []
    run_flags: set[str] = set()
    failures = 0
    for at, case in enumerate(suite.cases):
        if request.enough_failures(failures):
            break
        case_job = with_files(job, case, at)
        if isinstance(referee, Interactor):
            report, more = referee.judge_case(case_job, case, audit=request.options.audit)
        else:
            rule = None if referee is None else partial(referee.rule, case)
            report, more = judge_case(request, suite, case_job, case, rule)
        reports.append(report)
        run_flags |= more
        failures += report.verdict is not Verdict.PASSED
    return reports, run_flags


def judge_case(
    request: JudgeRequest, suite: StdioSuite, job: JailJob, case: StdioCase, rule: Rule | None
) -> tuple[TestReport, set[str]]:
    """One run and the verdict on its output: by `rule` if there is one, else by the suite's comparison."""
    with (
        readable(encoded(case.stdin, "a case's stdin"), pipe=job.piped) as stdin,
        AuditPipe(request.options.audit) as audit_pipe,
        JailRun(request.sandbox, audit_pipe.attached_to(job), stdin=stdin) as run,
    ):
        run.finish()
        wall_ms = 1000 * (time.monotonic() - run.began)
        outcome = classify_exit(run)
        output = bytes(run.stdout.data)
        run_flags = flags(run) | audit_pipe.flags(complete=left_by_itself(run))
    # The output is looked at only now, when nothing of the program is left.
    if outcome.verdict is None and rule is None:
        expected = [encoded(answer, "a case's stdout") for answer in answers_of(case)]
        right = any(same_output(output, answer, suite.compare, suite.rel_tol) for answer in expected)
        outcome = RunOutcome(Verdict.PASSED) if right else RunOutcome(Verdict.WRONG_ANSWER, "the output differs")
    report = run_report(run, outcome, wall_ms, output)
    if outcome.verdict is None and rule is not None:
        report, more = apply_checker_verdict(report, rule(output), "checker")
        run_flags |= more
    return report if rule is None or report.score is not None else replace(report, score=0.0), run_flags
