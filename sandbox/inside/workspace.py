"""The workspace of a jail's jobs: what a job may write to, how that is emptied, and how its processes are ended.

- `JailWorkspace` is for a jail with namespaces: /tmp and /dev/shm, made here if this process may mount.
- `HostWorkspace` (`no_namespace`) is for a jail without: one folder of the host.
- The zygote's heap is kept from job to job, so no text of a program is read here. Names of files are overwritten once
  the job has ended (`forget`).
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import ctypes
import os
import stat
import time

from sandbox.inside import landlock, reaper

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sandbox.inside.landlock import Step

MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 2, 4, 8, 32
MNT_DETACH = 2
BYTES_HEADER = bytes.__basicsize__ - 1  # of a bytes object before its text
MAX_INODES = 256  # how far the inode numbers of a place may grow by our own files before it is renewed
SOCKETS_S = 0.05  # how long the kernel may take to free the sockets of processes that have ended
SHARED = {"/tmp": MS_NOSUID | MS_NODEV, "/dev/shm": MS_NOSUID | MS_NODEV | MS_NOEXEC}


def mount(c: Any, kind: str, target: str, flags: int, options: str) -> None:
    if c.mount(kind.encode(), target.encode(), kind.encode(), flags, options.encode()) != 0:
        raise OSError(ctypes.get_errno(), f"mount {kind} on {target}")


def forget(texts: list[bytes]) -> None:
    """Overwrite bytes that are not needed any more. Those of zero or one byte are the interpreter's own."""
    for text in texts:
        if len(text) > 1:
            ctypes.memset(id(text) + BYTES_HEADER, 0, len(text))


def collect(job: dict[str, Any], fds: list[int]) -> list[int]:
    """Copy the named files of the jail out through the host's descriptors; a size for each, -1 where there is none.

    The files lie where the job could write, so the last component is never followed and must be a regular file.
    """
    return [copy_out(path, fds[index], max_bytes) for path, index, max_bytes in job["collect"]]


def copy_out(path: bytes, target: int, max_bytes: int) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return -1
    try:
        about = os.fstat(fd)
        if not stat.S_ISREG(about.st_mode) or about.st_size > max_bytes:
            return -1
        copied = 0
        while copied < about.st_size:
            copied += os.sendfile(target, fd, copied, about.st_size - copied)
        return copied
    finally:
        os.close(fd)


class Workspace:
    """A job's folder and its own files: what is common to the workspaces with namespaces and without."""

    work: str
    main: bytes
    c: Any  # the C library
    lock: Any  # Landlock's
    mounts = False  # whether /tmp and /dev/shm are file systems of our own, made here
    next_inode = 0  # the number that the next file in /tmp gets, if no job has made any but ours

    def stage(self, inode: int) -> bool:
        """Whether a file of a job has a number that says nothing of earlier jobs; if not, it must be made again."""
        return True

    def resize(self, size: int, inodes: int) -> None:
        """Give the file systems of the job this size, in bytes and inodes; a folder of the host has none of its own."""

    def before_fork(self) -> None:
        """Reset the counter of pids, so that each job starts with the same pid. Not for the host's pids."""

    def steps_before_limits(self) -> list[Step]:
        """What the forked process does while it still has its privileges and no limits."""
        return []

    def lock_steps(self) -> list[Step]:
        """The steps with which the forked process applies Landlock to itself."""
        steps: list[Step] = self.lock.steps()
        return steps

    forget = staticmethod(forget)
    collect = staticmethod(collect)

    def kill(self) -> None:
        """SIGKILL to all processes of the job."""
        raise NotImplementedError

    def sweep(self) -> int:
        """Kill and reap what is left of the job; returns how many processes were still there."""
        raise NotImplementedError

    def tidy(self, files: list[bytes]) -> bool:
        """Empty the workspace; whether it is empty now. `files` are all that most jobs leave."""
        raise NotImplementedError

    def leave(self) -> None:
        """The host has ended. A namespace ends with this process."""

    def write_files(self, job: dict[str, Any], fds: list[int]) -> int:
        """Make the job's own files, in folders and with modes that let it change them.

        Returns:
            A descriptor to write its main file to, or -1 where it has none.
        """
        main = -1
        if job["main"]:
            main = self.make(self.main, first=True, uid=job["uid"])
        first = main < 0
        for path, index in job["files"]:
            at = path.find(b"/", len(self.work) + 1)
            while at > 0:
                folder = path[:at]
                if not os.path.isdir(folder):
                    if first:
                        os.close(self.make(folder, first=True))  # a file in the folder's place, to begin with
                        os.unlink(folder)
                        first = False
                    os.mkdir(folder)
                    os.chmod(folder, 0o777)
                    self.next_inode += 1
                forget([folder])
                at = path.find(b"/", at + 1)
            out = self.make(path, first=first)
            first = False
            try:
                os.fchmod(out, 0o666)
                size = os.fstat(fds[index]).st_size
                copied = 0
                while copied < size:
                    copied += os.sendfile(out, fds[index], copied, size - copied)
            finally:
                os.close(out)
        if first and self.mounts:
            self.stage(spare_inode(self.work))
        return main

    def make(self, path: bytes, *, first: bool, uid: int | None = None) -> int:
        """A new file in the job's folder, to be written to; of the job's uid, if one is named."""
        while True:
            if uid is not None:
                self.c.setfsgid(uid)
                self.c.setfsuid(uid)
            try:
                out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            finally:
                if uid is not None:
                    self.c.setfsuid(0)
                    self.c.setfsgid(0)
            inode = os.fstat(out).st_ino
            if not first:
                self.next_inode = max(self.next_inode, inode + 1)
            elif not self.stage(inode):
                os.close(out)
                continue
            return out


