"""Judging by standard input and output: one run a case, bytes compared here, where the program never was."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from sandbox import languages
from sandbox import limits as fences
from sandbox.errors import InvalidSuite
from sandbox.jail import KIT, Job, memory_file, reopen_read_only
from sandbox.judge.audit import Watch
from sandbox.judge.compare import same_output
from sandbox.judge.prelude import parted
from sandbox.judge.texts import shown_head, shown_tail
from sandbox.run import Run, Starter, fate, flags
from sandbox.types import Limits, Options, StdioCase, StdioSuite, TestReport, Verdict


@contextmanager
def readable(data: bytes) -> Iterator[int]:
    """A descriptor to read `data` from, with a position of its own."""
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
    if options.fresh_interpreter:
        return fresh_job("audited_script" if options.audit else None, source, limits)
    prelude, program = parted(source)
    return Job(
        role="audited_script" if options.audit else "script",
        argv=("/tmp/main.py",),
        fence=fences.for_run(limits),
        fds={},
        source=source,
        main=not prelude,
        files=(("/tmp/main.py", program),) if prelude else (),
        flavour="science" if languages.wants_numpy(source) else "light",
    )


def fresh_job(role: str | None, source: bytes, limits: Limits) -> Job:
    """A Python program in an interpreter started for it: in a role of the kit, or for None just `python3 main.py`.

    The latter with all that this host's `site` does to `python3`, which may take longer than the program.
    """
    python = str(languages.python_binary())
    prelude, program = parted(source)
    if prelude:
        role = role or "script"
    in_role = (python, "-S", f"{KIT}/fresh.pyc", str(role), *languages.python_packages())
    return Job(
        role="exec",
        argv=(python, "/tmp/main.py") if role is None else in_role,
        fence=fences.for_run(limits),
        fds={},
        files=(("/tmp/main.py", program), *([("/tmp/.prelude", source)] if prelude else [])),
    )


def encoded(text: str, what: str) -> bytes:
    try:
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise InvalidSuite(f"{what} cannot be written as bytes: {error}") from None
    if len(data) > fences.MAX_STDIN_BYTES:
        raise InvalidSuite(f"{what} takes {len(data)} bytes; at most {fences.MAX_STDIN_BYTES} are allowed")
    return data


def judge_case(
    job: Job, case: StdioCase, suite: StdioSuite, starter: Starter, *, audit: bool = False
) -> tuple[TestReport, set[str]]:
    with (
        readable(encoded(case.stdin, "a case's stdin")) as stdin,
        Watch(audit) as watch,
        Run(starter, watch.join(job), stdin=stdin) as run,
    ):
        run.finish()
        wall_ms = 1000 * (time.monotonic() - run.began)
        end = fate(run)
        out, err = bytes(run.stdout.data), bytes(run.stderr.data)
        verdict, detail = end.verdict, end.detail
        if verdict is None:
            expected = encoded(case.stdout, "a case's stdout")
            right = same_output(out, expected, suite.compare, suite.rel_tol)
            verdict = Verdict.PASSED if right else Verdict.WRONG_ANSWER
            detail = "" if right else "the output differs"
        counters = run.counters()
        return TestReport(
            verdict=verdict,
            cpu_ms=round(counters.cpu_ns / 1e6, 3),
            wall_ms=round(wall_ms, 3),
            peak_memory_mb=round(counters.peak_memory_bytes / fences.MB, 1),
            stdout=shown_head(out),
            stderr=shown_tail(err),
            detail=detail,
        ), flags(run) | watch.flags(whole=left_by_itself(run))


def left_by_itself(run: Run) -> bool:
    """Whether a run ended by its own exit, and not by a signal of anybody's."""
    return run.ending is not None and run.ending.signal is None
