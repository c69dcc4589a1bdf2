"""A jail: fresh namespaces made once by bubblewrap, a warm first process in them, and one job after another.

Who runs where: the worker starts bubblewrap; bubblewrap makes the namespaces and the read-only root and becomes PID 1
= the zygote (`inside/zygote.py`), which enters the jail's cgroup. A job is one fork of it, born in that cgroup, that
drops to its uid and runs the program. Who holds the clock: the worker (`run.py`). A kill goes to the zygote, which
ends everything else in its namespace, and to the whole jail if that does not help. Who cleans up: the zygote sweeps and
tidies before it answers; a jail that cannot say it is clean, or that did anything unforeseen, is thrown away with
bubblewrap and cgroup. If the worker is killed, bubblewrap dies with it, PID 1 with bubblewrap, and the namespace with
PID 1; the empty cgroup is removed by the next `sweep`.

A bare jail (`bare.py`, levels `landlock` and `none`) has no bubblewrap: the worker starts the zygote itself, and /tmp
of a job is a folder of the jail. If the worker is killed, the zygote sees its socket close, ends its job and itself.

`Stay` is what a judge sees of all this: one job in one jail, to poll for its end, read counters, kill, close.
"""

from __future__ import annotations

import fcntl
import marshal
import os
import select
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from sandbox import languages, no_namespace
from sandbox.cgroup import Cgroups, Counters, Group
from sandbox.errors import SandboxError
from sandbox.inside.exit_marks import is_plain
from sandbox.inside.reaper import children
from sandbox.inside.zygote import ORDER
from sandbox.limits import Fence
from sandbox.no_namespace import Bare, Folder
from sandbox.procfs import Census, is_running, stands_back, tasks_of, waited_s

KIT = "/harness"  # where the zygote and the roles lie inside a jail
KILL = marshal.dumps("kill")
ANSWER_BYTES = 1 << 14  # more than PID 1 ever says
READY_S = 30.0  # from the start of bubblewrap to a warm interpreter, numpy imported, on a busy host
DEATH_S = 2.0  # from the kill of a job to the word of its jail's PID 1
BASE_STEP = 16 << 20  # how far a jail's own memory may shrink before its limit follows
EARLY = {"LD_BIND_NOW": "1"}  # for the zygote alone: what it has looked up, no forked process looks up again
ROOT_CAPABILITIES = ("CAP_SETUID", "CAP_SETGID", "CAP_SYS_ADMIN", "CAP_KILL")

Role = Literal["script", "serve", "shared", "audited_script", "audited_serve", "audited_shared", "tests", "exec"]
# What the zygote holds: the usual modules, numpy too, the test side, pytest; `helpers` are light and run checkers.
Flavour = Literal["light", "usual", "science", "tests", "pytest", "helpers"]
TEST_SIDE = ("tests", "pytest")


@dataclass(frozen=True, slots=True)
class Job:
    """What to run in a jail. Descriptors are the caller's and stay open; `fds` maps numbers in the job to them."""

    role: Role
    argv: tuple[str, ...]
    fence: Fence
    fds: Mapping[int, int]
    source: bytes = b""  # text of a Python role
    main: bool = False  # whether the source also lies in the jail, as main.py
    name: str = "__main__"  # what the program's module is called
    piped: bool = False  # whether stdin is a pipe, as for `python3 main.py`; else a file, which can be mapped
    flavour: Flavour = "light"
    program: int | None = None  # descriptor of the executable of an `exec`; None: argv[0] is a path
    files: Sequence[tuple[str, bytes]] = ()  # written before the start, readable for the job
    collect: Sequence[tuple[str, int, int]] = ()  # (path, descriptor to copy it to, most bytes)
    num_budgets: int = 1


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
    bare: Bare | None = None  # jails without bubblewrap

    def uid_of(self, flavour: Flavour) -> int | None:
        """The uid of a jail's programs; the test side never shares one with what it tests."""
        return None if self.uid is None else self.uid + int(flavour in (*TEST_SIDE, "helpers"))


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
    line += ["--ro-bind", str(plan.kit), KIT, "--tmpfs", "/dev", "--dir", "/var", "--symlink", "/tmp", "/var/tmp"]
    for name in ("passwd", "group"):
        line += ["--ro-bind", str(plan.kit / name), f"/etc/{name}"]
    for name in ("null", "zero", "full", "random", "urandom"):
        line += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        line += ["--symlink", f"/proc/self/fd/{number}", f"/dev/{name}"]
    line += ["--symlink", "/proc/self/fd", "/dev/fd", "--dir", "/dev/shm", "--dir", "/tmp"]
    if plan.uid is None:
        line += ["--perms", "1777", "--size", str(64 << 20), "--tmpfs", "/tmp"]
        line += ["--perms", "1777", "--size", str(64 << 20), "--tmpfs", "/dev/shm"]
    line += ["--remount-ro", "/dev", "--remount-ro", "/", "--clearenv"]
    for name, value in {**plan.environment, **EARLY}.items():
        line += ["--setenv", name, value]
    line += ["--chdir", "/", "--seccomp", str(seccomp), "--"]
    return [*line, *zygote(plan.python, KIT, control)]