class JailWorkspace(Workspace):
    """What a job may write to: /tmp and /dev/shm, of a size, and empty when it begins; and how to end it."""

    work = "/tmp"
    main = b"/tmp/main.py"

    def __init__(self, c: Any, *, mounts: bool) -> None:
        self.c = c
        self.mounts = mounts  # whether this process may mount; otherwise bubblewrap has made both, of fixed size
        self.size = (64 << 20, 4096)  # in bytes and inodes
        self.options = "mode=1777,size=64m,nr_inodes=4096"
        self.last_pid = -1
        self.next_inode = 0  # the number that the next file in /tmp gets, if no job has made any but ours
        self.changed_ns = 0  # when /dev/shm has changed last, if no job has changed it
        if mounts:
            mount(c, "proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "")
            if os.path.exists("/proc/sys/kernel/ns_last_pid"):
                self.last_pid = os.open("/proc/sys/kernel/ns_last_pid", os.O_WRONLY | os.O_CLOEXEC)
            c.umount2(b"/proc", MNT_DETACH)
            mount(c, "proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "hidepid=2,subset=pid")
            for place, flags in SHARED.items():
                mount(c, "tmpfs", place, flags, self.options)
            self.settle()
        self.sockets = os.open("/proc/self/net/sockstat", os.O_RDONLY | os.O_CLOEXEC)
        self.num_sockets = self.used_sockets()
        self.lock = landlock.prepare(c, landlock.Reach())

    def used_sockets(self) -> bytes:
        """The kernel's line about the number of sockets in this network namespace, whichever process holds them."""
        return os.pread(self.sockets, 40, 0).partition(b"\n")[0]

    def before_fork(self) -> None:
        """Let the job's pids begin where those of every job begin."""
        if self.last_pid >= 0:
            os.pwrite(self.last_pid, b"1", 0)

    def resize(self, size: int, inodes: int) -> None:
        if self.mounts and (size, inodes) != self.size:
            options = f"mode=1777,size={size},nr_inodes={inodes}"
            for place, flags in SHARED.items():
                mount(self.c, "tmpfs", place, flags | MS_REMOUNT, options)
            self.options, self.size = options, (size, inodes)

    def settle(self) -> None:
        """Note how new file systems look."""
        self.next_inode = spare_inode(self.work) + 1
        self.changed_ns = os.stat("/dev/shm").st_ctime_ns

    def stage(self, inode: int) -> bool:
        """Whether a file of a job has a number that says nothing of earlier jobs; if not, it must be made again.

        What a job makes and removes again moves the count on, and the next job could see that.
        """
        if not self.mounts or inode == self.next_inode < MAX_INODES:
            self.next_inode += 1
            return True
        self.renew(self.work)
        return False

    def tidy(self, files: list[bytes]) -> bool:
        """Empty both places: `files` first, which are all that most jobs leave. False if something is left."""
        for path in files:
            try:
                os.unlink(path)
            except OSError:
                continue  # what stands there instead, or was in a folder, goes with the rest
        clean = self.empty("/tmp") and self.empty("/dev/shm")
        if self.mounts and os.stat("/dev/shm").st_ctime_ns != self.changed_ns:
            clean = self.renew("/dev/shm") and clean
        return clean and self.has_no_sockets()

    def has_no_sockets(self) -> bool:
        """Whether every socket of the job is gone: one in flight in a cycle outlives its process, and can be seen."""
        deadline = 0.0
        while self.used_sockets() != self.num_sockets:
            now = time.monotonic()
            deadline = deadline or now + SOCKETS_S
            if now > deadline:
                return False
            time.sleep(0.001)
        return True

    def renew(self, place: str) -> bool:
        """Mount a new, empty file system in the place of the old one."""
        if self.c.umount2(place.encode(), MNT_DETACH) != 0:
            return False
        mount(self.c, "tmpfs", place, SHARED[place], self.options)
        self.lock = self.lock.renewed()  # its rules were about the old folder
        self.settle()
        return is_empty(place)

    def empty(self, place: str) -> bool:
        if is_empty(place):
            return True
        if self.mounts:
            return self.renew(place)
        in_child(lambda: reaper.remove_below(place))
        return is_empty(place)

    def kill(self) -> None:
        """Kill everything else in this pid namespace."""
        os.kill(-1, _signal.SIGKILL)

    def sweep(self) -> int:
        """Kill and reap everything else in this pid namespace; returns how many were still there."""
        count = 0
        while (pid := self.c.waitpid(-1, None, os.WNOHANG)) > 0:
            pass  # ended by itself, its parent gone before
        if pid < 0:
            return 0
        while True:
            try:
                os.kill(-1, _signal.SIGKILL)
            except ProcessLookupError:
                count += 0  # only this process
            try:
                while True:
                    os.waitpid(-1, 0)
                    count += 1
            except ChildProcessError:
                return count


def spare_inode(place: str) -> int:
    """The number of a file that is made in a folder and gone again."""
    path = f"{place}/spare"
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        return os.fstat(fd).st_ino
    finally:
        os.close(fd)
        os.unlink(path)


def in_child(work: Any) -> None:
    """Do something in a forked process, so that what it reads does not stay in this process's memory."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def is_empty(place: str) -> bool:
    """Whether a tmpfs holds nothing but its root: one inode, no block."""
    about = os.statvfs(place)
    return about.f_files - about.f_ffree == 1 and about.f_blocks == about.f_bfree
