"""Flags of `options.audit`: what a program was seen doing, and what each flag means.

The candidate's own process is the observer (`inside/audit.py`), so a flag is a hint, and its absence proves nothing: a
program can suppress and forge flags. No flag changes a verdict. Flags arrive as words through a pipe that the program
can only write to. They are read once, after the run, up to a cap; unknown words are dropped.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from plaudit.grading import Verdict
from sandbox.jail_job import JailJob
from sandbox.types import Options, TestReport

MAX_WORDS_BYTES = 4096

# The flags of `options.audit`, and what each means.
AUDIT_FLAGS = {
    "early_exit": "left before it had answered, or around its own end (`os._exit`, `execve`)",
    "operators_overridden": "has an `__eq__` or `__ne__` that agrees with everything",
    "reads_frames": "looks at stack frames, at all objects (`gc`), or traces",
    "patches_builtins": "replaced a builtin function",
    "patches_modules": "replaced a function of a library, a test runner, or the code of a function",
    "writes_results": "wrote to a descriptor, a folder or a file name where results might be",
    "reads_proc": "reads `/proc`, `/sys` or the judge's own files",
    "detects_tests": "asks whether a test runner is around",
    "signals_others": "sends signals to other processes",
    "starts_processes": "starts processes",
    "uses_network": "asks for the network",
    "calls_native": "loads native code through `ctypes`",
}


def early_exit_flags(tests: Sequence[TestReport], options: Options) -> set[str]:
    """`early_exit`, for an audited program that exited instead of answering."""
    early = options.audit and any(test.verdict is Verdict.NO_RESULT for test in tests)
    return {"early_exit"} if early else set()


class AuditPipe:
    """The reading end of one process's audit words. A context manager; if not `enabled` it does nothing."""

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled
        self.words: frozenset[str] | None = None
        self.reader = self.writer = -1

    def attached_to(self, job: JailJob) -> JailJob:
        """The job with the writing end on its next descriptor; writing there never blocks."""
        if not self.enabled:
            return job
        self.reader, self.writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        number = max([2, *job.fds]) + 1
        return replace(job, fds={**job.fds, number: self.writer})

    def read_words(self) -> frozenset[str]:
        """All words so far. Call it once the process has ended, or has answered for the last time."""
        if self.words is None and self.reader >= 0:
            data = b""
            with suppress(BlockingIOError):
                data = os.read(self.reader, MAX_WORDS_BYTES)
            words = {line.decode("ascii", "replace") for line in data.split(b"\n")}
            self.words = frozenset(words & ({"began", "ended"} | AUDIT_FLAGS.keys()))
        return self.words or frozenset()

    def flags(self, *, complete: bool = False) -> set[str]:
        """The flags to report. `complete`: the process was expected to end by itself, not to be killed."""
        words = self.read_words()
        reported = set(words & AUDIT_FLAGS.keys())
        if complete and "began" in words and "ended" not in words:
            reported.add("early_exit")
        return reported

    def close(self) -> None:
        for fd in (self.reader, self.writer):
            if fd >= 0:
                os.close(fd)
        self.reader = self.writer = -1

    def __enter__(self) -> AuditPipe:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
