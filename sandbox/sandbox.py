"""The sandbox: the walls of the best isolation level that this host can give, proven before the first program.

`Walls.probe` (`probe.py`) looks at the host. `Sandbox.open` refuses to start below the accepted level, then
proves the walls by running hostile programs through the very path that every program will take (`selftest.py`).

A sandbox belongs to one process (open it after a fork, not before). It owns a directory (named by pid and start time,
so that nobody mistakes a dead owner for a living one), a pair of uids held by a file lock, and the cgroups whose names
carry the same pair. `close` removes them; what a killed owner leaves is removed by the next `open`, or by `sweep` from
any process of the same uid.

Levels: `strong` as above. `userns`: the same jail without cgroups (a plain user, or root where no cgroup may be made),
so memory and CPU time are sampled through /proc and a plain user's programs share their jail's uid. `landlock`: no
namespaces either; root's programs have uids of their own, Landlock for files, seccomp for everything that is no file
(`bare.py`). `none`: a process group and rlimits. A sandbox has one level from its first day to its last: a jail that
cannot be made again at that level is an error.

Not promised: anything against a bug in the kernel itself; for that put the whole service in a virtual machine.
"""

from __future__ import annotations

import fcntl
import hashlib
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
from contextlib import contextmanager, suppress
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

from plaudit.grading import Level
from plaudit.languages import UnsupportedLanguage
from sandbox import languages, no_namespace
from sandbox.capabilities import Walls
from sandbox.cgroup import NAME, Cgroups, remove_stale, start_time
from sandbox.errors import SandboxError, WallsMissing
from sandbox.inside import reaper
from sandbox.jail import Blueprint, Flavour, Jail, Job, Stay, kill_bwrap
from sandbox.judge.checker_verdicts import TriedCheckers
from sandbox.judge.compile_cache import Artifacts
from sandbox.judge.control_run import Controls
from sandbox.languages import Language
from sandbox.no_namespace import Bare
from sandbox.seccomp import build_filter

FIRST_UID = 20_000
MAX_OWNERS = 2_000
FIRST_BROOM = FIRST_UID + 2 * MAX_OWNERS  # of the uids that end programs and run none
OFFENDED = ("/etc/ssl/openssl.cnf",)  # files that a toolchain can do without, but not see and be refused: Node
OURS = b"bare"  # in the lock file of uids that programs have had without a namespace around them
MAX_LEAVING = 8
JOBS_A_JAIL = 5_000
LEAVE_S = 10.0
NUMBERS = itertools.count(1)  # of the sandboxes of this process
RUNNER = "lib"  # folder of the kit with pytest
RUNNER_PACKAGES = ("pytest", "_pytest", "py", "pluggy", "iniconfig", "packaging", "pygments")
PYGMENTS = (  # the few files of it that pytest imports, of some 9 MB
    "*.py",
    "filters/*.py",
    "formatters/__init__.py",
    "formatters/_mapping.py",
    "formatters/terminal.py",
    "lexers/__init__.py",
    "lexers/_mapping.py",
    "lexers/diff.py",
    "lexers/python.py",
    "styles/__init__.py",
    "styles/_mapping.py",
)
KIT_SCRIPTS = ("zygote", "fresh_interpreter", "reaper")  # of `inside`, which are started by their paths
KIT_OF_JUDGE = ("bounds", "codec", "pandas_codec")


