"""Ending processes and emptying folders where no namespace does it.

- Used by the zygote after every job of a jail without namespaces. The host runs this file as a program to end whatever
  still runs under one of its uids.
- A process is found by its uid, where jails have uids of their own (no program can change it), or by descent from the
  zygote, which adopts orphans.
- Killing by uid is `kill(-1)`, which reaches everything that the caller may signal. So a forked process takes the
  programs' uid as its effective uid (to reach them) and a third uid, which no program has, as its real and saved uid
  (so that they do not reach it). It checks that it could not even signal its own parent, and only then kills.
"""

from __future__ import annotations

import os
import stat
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

SIGKILL = 9
CLEANUP_S = 10.0
END_DEADLINE_S = 5.0
KILLED, UNSAFE = 0, 3
REACHABLE = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def children(pid: int) -> Iterator[int]:
    """The living children of a process, of whichever of its threads."""
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as file:
                yield from map(int, file.read().split())
    except OSError:
        return  # it has ended meanwhile


def descendants(pid: int) -> Iterator[int]:
    """Parents before their children."""
    waiting = list(children(pid))
    while waiting:
        child = waiting.pop()
        yield child
        waiting += children(child)


def kill_below(pid: int) -> None:
    """SIGKILL to all descendants that are seen in one look."""
    for child in list(descendants(pid)):
        try:
            os.kill(child, SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue


def kill_as_uid(uid: int, reaper_uid: int) -> int:
    """Set the uids (reaper, uid, reaper) and kill everything that these may signal. Run as root, in its own process."""
    if 0 in (uid, reaper_uid):
        return UNSAFE
    os.setgroups([])
    os.setresuid(reaper_uid, uid, reaper_uid)
    if os.getresuid() != (reaper_uid, uid, reaper_uid):
        return UNSAFE
    try:
        os.kill(os.getppid(), 0)
    except PermissionError:
        os.kill(-1, SIGKILL)
        return KILLED
    return UNSAFE  # a process that may signal root's processes would kill the whole machine


def kill_uid(uid: int, reaper_uid: int) -> None:
    """SIGKILL to all processes of a uid, by a child of this process, which is root. Raises OSError if it fails."""
    pid = os.fork()
    if pid == 0:
        status = UNSAFE
        try:
            status = kill_as_uid(uid, reaper_uid)
        finally:
            os._exit(status)
    if os.waitpid(pid, 0)[1] != KILLED:
        raise OSError(f"the processes of uid {uid} cannot be killed")


def processes_of(uid: int) -> list[int]:
    """The processes of a uid that have not ended; by any of its four uids."""
    pids = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/status", encoding="utf-8", errors="replace") as file:
                lines = dict(line.split(":", 1) for line in file if line.startswith(("State:", "Uid:")))
        except OSError:
            continue
        if str(uid) in lines.get("Uid", "").split() and lines["State"].split()[0] not in "ZX":
            pids.append(int(name))
    return pids


def remove_below(place: str) -> bool:
    """Empty a folder, however deep; whether it is empty now. Follows no link.

    A folder in a folder is moved to the top before its own contents are looked at: no path gets longer than two names,
    and nothing here calls itself.
    """
    deadline = time.monotonic() + CLEANUP_S
    number = 0
    top = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        while names := os.listdir(top):
            before = number, len(names)
            for name in names:
                if time.monotonic() > deadline:
                    return False
                number = remove(top, name, number)
            if before == (number, len(os.listdir(top))):
                return False
        return True
    finally:
        os.close(top)


def remove(top: int, name: str, number: int) -> int:
    """Remove an entry of a folder; the folders in it become entries of `top`, by new names. Returns how many so far."""
    try:
        if not stat.S_ISDIR(os.stat(name, dir_fd=top, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=top)
            return number
        folder = opened(top, name)
        try:
            for inner in os.listdir(folder):
                if stat.S_ISDIR(os.stat(inner, dir_fd=folder, follow_symlinks=False).st_mode):
                    os.close(opened(folder, inner))
                    os.rename(inner, f".{os.urandom(8).hex()}", src_dir_fd=folder, dst_dir_fd=top)
                    number += 1
                else:
                    os.unlink(inner, dir_fd=folder)
        finally:
            os.close(folder)
        os.rmdir(name, dir_fd=top)
    except OSError:
        pass  # the caller sees that it is still there
    return number


def opened(parent: int, name: str) -> int:
    """A descriptor of a folder that its owner (or root) can change from now on, whatever its mode was."""
    handle = os.open(name, REACHABLE, dir_fd=parent)
    try:
        os.chmod(f"/proc/self/fd/{handle}", 0o700)
    finally:
        os.close(handle)
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)


def end(uid: int, reaper_uid: int) -> bool:
    """Kill the processes of a uid until none is left. Returns whether none is. For a process of its own, as root."""
    deadline = time.monotonic() + END_DEADLINE_S
    while processes_of(uid):
        if time.monotonic() > deadline:
            return False
        kill_uid(uid, reaper_uid)
        time.sleep(0.001)
    return True


if __name__ == "__main__":
    sys.exit(0 if end(int(sys.argv[1]), int(sys.argv[2])) else 1)
