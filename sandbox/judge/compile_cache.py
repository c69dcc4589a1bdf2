"""Compiling, and remembering what came of it: forty tests of one program, sent one by one, need one compiler.

A program is compiled in a jail of the same kind that it will run in, and what comes of it is kept in sealed files in
memory, so that no run can change what the next one runs. What is remembered depends on the compiler's command and the
texts alone: the toolchain is that of this process. A compiler that refused is believed. One that our limits stopped is
asked again, but not for the next copies of the program: its complaints stand for a minute.
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
from sandbox import limits as fences
from sandbox.jail import Job, memory_file, reopen_read_only, seal
from sandbox.judge.truncate import shown_head
from sandbox.run import Run, Starter, fate
from sandbox.types import CompileReport, Limits

MAX_KEPT = 64
STOPPED_S = 60.0  # for how long a compiler that was stopped within its limits is not asked the same again
MAX_STOPPED = 64
MAX_KEPT_BYTES = 128 * fences.MB


@dataclass(frozen=True, slots=True)
class Work:
    """What a compiler is asked to do: its command, the files that lie in its working folder, and those it will make."""

    command: tuple[str, ...]
    files: tuple[tuple[str, bytes], ...]
    products: tuple[str, ...]

    @property
    def key(self) -> bytes:
        """SHA-256 of all of it. Every part is told by its length, so that no two works can say the same."""
        state = hashlib.sha256()
        parts = [part.encode() for part in (*self.command, "", *self.products, "")]
        for name, content in self.files:
            parts += [name.encode(), content]
        for part in parts:
            state.update(len(part).to_bytes(8, "big") + part)
        return state.digest()


@dataclass(frozen=True, slots=True)
class Artifact:
    """What the compiler made: sealed files, one a product, or none with its complaints."""

    fds: tuple[int, ...]
    size: int
    report: CompileReport

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)


class Artifacts:
    """What compilers made last, the least recently used going first. Close it."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, Artifact] = OrderedDict()
        self._stopped: OrderedDict[tuple[bytes, fences.Fence], tuple[float, CompileReport]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    @contextmanager
    def of(
        self, work: Work, starter: Starter, limits: Limits | None = None
    ) -> Iterator[tuple[tuple[int, ...] | None, CompileReport]]:
        """The products as read-only descriptors, or None with the compiler's complaints. `limits`: the program's."""
        key = work.key
        artifact = self._kept.get(key)
        if artifact is None:
            fence = fences.for_compile(limits)
            until, report = self._stopped.get((key, fence), (0.0, None))
            if report is not None and time.monotonic() < until:
                yield None, report
                return
            artifact, lasting = compile_once(work, starter, fence)
            if not lasting:
                self._stopped[key, fence] = time.monotonic() + STOPPED_S, artifact.report
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

    def _keep(self, key: bytes, artifact: Artifact) -> None:
        self._kept[key] = artifact
        while len(self._kept) > 1 and (
            len(self._kept) > MAX_KEPT or sum(one.size for one in self._kept.values()) > MAX_KEPT_BYTES
        ):
            self._kept.popitem(last=False)[1].close()

    def close(self) -> None:
        while self._kept:
            self._kept.popitem()[1].close()


def compile_once(work: Work, starter: Starter, fence: fences.Fence) -> tuple[Artifact, bool]:
    """Run the compiler; also answers whether the outcome is the source's own doing and would be the same again."""
    began = time.monotonic()
    made_files = [memory_file("artifact", b"", sealed=False) for _ in work.products]
    try:
        job = Job(
            role="exec",
            argv=work.command,
            fence=fence,
            fds={},
            files=[(f"/tmp/{name}", content) for name, content in work.files],
            collect=[
                (f"/tmp/{name}", fd, fences.MAX_ARTIFACT_BYTES)
                for name, fd in zip(work.products, made_files, strict=True)
            ],
        )
        with Run(starter, job) as run:
            run.finish()
            end = fate(run)
            sizes = run.ending.collected if run.ending is not None else ()
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
            return Artifact(kept, sum(sizes), report), True
        return Artifact((), 0, report), end.verdict in (None, Verdict.RUNTIME_ERROR)
    finally:
        for fd in made_files:
            os.close(fd)
