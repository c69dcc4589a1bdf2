"""Outlives the supervisor by a moment and leaves nothing behind; a script of its own, standard library only.

Reads one word and its arguments a line from standard input: `child PID STARTTIME` a process to see off, `gone PID` it
ended, `folder PATH` to remove. The end of input means that the supervisor is gone, however it went. Signals at other
processes are no concern of the janitor: it ignores what it can, and lives in a session of its own.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from importlib.util import find_spec


def stat_of(pid: int) -> tuple[int, int] | None:
    """Process group and start time (clock ticks since boot) of a living process; None for the dead, zombies included.

    With the pid the start names one process for good: the kernel gives a pid out again, but not with the same start.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            state, *fields = stat.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in (b"Z", b"X") else (int(fields[1]), int(fields[18]))


def start_time(pid: int) -> int | None:
    """When a living process began; None for the dead."""
    stat = stat_of(pid)
    return stat[1] if stat else None


class Charges:
    """What the janitor has been told to see off."""

    def __init__(self) -> None:
        self.children: dict[int, int] = {}  # pid: start
        self.groups: dict[int, int] = {}  # process group: start of the child that leads, or led, it
        self.folders: list[str] = []

    def hear(self, line: str) -> None:
        word, _, rest = line.rstrip("\n").partition(" ")
        if word == "child":
            pid, started = map(int, rest.split())
            self.children[pid] = self.groups[pid] = started
        elif word == "gone":
            self.children.pop(int(rest), None)
            self.groups.pop(int(rest), None)
        elif word == "folder":
            self.folders.append(rest)

    def gather(self) -> None:
        """Take in whoever else is in the children's process groups: a leader that goes politely leaves them behind."""
        for name in os.listdir("/proc"):
            stat = stat_of(int(name)) if name.isdigit() else None
            if stat is not None and stat[1] >= self.groups.get(stat[0], stat[1] + 1):
                self.children.setdefault(int(name), stat[1])

    def alive(self) -> list[int]:
        return [pid for pid, started in self.children.items() if start_time(pid) == started]

    def wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while self.alive() and time.monotonic() < until:
            time.sleep(0.02)

    def see_off(self, grace_s: float) -> None:
        """Give the children, who have the kernel's SIGTERM already, their time; then end what is left."""
        self.gather()
        self.wait(grace_s)
        for pid in self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.wait(5.0)
        for folder in self.folders:
            shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    charges = Charges()
    for line in sys.stdin:
        charges.hear(line)
    charges.see_off(grace_s=float(sys.argv[1]))
    if find_spec("sandbox") and find_spec("sandbox.sandbox"):  # jails of executors that could not clean up themselves
        from sandbox.owners import sweep

        sweep()


if __name__ == "__main__":
    main()
