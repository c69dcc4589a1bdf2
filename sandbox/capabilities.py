"""The isolation levels of this host: what each of them lacks, and which flag of a container would give it.

Probing leaves nothing behind. It does not prove that a level works: the self-test does, when a sandbox opens. Each
lack is described for an operator: what is missing, and in brackets how to get it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from plaudit.grading import Level
from sandbox import languages
from sandbox.cgroup import CgroupTrees
from sandbox.errors import IsolationUnavailable, SandboxError
from sandbox.no_namespace import unreachable
from sandbox.seccomp import build_filter
from sandbox.vm_image import VmConfig, vm_lacks

LEVELS: tuple[Level, ...] = ("vm", "strong", "userns", "landlock", "none")
MIN_LANDLOCK_ABI = 4  # the first that knows TCP; signals and abstract sockets (6) are closed by uid and seccomp as well
CAPABILITIES = {"DAC_OVERRIDE": 1, "FOWNER": 3, "KILL": 5, "SETGID": 6, "SETUID": 7, "NET_ADMIN": 12, "SYS_ADMIN": 21}
FOR_NAMESPACES = ("SYS_ADMIN", "NET_ADMIN", "SETUID", "SETGID", "KILL")
FOR_UIDS = ("SETUID", "SETGID", "DAC_OVERRIDE", "FOWNER")
PURPOSE = {
    "SYS_ADMIN": "namespaces and mounts",
    "NET_ADMIN": "the loopback of a new network namespace",
    "SETUID": "programs under a uid of their own",
    "SETGID": "programs under a gid of their own",
    "KILL": "ending what a program leaves behind",
    "DAC_OVERRIDE": "looking after folders and cgroups of another uid",
    "FOWNER": "removing what another uid has left",
}
ADVICE = (
    "level strong in Docker: --user root --cap-add SYS_ADMIN --cap-add NET_ADMIN, and where the defaults are dropped "
    "--cap-add SETUID --cap-add SETGID --cap-add KILL --cap-add DAC_OVERRIDE; --security-opt seccomp=unconfined (or "
    "deploy/seccomp-executor.json) --security-opt apparmor=unconfined --security-opt systempaths=unconfined "
    "--cgroupns=private and a writable /sys/fs/cgroup: --security-opt writable-cgroups=true (Docker 28 and cgroup v2), "
    "or --privileged instead of all that"
)
NO_CGROUPS = (
    "Docker: --cgroupns=private with --security-opt writable-cgroups=true (Engine 28, cgroup v2) or --privileged"
)
SECCOMP = "--security-opt seccomp=unconfined or seccomp=deploy/seccomp-executor.json"
# What bubblewrap says, and what stands behind it.
BWRAP_ERRORS = (
    ("RTM_NEWADDR", "Docker: --cap-add NET_ADMIN"),
    ("loopback", "Docker: --cap-add NET_ADMIN"),
    ("mount proc", "Docker: --security-opt systempaths=unconfined"),
    ("pivot_root", f"Docker: {SECCOMP}"),
    (
        "new namespace",
        f"Docker: {SECCOMP}, with --cap-add SYS_ADMIN as root; on a host as a plain user: "
        "sysctl kernel.unprivileged_userns_clone=1, user.max_user_namespaces above 0, "
        "kernel.apparmor_restrict_unprivileged_userns=0",
    ),
    ("uid map", f"Docker: {SECCOMP}; on a host: kernel.apparmor_restrict_unprivileged_userns=0"),
    ("", "Docker: --security-opt apparmor=unconfined, --security-opt systempaths=unconfined"),
)
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
LANDLOCK_CREATE_RULESET, LANDLOCK_ASK_VERSION = 444, 1


@dataclass(frozen=True, slots=True)
class HostCapabilities:
    """The best isolation level of this host, what `strong` lacks here, and what each level lacks."""

    level: Level
    missing: tuple[str, ...]
    advice: str
    lacks: Mapping[Level, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def probe(cls, vm: VmConfig | None = None) -> HostCapabilities:
        """Look for the parts of every level. Cheap, leaves nothing behind, proves nothing (`open_sandbox` does).

        Args:
            vm: how guests would be started; without it there is no level `vm`.
        """
        filters = filter_lacks()
        namespaces = namespace_lacks()
        no_namespace = no_namespace_lacks()
        lacks: dict[Level, tuple[str, ...]] = {
            "vm": tuple(vm_lacks(vm)),
            "strong": (*namespaces, *filters, *cgroup_lacks()),
            "userns": (*namespaces, *filters),
            "landlock": (*filters, *landlock_lacks(), *no_namespace),
            "none": tuple(no_namespace if os.geteuid() == 0 else ()),
        }
        level = next((level for level in LEVELS if not lacks[level]), LEVELS[-1])
        return cls(level, lacks["strong"], ADVICE if lacks["strong"] else "", lacks)

    def require(self, accept: Level) -> None:
        """Raises IsolationUnavailable if the best level is below `accept`, and names what `accept` lacks."""
        lacks = self.lacks.get(self.level, ())
        if LEVELS.index(self.level) <= LEVELS.index(accept) and not lacks:
            return
        missing = "; ".join(self.lacks.get(accept) or self.missing)
        best = "no level at all" if lacks else f"level {self.level!r}"
        raise IsolationUnavailable(
            f"isolation level {accept!r} is not available here, missing: {missing}. What this host gives is {best}. "
            f"{self.advice if accept != 'vm' else ''}".rstrip()
        )


def capabilities() -> frozenset[str]:
    """The effective capabilities of this process that matter here."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            effective = int(line.split()[1], 16)
            return frozenset(name for name, bit in CAPABILITIES.items() if effective >> bit & 1)
    return frozenset()


