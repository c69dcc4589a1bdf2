"""Measures a jail's processes through /proc, where no cgroup may be made (every level below `strong`).

It is coarser than a cgroup: CPU time in clock ticks; memory as a sum of resident sizes, sampled by the process that
holds the clock; a process that starts and ends between two samples is counted only in its parent's totals. The verdicts
are the same, but later.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress

from sandbox.cgroup import Counters
from sandbox.inside.reaper import descendants
from sandbox.procfs import stat_fields, unshared_bytes

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class ProcfsMeter:
    """The processes below a jail's zygote, sampled from the host.

    Those that the zygote has reaped already are in its own totals. These are read first, so that a process that ends
    meanwhile is not counted twice.
    """

    def __init__(self, zygote_pid: int, memory_bytes: int) -> None:
        self.zygote_pid = zygote_pid
        self.memory_bytes = memory_bytes + unshared_bytes(zygote_pid)  # which a forked program shares
        self.reaped_before = self.reaped()
        self.max_cpu_ns = 0
        self.peak_bytes = 0

    def sample(self) -> None:
        cpu_ticks, resident = self.reaped() - self.reaped_before, 0
        pids = []
        for pid in self.pids():
            fields = stat_fields(pid)
            if fields:
                pids.append(pid)
                cpu_ticks += sum(int(fields[index]) for index in (11, 12, 13, 14))
                resident += int(fields[21]) * PAGE_BYTES
        if resident > self.memory_bytes:  # memory mapped from files is shared; no cgroup counts it either
            resident = sum(unshared_bytes(pid) for pid in pids)
        self.max_cpu_ns = max(self.max_cpu_ns, cpu_ticks * 1_000_000_000 // TICKS_PER_S)
        self.peak_bytes = max(self.peak_bytes, resident)

    def reaped(self) -> int:
        """CPU ticks of the processes that the zygote has reaped."""
        return sum(int(ticks) for ticks in stat_fields(self.zygote_pid)[13:15])

    def pids(self) -> Iterator[int]:
        """The job's processes; the zygote is not among them."""
        return descendants(self.zygote_pid)

    def cpu_ns(self) -> int:
        self.sample()
        return self.max_cpu_ns

    def exceeded(self) -> bool:
        return self.peak_bytes > self.memory_bytes

    def counters(self) -> Counters:
        return Counters(self.max_cpu_ns, self.peak_bytes, int(self.exceeded()), 0)

    def kill(self) -> None:
        for pid in list(self.pids()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
