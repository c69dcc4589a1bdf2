"""Counting a jail's processes through /proc, where no cgroup may be made (level `userns`).

Coarser than a cgroup in every respect: CPU time in clock ticks, memory as a sum of resident sizes sampled by whoever
holds the clock, processes that start and end between two looks are only seen in their parent's totals. It decides the
same verdicts, later.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress

from sandbox.cgroup import Counters

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Census:
    """The processes below the first process of a jail, seen from the host."""

    def __init__(self, bwrap_pid: int, memory_bytes: int) -> None:
        self.bwrap_pid = bwrap_pid
        self.memory_bytes = memory_bytes
        self.most_cpu_ns = 0
        self.peak_bytes = 0

    def look(self) -> None:
        cpu_ticks = resident = 0
        for pid in self.pids():
            fields = stat_fields(pid)
            if fields:
                cpu_ticks += sum(int(fields[index]) for index in (11, 12, 13, 14))
                resident += int(fields[21]) * PAGE_BYTES
        self.most_cpu_ns = max(self.most_cpu_ns, cpu_ticks * 1_000_000_000 // TICKS_PER_S)
        self.peak_bytes = max(self.peak_bytes, resident)

    def pids(self) -> Iterator[int]:
        """The job's processes; bubblewrap's own and the first process of the jail are not among them."""
        for init in children(self.bwrap_pid):
            waiting = children(init)
            while waiting:
                pid = waiting.pop()
                yield pid
                waiting += children(pid)

    def cpu_ns(self) -> int:
        self.look()
        return self.most_cpu_ns

    def exceeded(self) -> bool:
        return self.peak_bytes > self.memory_bytes

    def counters(self) -> Counters:
        return Counters(self.most_cpu_ns, self.peak_bytes, int(self.exceeded()), 0)

    def kill(self) -> None:
        for pid in list(self.pids()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def stat_fields(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat from the state on; empty if the process is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []


def children(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(text) for text in file.read().split()]
    except OSError:
        return []


def waited_s(pid: int) -> float:
    """How long the thread of a process that waited longest was ready to run and did not, by the scheduler's account.

    0.0 where the kernel keeps none (it needs CONFIG_SCHED_INFO) or the process is gone.
    """
    waits = [0]
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as file:
                waits.append(int(file.read().split()[1]))
    except (OSError, ValueError, IndexError):
        return max(waits) / 1e9
    return max(waits) / 1e9
