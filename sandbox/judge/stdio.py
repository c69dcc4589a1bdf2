"""Judging by standard input and output: one run a case, bytes compared here, where the program never was.

Or by a checker, in a jail of its own, after the program has ended (`checkers.py`).
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from plaudit.grading import Verdict
from sandbox import languages
from sandbox import limits as fences
from sandbox.errors import InvalidSuite
from sandbox.jail import KIT, Job, memory_file, reopen_read_only
from sandbox.judge.audit import Watch
from sandbox.judge.checker_verdicts import Ruling
from sandbox.judge.compare import same_output
from sandbox.judge.prelude import parted
from sandbox.judge.truncate import shown_head, shown_tail
from sandbox.run import Fate, Run, Starter, fate, flags
from sandbox.types import Limits, Options, StdioCase, StdioSuite, TestReport

PIPE_BYTES = 1 << 16  # what a pipe of Linux holds unless it is told otherwise


def piped(data: bytes) -> int | None:
    """The reading end of a pipe that holds `data` whole; None where this host gives nobody a pipe of that size."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        os.fchmod(reader, 0o644)  # so that programs of another uid can open /dev/stdin
        if data:
            os.set_blocking(writer, False)
            if len(data) > PIPE_BYTES:
                fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, len(data))
            if os.write(writer, data) < len(data):
                raise BlockingIOError
    except (BlockingIOError, PermissionError):
        os.close(reader)
        return None
    finally:
        os.close(writer)
    return reader


@contextmanager
def readable(data: bytes, *, pipe: bool = False) -> Iterator[int]:
    """A descriptor to read `data` from, with a position of its own, or as a pipe if it can be had."""
    reader = piped(data) if pipe else None
    if reader is not None:
        try:
            yield reader
        finally:
            os.close(reader)
        return
    if not data:
        fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)
        return
    written = memory_file("stdin", data)
    try:
        fd = reopen_read_only(written)
    finally:
        os.close(written)
    try:
        yield fd
    finally:
        os.close(fd)


def script_job(source: bytes, limits: Limits, options: Options) -> Job:
    name = "main" if options.run_main is False else "__main__"
    if options.fresh_interpreter:
        role = "audited_script" if options.audit else "script" if name == "main" else None
        return fresh_job(role, source, limits, name)
    prelude, program = parted(source)
    return Job(
        role="audited_script" if options.audit else "script",
        name=name,
        argv=("/tmp/main.py",),
        fence=fences.for_run(limits),
        fds={},
        source=source,
        main=not prelude,
        files=(("/tmp/main.py", program),) if prelude else (),
        piped=True,
        flavour=languages.flavour_of(source),
    )


def fresh_job(role: str | None, source: bytes, limits: Limits, name: str = "__main__") -> Job:
    """A Python program in an interpreter started for it: in a role of the kit, or for None just `python3 main.py`.

    The latter with all that this host's `site` does to `python3`, which may take longer than the program.
    """
    python = str(languages.python_binary())
    prelude, program = parted(source)
    if prelude:
        role = role or "script"
    in_role = (python, "-S", f"{KIT}/fresh_interpreter.pyc", str(role), name, *languages.python_packages())
    return Job(
        role="exec",
        argv=(python, "/tmp/main.py") if role is None else in_role,
        fence=fences.for_run(limits),
        fds={},
        files=(("/tmp/main.py", program), *([("/tmp/.prelude", source)] if prelude else [])),
        piped=True,
    )


def encoded(text: str, what: str) -> bytes:
    try:
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise InvalidSuite(f"{what} cannot be written as bytes: {error}") from None
    if len(data) > fences.MAX_STDIN_BYTES:
        raise InvalidSuite(f"{what} takes {len(data)} bytes; at most {fences.MAX_STDIN_BYTES} are allowed")
    return data


def answers_of(case: StdioCase) -> tuple[str, ...]:
    """The right answers of a case, of which one is enough."""
    return (case.stdout,) if isinstance(case.stdout, str) else case.stdout


Rule = Callable[[bytes], Ruling]  # a checker's, of one case: what it says of an output


def judge_case(
    job: Job, case: StdioCase, suite: StdioSuite, starter: Starter, *, audit: bool = False, rule: Rule | None = None
) -> tuple[TestReport, set[str]]:
    """One run and what its output is worth: by `rule` where there is one, else by the suite's comparison."""
    with (
        readable(encoded(case.stdin, "a case's stdin"), pipe=job.piped) as stdin,
        Watch(audit) as watch,
        Run(starter, watch.join(job), stdin=stdin) as run,
    ):
        run.finish()
        wall_ms = 1000 * (time.monotonic() - run.began)
        end = fate(run)
        out = bytes(run.stdout.data)
        found = flags(run) | watch.flags(whole=left_by_itself(run))
    # Only now, when nothing of the program is left, does anybody look at what it printed.
    if end.verdict is None and rule is None:
        expected = [encoded(answer, "a case's stdout") for answer in answers_of(case)]
        right = any(same_output(out, answer, suite.compare, suite.rel_tol) for answer in expected)
        end = Fate(Verdict.PASSED) if right else Fate(Verdict.WRONG_ANSWER, "the output differs")
    report = run_report(run, end, wall_ms, out)
    if end.verdict is None and rule is not None:
        report, more = ruled(report, rule(out), "checker")
        found |= more
    return report if rule is None or report.score is not None else replace(report, score=0.0), found


def run_report(run: Run, end: Fate, wall_ms: float, out: bytes) -> TestReport:
    """What can be said of a run without judging what it printed."""
    counters = run.counters()
    return TestReport(
        verdict=end.verdict or Verdict.PASSED,
        cpu_ms=round(counters.cpu_ns / 1e6, 3),
        wall_ms=round(wall_ms, 3),
        peak_memory_mb=round(counters.peak_memory_bytes / fences.MB, 1),
        stdout=shown_head(out),
        stderr=shown_tail(bytes(run.stderr.data)),
        detail=end.detail,
    )


def ruled(report: TestReport, ruling: Ruling, who: str) -> tuple[TestReport, set[str]]:
    """The report of a program that ended well, as a checker or an interactor decides it.

    One that failed or broke does so on what this program said; that it works at all was found out before, and not by
    this program (`checkers.py`). So it is no way out for the program: its answer could not be taken, and it has failed.
    """
    if ruling.score is None:
        how = "says that it failed" if ruling.failed else "broke"
        detail = f"the {who} {how} on this program's output: {ruling.message}"
        return replace(report, verdict=Verdict.INVALID_RESULT, detail=detail, score=0.0), {f"{who}_failed"}
    verdict = Verdict.PASSED if ruling.accepted else Verdict.WRONG_ANSWER
    detail = ruling.message or ("" if ruling.accepted else f"the {who} gives {ruling.score:g}")
    return replace(report, verdict=verdict, detail=detail, score=ruling.score), set()


def left_by_itself(run: Run) -> bool:
    """Whether a run ended by its own exit, and not by a signal of anybody's."""
    return run.ending is not None and run.ending.signal is None
