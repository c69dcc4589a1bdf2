"""Runs that are judged by their exit code only: `script` suites, and runs without any test.

The answer of a run without a test is everything that it printed and the files that were asked for. The program made it;
nothing here says whether it is right.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from dataclasses import replace

from plaudit.grading import Judge
from sandbox.errors import InvalidOptions
from sandbox.jail_job import JailJob
from sandbox.judge.audit import AuditPipe
from sandbox.judge.build import ProgramText, ready
from sandbox.judge.control_run import ControlResults
from sandbox.judge.report import build_report
from sandbox.judge.request import JudgeRequest
from sandbox.judge.run_report import left_by_itself, run_report
from sandbox.judge.script import combined
from sandbox.judge.script_control import check_script
from sandbox.judge.stdio import NOT_COMPILED
from sandbox.judge.streams import encoded, readable
from sandbox.judge.working_files import MAIN, check_run, given_files, path_of
from sandbox.limits import MAX_FETCHED_BYTES
from sandbox.memory_files import memory_file
from sandbox.run import JailRun, classify_exit, flags
from sandbox.types import NO_OPTIONS, Output, Report, RunSuite, ScriptSuite, TestReport


def judge_run(request: JudgeRequest, suite: RunSuite | ScriptSuite) -> Report:
    """The report of one run; without a test, also what it left. Raises InvalidSuite and InvalidOptions."""
    run_suite = RunSuite() if isinstance(suite, ScriptSuite) else suite
    judged_by: Judge = "shared_process" if isinstance(suite, ScriptSuite) else "bytes"
    check_run(run_suite)
    check_fresh_interpreter(request, run_suite)
    isolation = request.sandbox.level
    if isinstance(suite, ScriptSuite):
        if request.options.control:
            check_with_control_programs(request, suite)
        text = combined(request.language, request.source, suite)
    else:
        text = ProgramText(request.source, given=given_files(run_suite))
    with ready(request, text) as (job, compiled):
        if job is None:
            return build_report([NOT_COMPILED], 1, judged_by, isolation, flags=set(), compiled=compiled)
        test, output, run_flags = run_once(request, run_suite, job)
    report = build_report([test], 1, judged_by, isolation, flags=run_flags, compiled=compiled)
    return report if isinstance(suite, ScriptSuite) else replace(report, output=output)


def check_fresh_interpreter(request: JudgeRequest, suite: RunSuite) -> None:
    """Raises InvalidOptions for what cannot go with a fresh interpreter."""
    options = request.options
    if not options.fresh_interpreter:
        return
    if request.language == "python" and MAIN in {path_of(name) for name, _ in suite.files}:
        raise InvalidOptions("options.fresh_interpreter: the program lies in main.py; give that file another name")
    if suite.args and options.audit:
        raise InvalidOptions("options.fresh_interpreter: not with options.audit and args; leave out one of the three")


def check_with_control_programs(request: JudgeRequest, suite: ScriptSuite) -> None:
    """Raises InvalidSuite for a script that passes for programs that answer nothing."""
    plain = replace(request, options=NO_OPTIONS)

    def report_of(program: str) -> TestReport | None:
        with ready(plain, combined(request.language, program.encode(), suite)) as (job, _):
            return None if job is None else run_once(plain, RunSuite(), job)[0]

    check_script(request.sandbox.cached(ControlResults), suite, request.language, report_of)


def run_once(request: JudgeRequest, suite: RunSuite, job: JailJob) -> tuple[TestReport, Output, set[str]]:
    """One run: its report, what it left, and its flags."""
    files = [(path_of(name), content) for name, content in suite.files]
    with ExitStack() as stack:
        copies = [memory_file("fetched", b"", sealed=False) for _ in suite.fetch]
        for fd in copies:
            stack.callback(os.close, fd)
        collect = [
            (path_of(name, flat=True), fd, MAX_FETCHED_BYTES) for name, fd in zip(suite.fetch, copies, strict=True)
        ]
        main = job.main and MAIN not in dict(files)
        argv = (*job.argv, *suite.args)
        job = replace(job, argv=argv, files=(*job.files, *files), main=main, collect=collect)
        stdin = stack.enter_context(readable(encoded(suite.stdin, "stdin"), pipe=job.piped))
        audit_pipe = stack.enter_context(AuditPipe(request.options.audit))
        run = stack.enter_context(JailRun(request.sandbox, audit_pipe.attached_to(job), stdin=stdin))
        run.finish()
        wall_ms = 1000 * (time.monotonic() - run.began)
        outcome = classify_exit(run)
        assert run.job_exit is not None
        sizes = run.job_exit.collected or (-1,) * len(copies)
        output = Output(
            exit_code=run.job_exit.exit_code,
            signal=run.job_exit.signal,
            stdout=bytes(run.stdout.data),
            stderr=bytes(run.stderr.data),
            files={
                name: os.pread(fd, size, 0)
                for name, fd, size in zip(suite.fetch, copies, sizes, strict=True)
                if size >= 0
            },
        )
        report = run_report(run, outcome, wall_ms, output.stdout)
        return report, output, flags(run) | audit_pipe.flags(complete=left_by_itself(run))
