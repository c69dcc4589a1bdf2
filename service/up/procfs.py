"""Which processes live, read from /proc. With its start time a pid names one process: the kernel reuses pids alone."""

from __future__ import annotations

from sandbox.procfs import stat_fields


def group_and_start(pid: int) -> tuple[int, int] | None:
    """Process group and start time, in clock ticks since boot, of a living process; None for others and zombies."""
    fields = stat_fields(pid)
    return None if not fields or fields[0] in ("Z", "X") else (int(fields[2]), int(fields[19]))


def start_time(pid: int) -> int | None:
    """Start time of a living process, in clock ticks since boot; None for others and zombies."""
    process = group_and_start(pid)
    return process[1] if process else None
