"""Which walls stand on this host, and the sandbox that is built inside them.

`Walls.probe` looks without building anything lasting. `Sandbox.open` refuses to start below the accepted level, then
proves the walls by running hostile programs through the very path that every program will take (`selftest.py`).

A sandbox belongs to one process (open it after a fork, not before). It owns a directory (named by pid and start time,
so that nobody mistakes a dead owner for a living one), a pair of uids held by a file lock, and the cgroups whose names
carry the same pair. `close` removes them; what a killed owner leaves is removed by the next `open`, or by `sweep` from
any process of the same uid.

Levels: `strong` as above. `userns`: the same jail without cgroups (a plain user, or root where no cgroup may be made),
so memory and CPU time are sampled through /proc and a plain user's programs share their jail's uid. Below that
(`landlock`, `none`) nothing is run by this version, whatever is accepted: the error says what is missing.

Not promised: anything against a bug in the kernel itself; for that put the whole service in a virtual machine.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import py_compile
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sandbox import languages
from sandbox.cgroup import NAME, Cgroups, remove_stale, start_time
from sandbox.errors import Interrupted, SandboxError, UnsupportedLanguage, WallsMissing
from sandbox.jail import Blueprint, Flavour, Jail, Job, Stay, kill_bwrap
from sandbox.judge.artifacts import Artifacts
from sandbox.languages import Language
from sandbox.seccomp import build_filter
from sandbox.types import Level

LEVELS: tuple[Level, ...] = ("strong", "userns", "landlock", "none")
FIRST_UID = 20_000
MAX_OWNERS = 2_000
MAX_LEAVING = 8
JOBS_A_JAIL = 5_000
LEAVE_S = 10.0
QUIET_S = 60.0
NUMBERS = itertools.count(1)  # of the sandboxes of this process
KIT_FILES = {
    "zygote": "inside/zygote.py",
    "landlock": "inside/landlock.py",
    "candidate": "inside/candidate.py",
    "fresh": "inside/fresh.py",
    "audit": "inside/audit.py",
    "tests": "inside/tests.py",
    "peer": "inside/peer.py",
    "remote": "inside/remote.py",
    "wire": "inside/wire.py",
    "codec": "judge/codec.py",
}
ADVICE = (
    "run as root with CAP_SYS_ADMIN; in Docker: --cap-add SYS_ADMIN --security-opt seccomp=unconfined "
    "--security-opt apparmor=unconfined --security-opt systempaths=unconfined --cgroupns=private and a writable "
    "/sys/fs/cgroup (or --privileged)"
)


@dataclass(frozen=True, slots=True)
class Walls:
    """What this host can give: the best level, and what stands between it and `strong`."""

    level: Level
    missing: tuple[str, ...]
    advice: str

    @classmethod
    def probe(cls) -> Walls:
        """Look for the parts of `strong`. Cheap, leaves nothing behind, proves nothing (`Sandbox.open` does)."""
        missing = []
        bwrap = shutil.which("bwrap")
        if bwrap is None:
            missing.append("bubblewrap (the bwrap program; apt-get install bubblewrap)")
        else:
            missing += namespaces_missing(bwrap)
        try:
            build_filter()
        except WallsMissing as error:
            missing.append(str(error))
        level: Level = "none" if missing else "userns"
        if os.geteuid() != 0:
            missing.append("root: own uids for programs and cgroups need it")
        else:
            missing += Cgroups.here().missing()
        return cls("strong" if not missing else level, tuple(missing), "" if not missing else ADVICE)


def namespaces_missing(bwrap: str) -> list[str]:
    """What bubblewrap itself says if it may not make the namespaces of a jail."""
    line = [bwrap, "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--ro-bind", "/", "/"]
    line += [] if os.geteuid() == 0 else ["--unshare-user"]
    done = subprocess.run([*line, "/bin/true"], capture_output=True, text=True, timeout=20, check=False)
    return [] if done.returncode == 0 else [f"namespaces ({done.stderr.strip() or 'bwrap fails without a word'})"]


class Sandbox:
    """The open sandbox: makes jails, knows the languages, and cleans up. Use as a context manager."""

    def __init__(self, walls: Walls, state: Path) -> None:
        self.walls = walls
        self.level: Level = walls.level
        self.pid = os.getpid()
        self.name = f"plaudit-{self.pid}-{start_time(self.pid)}-{next(NUMBERS)}"
        self.home = state / self.name
        self.sequence = 0
        self.idle: dict[Flavour, list[Jail]] = {"light": [], "science": [], "tests": []}
        self.leaving: list[subprocess.Popen[bytes]] = []
        self.artifacts = Artifacts()
        self.interrupt = threading.Event()
        self.last_try = False
        self.closed = False
        self.lock = -1
        self.home.mkdir(mode=0o711, exist_ok=True)
        try:
            uid = None
            if os.geteuid() == 0:
                uid, self.lock = claim_uids(state)
            cgroups = Cgroups.here() if walls.level == "strong" else None
            if cgroups is not None:
                bases = "\n".join(str(tree.base) for tree in cgroups.trees)
                (self.home / "cgroups").write_text(bases)
            self.plan = blueprint(self.name, self.home, uid, cgroups)
            self.toolchain_digest = languages.toolchain_digest(
                self.plan.seccomp, *(kit_source(path).read_bytes() for path in KIT_FILES.values())
            )
        except BaseException:
            self.close()
            raise

    @classmethod
    def open(cls, accept: Level = "strong") -> Sandbox:
        """Build the walls and prove them. Raises WallsMissing below `accept`, or where a wall does not hold."""
        from sandbox.selftest import prove

        walls = Walls.probe()
        if LEVELS.index(walls.level) > LEVELS.index(accept):
            lacks = "; ".join(walls.missing)
            raise WallsMissing(f"isolation level {accept!r} is not to be had here, missing: {lacks}. {walls.advice}")
        if walls.level not in ("strong", "userns"):
            raise WallsMissing(f"level {walls.level!r} cannot run programs, missing: {'; '.join(walls.missing)}")
        state = state_directory()
        sweep(state)
        box = cls(walls, state)
        try:
            prove(box)
        except BaseException:
            box.close()
            raise
        return box

    def start(self, job: Job) -> Stay:
        """Start a job in a jail that nobody else is in: a warm one, or a new one where there is none."""
        if self.closed:
            raise SandboxError("the sandbox is closed")
        idle = self.idle[job.flavour]
        return Stay(idle.pop() if idle else self._build(job.flavour), job, self._leave)

    def _build(self, flavour: Flavour) -> Jail:
        self.sequence += 1
        self.collect(MAX_LEAVING)
        return Jail(self.plan, self.sequence, flavour)

    def _leave(self, jail: Jail) -> None:
        """Take a jail back after a job: it stays warm, unless it is worn out or anything about it is not as it was."""
        if jail.fit and jail.jobs < JOBS_A_JAIL:
            self.idle[jail.flavour].append(jail)
            return
        if jail.process is not None:
            self.leaving.append(jail.process)
        jail.close()

    def discard(self) -> None:
        """Throw away the jails that wait for a job; the next ones are new."""
        for jails in self.idle.values():
            while jails:
                jail = jails.pop()
                jail.fit = False
                self._leave(jail)

    def collect(self, most: int) -> None:
        """Reap the jails that have dismantled themselves; wait until at most `most` are still at it."""
        deadline = time.monotonic() + LEAVE_S
        while True:
            self.leaving[:] = [process for process in self.leaving if process.poll() is None]
            if len(self.leaving) <= most:
                return
            if time.monotonic() > deadline:
                for process in self.leaving:
                    kill_bwrap(process)
                raise SandboxError(f"{len(self.leaving)} jails do not go away")
            time.sleep(0.001)

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """A second try at what got no CPU: one at a time on this host, and whatever comes of it counts.

        Only second tries wait for each other; ordinary runs of other executors go on. Who has waited for QUIET_S goes
        ahead. Raises Interrupted.
        """
        fd = os.open(self.home.parent / "quiet", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            until = time.monotonic() + QUIET_S
            while not try_lock(fd) and time.monotonic() < until:
                if self.interrupt.wait(0.05):
                    raise Interrupted("nobody wants this run any more")
            self.last_try = True
            yield
        finally:
            self.last_try = False
            os.close(fd)

    def languages(self) -> list[Language]:
        return languages.installed()

    def require(self, language: str) -> None:
        if language not in {known.name for known in self.languages()}:
            raise UnsupportedLanguage(f"the toolchain of {language} is not installed on this host")

    def close(self) -> None:
        """Give everything back. Every jail must be closed before. In a forked child this is not ours to give."""
        if self.closed or os.getpid() != self.pid:
            return
        self.closed = True
        self.artifacts.close()
        self.discard()
        self.collect(0)
        shutil.rmtree(self.home, ignore_errors=True)
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def state_directory() -> Path:
    """Where owners keep their directories: private to our uid, the same for all its processes."""
    run = Path("/run")
    place = run / "plaudit" if os.access(run, os.W_OK) else Path(tempfile.gettempdir()) / f"plaudit-{os.geteuid()}"
    place.mkdir(mode=0o711, exist_ok=True)
    about = place.lstat()
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.geteuid():
        raise SandboxError(f"{place} belongs to somebody else")
    return place


def sweep(state: Path | None = None) -> int:
    """Remove what dead owners have left: their cgroups, then their directories. Returns how many owners there were."""
    place = state_directory() if state is None else state
    removed = 0
    for home in place.glob("plaudit-*-*"):
        match = NAME.fullmatch(home.name)
        if match is None or start_time(int(match[1])) == int(match[2]):
            continue
        kill_strays(home)
        bases = [Path(line) for line in read_lines(home / "cgroups")]
        remove_stale([base for base in bases if base.is_dir()])
        shutil.rmtree(home, ignore_errors=True)
        removed += 1
    return removed


def kill_strays(home: Path) -> None:
    """End the bubblewraps of a dead owner that were caught before they could die with it (`jail.kill_bwrap`)."""
    mark = os.fsencode(home / "kit")
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "cmdline").read_bytes().split(b"\0"):
                os.kill(int(process.name), signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it has gone by itself, or is not ours


def read_lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def claim_uids(state: Path) -> tuple[int, int]:
    """A pair of uids that no other owner on this host uses, and the descriptor whose lock says so."""
    for number in range(MAX_OWNERS):
        fd = os.open(state / f"uid-{number}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            continue
        return FIRST_UID + 2 * number, fd
    raise SandboxError(f"all {MAX_OWNERS} pairs of uids are taken")


def try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def kit_source(name: str) -> Path:
    return Path(__file__).parent / name


def blueprint(name: str, home: Path, uid: int | None, cgroups: Cgroups | None) -> Blueprint:
    """Lay out the kit for the jails and everything that they share."""
    kit = home / "kit"
    kit.mkdir(mode=0o755, exist_ok=True)
    for module, source in KIT_FILES.items():
        target = kit / f"{module}.pyc"
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        py_compile.compile(str(kit_source(source)), str(target), f"{module}.py", doraise=True, invalidation_mode=mode)
        target.chmod(0o644)
    binds = ["/usr", "/bin", "/lib", "/lib64", "/sbin", "/etc/ld.so.cache", "/etc/alternatives"]
    binds += languages.settings_folders()
    home_of_python = languages.python_home()
    if not home_of_python.is_relative_to("/usr"):
        binds.append(str(home_of_python))
    binds = [path for path in binds if os.path.lexists(path)]
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise WallsMissing("bubblewrap (the bwrap program)")
    return Blueprint(
        bwrap=bwrap,
        binds=tuple(binds),
        masks=hidden(binds),
        python=str(languages.python_binary()),
        packages=languages.python_packages(),
        environment=languages.ENVIRONMENT,
        kit=kit,
        seccomp=build_filter(),
        uid=uid,
        cgroups=cgroups,
        name=name,
    )


def hidden(binds: list[str]) -> tuple[str, ...]:
    """Directories of this very product that lie inside a bound one, to be covered: programs never see their judge."""
    root = Path(__file__).resolve().parent.parent
    ours = [root / package for package in ("sandbox", "service", "training")]
    if sys.prefix != sys.base_prefix:
        ours.append(Path(sys.prefix).resolve())
    bound = [Path(path) for path in binds if not os.path.islink(path)]
    return tuple(str(path) for path in ours if path.is_dir() and any(path.is_relative_to(top) for top in bound))
