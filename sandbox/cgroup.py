"""Control groups, v1, v2 and hybrid: one group per jail, its limits, its counters, its end.

Groups are made under the group of this process, so that a container's own limits still hold. Their names contain the
pid and start time of their owner: any process that finds a group whose owner has ended may kill and remove it.

Hybrid hosts mount v1 controllers next to a v2 tree without controllers. There memory and pids come from v1, and v2
still gives `cgroup.kill` and CPU time. A v2-only host needs memory and pids delegated to our group; see `delegate`.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sandbox.errors import SandboxError
from sandbox.procfs import start_time

NAME = re.compile(r"plaudit-(\d+)-(\d+)(-\d+)*")
HOST_LEAF = "plaudit-host"  # where a v2 parent's own processes go, because a parent with controllers may hold none
REMOVE_S = 5.0


@dataclass(frozen=True, slots=True)
class CgroupTree:
    """One mounted tree, at our own place in it, and what we use it for."""

    base: Path
    version: int
    controllers: frozenset[str]


@dataclass(frozen=True, slots=True)
class Counters:
    """What a group has used: CPU time, most memory at once, processes killed for memory, forks refused.

    Memory is without caches of the kernel, which takes them back when a process needs the room. They are large on a
    host that has just started: a group is charged for every file and directory that it is the first to read.
    """

    cpu_ns: int
    peak_memory_bytes: int
    oom_kills: int
    fork_failures: int


def discover(mountinfo: str, own: str) -> list[CgroupTree]:
    """The usable trees, from the texts of /proc/self/mountinfo and /proc/self/cgroup."""
    places: dict[str, str] = {}
    for line in own.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(",") if controllers else ("",):
            places[controller] = path
    trees: dict[Path, CgroupTree] = {}
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        if kind not in ("cgroup", "cgroup2"):
            continue
        root, mountpoint = left.split()[3:5]
        names = set(options.split(",")) & {"memory", "pids", "cpuacct"} if kind == "cgroup" else {""}
        for name in names & places.keys():
            place = places[name].removeprefix(root) if root != "/" else places[name]
            base = Path(mountpoint) / place.lstrip("/")
            if not base.is_dir():
                continue
            if kind == "cgroup2":
                if base.name == HOST_LEAF:
                    base = base.parent
                held = set(read(base / "cgroup.controllers").split()) & {"memory", "pids"}
                trees[base] = CgroupTree(base, 2, frozenset(held | {"cpuacct"}))
            else:
                known = trees[base].controllers if base in trees else frozenset()
                trees[base] = CgroupTree(base, 1, known | {name})
    return sorted(trees.values(), key=lambda tree: (tree.version, str(tree.base)))


def read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def field(text: str, name: str) -> int:
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.isdigit():
            return int(value)
    return 0


def delegate(tree: CgroupTree) -> None:
    """Let children of a v2 group have memory and pids; its own processes move to a leaf first where that is due."""
    wanted = tree.controllers & {"memory", "pids"}
    if tree.version != 2 or wanted <= set(read(tree.base / "cgroup.subtree_control").split()):
        return
    switch = " ".join(f"+{name}" for name in sorted(wanted))
    try:
        (tree.base / "cgroup.subtree_control").write_text(switch)
    except OSError:
        leaf = tree.base / HOST_LEAF
        leaf.mkdir(exist_ok=True)
        for pid in read(tree.base / "cgroup.procs").split():
            with suppress(OSError):  # it has ended meanwhile
                (leaf / "cgroup.procs").write_text(pid)
        (tree.base / "cgroup.subtree_control").write_text(switch)


class CgroupTrees:
    """The trees of this host that a jail's group is made in."""

    def __init__(self, trees: list[CgroupTree]) -> None:
        taken: set[str] = set()
        self.trees: list[CgroupTree] = []
        for tree in trees:  # v1 first: on a hybrid host it holds the controllers
            self.trees.append(CgroupTree(tree.base, tree.version, tree.controllers - (taken & {"memory", "pids"})))
            taken |= tree.controllers
        self.controllers = frozenset(taken)

    @classmethod
    def here(cls) -> CgroupTrees:
        return cls(discover(read(Path("/proc/self/mountinfo")), read(Path("/proc/self/cgroup"))))

    def missing(self) -> list[str]:
        """What this host lacks for a limited and counted group; empty if nothing. Makes a group to find out."""
        lacks = [name for name in ("memory", "pids", "cpuacct") if name not in self.controllers]
        if lacks:
            return [f"cgroup controllers {', '.join(lacks)} (mounted and delegated)"]
        try:
            for tree in self.trees:
                delegate(tree)
            group = Cgroup.make(self, f"plaudit-{os.getpid()}-{start_time(os.getpid())}-0")
            try:
                group.limit(memory_bytes=64 << 20, processes=8)
            finally:
                group.remove()
        except (OSError, SandboxError) as error:
            return [f"writable cgroups ({error})"]
        return []


