"""Running without judging: one run, and everything that it printed and left behind is the answer.

What comes back was made by the program; nothing here says whether it is right. Names of files are checked on this side
of the wall: they are plain relative paths, and what is read back lies in the working folder itself, so that no link
of the program's making can stand between its name and it.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from dataclasses import replace

from plaudit.grading import Verdict
from sandbox import limits as fences
from sandbox.errors import InvalidSuite
from sandbox.jail import Job, memory_file
from sandbox.judge.audit import Watch
from sandbox.judge.stdio import encoded, left_by_itself, readable
from sandbox.judge.truncate import shown_head, shown_tail
from sandbox.run import Run, Starter, fate, flags
from sandbox.types import Output, RunSuite, TestReport

FOLDER = "/tmp/"
MAIN = FOLDER + "main.py"  # where the program itself lies, unless a file of the caller's has that name
MAX_NAME_BYTES = 200


def path_of(name: str, *, flat: bool = False) -> str:
    """Where a file of this name lies in the jail. Raises InvalidSuite for one that would lie elsewhere."""
    relative = name.removeprefix(FOLDER)
    parts = relative.split("/")
    if not relative or "\0" in relative or any(part in ("", ".", "..") for part in parts):
        raise InvalidSuite(f"file {name!r}: takes a plain path under the working folder")
    if flat and len(parts) > 1:
        raise InvalidSuite(f"file {name!r}: only files in the working folder itself can be fetched")
    if len(encoded(relative, "a file's name")) > MAX_NAME_BYTES:
        raise InvalidSuite(f"file {name[:50]!r}…: the name is longer than {MAX_NAME_BYTES} bytes")
    return FOLDER + relative


def check_run(suite: RunSuite) -> None:
    """Raises InvalidSuite, naming the limit."""
    if len(suite.files) > fences.MAX_FILES or len(suite.fetch) > fences.MAX_FETCHED:
        raise InvalidSuite(f"at most {fences.MAX_FILES} files can be given and {fences.MAX_FETCHED} fetched")
    check_arguments(suite.args)
    size = sum(len(content) for _, content in suite.files)
    if size > fences.MAX_FILES_BYTES:
        raise InvalidSuite(f"the files take {size} bytes; at most {fences.MAX_FILES_BYTES} are allowed")
    names = [path_of(name) for name, _ in suite.files]
    for name in suite.fetch:
        path_of(name, flat=True)
    if len(set(names)) != len(names):
        raise InvalidSuite("two files have the same name")
    for name in names:
        if any(other.startswith(f"{name}/") for other in names):
            raise InvalidSuite(f"file {name!r} is also a folder of another")


def check_arguments(args: tuple[str, ...]) -> None:
    """Raises InvalidSuite for arguments that no program can be started with."""
    if len(args) > fences.MAX_ARGUMENTS:
        raise InvalidSuite(f"args: {len(args)} of them; at most {fences.MAX_ARGUMENTS} can be given")
    size = sum(len(encoded(argument, "an argument")) for argument in args)
    if size > fences.MAX_ARGUMENTS_BYTES:
        raise InvalidSuite(f"args: {size} bytes; at most {fences.MAX_ARGUMENTS_BYTES} can be given")
    if any("\0" in argument for argument in args):
        raise InvalidSuite("args: an argument cannot hold a NUL character")


def given_files(suite: RunSuite) -> tuple[tuple[str, bytes], ...]:
    """The files of a run by their names in the working folder."""
    return tuple((path_of(name).removeprefix(FOLDER), content) for name, content in suite.files)


def run_once(
    job: Job, suite: RunSuite, starter: Starter, *, audit: bool = False
) -> tuple[TestReport, Output, set[str]]:
    """One run: how it fared, what it left, and what is worth saying beside."""
    files = [(path_of(name), content) for name, content in suite.files]
    with ExitStack() as ends:
        copies = [memory_file("fetched", b"", sealed=False) for _ in suite.fetch]
        for fd in copies:
            ends.callback(os.close, fd)
        collect = [
            (path_of(name, flat=True), fd, fences.MAX_FETCHED_BYTES)
            for name, fd in zip(suite.fetch, copies, strict=True)
        ]
        main = job.main and MAIN not in dict(files)
        argv = (*job.argv, *suite.args)
        job = replace(job, argv=argv, files=(*job.files, *files), main=main, collect=collect)
        stdin = ends.enter_context(readable(encoded(suite.stdin, "stdin"), pipe=job.piped))
        watch = ends.enter_context(Watch(audit))
        run = ends.enter_context(Run(starter, watch.join(job), stdin=stdin))
        run.finish()
        wall_ms = 1000 * (time.monotonic() - run.began)
        end, counters = fate(run), run.counters()
        assert run.ending is not None
        sizes = run.ending.collected or (-1,) * len(copies)
        output = Output(
            exit_code=run.ending.exit_code,
            signal=run.ending.signal,
            stdout=bytes(run.stdout.data),
            stderr=bytes(run.stderr.data),
            files={
                name: os.pread(fd, size, 0)
                for name, fd, size in zip(suite.fetch, copies, sizes, strict=True)
                if size >= 0
            },
        )
        report = TestReport(
            verdict=end.verdict or Verdict.PASSED,
            cpu_ms=round(counters.cpu_ns / 1e6, 3),
            wall_ms=round(wall_ms, 3),
            peak_memory_mb=round(counters.peak_memory_bytes / fences.MB, 1),
            stdout=shown_head(output.stdout),
            stderr=shown_tail(output.stderr),
            detail=end.detail,
        )
        return report, output, flags(run) | watch.flags(whole=left_by_itself(run))
