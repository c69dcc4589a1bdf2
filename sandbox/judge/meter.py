"""What one test used of a process that serves many tests."""

from __future__ import annotations

import time

from plaudit.grading import SEVERITY, Verdict
from sandbox.cgroup import Counters
from sandbox.judge import bounds
from sandbox.judge.bounds import encodable, shown_head, shown_tail
from sandbox.limits import MB
from sandbox.run import JailRun, RunOutcome, over_cpu, over_memory, over_output
from sandbox.types import TestReport


class TestMeter:
    """What one test used: the difference of the candidate's counters."""

    def __init__(self, run: JailRun, counted: Counters | None = None) -> None:
        """`counted`: how the counters stand now, where that has just been read."""
        self.run = run
        self.counted = counted or self.count()
        self.last: Counters | None = None  # read when the answer was judged
        self.cpu_ns, self.oom_kills = self.counted.cpu_ns, self.counted.oom_kills
        run.handle.restart_peak()
        self.began = time.monotonic()

    def count(self) -> Counters:
        if not self.run.handle.is_counted():
            self.run.handle.cpu_ns()  # the counters are those of the last look
        return self.run.counters()

    def next(self) -> TestMeter:
        """The meter of the test that follows the one reported."""
        return TestMeter(self.run, self.counted)

    def with_limits(self, outcome: RunOutcome) -> RunOutcome:
        """The outcome after all limits: a child may have been killed for memory, or a pipe may hold too much output."""
        self.run.drain()
        outcomes = [outcome]
        counters = self.last = self.count()
        if counters.oom_kills > self.oom_kills:
            outcomes.append(over_memory(self.run))
        if self.run.stdout.overflowed:
            outcomes.append(over_output(self.run))
        if self.run.handle.cpu_ns() > self.run.budget.cpu_ns:  # the clock looks every few milliseconds only
            outcomes.append(over_cpu(self.run))
        return (
            outcome
            if len(outcomes) == 1
            else min(outcomes, key=lambda candidate: SEVERITY.index(candidate.verdict or Verdict.NO_RESULT))
        )

    def report(self, verdict: Verdict, detail: str) -> TestReport:
        counters = self.counted = self.last or self.run.counters()
        return TestReport(
            verdict=verdict,
            cpu_ms=round((counters.cpu_ns - self.cpu_ns) / 1e6, 3),
            wall_ms=round(1000 * (time.monotonic() - self.began), 3),
            peak_memory_mb=round(counters.peak_memory_bytes / MB, 1),
            stdout=shown_head(self.run.stdout.take()),
            stderr=shown_tail(self.run.stderr.take()),
            detail=bounds.text(encodable(bounds.text(detail, bounds.MAX_DETAIL)), bounds.MAX_DETAIL),
        )