class Cgroup:
    """One jail's group, in every tree at once. Its counters only grow; those of a job are differences."""

    def __init__(self, places: list[tuple[CgroupTree, Path]]) -> None:
        self.places = places
        self.by_controller = {name: (tree, path) for tree, path in reversed(places) for name in tree.controllers}
        self.v2 = next((path for tree, path in places if tree.version == 2), None)
        self._files: dict[tuple[str, str], int] = {}  # kept open: a counter is then one system call
        self._limits = (0, 0)

    @classmethod
    def make(cls, cgroups: CgroupTrees, name: str) -> Cgroup:
        places = [(tree, tree.base / name) for tree in cgroups.trees]
        group = cls(places)
        try:
            for _, path in places:
                path.mkdir()
        except OSError:
            group.remove()
            raise
        return group

    def limit(self, *, memory_bytes: int, processes: int) -> None:
        """Set the limits, where they are not what they were."""
        if (memory_bytes, processes) == self._limits:
            return
        tree, path = self.by_controller["memory"]
        if tree.version == 1:
            names = ["memory.limit_in_bytes"]
            if (path / "memory.memsw.limit_in_bytes").exists():  # never below the other, not even for a moment
                names.insert(0 if memory_bytes > self._limits[0] > 0 else 1, "memory.memsw.limit_in_bytes")
            for name in names:
                (path / name).write_text(str(memory_bytes))
        else:
            (path / "memory.max").write_text(str(memory_bytes))
            with suppress(OSError):
                (path / "memory.swap.max").write_text("0")
        (self.by_controller["pids"][1] / "pids.max").write_text(str(processes))
        self._limits = (memory_bytes, processes)

    def open_procs(self) -> list[int]:
        """Descriptors through which a process enters the group by writing "0"; the caller closes them."""
        return [os.open(path / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC) for _, path in self.places]

    def _file(self, controller: str, v1: str, v2: str) -> int:
        tree, path = self.by_controller[controller]
        name = v1 if tree.version == 1 else v2
        fd = self._files.get((controller, name))
        if fd is None:
            try:
                fd = os.open(path / name, os.O_RDWR | os.O_CLOEXEC)
            except PermissionError:
                fd = os.open(path / name, os.O_RDONLY | os.O_CLOEXEC)
            self._files[controller, name] = fd
        return fd

    def _read(self, controller: str, v1: str, v2: str) -> bytes:
        try:
            return os.pread(self._file(controller, v1, v2), 4096, 0)
        except OSError:
            return b""

    def is_v1(self, controller: str) -> bool:
        return self.by_controller[controller][0].version == 1

    def cpu_ns(self) -> int:
        text = self._read("cpuacct", "cpuacct.usage", "cpu.stat")
        return int(text or 0) if self.is_v1("cpuacct") else field(text.decode(), "usage_usec") * 1000

    def memory_bytes(self) -> int:
        """What its processes and their /tmp hold now: memory that the kernel cannot take back."""
        text = self._read("memory", "memory.stat", "memory.stat").decode()
        return field(text, "rss" if self.is_v1("memory") else "anon") + field(text, "shmem")

    def charged_bytes(self) -> int:
        """The same, with the kernel's own for it and what the group was the first to read: files and directories."""
        return int(self._read("memory", "memory.usage_in_bytes", "memory.current") or 0)

    def reset_peak(self) -> None:
        """Let the peak start again from what is in use now. Kernels before 6.12 refuse that for v2."""
        with suppress(OSError):
            os.pwrite(self._file("memory", "memory.max_usage_in_bytes", "memory.peak"), b"0", 0)

    def counters(self) -> Counters:
        peak = int(self._read("memory", "memory.max_usage_in_bytes", "memory.peak") or 0)
        peak -= self.charged_bytes() - self.memory_bytes()
        oom = field(self._read("memory", "memory.oom_control", "memory.events").decode(), "oom_kill")
        failures = field(self._read("pids", "pids.events", "pids.events").decode(), "max")
        return Counters(self.cpu_ns(), peak, oom, failures)

    def pids(self) -> Iterator[int]:
        for _, path in self.places:
            for text in read(path / "cgroup.procs").split():
                yield int(text)

    def kill(self) -> None:
        """SIGKILL to everything in the group; on v1 forks are forbidden first, so that none escapes the listing."""
        if self.v2 is not None:
            with suppress(OSError):
                (self.v2 / "cgroup.kill").write_text("1")
                return
        with suppress(OSError):
            (self.by_controller["pids"][1] / "pids.max").write_text("0")
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def remove(self) -> None:
        """Kill what is left and remove the group. Raises SandboxError if a process in it does not end."""
        while self._files:
            os.close(self._files.popitem()[1])
        deadline = time.monotonic() + REMOVE_S
        left = [path for _, path in self.places]
        while True:
            left = [path for path in left if not gone(path)]
            if not left:
                return
            if time.monotonic() > deadline:
                raise SandboxError(f"cgroup {left[0].name} cannot be removed: a process in it does not end")
            self.kill()
            time.sleep(0.001)


def gone(path: Path) -> bool:
    try:
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def remove_stale(bases: list[Path]) -> int:
    """Remove groups under `bases` whose owner has died; returns how many names there were."""
    names: dict[str, list[tuple[CgroupTree, Path]]] = {}
    for base in bases:
        version = 2 if (base / "cgroup.controllers").exists() else 1
        for path in base.glob("plaudit-*-*"):
            match = NAME.fullmatch(path.name)
            if match and start_time(int(match[1])) != int(match[2]):
                controllers = frozenset({"pids"}) if (path / "pids.max").exists() else frozenset[str]()
                names.setdefault(path.name, []).append((CgroupTree(base, version, controllers), path))
    for places in names.values():
        Cgroup(places).remove()
    return len(names)
