"""Compiles programs and keeps the results: forty tests of one program, sent one by one, need one compilation.

- A program is compiled in a jail of the kind that it will run in. The products are kept in sealed files in memory, so
  that a run cannot change what the next one starts.
- The key is the compiler's command and the texts; the toolchain does not change within this process.
- A rejection by the compiler is kept. If a limit stopped the compiler, its messages are kept for `STOPPED_S` seconds;
  after that it is tried again.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from plaudit.grading import Verdict
from sandbox.jail_job import JailJob
from sandbox.judge.bounds import shown_head
from sandbox.limits import MAX_ARTIFACT_BYTES, MB, JailLimits, compile_limits
from sandbox.memory_files import memory_file, reopen_read_only, seal
from sandbox.run import JailRun, Starter, classify_exit
from sandbox.types import CompileReport, Limits

MAX_KEPT = 64
STOPPED_S = 60.0  # for how long a compiler that was stopped within its limits is not asked the same again
MAX_STOPPED = 64
MAX_KEPT_BYTES = 128 * MB


@dataclass(frozen=True, slots=True)
class CompileJob:
    """One compilation: the command, the files in its working folder, and the files that it will make."""

    command: tuple[str, ...]
    files: tuple[tuple[str, bytes], ...]
    products: tuple[str, ...]

    @property
    def key(self) -> bytes:
        """SHA-256 of all of it. Every part is preceded by its length, so that no two jobs have the same key."""
        state = hashlib.sha256()
        parts = [part.encode() for part in (*self.command, "", *self.products, "")]
        for name, content in self.files:
            parts += [name.encode(), content]
        for part in parts:
            state.update(len(part).to_bytes(8, "big") + part)
        return state.digest()


@dataclass(frozen=True, slots=True)
class CompiledProgram:
    """The result of a compilation: a sealed file per product, or no files and the compiler's messages."""

    fds: tuple[int, ...]
    size: int
    report: CompileReport

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)


class CompileCache:
    """The latest compilations; the least recently used is dropped first. The owner closes it."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, CompiledProgram] = OrderedDict()
        self._stopped: OrderedDict[tuple[bytes, JailLimits], tuple[float, CompileReport]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    @contextmanager
    def products_of(
        self, compile_job: CompileJob, starter: Starter, limits: Limits | None = None
    ) -> Iterator[tuple[tuple[int, ...] | None, CompileReport]]:
        """The products as read-only descriptors, or None with the compiler's complaints. `limits`: the program's."""
        key = compile_job.key
        artifact = self._kept.get(key)
        if artifact is None:
            jail_limits = compile_limits(limits)
            until, report = self._stopped.get((key, jail_limits), (0.0, None))
            if report is not None and time.monotonic() < until:
                yield None, report
                return
            artifact, lasting = compile_once(compile_job, starter, jail_limits)
            if not lasting:
                self._stopped[key, jail_limits] = time.monotonic() + STOPPED_S, artifact.report
                while len(self._stopped) > MAX_STOPPED:
                    self._stopped.popitem(last=False)
                yield None, artifact.report
                return
            self._keep(key, artifact)
        self._kept.move_to_end(key)
        if not artifact.fds:
            yield None, artifact.report
            return
        products = tuple(reopen_read_only(fd) for fd in artifact.fds)
        try:
            yield products, artifact.report
        finally:
            for fd in products:
                os.close(fd)

    def _keep(self, key: bytes, artifact: CompiledProgram) -> None:
        self._kept[key] = artifact
        while len(self._kept) > 1 and (
            len(self._kept) > MAX_KEPT or sum(kept.size for kept in self._kept.values()) > MAX_KEPT_BYTES
        ):
            self._kept.popitem(last=False)[1].close()

    def close(self) -> None:
        while self._kept:
            self._kept.popitem()[1].close()


def compile_once(compile_job: CompileJob, starter: Starter, jail_limits: JailLimits) -> tuple[CompiledProgram, bool]:
    """Run the compiler. Also returns whether the outcome depends on the source alone, so that it may be kept."""
    began = time.monotonic()
    made_files = [memory_file("artifact", b"", sealed=False) for _ in compile_job.products]
    try:
        job = JailJob(
            role="exec",
            argv=compile_job.command,
            limits=jail_limits,
            fds={},
            files=[(f"/tmp/{name}", content) for name, content in compile_job.files],
            collect=[
                (f"/tmp/{name}", fd, MAX_ARTIFACT_BYTES)
                for name, fd in zip(compile_job.products, made_files, strict=True)
            ],
        )
        with JailRun(starter, job, purpose="compile") as run:
            run.finish()
            end = classify_exit(run)
            sizes = run.job_exit.collected if run.job_exit is not None else ()
            made = end.verdict is None and bool(sizes) and all(size > 0 for size in sizes)
            complaint = shown_head(bytes(run.stderr.data))
            if end.verdict not in (None, Verdict.RUNTIME_ERROR):
                complaint += f"\ncompiler: {end.detail}"
            elif not made and not complaint and not run.stdout.data:
                complaint = f"compiler: {end.detail or 'no executable of a usable size'}"
            wall_ms = 1000 * (time.monotonic() - began)
            report = CompileReport(made, wall_ms, shown_head(bytes(run.stdout.data)), complaint)
        if made:
            for fd in made_files:
                seal(fd)
            kept, made_files = tuple(made_files), []
            return CompiledProgram(kept, sum(sizes), report), True
        return CompiledProgram((), 0, report), end.verdict in (None, Verdict.RUNTIME_ERROR)
    finally:
        for fd in made_files:
            os.close(fd)