def zygote(python: str, kit: Path | str, control: int) -> list[str]:
    return [python, "-s", "-S", "-P", f"{kit}/zygote.pyc", str(control)]


def kill_bwrap(process: subprocess.Popen[bytes]) -> None:
    """Kill bubblewrap with its process group.

    Its child waits for it before it asks to die with it; whoever kills the parent alone in that moment leaves a child
    that waits for ever. Until the child has a session of its own it is still in the group.
    """
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


class Jail:
    """One warm jail. It takes one job at a time (`Stay`); `close` ends it with all that it holds."""

    def __init__(self, plan: Blueprint, sequence: int, flavour: Flavour) -> None:
        self.plan = plan
        self.flavour = flavour
        self.jobs = 0
        self.fit = True  # to take another job
        self.busy = False  # something of a job may be alive
        self.closed = False
        self.group: Group | None = None
        self.counted: Counters | None = None  # as the group stood when the last job had ended
        self.memory_base = 0  # what the jail itself holds of its group's memory
        self.folder = None if plan.bare is None else Folder(plan.kit.parent / f"work-{sequence}")
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # The interpreter makes its standard streams over pipes, which is what every program of its kind will have.
        empty, nobody = os.pipe2(os.O_CLOEXEC)
        os.close(nobody)
        self.complaints, complain = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.complaints, False)
        self.process: subprocess.Popen[bytes] | None = None
        seccomp = memory_file("seccomp", plan.seccomp)
        try:
            if plan.cgroups is not None:
                self.group = Group.make(plan.cgroups, f"{plan.name}-{sequence}")
            if self.folder is None:
                line, environment = command(plan, theirs.fileno(), seccomp), {}
            else:
                line = zygote(plan.python, plan.kit, theirs.fileno())
                environment = self.folder.environment({**plan.environment, **EARLY})
            self.process = subprocess.Popen(
                line,
                stdin=empty,
                stdout=complain,
                stderr=complain,
                pass_fds=(theirs.fileno(), seccomp) if self.folder is None else (theirs.fileno(),),
                env=environment,
                cwd="/",
                process_group=0,
            )
            theirs.close()  # or the end of PID 1 would go unheard
            os.close(complain)
            complain = -1
            self._furnish()
        except BaseException as error:
            self.close()
            if self.process is not None:
                self.process.wait()  # killed
            if isinstance(error, OSError):
                raise SandboxError(f"a jail cannot be made: {error}") from error
            raise
        finally:
            theirs.close()
            for fd in (seccomp, empty, complain):
                if fd >= 0:
                    os.close(fd)

    def _furnish(self) -> None:
        """Tell PID 1 what to prepare, and wait until it has. Raises SandboxError with its complaint."""
        procs = self.group.open_procs() if self.group is not None else []
        setup = {
            "privileged": self.plan.uid is not None,
            "bare": self._bare_setup(),
            "kit": ["tests" if self.flavour in TEST_SIDE else "candidate"],
            "modules": [*languages.LIGHT_MODULES, *languages.WARM_MODULES.get(self.flavour, ())],
            "first": [self._runner()] if self.flavour == "pytest" else [],
            "path": list(self.plan.packages),
        }
        try:
            socket.send_fds(self.control, [marshal.dumps(setup)], procs)
        finally:
            for fd in procs:
                os.close(fd)
        if not select.select([self.control], [], [], READY_S)[0]:
            raise SandboxError(f"the jail is not ready after {READY_S:g} s; {self._complaints()}")
        self.landlock: int = self.receive()["landlock"]
        if self.group is not None:
            self.memory_base = self.group.memory_bytes()
        else:
            assert self.process is not None
            self.zygote_pid = self.process.pid if self.folder is not None else next(children(self.process.pid), -1)

    def _runner(self) -> str:
        """Where pytest lies, seen from inside."""
        return f"{KIT if self.folder is None else self.plan.kit}/lib"

    def _bare_setup(self) -> dict[str, Any] | None:
        plan, place = self.plan, self.plan.bare
        if place is None or self.folder is None:
            return None
        return {
            "work": self.folder.path,
            "uid": plan.uid_of(self.flavour),
            "broom": place.broom,
            "seccomp": plan.seccomp,
            "readable": place.readable if place.landlock else None,
            "listable": place.listable,
        }

    def receive(self) -> dict[str, Any]:
        """The next word of PID 1, which must be there. Raises SandboxError for a fault, or if PID 1 is gone."""
        try:
            data = self.control.recv(ANSWER_BYTES)
        except ConnectionResetError:  # it died with our word unread
            data = b""
        answer: dict[str, Any] = (
            marshal.loads(data) if data else {"fault": f"PID 1 of the jail is gone; {self._complaints()}"}
        )
        if "fault" in answer:
            self.fit = self.fit and answer.get("clean", False)
            raise SandboxError(f"the jail failed: {answer['fault']}")
        return answer

    def _complaints(self) -> str:
        try:
            text = os.read(self.complaints, 2000).decode(errors="replace").strip()
        except BlockingIOError:
            text = ""
        return text or "it left no message"

    def kill_job(self) -> None:
        """Ask PID 1 to kill everything but itself."""
        with suppress(OSError):  # it is gone, and everything with it
            self.control.send(KILL)

    def destroy(self) -> None:
        """Kill the whole jail. Raises SandboxError if something in a bare one does not die."""
        self.fit = False
        if self.process is None:
            return
        if self.folder is None:
            kill_bwrap(self.process)
            return
        place, uid = self.plan.bare, self.plan.uid_of(self.flavour)
        if uid is None and self.busy:
            no_namespace.end_below(self.process.pid)
        kill_bwrap(self.process)
        if uid is not None and place is not None and self.busy:
            no_namespace.end(self.plan.python, self.plan.kit, uid, place.broom)
        self.busy = False

    def close(self) -> None:
        """End the jail and whatever still runs in it. Raises SandboxError if something will not go."""
        if self.closed:
            return
        self.closed = True
        try:
            self.destroy()
            if self.group is not None:
                self.group.remove()
            if self.folder is not None and self.process is not None:
                self.process.wait()  # killed
                self.folder.remove()
        finally:
            self.control.close()
            os.close(self.complaints)


