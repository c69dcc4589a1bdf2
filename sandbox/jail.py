"""One jail: fresh namespaces around one job, made by bubblewrap, with our own first process (`inside/init.py`) in it.

Who runs where: the worker starts bubblewrap; bubblewrap makes the namespaces and the read-only root and becomes
PID 1 = init; init forks the job's process, which enters its cgroup, drops to its uid and runs the program.
Who holds the clock: the worker (`run.py`). A kill goes to the job's cgroup first and to the whole jail if that does
not help. Who cleans up: init sweeps its namespace, `close` ends bubblewrap and removes the cgroup. If the worker is
killed, bubblewrap dies with it, PID 1 with bubblewrap, and the namespace with PID 1; the empty cgroup is removed by the
next `sweep`.

`Jail` is what a judge sees of all this: start a job, poll for its end, read counters, kill, close. A warm slot can
offer the same.
"""

from __future__ import annotations

import fcntl
import marshal
import os
import select
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sandbox.census import Census
from sandbox.cgroup import Cgroups, Counters, Group
from sandbox.errors import SandboxError
from sandbox.limits import Fence

KIT = "/harness"  # where init and the roles lie inside a jail
ROOT_CAPABILITIES = ("CAP_SETUID", "CAP_SETGID", "CAP_SYS_ADMIN", "CAP_KILL")

Role = Literal["script", "serve", "tests", "exec"]


@dataclass(frozen=True, slots=True)
class Job:
    """What to run in a jail. Descriptors are the caller's and stay open; `fds` maps numbers in the job to them."""

    role: Role
    argv: tuple[str, ...]
    fence: Fence
    fds: Mapping[int, int]
    source: bytes = b""  # text of a Python role
    program: int | None = None  # descriptor of the executable of an `exec`; None: argv[0] is a path
    files: Sequence[tuple[str, bytes]] = ()  # written before the start, readable for the job
    collect: Sequence[tuple[str, int, int]] = ()  # (path, descriptor to copy it to, most bytes)
    num_budgets: int = 1
    second_uid: bool = False


@dataclass(frozen=True, slots=True)
class Ending:
    """How a job's main process ended, told by the kernel to PID 1 of its jail."""

    exit_code: int | None
    signal: int | None
    cpu_ms: float
    max_rss_mb: float
    orphans: int
    collected: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Blueprint:
    """What all jails of one sandbox share."""

    bwrap: str
    binds: tuple[str, ...]
    masks: tuple[str, ...]
    python: str
    packages: tuple[str, ...]
    environment: Mapping[str, str]
    kit: Path
    seccomp: bytes
    uid: int | None  # None: one uid for everything (an unprivileged user namespace)
    cgroups: Cgroups | None
    name: str  # prefix of group names: plaudit-<pid>-<start time>


