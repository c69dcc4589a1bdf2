"""The request that goes through the judge: one program and its suite."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandbox.types import NO_OPTIONS, Limits, Options, Stop, Suite

if TYPE_CHECKING:
    from sandbox.sandbox import Sandbox


@dataclass(frozen=True, slots=True)
class JudgeRequest:
    """The argument of every judging function.

    Attributes:
        sandbox: where the program runs.
        source: the program's text, its prelude in front (`prelude.joined`).
        language: its canonical name, resolved.
        suite: what the program is judged by.
        limits: the program's, within range.
        stop: when to stop judging.
        options: as asked, `run_main` decided.
    """

    sandbox: Sandbox
    source: bytes
    language: str
    suite: Suite
    limits: Limits
    stop: Stop
    options: Options = NO_OPTIONS

    def enough_failures(self, failures: int) -> bool:
        """Whether so many failed tests end the judging."""
        return self.stop.after_failures is not None and failures >= self.stop.after_failures