class Stay:
    """One job in a jail, from start to sweep. Use as a context manager; leaving it leaves nothing of the job behind."""

    def __init__(self, jail: Jail, job: Job, leave: Callable[[Jail], None]) -> None:
        self.jail = jail
        self.fence = job.fence
        self.leave = leave
        self.ending: Ending | None = None
        self.closed = False
        self.own_ns = 0  # CPU time that PID 1 has taken for this job
        self.census: Census | None = None
        self._last: Counters | None = None
        self.began = Counters(0, 0, 0, 0)
        jail.jobs += 1
        jail.busy = True
        try:
            group = jail.group
            if group is None:
                self.census = Census(jail.zygote_pid, job.fence.memory_bytes)
            else:
                used = group.memory_bytes()
                if not jail.memory_base - BASE_STEP < used <= jail.memory_base:
                    jail.memory_base = used + BASE_STEP // 4
                group.limit(memory_bytes=job.fence.memory_bytes + jail.memory_base, processes=job.fence.processes + 1)
                group.reset_peak()
                self.began = replace(jail.counted or group.counters(), peak_memory_bytes=used)
            self._send(job)
        except BaseException as error:
            jail.fit = False
            self.close()
            if isinstance(error, OSError):
                raise SandboxError(f"a jail does not take its job: {error}") from error
            raise

    def _send(self, job: Job) -> None:
        """Hand the job to PID 1 with its descriptors. Those that it must keep until the end come first."""
        fds: list[int] = []
        mine: list[int] = []

        def index(fd: int, *, own: bool = False) -> int:
            fds.append(fd)
            if own:
                mine.append(fd)
            return len(fds) - 1

        folder = self.jail.folder

        def place(path: str) -> bytes:
            """A name as PID 1 takes it; the one place where /tmp becomes a bare jail's own folder."""
            return os.fsencode(path if folder is None else folder.place(path))

        try:
            message: dict[str, Any] = {
                "role": job.role,
                "argv": [place(word) for word in job.argv],
                "main": job.main,
                "name": job.name,
                "plain": job.role == "script" and is_plain(job.source),
                "tmp_bytes": job.fence.tmp_bytes,
                "tmp_inodes": job.fence.tmp_inodes,
                "rlimits": job.fence.rlimits(job.num_budgets, count_processes=self.census is not None),
                "uid": self.jail.plan.uid_of(self.jail.flavour),
                "collect": [(place(path), index(fd), most) for path, fd, most in job.collect],
                "keep": len(fds),
                "fds": {target: index(fd) for target, fd in job.fds.items()},
                "program": None if job.program is None else index(job.program),
                "source": index(memory_file("source", job.source), own=True) if job.role != "exec" else None,
                "files": [(place(path), index(memory_file("file", data), own=True)) for path, data in job.files],
            }
            socket.send_fds(self.jail.control, [marshal.dumps(tuple(message[part] for part in ORDER))], fds)
        finally:
            for fd in mine:
                os.close(fd)

    def fileno(self) -> int:
        """Readable when the job has ended, or when the jail is gone."""
        return self.jail.control.fileno()

    def poll(self) -> Ending | None:
        """The job's end, if it has come. Raises SandboxError if the jail failed before the program could start."""
        if self.ending is None and select.select([self.jail.control], [], [], 0)[0]:
            try:
                answer = self.jail.receive()
            except SandboxError:
                self.jail.fit = False
                if not self.counters().oom_kills:
                    raise
                # Short of memory, the kernel took PID 1 of the jail as well: that is the job's doing.
                self.ending = Ending(None, int(signal.SIGKILL), 0.0, 0.0, 0, ())
                return self.ending
            self.jail.busy = False
            self.jail.fit = self.jail.fit and answer["clean"]
            self.own_ns = answer["own_ns"]
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

    @property
    def meter(self) -> Group | Census:
        meter = self.jail.group or self.census
        if meter is None:
            raise SandboxError("the jail was never made")
        return meter

    def is_counted(self) -> bool:
        """Whether the kernel counts, and ends what takes too much; else somebody has to look again and again."""
        return self.jail.group is not None

    def cpu_ns(self) -> int:
        """CPU time of the job's processes so far, and of PID 1 on its behalf."""
        return self.meter.cpu_ns() - self.began.cpu_ns

    def exceeds_memory(self) -> bool:
        """Whether somebody has to act on it; the kernel does where there is a cgroup."""
        return self.census is not None and self.census.exceeded()

    def exceeds_room(self) -> bool:
        """The same for files; where /tmp is a file system of its own it is as large as it is."""
        folder, fence = self.jail.folder, self.fence
        return folder is not None and folder.overflows(fence.tmp_bytes, fence.tmp_inodes)

    def counters(self) -> Counters:
        """What the job has used. Its memory is what came on top of the warm jail's, or its largest resident set."""
        if self._last is not None:
            return self._last
        began, ending = self.began, self.ending
        if self.census is not None and ending is not None:
            self.census.look()  # all are in the zygote's totals now
        now = self.meter.counters()
        spent = now.cpu_ns - began.cpu_ns - (self.own_ns if self.census is None else 0)
        peak = now.peak_memory_bytes - began.peak_memory_bytes
        if ending is not None:  # what a census has missed, and pages that the job shares with the zygote
            spent = max(spent, int(ending.cpu_ms * 1e6))
            peak = max(peak, int(ending.max_rss_mb * (1 << 20)))
        counters = Counters(
            spent, max(peak, 0), now.oom_kills - began.oom_kills, now.fork_failures - began.fork_failures
        )
        if ending is not None:
            self._last = counters
            self.jail.counted = now if self.jail.group is not None else None
        return counters

    def restart_peak(self) -> None:
        """Let the memory's peak be that of what comes now: the next test's own."""
        if self.ending is not None:
            return
        if self.jail.group is not None:
            self.jail.group.reset_peak()
        if self.census is not None:
            self.census.peak_bytes = 0

    def _members(self) -> list[int]:
        """The job's processes; those of the jail, which last, are not among them."""
        bwrap = self.jail.process.pid if self.jail.process is not None else 0
        lasting = {bwrap, *children(bwrap)}
        return [pid for pid in self.meter.pids() if pid not in lasting]

    def waits_s(self) -> dict[int, float]:
        """How long each living thread of the job has stood in line for a CPU, but for those that have asked to."""
        bwrap = self.jail.process.pid if self.jail.process is not None else 0
        try:
            cpus, nice = os.sched_getaffinity(bwrap), os.getpriority(os.PRIO_PROCESS, bwrap)
        except OSError:
            return {}
        tasks = [task for pid in self._members() for task in tasks_of(pid)]
        return {task: waited_s(task) for task in tasks if not stands_back(task, cpus, nice)}

    def is_running(self) -> bool:
        """Whether a process of the job runs now, or is ready to."""
        return any(is_running(pid) for pid in self._members())

    def kill(self) -> None:
        """Kill the job; PID 1 of the jail survives and tells how it ended."""
        self.jail.kill_job()

    def destroy(self) -> None:
        """Kill the whole jail."""
        self.jail.destroy()

    def close(self) -> None:
        """End whatever still runs of the job and leave the jail to the next. Raises SandboxError if it will not go."""
        if self.closed:
            return
        self.closed = True
        try:
            if self.ending is None and self.jail.fit:
                self._end()
            if self.jail.fit:
                self.counters()  # where the next job starts counting
        finally:
            self.leave(self.jail)

    def _end(self) -> None:
        """Kill a job that nobody waits for any more; a jail that does not say so soon is not asked again."""
        self.kill()
        try:
            if not select.select([self.jail.control], [], [], DEATH_S)[0] or self.poll() is None:
                self.jail.fit = False
        except SandboxError:
            self.jail.fit = False

    def __enter__(self) -> Stay:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