def capability_lacks(wanted: tuple[str, ...]) -> list[str]:
    held = capabilities()
    return [f"CAP_{name}, for {PURPOSE[name]} (Docker: --cap-add {name})" for name in wanted if name not in held]


def filter_lacks() -> list[str]:
    """What the system call filter lacks: the library, or the kernel's support."""
    try:
        build_filter()
    except IsolationUnavailable as error:
        return [str(error)]
    c = ctypes.CDLL(None, use_errno=True)
    c.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, None, 0, 0)  # refused for its argument, if it is known at all
    return [] if ctypes.get_errno() == errno.EFAULT else ["seccomp filters in the kernel (CONFIG_SECCOMP_FILTER)"]


def namespace_lacks() -> list[str]:
    """What keeps bubblewrap from making a jail: the program, a capability, or what it says itself."""
    bwrap = shutil.which("bwrap")
    lacks = [] if bwrap else ["bubblewrap (the bwrap program; apt-get install bubblewrap)"]
    if os.geteuid() == 0:
        lacks += capability_lacks(FOR_NAMESPACES)
    if bwrap is None or lacks:
        return lacks
    line = [bwrap, "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--ro-bind", "/", "/"]
    line += ["--proc", "/proc"] if os.geteuid() == 0 else ["--unshare-user", "--proc", "/proc"]
    done = subprocess.run([*line, "/bin/true"], capture_output=True, text=True, timeout=20, check=False)
    if done.returncode == 0:
        return []
    error = done.stderr.strip() or "bwrap fails without a message"
    advice = next(advice for part, advice in BWRAP_ERRORS if part in error)
    return [f"namespaces ({error}) ({advice})"]


def cgroup_lacks() -> list[str]:
    if os.geteuid() != 0:
        return ["root: own uids for programs and cgroups need it (Docker: --user root)"]
    lacks = CgroupTrees.here().missing()
    more = capability_lacks(("DAC_OVERRIDE",)) if lacks else []
    return [*(f"{lack} ({NO_CGROUPS})" for lack in lacks), *more]


def landlock_lacks() -> list[str]:
    if os.geteuid() != 0:
        return ["root: a uid for programs alone needs it (Docker: --user root)"]
    c = ctypes.CDLL(None, use_errno=True)
    abi = max(0, int(c.syscall(LANDLOCK_CREATE_RULESET, None, 0, LANDLOCK_ASK_VERSION)))
    if abi >= MIN_LANDLOCK_ABI:
        return []
    if abi:
        return [f"Landlock ABI {MIN_LANDLOCK_ABI}; this kernel has {abi} (Linux 6.7 or newer)"]
    why = errno.errorcode.get(ctypes.get_errno(), "")
    return [
        f"Landlock ({why}: a kernel built with it and started with it in `lsm=`; a container's own seccomp profile "
        "may hide it, Docker's does not)"
    ]


def no_namespace_lacks() -> list[str]:
    """What root needs to run programs under another uid, without a root directory of their own."""
    if os.geteuid() != 0:
        return []
    lacks = capability_lacks(FOR_UIDS)
    try:
        closed = unreachable([str(languages.python_binary()), *languages.python_packages()])
    except SandboxError as error:
        return [*lacks, str(error)]
    if closed:
        folders = ", ".join(closed)
        lacks.append(
            f"a Python that other uids can reach: {folders} (chmod o+x, or a Python outside; plaudit runs on "
            f"{languages.python_binary()})"
        )
    return lacks
