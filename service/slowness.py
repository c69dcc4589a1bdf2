"""Where the time of slow work went: the parts that workers measure, and the one that says why it was slow.

- A worker divides the time that it took for a job (`of_runs`, `of_batch`). The API adds what the job waited before.
- What is left is `overhead`: making jails, trying control programs, reading and comparing answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import get_args

from plaudit.schemas import SlowPart
from sandbox.run import SAMPLE_S
from sandbox.run_records import RunRecord

PARTS: tuple[SlowPart, ...] = get_args(SlowPart)
LOOKED_AT_MS = 1000 * SAMPLE_S


def of_runs(runs: Iterable[RunRecord], compute_ms: float) -> dict[str, float]:
    """The parts of a job's `compute_ms` in an executor. They add up to it.

    Runs may be there at the same time (a program and its tests), so CPU time counts at most for what is left of it.
    Whether a short run slept or was starved is not known: that time is overhead.
    """
    runs = list(runs)
    left_ms = compute_ms
    parts: dict[str, float] = {}

    def take(part: SlowPart, ms: float) -> None:
        nonlocal left_ms
        ms = min(left_ms, max(0.0, ms))
        left_ms -= ms
        if ms > 0:
            parts[part] = round(ms, 1)

    others = [run for run in runs if run.purpose != "compile"]
    compiling = [run for run in runs if run.purpose == "compile"]
    take("starvation", sum(run.starved_ms for run in compiling) + max((run.starved_ms for run in others), default=0.0))
    take("compile", sum(1000 * (run.ended_s - run.began_s) - run.starved_ms for run in compiling))
    take("cpu", sum(run.cpu_ms for run in others))
    programs = [run for run in others if run.purpose == "program"]
    lengths_ms = [1000 * (run.ended_s - run.began_s) for run in programs]
    idle_ms = (
        length_ms - run.cpu_ms - run.starved_ms
        for run, length_ms in zip(programs, lengths_ms, strict=True)
        if length_ms > LOOKED_AT_MS
    )
    tests_ms = sum(run.cpu_ms for run in others if run.purpose != "program")  # the program waits while its tests run
    take("waiting", sum(idle_ms) - tests_ms)
    take("overhead", left_ms)
    return parts


def of_batch(compute_ms: float, starved_ms: float, own_tokens: int, batch_tokens: int) -> dict[str, float]:
    """The parts of the time of batches, of which a group has `own_tokens`."""
    starved_ms = min(max(0.0, starved_ms), compute_ms)
    own_ms = (compute_ms - starved_ms) * min(1.0, own_tokens / max(1, batch_tokens))
    parts = {"starvation": starved_ms, "text": own_ms, "others": compute_ms - starved_ms - own_ms}
    return {part: round(ms, 1) for part, ms in parts.items() if ms > 0}


def with_queue(parts: Mapping[str, float] | None, queue_ms: float, compute_ms: float) -> dict[str, float]:
    """The parts of a job from its admission on. A worker that says nothing of its own makes it all overhead."""
    told: Mapping[str, float] = parts or {"overhead": round(compute_ms, 1)}
    known = {"queue": round(queue_ms, 1)} if queue_ms > 0 else {}
    known.update((part, ms) for part, ms in told.items() if part in PARTS)
    return known


def why(parts: Mapping[str, float]) -> str:
    """The largest part; `overhead` where there is none."""
    return max(parts, key=lambda part: parts[part], default="overhead")
