"""What a finished run in a jail cost, for whoever asks to be told: `Sandbox.on_run`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sandbox.jail_job import Role

Purpose = Literal["program", "tests", "control", "compile", "checker", "interactor"]


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run in a jail.

    Attributes:
        purpose: what ran: the judged program, the test side, a control program, a compiler, a checker, an interactor.
        began_s: monotonic seconds.
        ended_s: when its jail was given back.
        cpu_ms: CPU time of its processes; 0.0 where its jail had to be destroyed.
        starved_ms: lower bound of how long it was ready to run while other processes had the CPUs. Runs of less than
            `run.SAMPLE_S` are not looked at.
    """

    purpose: Purpose
    began_s: float
    ended_s: float
    cpu_ms: float
    starved_ms: float


def purpose_of(role: Role) -> Purpose:
    """What a job of this role is for, unless its caller knows better."""
    return "tests" if role == "tests" else "program"
