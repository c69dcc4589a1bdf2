"""`plaudit up` as one process tree under a mark of its own, and whatever of it can be found on this host afterwards."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import Any

import httpx
import redis

from service.queue.keys import GROUP, Keys
from service.up.procfs import group_and_start
from support.stack import Process, wait_for

STATE = Path("/run/plaudit")  # where sandboxes of root keep their directories
ROLES = {"scorer": "worker score", "executor": "worker execute", "api": "service.cli serve", "broker": "unixsocket"}


def children_of(pid: int) -> list[int]:
    return [int(child) for child in _read(f"/proc/{pid}/task/{pid}/children").split()]


def argv_of(pid: int) -> str:
    return _read(f"/proc/{pid}/cmdline").replace("\0", " ")


def _read(path: str) -> str:
    """A file of /proc, empty once its process has gone."""
    try:
        return Path(path).read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""


class Whole:
    """A context manager; leaving it ends the tree. `settings` are environment variables without their prefix.

    Everything it makes is findable: its processes carry the mark in their environment, or the temporary folder in
    their command line; its jails and cgroups carry the pid and start of an executor that was `noted`.
    """

    def __init__(self, model: Path, **settings: str) -> None:
        self.mark = f"whole-{uuid.uuid4().hex[:12]}"
        self.tmp = Path(tempfile.mkdtemp(prefix="pw-", dir="/tmp"))  # short: it holds a socket
        self.log = Path(tempfile.mkdtemp(prefix="pw-log-", dir="/tmp")) / "log"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PLAUDIT_")}
        told = {"namespace": self.mark, "isolation_accept": "userns", "model": f"default={model}", **settings}
        self.environ = (
            inherited
            | {f"PLAUDIT_{name.upper()}": value for name, value in told.items()}
            | {
                "TMPDIR": str(self.tmp),
                "OMP_NUM_THREADS": "1",
                "HF_HUB_OFFLINE": "1",
            }
        )
        self.seen: dict[int, int] = {}  # pid: start
        self.mounts = self._mounts()

    def start(self) -> None:
        self.process = Process(["up", "--port", "0"], self.log, self.environ)
        self.url = str(self.process.line()["url"])
        self.note()

    @property
    def pid(self) -> int:
        return self.process.pid

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60, trust_env=False, **options)

    def async_client(self) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        return httpx.AsyncClient(base_url=self.url, timeout=60, trust_env=False, limits=limits)

    def of_role(self, role: str) -> list[int]:
        return sorted(pid for pid in children_of(self.pid) if ROLES[role] in argv_of(pid))

    def replaced(self, role: str, pid: int) -> bool:
        """Whether another process has taken the post of this one."""
        now = self.of_role(role)
        return pid not in now and bool(now)

    def note(self) -> None:
        """Remember who belongs to the tree just now."""
        todo = [self.pid]
        while todo:
            pid = todo.pop()
            if (stat := group_and_start(pid)) is not None:
                self.seen[pid] = stat[1]
            todo += children_of(pid)

    # --- its queue, seen from below ----------------------------------------------------------------------------------

    def redis(self) -> redis.Redis:
        """A connection to its own broker; close it."""
        return redis.Redis(unix_socket_path=str(next(self.tmp.glob("plaudit-*/s"))))

    def depth(self, client: redis.Redis, queue: str) -> int:
        """How many jobs wait or run."""
        return int(client.zcard(Keys(self.mark).live(queue)))  # type: ignore[arg-type]

    def in_hand(self, client: redis.Redis, queue: str, pid: int) -> int:
        """How many jobs the worker with this pid has leased."""
        found = 0
        for stream in Keys(self.mark).streams(queue):
            pending: Any = client.xpending(stream, GROUP)
            found += sum(one["pending"] for one in pending["consumers"] if f"-{pid}-" in one["name"].decode())
        return found

    def ready(self) -> bool:
        try:
            with self.client() as client:
                return client.get("/ready").status_code == 200
        except httpx.TransportError:
            return False

    def logged(self) -> str:
        return self.log.read_text()[-6000:]

    # --- what is left ------------------------------------------------------------------------------------------------

    def left(self) -> dict[str, list[str]]:
        """Every trace of the tree on this host; empty lists when there is none."""
        return {
            "processes": self._processes(),
            "mounts": sorted(self._mounts() - self.mounts),
            "cgroups": self._cgroups(),
            "sockets": self._sockets(),
            "folders": self._folders(),
        }

    def _owners(self) -> set[str]:
        """The names that sandboxes of this tree give to what they make."""
        return {f"plaudit-{pid}-{start}" for pid, start in self.seen.items()}

    def _processes(self) -> list[str]:
        owners, found = self._owners(), []
        for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
            stat = group_and_start(pid)
            if stat is None or pid == os.getpid():
                continue
            text = _read(f"/proc/{pid}/environ") + argv_of(pid)
            text += _read(f"/proc/{pid}/cgroup")
            ours = self.mark in text or str(self.tmp) in text or any(owner in text for owner in owners)
            if ours or self.seen.get(pid) == stat[1]:
                found.append(f"{pid} {argv_of(pid)}")
        return found

    def _mounts(self) -> set[str]:
        return {line for line in _read("/proc/mounts").splitlines() if "plaudit" in line or str(self.tmp) in line}

    def _cgroups(self) -> list[str]:
        owners = self._owners()
        trees = [line.split()[1] for line in _read("/proc/mounts").splitlines() if line.split()[2].startswith("cgroup")]
        return sorted(
            os.path.join(folder, name)
            for tree in trees
            for folder, names, _ in os.walk(tree)
            for name in names
            if name.rpartition("-")[0] in owners
        )

    def _sockets(self) -> list[str]:
        return [line for line in _read("/proc/net/unix").splitlines() if str(self.tmp) in line]

    def _folders(self) -> list[str]:
        owners = self._owners()
        states = [str(home) for home in STATE.glob("plaudit-*") if home.name in owners] if STATE.is_dir() else []
        return sorted([*map(str, self.tmp.iterdir()), *states])

    def assert_nothing_is_left(self, seconds: float = 15.0) -> None:
        """Waits a little: after SIGKILL of the parent the reaper gives the children their time."""
        nothing: dict[str, list[str]] = {"processes": [], "mounts": [], "cgroups": [], "sockets": [], "folders": []}
        try:
            wait_for(lambda: self.left() == nothing, seconds, "the last trace to go")
        except AssertionError:
            assert self.left() == nothing, self.logged()

    def __enter__(self) -> Whole:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.process.close()
        shutil.rmtree(self.tmp, ignore_errors=True)
        shutil.rmtree(self.log.parent, ignore_errors=True)
