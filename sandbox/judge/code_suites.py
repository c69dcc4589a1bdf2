"""Suites whose own code decides: asserts, a `check` function, test files."""

from __future__ import annotations

import time
from dataclasses import replace

from plaudit.grading import Judge, Verdict
from sandbox.judge.audit import early_exit_flags
from sandbox.judge.bounds import encodable
from sandbox.judge.control_run import ControlResult, control_result
from sandbox.judge.entry_points import derived_entry_point
from sandbox.judge.function_calls import Undecided, judge_calls
from sandbox.judge.in_process_tests import judge_in_process, judge_test_in_process
from sandbox.judge.isolated_tests import judge_isolated
from sandbox.judge.literal_asserts import literal_calls
from sandbox.judge.report import build_report
from sandbox.judge.request import JudgeRequest
from sandbox.judge.suite_analysis import check_entry_point
from sandbox.judge.suite_kinds import KIND_OF
from sandbox.judge.suite_plan import CodeSuite, check_plan, num_tests, plan_of
from sandbox.types import AssertSuite, Report, TestReport

SPLIT: Judge = "split"
SHARED_PROCESS: Judge = "shared_process"
PROGRAM_METHODS: Judge = "program_methods"  # some passed test rests on methods of the program's own objects
MAX_SHARE_SPENT = 0.2  # of one wall limit that a suite may have taken and still be run again from its start


def judge_code(request: JudgeRequest, suite: CodeSuite) -> Report:
    """Judge by literal calls where a suite has nothing else, else in a test process, after the control run."""
    check_entry_point(KIND_OF[type(suite)], suite.entry_point or "f")
    options, isolation = request.options, request.sandbox.level
    began, flags = time.monotonic(), set[str]()
    decided: tuple[TestReport, ...] = ()
    if isinstance(suite, AssertSuite) and options.grading != "together":
        entry_point = suite.entry_point or derived_entry_point(suite)
        calls = literal_calls(suite.asserts, suite.setup, entry_point)
        if calls is not None:
            try:
                tests, flags = judge_calls(request, entry_point, calls)
                flags |= early_exit_flags(tests, options)
                return build_report(tests, len(calls), SPLIT, isolation, flags=flags)
            except Undecided as undecided:
                # The tests start again in a process of their own, with whatever state the program keeps between them.
                # If much of the time limit is spent, the verdicts so far are kept.
                flags = set(undecided.flags)
                if time.monotonic() - began > MAX_SHARE_SPENT * request.limits.wall:
                    decided = tuple(undecided.reports)
    plan = plan_of(suite)
    check_plan(plan)
    control = control_result(request, plan)
    plan["names"] = list(control.names)
    plan["uncounted"] = control.uncounted
    if options.grading == "together":
        tests, more = judge_in_process(request, plan)
    else:
        tests, more = judge_isolated(request, plan, decided)
    flags |= more
    judged_by = (
        SHARED_PROCESS if options.grading == "together" else PROGRAM_METHODS if PROGRAM_METHODS in flags else SPLIT
    )
    flags -= {PROGRAM_METHODS}
    if options.grading == "auto" and control.unjudgeable:
        for number in control.unjudgeable:
            if number < len(tests):
                tests[number], more = judge_test_in_process(request, plan, number)
                flags |= more
        judged_by = SHARED_PROCESS
        control = replace(control, unjudgeable={})
    tests = [with_control_result(test, number, control) for number, test in enumerate(tests)]
    flags |= early_exit_flags(tests, options)
    return build_report(
        tests, num_tests(plan), judged_by, isolation, flags=flags, uncounted=control.uncounted, names=control.names
    )


def with_control_result(test: TestReport, number: int, control: ControlResult) -> TestReport:
    """A test's report with its name and the result of its control run."""
    name = control.names[number] if control.names else ""
    if number in control.unjudgeable:
        return replace(test, name=name, verdict=Verdict.UNJUDGEABLE, detail=encodable(control.unjudgeable[number]))
    if number in control.skipped:
        return replace(test, name=name, verdict=Verdict.SKIPPED, detail=encodable(control.skipped[number]))
    if number in control.vacuous:
        return replace(test, name=name, vacuous=True)
    return replace(test, name=name) if name else test
