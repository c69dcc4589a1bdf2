"""A jail without namespaces: the zygote does what bubblewrap and PID 1 of a namespace do elsewhere.

- Levels `landlock` and `none`.
- The zygote adopts the processes that its jobs leave running (it is a subreaper). It ends them by uid, or by descent if
  programs share its uid.
- A job may write to one folder, which is private to the jail's uid.
- At `landlock` the zygote has loaded the seccomp filter for itself and all its children, and each forked process
  applies Landlock to itself: it reads the toolchains and its own folder in /proc, and writes to its folder. `none` has
  neither.
- Not promised, at either level: a program's own view of processes, mounts, host name and the sizes of folders.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time

from sandbox.inside import landlock, reaper
from sandbox.inside.workspace import Workspace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sandbox.inside.landlock import Step

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
FILTER_STEP = 8  # bytes of one instruction of a filter
SWEEP_S = 5.0
# What a locked process reads about itself; `net` and `mounts`, and `task` with another `net` in it, are about the host.
OWN_PROC = tuple(
    f"/proc/self/{name}"
    for name in (
        "auxv",
        "cmdline",
        "comm",
        "environ",
        "fd",
        "fdinfo",
        "limits",
        "maps",
        "smaps",
        "stat",
        "statm",
        "status",
    )
)


def demand(done: int, what: str) -> None:
    if done != 0:
        import ctypes

        raise OSError(ctypes.get_errno(), what)


def load_filter(c: Any, program: bytes) -> None:
    """Put the seccomp filter on this process and all that it will fork."""

    code = ctypes.create_string_buffer(program, len(program))
    head = (len(program) // FILTER_STEP).to_bytes(2, sys.byteorder)  # struct sock_fprog: a count, and where they are
    head += bytes(ctypes.sizeof(ctypes.c_void_p) - 2)
    head += ctypes.addressof(code).to_bytes(ctypes.sizeof(ctypes.c_void_p), sys.byteorder)
    demand(c.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, head, 0, 0), "seccomp")


class HostWorkspace(Workspace):
    """The workspace without namespaces: one folder of the host."""

    def __init__(self, c: Any, setup: dict[str, Any]) -> None:
        """`setup`: working folder, uid (or None) and reaper's uid, filter (or empty), readable paths (or None)."""
        self.c = c
        self.work = setup["work"]
        self.main = os.fsencode(f"{self.work}/main.py")
        self.uid: int | None = setup["uid"]
        self.reaper_uid: int = setup["reaper_uid"]
        self.lock = landlock.Lock(c, 0, -1, landlock.Reach())
        self.make_folder()
        demand(c.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "subreaper")
        demand(c.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
        if setup["seccomp"]:
            load_filter(c, setup["seccomp"])
        self.locks = setup["readable"] is not None
        if self.locks:
            reach = landlock.Reach(setup["readable"], (self.work,), (*setup["listable"], "/proc/self"), OWN_PROC)
            self.lock = landlock.prepare(c, reach)

    def make_folder(self) -> None:
        """The job's folder: ours, and open to the jail's uid alone, through its group, which cannot change its mode."""
        if self.uid is None:
            os.mkdir(self.work, 0o700)
            return
        own_gid = os.getegid()
        os.setegid(self.uid)
        try:
            os.mkdir(self.work, 0o700)
        finally:
            os.setegid(own_gid)
        os.chmod(self.work, 0o1770)

    def steps_before_limits(self) -> list[Step]:
        """In the forked process, while it may still open everything: add rules about its own folder in /proc.

        The renewed lock has the old lock's descriptor number, so the calls that apply it need not change.
        """
        return [(self.renew_lock, ())] if self.locks else []

    def renew_lock(self) -> None:
        self.lock = self.lock.renewed()

    def kill(self) -> None:
        """SIGKILL to all processes of the job."""
        if self.uid is None:
            reaper.kill_below(os.getpid())
        else:
            reaper.kill_uid(self.uid, self.reaper_uid)

    def sweep(self) -> int:
        """Kill and reap what is left. Returns how many were running. Raises OSError if a process does not end."""
        count = 0
        killed = False
        deadline = time.monotonic() + SWEEP_S
        while True:
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    count += killed  # the others had ended by themselves, their parents gone before
            except ChildProcessError:
                return count
            if time.monotonic() > deadline:
                raise OSError("a process does not end after SIGKILL")
            self.kill()
            if killed:
                time.sleep(0.001)
            killed = True

    def tidy(self, files: list[bytes]) -> bool:
        """Empty the folder; whether it is empty now."""
        return reaper.remove_below(self.work)

    def leave(self) -> None:
        """The host has ended: end everything."""
        self.sweep()
        self.tidy([])
