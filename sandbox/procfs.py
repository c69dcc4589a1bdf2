"""What /proc says about a process: start time, memory, threads, and how long they waited for a CPU."""

from __future__ import annotations

import os


def start_time(pid: int) -> int | None:
    """Start of a process in clock ticks since boot, None if there is no such process: makes a pid unambiguous."""
    fields = stat_fields(pid)
    return int(fields[19]) if fields else None


def stat_fields(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat from the state on; empty if the process is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []


def unshared_bytes(pid: int) -> int:
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
    return scheduled_s(task)[1]


def scheduled_s(task: int) -> tuple[float, float]:
    """How long a thread has run, and how long it was ready to and did not; zeros as in `waited_s`."""
    try:
        with open(f"/proc/{task}/schedstat", encoding="ascii") as file:
            ran_ns, waited_ns = file.read().split()[:2]
            return int(ran_ns) / 1e9, int(waited_ns) / 1e9
    except (OSError, ValueError):
        return 0.0, 0.0


def waits_by_choice(task: int, cpus: set[int], nice: int) -> bool:
    """Whether a thread waits by choice: it uses fewer CPUs than it was given, or has a low scheduling priority."""
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
