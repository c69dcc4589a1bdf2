"""Judging by standard input and output: one run a case, bytes compared here, where the program never was.

A C++ program is compiled once, in a jail of the same kind, and its executable is kept as a sealed file in memory.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from sandbox import languages
from sandbox import limits as fences
from sandbox.errors import InvalidSuite
from sandbox.jail import Job, memory_file, reopen_read_only, seal
from sandbox.judge.compare import same_output
from sandbox.judge.texts import shown_head, shown_tail
from sandbox.run import Run, Starter, fate, flags
from sandbox.types import CompileReport, Limits, StdioCase, StdioSuite, TestReport, Verdict


@contextmanager
def compiled(source: bytes, starter: Starter) -> Iterator[tuple[int | None, CompileReport]]:
    """The executable of a program as a descriptor, or None with the compiler's complaints."""
    began = time.monotonic()
    artifact = memory_file("artifact", b"", sealed=False)
    try:
        job = Job(
            role="exec",
            argv=languages.compile_command(),
            fence=fences.for_compile(),
            fds={},
            files=(("/tmp/main.cpp", source),),
            collect=(("/tmp/main", artifact, fences.MAX_ARTIFACT_BYTES),),
        )
        with Run(starter, job) as run:
            run.finish()
            end = fate(run)
            made = end.verdict is None and run.ending is not None and run.ending.collected[0] > 0
            complaint = shown_head(bytes(run.stderr.data))
            if end.verdict not in (None, Verdict.RUNTIME_ERROR):
                complaint += f"\ncompiler: {end.detail}"
            elif not made and not complaint:
                complaint = f"compiler: {end.detail or 'no executable of a usable size'}"
            wall_ms = 1000 * (time.monotonic() - began)
            report = CompileReport(made, wall_ms, shown_head(bytes(run.stdout.data)), complaint)
        if not made:
            yield None, report
            return
        seal(artifact)  # one run of the program must not change what the next one runs
        executable = reopen_read_only(artifact)
        try:
            yield executable, report
        finally:
            os.close(executable)
    finally:
        os.close(artifact)


def script_job(source: bytes, limits: Limits) -> Job:
    return Job(
        role="script",
        argv=("/tmp/main.py",),
        fence=fences.for_run(limits),
        fds={},
        source=source,
        files=(("/tmp/main.py", source),),
    )


def native_job(executable: int, limits: Limits) -> Job:
    fence = fences.for_run(limits, native=True)
    return Job(role="exec", argv=("/tmp/main",), fence=fence, fds={}, program=executable)


def encoded(text: str, what: str) -> bytes:
    try:
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise InvalidSuite(f"{what} cannot be written as bytes: {error}") from None
    if len(data) > fences.MAX_STDIN_BYTES:
        raise InvalidSuite(f"{what} takes {len(data)} bytes; at most {fences.MAX_STDIN_BYTES} are allowed")
    return data


def judge_case(job: Job, case: StdioCase, suite: StdioSuite, starter: Starter) -> tuple[TestReport, set[str]]:
    stdin = memory_file("stdin", encoded(case.stdin, "a case's stdin"))
    try:
        readable = reopen_read_only(stdin)
    finally:
        os.close(stdin)
    try:
        with Run(starter, job, stdin=readable) as run:
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
            ), flags(run)
    finally:
        os.close(readable)