class Sandbox:
    """The open sandbox: makes jails, knows the languages, and cleans up. Use as a context manager."""

    def __init__(self, walls: Walls, state: Path) -> None:
        self.walls = walls
        self.level: Level = walls.level
        self.pid = os.getpid()
        self.name = f"plaudit-{self.pid}-{start_time(self.pid)}-{next(NUMBERS)}"
        self.home = state / self.name
        self.sequence = 0
        self.idle: dict[Flavour, list[Jail]] = {flavour: [] for flavour in get_args(Flavour)}
        self.staying: list[Jail] = []  # bare ones with a job
        self.leaving: list[subprocess.Popen[bytes]] = []
        self.artifacts = Artifacts()
        self.tried_checkers = TriedCheckers()
        self.controls = Controls()
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
            self.plan = blueprint(self.name, self.home, uid, cgroups, self.level)
            self._end_strangers()
            self.toolchain_digest = languages.toolchain_digest(self.plan.seccomp, runner_version(), own_code())
        except BaseException:
            self.close()
            raise

    @classmethod
    def open(cls, accept: Level = "strong") -> Sandbox:
        """Build the walls and prove them. Raises WallsMissing below `accept`, or where a wall does not hold."""
        from sandbox.selftest import prove

        walls = Walls.probe()
        walls.require(accept)
        state = state_directory()
        sweep(state)
        box = cls(walls, state)
        try:
            prove(box)
        except BaseException:
            box.close()
            raise
        return box

    def _end_strangers(self) -> None:
        """End what a dead owner of our uids has left, where no namespace has ended it.

        The lock says that the uids are ours, and what is written in its file, that they were somebody's like us: what
        else runs under them is none of our business, and we do not.
        """
        plan = self.plan
        if plan.bare is None or plan.uid is None:
            return
        ours = os.pread(self.lock, len(OURS), 0) == OURS
        sweeper = plan.bare.broom
        deadline = time.monotonic() + LEAVE_S if ours else 0.0
        while reaper.processes_of(sweeper) and time.monotonic() < deadline:
            time.sleep(0.01)  # a dead owner's is still at it
        for uid in (sweeper, plan.uid, plan.uid + 1):
            running = reaper.processes_of(uid)
            if no_namespace.is_somebody(uid) or (running and (not ours or uid == sweeper)):
                raise WallsMissing(f"uid {uid} is used on this host; programs need one that is nobody's")
            if running:
                no_namespace.end(plan.python, plan.kit, uid, sweeper)
        os.pwrite(self.lock, OURS, 0)

    def start(self, job: Job) -> Stay:
        """Start a job in a jail that nobody else is in: a warm one, or a new one where there is none."""
        if self.closed:
            raise SandboxError("the sandbox is closed")
        idle = self.idle[job.flavour]
        if self.plan.bare is not None:
            self._alone(job)
        jail = idle.pop() if idle else self._build(job.flavour)
        if self.plan.bare is not None:
            self.staying.append(jail)
        return Stay(jail, job, self._leave)

    def _alone(self, job: Job) -> None:
        """Two jobs of one uid could reach each other without namespaces, and one's sweep would end the other."""
        uid = self.plan.uid_of(job.flavour)
        if uid is not None and any(self.plan.uid_of(jail.flavour) == uid for jail in self.staying):
            raise SandboxError(f"at level {self.level!r} no two programs run at once in one sandbox")

    def _build(self, flavour: Flavour) -> Jail:
        self.sequence += 1
        self.collect(MAX_LEAVING)
        return Jail(self.plan, self.sequence, flavour)

    def _leave(self, jail: Jail) -> None:
        """Take a jail back after a job: it stays warm, unless it is worn out or anything about it is not as it was."""
        if jail in self.staying:
            self.staying.remove(jail)
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
    def final(self) -> Iterator[None]:
        """A second try at what got no CPU: whatever comes of it counts."""
        self.last_try = True
        try:
            yield
        finally:
            self.last_try = False

    def require_runner(self) -> None:
        """Raises UnsupportedLanguage where test files cannot be run."""
        if not (self.plan.kit / RUNNER / "pytest").is_dir():
            raise UnsupportedLanguage("the kinds pytest and unittest need the package pytest beside the executor")

    def languages(self) -> list[Language]:
        return languages.installed()

    def require(self, language: str) -> None:
        if not languages.is_installed(language):
            raise UnsupportedLanguage(f"the toolchain of {language} is not installed on this host")

    def close(self) -> None:
        """Give everything back. Every jail must be closed before. In a forked child this is not ours to give."""
        if self.closed or os.getpid() != self.pid:
            return
        self.closed = True
        self.artifacts.close()
        self.discard()
        self.collect(0)
        remove_home(self.home)
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
        remove_home(home)
        removed += 1
    return removed


def remove_home(home: Path) -> None:
    """Remove an owner's directory; where programs wrote, by one whom they cannot lead astray."""
    for folder in home.glob("work-*"):
        with suppress(OSError):
            reaper.remove_below(str(folder))
    shutil.rmtree(home, ignore_errors=True)


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


def compile_kit(kit: Path) -> None:
    """Compile `inside`, and what it needs of `judge`, as a package `sandbox` of its own; scripts lie beside it."""
    package = Path(__file__).parent
    inside, empty = package / "inside", package / "inside" / "__init__.py"
    sources = {f"sandbox/inside/{source.stem}": source for source in sorted(inside.glob("*.py"))}
    sources |= {f"sandbox/judge/{name}": package / "judge" / f"{name}.py" for name in KIT_OF_JUDGE}
    sources |= {"sandbox/__init__": empty, "sandbox/judge/__init__": empty}
    sources |= {name: inside / f"{name}.py" for name in KIT_SCRIPTS}
    for folder in ("sandbox", "sandbox/inside", "sandbox/judge"):
        (kit / folder).mkdir(exist_ok=True)
        (kit / folder).chmod(0o755)
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    for module, source in sources.items():
        target = kit / f"{module}.pyc"
        py_compile.compile(str(source), str(target), source.name, doraise=True, invalidation_mode=mode)
        target.chmod(0o644)


