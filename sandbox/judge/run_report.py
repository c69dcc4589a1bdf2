"""The report of a run before its output is judged."""

from __future__ import annotations

from plaudit.grading import Verdict
from sandbox.judge.bounds import shown_head, shown_tail
from sandbox.limits import MB
from sandbox.run import JailRun, RunOutcome
from sandbox.types import TestReport


def run_report(run: JailRun, end: RunOutcome, wall_ms: float, out: bytes) -> TestReport:
    """The report of a run before its output is judged."""
    counters = run.counters()
    return TestReport(
        verdict=end.verdict or Verdict.PASSED,
        cpu_ms=round(counters.cpu_ns / 1e6, 3),
        wall_ms=round(wall_ms, 3),
        peak_memory_mb=round(counters.peak_memory_bytes / MB, 1),
        stdout=shown_head(out),
        stderr=shown_tail(bytes(run.stderr.data)),
        detail=end.detail,
    )


def left_by_itself(run: JailRun) -> bool:
    """Whether a run ended by its own exit, and not by a signal."""
    return run.job_exit is not None and run.job_exit.signal is None
