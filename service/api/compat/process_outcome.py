"""A run as SandboxFusion and Piston describe it: exit codes, signals, and a note where a limit ended it."""

from __future__ import annotations

from dataclasses import dataclass

from plaudit.grading import Verdict
from sandbox.types import Report

KILLED = 9  # the signal that stands for a limit


@dataclass(frozen=True, slots=True)
class ProcessOutcome:
    """One run. `exit_code` is negative for a signal, as in `subprocess`; `note` is plaudit's remark, mostly empty."""

    exit_code: int
    signal: int | None
    timed_out: bool
    stdout: str
    stderr: str
    note: str
    wall_s: float
    cpu_s: float


def process_outcome(report: Report) -> ProcessOutcome | None:
    """The run of a report; None where the program did not compile."""
    if report.output is None:
        return None
    output, test = report.output, report.tests[0]
    limited = test.verdict in (Verdict.MEMORY_LIMIT, Verdict.OUTPUT_LIMIT, Verdict.TIME_LIMIT)
    signal = output.signal
    if signal is None and limited and output.exit_code is None:
        signal = KILLED
    exit_code = -signal if signal is not None else output.exit_code or 0
    if limited and not exit_code:
        exit_code = -KILLED  # a limit was hit by another process of the run, or after the program had exited
    return ProcessOutcome(
        exit_code=exit_code,
        signal=signal,
        timed_out=test.verdict is Verdict.TIME_LIMIT,
        stdout=as_text(output.stdout),
        stderr=as_text(output.stderr),
        note=f"plaudit: {test.verdict.replace('_', ' ')}: {test.detail}" if limited else "",
        wall_s=test.wall_ms / 1000,
        cpu_s=test.cpu_ms / 1000,
    )


def as_text(data: bytes) -> str:
    """Printed bytes as JSON can carry them: what is not UTF-8 becomes the replacement character."""
    return data.decode("utf-8", "replace")
