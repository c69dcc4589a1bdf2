"""Counting a jail's processes through /proc, where no cgroup may be made (every level below `strong`).

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
from sandbox.inside.reaper import descendants

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Census:
    """The processes below a jail's zygote, seen from the host.

    Those that the zygote has adopted and reaped already are in its own totals; it is asked first, so that nobody is
    counted twice who dies while we look.
    """

    def __init__(self, zygote_pid: int, memory_bytes: int) -> None:
        self.zygote_pid = zygote_pid
        self.memory_bytes = memory_bytes + own_bytes(zygote_pid)  # which a forked program shares, and did not ask for
        self.reaped_before = self.reaped()
        self.most_cpu_ns = 0
        self.peak_bytes = 0

    def look(self) -> None:
        cpu_ticks, resident = self.reaped() - self.reaped_before, 0
        pids = []
        for pid in self.pids():
            fields = stat_fields(pid)
            if fields:
                pids.append(pid)
                cpu_ticks += sum(int(fields[index]) for index in (11, 12, 13, 14))
                resident += int(fields[21]) * PAGE_BYTES
        if resident > self.memory_bytes:  # what is mapped from files is everybody's, and counted by no cgroup either
            resident = sum(own_bytes(pid) for pid in pids)
        self.most_cpu_ns = max(self.most_cpu_ns, cpu_ticks * 1_000_000_000 // TICKS_PER_S)
        self.peak_bytes = max(self.peak_bytes, resident)

    def reaped(self) -> int:
        """CPU ticks of the processes that the zygote has buried."""
        return sum(int(ticks) for ticks in stat_fields(self.zygote_pid)[13:15])

    def pids(self) -> Iterator[int]:
        """The job's processes; the zygote is not among them."""
        return descendants(self.zygote_pid)

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


def own_bytes(pid: int) -> int:
    """Resident memory of a process without the files it has mapped; 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            fields = dict(line.split(":", 1) for line in file if line.startswith(("VmRSS", "RssFile")))
    except OSError:
        return 0
    return 1024 * (int(fields.get("VmRSS", "0").split()[0]) - int(fields.get("RssFile", "0").split()[0]))


def tasks_of(pid: int) -> list[int]:
    """The ids of a process's threads; empty if it is gone."""
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        return []


def waited_s(task: int) -> float:
    """How long a thread was ready to run and did not, by the scheduler's account.

    0.0 where the kernel keeps none (it needs CONFIG_SCHED_INFO) or the thread is gone.
    """
    try:
        with open(f"/proc/{task}/schedstat", encoding="ascii") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def stands_back(task: int, cpus: set[int], nice: int) -> bool:
    """Whether a thread has asked to wait: it keeps to fewer CPUs than it was given, or lets others go first."""
    try:
        with open(f"/proc/{task}/autogroup", encoding="ascii") as file:
            group_nice = int(file.read().rpartition(" ")[2])
    except (OSError, ValueError):
        group_nice = 0
    try:
        return (
            not os.sched_getaffinity(task) >= cpus
            or os.getpriority(os.PRIO_PROCESS, task) > nice
            or os.sched_getscheduler(task) != os.SCHED_OTHER
            or group_nice > 0
        )
    except OSError:
        return True  # it is gone, and waits for nothing


def is_running(pid: int) -> bool:
    """Whether a thread of a process runs, is ready to, or waits for a disk."""
    return any(stat_fields(task)[:1] in (["R"], ["D"]) for task in tasks_of(pid))
