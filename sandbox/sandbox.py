"""The open sandbox of one process: it makes jails, keeps them warm and discards them.

- Who runs where: a sandbox belongs to one process. Open it after a fork, not before (`open_sandbox`).
- Who cleans up: `close` removes the directory, the uids' lock and the cgroups. What a killed owner leaves, the next
  `open_sandbox` or `sweep` removes (`owners.py`).
- Level `strong`: namespaces, cgroups, seccomp, Landlock and uids of their own for programs.
- Level `userns`: the same without cgroups (a plain user, or root where no cgroup may be made). Memory and CPU time are
  sampled through /proc, and a plain user's programs share the uid of their jail.
- Level `landlock`: no namespaces (`no_namespace.py`). As root, programs have uids of their own; Landlock guards files
  and seccomp everything else.
- Level `none`: a process group and rlimits.
- A sandbox never changes its level: a jail that cannot be made again at that level is an error.

Not promised: anything against a bug in the kernel itself. For that, run the whole service in a virtual machine.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar, cast, get_args

from plaudit.grading import Level
from plaudit.languages import UnsupportedLanguage
from sandbox import languages, no_namespace, packages
from sandbox.bubblewrap import kill_bwrap
from sandbox.capabilities import HostCapabilities
from sandbox.cgroup import CgroupTrees
from sandbox.errors import IsolationUnavailable, SandboxError
from sandbox.harness import PYTEST_FOLDER, code_digest, pytest_version
from sandbox.inside import reaper
from sandbox.jail import Jail
from sandbox.jail_config import make_jail_config
from sandbox.jail_job import JailJob, JailKind
from sandbox.job_handle import JobHandle
from sandbox.languages import Language
from sandbox.owners import claim_uids, remove_home
from sandbox.procfs import start_time
from sandbox.run_records import RunRecord

UIDS_USED = b"bare"  # in the lock file of uids under which programs have run without a namespace
MAX_TEARDOWNS = 8  # jails that are being torn down at once
MAX_JOBS_PER_JAIL = 5_000
TEARDOWN_S = 10.0
SANDBOX_NUMBERS = itertools.count(1)  # of the sandboxes of this process


class Cache(Protocol):
    """What a judge remembers for the lifetime of a sandbox."""

    def close(self) -> None: ...


CacheType = TypeVar("CacheType", bound=Cache)


class Sandbox:
    """Makes jails, knows the languages, and cleans up. Use as a context manager.

    Attributes:
        level: the isolation level, the same for the whole lifetime.
        interrupt: set from any thread, it ends what runs with `Interrupted`.
        is_last_attempt: whether a run that gets no CPU is judged all the same.
        toolchain_digest: what a cached result depends on besides its inputs.
        on_run: called with what each run cost, once it has ended; None: nobody asks.
        jobs_cpu_ns: CPU time of all jobs that have ended, and of their jails on their behalf; not of starting jails.
    """

    def __init__(self, capabilities: HostCapabilities, state: Path) -> None:
        self.capabilities = capabilities
        self.level: Level = capabilities.level
        self.pid = os.getpid()
        self.name = f"plaudit-{self.pid}-{start_time(self.pid)}-{next(SANDBOX_NUMBERS)}"
        self.home = state / self.name
        self.num_made = 0
        self.jobs_cpu_ns = 0
        self.idle: dict[JailKind, list[Jail]] = {jail_kind: [] for jail_kind in get_args(JailKind)}
        self.occupied: list[Jail] = []  # jails without namespaces that have a job
        self.teardowns: list[subprocess.Popen[bytes]] = []
        self._caches: dict[type, Cache] = {}
        self.interrupt = threading.Event()
        self.is_last_attempt = False
        self.on_run: Callable[[RunRecord], None] | None = None
        self.closed = False
        self.lock = -1
        self.home.mkdir(mode=0o711, exist_ok=True)
        try:
            uid = None
            if os.geteuid() == 0:
                uid, self.lock = claim_uids(state)
            cgroups = CgroupTrees.here() if capabilities.level == "strong" else None
            if cgroups is not None:
                bases = "\n".join(str(tree.base) for tree in cgroups.trees)
                (self.home / "cgroups").write_text(bases)
            self.jail_config = make_jail_config(self.name, self.home, uid, cgroups, self.level)
            self._end_stale_processes()
            self.toolchain_digest = languages.toolchain_digest(
                self.jail_config.seccomp, pytest_version(), code_digest()
            )
        except BaseException:
            self.close()
            raise

    def _end_stale_processes(self) -> None:
        """End what a dead owner of our uids left running, where no namespace has ended it.

        The lock says that the uids are ours. The content of its file says that an earlier owner ran programs under
        them. Otherwise a process under these uids belongs to something else, and the sandbox does not open.
        """
        config = self.jail_config
        if config.no_namespace is None or config.uid is None:
            return
        used_before = os.pread(self.lock, len(UIDS_USED), 0) == UIDS_USED
        reaper_uid = config.no_namespace.reaper_uid
        deadline = time.monotonic() + TEARDOWN_S if used_before else 0.0
        while reaper.processes_of(reaper_uid) and time.monotonic() < deadline:
            time.sleep(0.01)  # a dead owner's reaper is still at work
        for uid in (reaper_uid, config.uid, config.uid + 1):
            running = reaper.processes_of(uid)
            if no_namespace.is_known_user(uid) or (running and (not used_before or uid == reaper_uid)):
                raise IsolationUnavailable(
                    f"uid {uid} is used on this host, and programs need a uid of their own: end its processes"
                )
            if running:
                no_namespace.end_uid(config.python, config.harness, uid, reaper_uid)
        os.pwrite(self.lock, UIDS_USED, 0)

    def start(self, job: JailJob) -> JobHandle:
        """Start a job in a jail of its own: a warm one, or a new one where none is idle.

        Raises:
            SandboxError: the sandbox is closed, or a jail could not be made or did not take the job.
        """
        if self.closed:
            raise SandboxError("the sandbox is closed")
        idle = self.idle[job.jail_kind]
        if self.jail_config.no_namespace is not None:
            self._require_free_uid(job)
        jail = idle.pop() if idle else self._make_jail(job.jail_kind)
        if self.jail_config.no_namespace is not None:
            self.occupied.append(jail)
        return JobHandle(jail, job, self._take_back)

    def _require_free_uid(self, job: JailJob) -> None:
        """Without namespaces two jobs of one uid could reach each other, and the sweep of one would end the other."""
        uid = self.jail_config.uid_of(job.jail_kind)
        if uid is not None and any(self.jail_config.uid_of(jail.jail_kind) == uid for jail in self.occupied):
            raise SandboxError(f"at level {self.level!r} a sandbox runs one program at a time, and one is running")

    def _make_jail(self, jail_kind: JailKind) -> Jail:
        self.num_made += 1
        self.collect(MAX_TEARDOWNS)
        return Jail(self.jail_config, self.num_made, jail_kind)

    def _take_back(self, jail: Jail, cpu_ns: int = 0) -> None:
        """Take a jail back after a job of so much CPU time. It stays warm unless worn out or changed by the job."""
        self.jobs_cpu_ns += cpu_ns
        if jail in self.occupied:
            self.occupied.remove(jail)
        if jail.reusable and jail.num_jobs < MAX_JOBS_PER_JAIL:
            self.idle[jail.jail_kind].append(jail)
            return
        if jail.process is not None:
            self.teardowns.append(jail.process)
        jail.close()

    def discard(self) -> None:
        """Close the idle jails; the next jobs get new ones."""
        for jails in self.idle.values():
            while jails:
                jail = jails.pop()
                jail.reusable = False
                self._take_back(jail)

    def collect(self, max_left: int) -> None:
        """Reap the jails whose teardown has finished, and wait until at most `max_left` teardowns are running."""
        deadline = time.monotonic() + TEARDOWN_S
        while True:
            self.teardowns[:] = [process for process in self.teardowns if process.poll() is None]
            if len(self.teardowns) <= max_left:
                return
            if time.monotonic() > deadline:
                for process in self.teardowns:
                    kill_bwrap(process)
                raise SandboxError(f"{len(self.teardowns)} jails do not end within {TEARDOWN_S:g} s")
            time.sleep(0.001)

    def cached(self, kind: type[CacheType]) -> CacheType:
        """The sandbox's one instance of `kind`, made on first use and closed with the sandbox."""
        cache = self._caches.get(kind)
        if cache is None:
            cache = self._caches[kind] = kind()
        return cast(CacheType, cache)

    @contextmanager
    def last_attempt(self) -> Iterator[None]:
        """Context of the second attempt after `Starved`: its result counts, whatever it is."""
        self.is_last_attempt = True
        try:
            yield
        finally:
            self.is_last_attempt = False

    def require_pytest(self) -> None:
        """Raises UnsupportedLanguage where test files cannot be run."""
        if not (self.jail_config.harness / PYTEST_FOLDER / "pytest").is_dir():
            raise UnsupportedLanguage(
                "tests of kind pytest and unittest need the package pytest in the executor's environment: install it"
            )

    def languages(self) -> list[Language]:
        """The languages whose toolchain is installed on this host."""
        return languages.installed()

    def packages(self, language: str) -> tuple[tuple[str, str], ...]:
        """Name and version of each package that programs of the language can import."""
        return packages.packages(language)

    def require(self, language: str) -> None:
        """Raises UnsupportedLanguage for a language whose toolchain is not installed on this host."""
        if not languages.is_installed(language):
            raise UnsupportedLanguage(f"the toolchain of {language} is not installed on this host")

    def close(self) -> None:
        """Release everything. Every job must be closed before. In a forked child this does nothing."""
        if self.closed or os.getpid() != self.pid:
            return
        self.closed = True
        for cache in self._caches.values():
            cache.close()
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