def memory_file(name: str, data: bytes, *, sealed: bool = True) -> int:
    """A descriptor of an unnamed file in memory with `data`, at its start."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    if sealed:
        seal(fd)
    return fd


def seal(fd: int) -> None:
    """Let nobody change a file in memory any more, through whatever descriptor of it."""
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)


def reopen_read_only(fd: int) -> int:
    """The same file through a new descriptor that can only be read and has its own position."""
    return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)


def command(plan: Blueprint, control: int, seccomp: int) -> list[str]:
    """The bubblewrap command line of a jail."""
    line = [plan.bwrap, "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    line += ["--as-pid-1", "--die-with-parent", "--new-session", "--hostname", "plaudit", "--cap-drop", "ALL"]
    if plan.uid is None:
        line += ["--unshare-user", "--proc", "/proc"]
    else:
        for capability in ROOT_CAPABILITIES:
            line += ["--cap-add", capability]
        line += ["--dir", "/proc"]
    for path in plan.binds:
        if os.path.islink(path):
            line += ["--symlink", os.readlink(path), path]
        else:
            for parent in reversed(Path(path).parents[:-1]):
                line += ["--dir", str(parent)]  # bubblewrap would make it readable for root only
            line += ["--ro-bind", path, path]
    for path in plan.masks:
        line += ["--tmpfs", path]
    line += ["--ro-bind", str(plan.kit), KIT, "--tmpfs", "/dev"]
    for name in ("null", "zero", "full", "random", "urandom"):
        line += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        line += ["--symlink", f"/proc/self/fd/{number}", f"/dev/{name}"]
    line += ["--symlink", "/proc/self/fd", "/dev/fd", "--dir", "/dev/shm", "--dir", "/tmp"]
    if plan.uid is None:
        line += ["--perms", "1777", "--size", str(64 << 20), "--tmpfs", "/tmp"]
        line += ["--perms", "1777", "--size", str(64 << 20), "--tmpfs", "/dev/shm"]
    line += ["--remount-ro", "/dev", "--remount-ro", "/", "--clearenv"]
    for name, value in plan.environment.items():
        line += ["--setenv", name, value]
    line += ["--chdir", "/", "--seccomp", str(seccomp), "--"]
    return [*line, plan.python, "-s", "-S", "-P", f"{KIT}/init.pyc", str(control)]


def kill_bwrap(process: subprocess.Popen[bytes]) -> None:
    """Kill bubblewrap with its process group.

    Its child waits for it before it asks to die with it; whoever kills the parent alone in that moment leaves a child
    that waits for ever. Until the child has a session of its own it is still in the group.
    """
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


class Jail:
    """One job in one jail, from start to sweep. Use as a context manager; leaving it leaves nothing of the job behind.

    A jail whose job has been swept takes some milliseconds more to dismantle itself; nobody waits for that. Its
    process goes to `leaving`, and the sandbox collects it later.
    """

    def __init__(self, plan: Blueprint, job: Job, sequence: int, leaving: list[subprocess.Popen[bytes]]) -> None:
        self.leaving = leaving
        self.ending: Ending | None = None
        self.closed = False
        self.group: Group | None = None
        self.census: Census | None = None
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.complaints = memory_file("complaints", b"", sealed=False)
        self.process: subprocess.Popen[bytes] | None = None
        seccomp = memory_file("seccomp", plan.seccomp)
        try:
            if plan.cgroups is not None:
                self.group = Group.make(plan.cgroups, f"{plan.name}-{sequence}")
                self.group.limit(memory_bytes=job.fence.memory_bytes, processes=job.fence.processes)
            self.process = subprocess.Popen(
                command(plan, theirs.fileno(), seccomp),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self.complaints,
                pass_fds=(theirs.fileno(), seccomp),
                env={},
                process_group=0,
            )
            if self.group is None:
                self.census = Census(self.process.pid, job.fence.memory_bytes)
            self._send(plan, job)
        except OSError as error:
            self.close()
            raise SandboxError(f"a jail cannot be made: {error}") from error
        finally:
            theirs.close()
            os.close(seccomp)

    def _send(self, plan: Blueprint, job: Job) -> None:
        """Hand the job to PID 1 with its descriptors; it reads them when it is up."""
        fds: list[int] = []
        mine: list[int] = []

        def index(fd: int, *, own: bool = False) -> int:
            fds.append(fd)
            if own:
                mine.append(fd)
            return len(fds) - 1

        uid = None if plan.uid is None else plan.uid + int(job.second_uid)
        message: dict[str, Any] = {
            "role": job.role,
            "argv": list(job.argv),
            "furnish": plan.uid is not None,
            "tmp_bytes": job.fence.tmp_bytes,
            "tmp_inodes": job.fence.tmp_inodes,
            "rlimits": job.fence.rlimits(job.num_budgets, count_processes=self.group is None),
            "uid": uid,
            "path": list(plan.packages),
        }
        try:
            message["fds"] = {target: index(fd) for target, fd in job.fds.items()}
            message["program"] = None if job.program is None else index(job.program)
            message["source"] = index(memory_file("source", job.source), own=True) if job.role != "exec" else None
            message["files"] = [(path, index(memory_file("file", data), own=True)) for path, data in job.files]
            message["collect"] = [(path, index(fd), most) for path, fd, most in job.collect]
            procs = self.group.open_procs() if self.group is not None else []
            message["cgroups"] = [index(fd, own=True) for fd in procs]
            socket.send_fds(self.control, [marshal.dumps(message)], fds)
        finally:
            for fd in mine:
                os.close(fd)

    def fileno(self) -> int:
        """Readable when the job has ended, or when the jail is gone."""
        return self.control.fileno()

    def poll(self) -> Ending | None:
        """The job's end, if it has come. Raises SandboxError if the jail failed before the program could start."""
        if self.ending is None and select.select([self.control], [], [], 0)[0]:
            try:
                data = self.control.recv(1 << 16)
            except ConnectionResetError:  # it died with our job unread
                data = b""
            answer: dict[str, Any] = (
                marshal.loads(data) if data else {"fault": f"PID 1 of the jail is gone; {self._complaints()}"}
            )
            if "fault" in answer:
                raise SandboxError(f"the jail failed: {answer['fault']}")
            status = answer["status"]
            killed = os.WIFSIGNALED(status)
            self.ending = Ending(
                exit_code=None if killed else os.WEXITSTATUS(status),
                signal=os.WTERMSIG(status) if killed else None,
                cpu_ms=1000 * (answer["user_s"] + answer["system_s"]),
                max_rss_mb=answer["max_rss_kb"] / 1024,
                orphans=answer["orphans"],
                collected=tuple(answer["collected"]),
            )
        return self.ending

    def _complaints(self) -> str:
        text = os.pread(self.complaints, 2000, 0).decode(errors="replace").strip()
        return text or "it left no message"

    @property
    def meter(self) -> Group | Census:
        meter = self.group or self.census
        if meter is None:
            raise SandboxError("the jail was never made")
        return meter

    def cpu_ns(self) -> int:
        """CPU time of the whole group so far."""
        return self.meter.cpu_ns()

    def exceeds_memory(self) -> bool:
        """Whether somebody has to act on it; the kernel does where there is a cgroup."""
        return self.census is not None and self.census.exceeded()

    def counters(self) -> Counters:
        counters = self.meter.counters()
        if self.census is not None and self.ending is not None:  # what the last look has missed
            exact = int(self.ending.cpu_ms * 1e6)
            peak = max(counters.peak_memory_bytes, int(self.ending.max_rss_mb * (1 << 20)))
            return Counters(max(counters.cpu_ns, exact), peak, counters.oom_kills, counters.fork_failures)
        return counters

    def kill(self) -> None:
        """Kill the job; PID 1 of the jail survives and tells how it ended."""
        self.meter.kill()

    def destroy(self) -> None:
        """Kill the whole jail."""
        if self.process is not None:
            kill_bwrap(self.process)

    def close(self) -> None:
        """End whatever still runs and remove every trace. Raises SandboxError if something will not go."""
        if self.closed:
            return
        self.closed = True
        try:
            if self.process is not None:
                if self.ending is None:
                    self.destroy()
                self.leaving.append(self.process)
            if self.group is not None:
                self.group.remove()
        finally:
            self.control.close()
            os.close(self.complaints)

    def __enter__(self) -> Jail:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
