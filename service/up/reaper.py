"""A process that outlives the supervisor by a moment, kills what is left of the tree and removes its folders.

It reads commands from standard input, one per line: `child PID STARTTIME` is a process to end, `gone PID` has ended,
`folder PATH` is to be removed. The end of the input means that the supervisor has ended, in whichever way. The reaper
ignores the signals that it can, and runs in a session of its own. It imports little, so that it starts quickly.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time

from service.up.procfs import group_and_start, start_time

WAIT_AFTER_KILL_S = 5.0


class Leftovers:
    """The processes and folders that the reaper was told of."""

    def __init__(self) -> None:
        self.children: dict[int, int] = {}  # pid: start time
        self.groups: dict[int, int] = {}  # process group: start time of the child that leads it, or led it
        self.folders: list[str] = []

    def read(self, line: str) -> None:
        """Carry out one command."""
        word, _, rest = line.rstrip("\n").partition(" ")
        if word == "child":
            pid, started = map(int, rest.split())
            self.children[pid] = self.groups[pid] = started
        elif word == "gone":
            self.children.pop(int(rest), None)
            self.groups.pop(int(rest), None)
        elif word == "folder":
            self.folders.append(rest)

    def add_groups(self) -> None:
        """Add the other members of the children's process groups, which a leader may leave behind when it ends."""
        for name in os.listdir("/proc"):
            process = group_and_start(int(name)) if name.isdigit() else None
            if process is not None and process[1] >= self.groups.get(process[0], process[1] + 1):
                self.children.setdefault(int(name), process[1])

    def alive(self) -> list[int]:
        return [pid for pid, started in self.children.items() if start_time(pid) == started]

    def wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while self.alive() and time.monotonic() < until:
            time.sleep(0.02)

    def remove(self, grace_s: float) -> None:
        """Wait for the children, to which the kernel sent SIGTERM, then kill the rest and remove the folders."""
        self.add_groups()
        self.wait(grace_s)
        for pid in self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.wait(WAIT_AFTER_KILL_S)
        for folder in self.folders:
            shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    leftovers = Leftovers()
    for line in sys.stdin:
        leftovers.read(line)
    leftovers.remove(grace_s=float(sys.argv[1]))
    from sandbox.owners import sweep  # here, and not at the top, so that the reaper starts quickly

    sweep()  # jails of executors that could not remove them


if __name__ == "__main__":
    main()
