"""Compiling, and remembering what came of it: forty tests of one program, sent one by one, need one compiler.

A program is compiled in a jail of the same kind that it will run in, and its executable is kept as a sealed file in
memory, so that no run can change what the next one runs. What is remembered depends on the source alone: flags and
toolchain are those of this process. A compiler that our limits stopped is asked again; one that refused is believed.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sandbox import languages
from sandbox import limits as fences
from sandbox.jail import Job, memory_file, reopen_read_only, seal
from sandbox.judge.texts import shown_head
from sandbox.run import Run, Starter, fate
from sandbox.types import CompileReport, Verdict

MAX_KEPT = 64
MAX_KEPT_BYTES = 128 * fences.MB


@dataclass(frozen=True, slots=True)
class Artifact:
    """What the compiler made of a source: a sealed executable, or None with its complaints."""

    fd: int | None
    size: int
    report: CompileReport

    def close(self) -> None:
        if self.fd is not None:
            os.close(self.fd)


class Artifacts:
    """The last executables made, the least recently used going first. Close it."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, Artifact] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    @contextmanager
    def of(self, source: bytes, starter: Starter) -> Iterator[tuple[int | None, CompileReport]]:
        """The executable of a C++ source as a descriptor, or None with the compiler's complaints."""
        key = hashlib.sha256(source).digest()
        artifact = self._kept.get(key)
        if artifact is None:
            artifact, lasting = compile_once(source, starter)
            if not lasting:
                yield None, artifact.report
                return
            self._keep(key, artifact)
        self._kept.move_to_end(key)
        if artifact.fd is None:
            yield None, artifact.report
            return
        executable = reopen_read_only(artifact.fd)
        try:
            yield executable, artifact.report
        finally:
            os.close(executable)

    def _keep(self, key: bytes, artifact: Artifact) -> None:
        self._kept[key] = artifact
        while len(self._kept) > 1 and (
            len(self._kept) > MAX_KEPT or sum(one.size for one in self._kept.values()) > MAX_KEPT_BYTES
        ):
            self._kept.popitem(last=False)[1].close()

    def close(self) -> None:
        while self._kept:
            self._kept.popitem()[1].close()


def compile_once(source: bytes, starter: Starter) -> tuple[Artifact, bool]:
    """Run the compiler; also answers whether the outcome is the source's own doing and would be the same again."""
    began = time.monotonic()
    made_file = memory_file("artifact", b"", sealed=False)
    try:
        job = Job(
            role="exec",
            argv=languages.compile_command(),
            fence=fences.for_compile(),
            fds={},
            files=(("/tmp/main.cpp", source),),
            collect=(("/tmp/main", made_file, fences.MAX_ARTIFACT_BYTES),),
        )
        with Run(starter, job) as run:
            run.finish()
            end = fate(run)
            size = run.ending.collected[0] if run.ending is not None else -1
            made = end.verdict is None and size > 0
            complaint = shown_head(bytes(run.stderr.data))
            if end.verdict not in (None, Verdict.RUNTIME_ERROR):
                complaint += f"\ncompiler: {end.detail}"
            elif not made and not complaint:
                complaint = f"compiler: {end.detail or 'no executable of a usable size'}"
            wall_ms = 1000 * (time.monotonic() - began)
            report = CompileReport(made, wall_ms, shown_head(bytes(run.stdout.data)), complaint)
        if made:
            seal(made_file)
            kept, made_file = made_file, -1
            return Artifact(kept, size, report), True
        return Artifact(None, 0, report), end.verdict in (None, Verdict.RUNTIME_ERROR)
    finally:
        if made_file >= 0:
            os.close(made_file)
