"""A run as SandboxFusion and Piston tell it: exit codes, signals, and what our limits have to say in their words."""

from __future__ import annotations

from dataclasses import dataclass

from plaudit.grading import Verdict
from sandbox.types import Report


@dataclass(frozen=True, slots=True)
class Told:
    """One run. `exit_code` is negative for a signal, as subprocess has it; `note` is our own remark, "" mostly."""

    exit_code: int
    signal: int | None
    timed_out: bool
    stdout: str
    stderr: str
    note: str
    seconds: float
    cpu_s: float


def told(report: Report) -> Told | None:
    """The run of a report; None where the program did not compile."""
    if report.output is None:
        return None
    output, test = report.output, report.tests[0]
    limited = test.verdict in (Verdict.MEMORY_LIMIT, Verdict.OUTPUT_LIMIT, Verdict.TIME_LIMIT)
    note = f"plaudit: {test.verdict.replace('_', ' ')}: {test.detail}" if limited else ""
    signal = output.signal if output.signal is not None else 9 if limited and output.exit_code is None else None
    code = -signal if signal is not None else output.exit_code or 0
    if limited and not code:
        code = -9  # it was stopped after it had ended, or in a process of its own
    return Told(
        exit_code=code,
        signal=signal,
        timed_out=test.verdict is Verdict.TIME_LIMIT,
        stdout=text(output.stdout),
        stderr=text(output.stderr),
        note=note,
        seconds=test.wall_ms / 1000,
        cpu_s=test.cpu_ms / 1000,
    )


def text(data: bytes) -> str:
    """Printed bytes as JSON can carry them: what is no UTF-8 becomes the replacement character."""
    return data.decode("utf-8", "replace")