def own_code() -> bytes:
    """A digest of every file of this package: all of it has a say in some verdict."""
    here, state = Path(__file__).parent, hashlib.sha256()
    for path in sorted(here.rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            state.update(f"{path.relative_to(here)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\0".encode())
    return state.digest()


def blueprint(name: str, home: Path, uid: int | None, cgroups: Cgroups | None, level: Level) -> Blueprint:
    """Lay out the kit for the jails and everything that they share."""
    kit = home / "kit"
    kit.mkdir(mode=0o755, exist_ok=True)
    compile_kit(kit)
    write_accounts(kit, [os.geteuid()] if uid is None else [uid, uid + 1])
    copy_runner(kit / RUNNER)
    binds = ["/usr", "/bin", "/lib", "/lib64", "/sbin", "/etc/ld.so.cache", "/etc/alternatives"]
    binds += languages.settings_folders()
    home_of_python = languages.python_home()
    if not home_of_python.is_relative_to("/usr"):
        binds.append(str(home_of_python))
    binds = [path for path in binds if os.path.lexists(path)]
    masks = hidden(binds)
    bwrap = shutil.which("bwrap") or ""
    without = None
    if level in ("landlock", "none"):
        without = bare_plan(level, uid, [*binds, str(kit / RUNNER)], masks)
    elif not bwrap:
        raise WallsMissing("bubblewrap (the bwrap program)")
    return Blueprint(
        bwrap=bwrap,
        binds=tuple(binds),
        masks=masks,
        python=str(languages.python_binary()),
        packages=languages.python_packages(),
        environment=languages.ENVIRONMENT,
        kit=kit,
        seccomp=b"" if level == "none" else build_filter(lonely=without is not None, counted=cgroups is not None),
        uid=uid,
        cgroups=cgroups,
        name=name,
        bare=without,
    )


def write_accounts(kit: Path, uids: list[int]) -> None:
    """Entries for the uids of a jail: a program that asks for its user's name or home finds one."""
    accounts = {0: "root", **{uid: f"user{number or ''}" for number, uid in enumerate(uids) if uid}}
    passwd = "".join(f"{name}:x:{uid}:{uid}:{name}:/tmp:/bin/sh\n" for uid, name in accounts.items())
    for name, text in (
        ("passwd", passwd),
        ("group", "".join(f"{name}:x:{uid}:\n" for uid, name in accounts.items())),
    ):
        (kit / name).write_text(text)
        (kit / name).chmod(0o644)


def runner_version() -> bytes:
    """The version of pytest that test files are run by; empty where there is none."""
    return version("pytest").encode() if find_spec("pytest") is not None else b""


def copy_runner(folder: Path) -> None:
    """pytest and what it imports, from our own environment, for the jails of its tests; without it there are none."""
    if find_spec("pytest") is None:
        return
    for name in RUNNER_PACKAGES:
        spec = find_spec(name)
        if spec is None or spec.origin is None:
            raise SandboxError(f"pytest is installed, and {name}, which it needs, is not")
        if spec.submodule_search_locations is None:  # a single file
            folder.mkdir(exist_ok=True)
            shutil.copy2(spec.origin, folder)
            continue
        source = Path(spec.origin).parent
        if name != "pygments":
            shutil.copytree(source, folder / name, dirs_exist_ok=True)
            continue
        for part in PYGMENTS:
            compiled = Path(part).parent / "__pycache__" / f"{Path(part).stem}.*.pyc"
            for file in [*source.glob(part), *source.glob(str(compiled))]:
                target = folder / name / file.relative_to(source)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file, target)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def bare_plan(level: Level, uid: int | None, binds: list[str], masks: tuple[str, ...]) -> Bare:
    """What the jails of a level without namespaces share. Raises WallsMissing where `landlock` has no uids to use."""
    if level == "landlock" and uid is None:
        raise WallsMissing("root: a uid for programs alone needs it")
    sweeper = 0 if uid is None else FIRST_BROOM + (uid - FIRST_UID) // 2
    if level == "none":
        return Bare(sweeper, landlock=False)
    readable, listable = no_namespace.around([*binds, *(path for path in OFFENDED if os.path.lexists(path))], masks)
    return Bare(sweeper, landlock=True, readable=readable, listable=listable)


def hidden(binds: list[str]) -> tuple[str, ...]:
    """Directories of this very product that lie inside a bound one, to be covered: programs never see their judge."""
    root = Path(__file__).resolve().parent.parent
    ours = [root / package for package in ("sandbox", "service", "training")]
    if sys.prefix != sys.base_prefix:
        ours.append(Path(sys.prefix).resolve())
    bound = [Path(path) for path in binds if not os.path.islink(path)]
    return tuple(str(path) for path in ours if path.is_dir() and any(path.is_relative_to(top) for top in bound))
