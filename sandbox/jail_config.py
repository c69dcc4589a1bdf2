"""What all jails of one sandbox share: paths, uids, the system call filter, and what they may read."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from plaudit.grading import Level
from sandbox import languages, no_namespace
from sandbox.cgroup import CgroupTrees
from sandbox.errors import IsolationUnavailable
from sandbox.harness import PYTEST_FOLDER, make_harness
from sandbox.jail_job import TEST_SIDE, JailKind
from sandbox.no_namespace import NoNamespaceConfig
from sandbox.owners import FIRST_REAPER_UID, FIRST_UID
from sandbox.seccomp import build_filter

# Files outside the toolchains that may be read: Node works without OpenSSL's settings, but not if refused them.
ALSO_READABLE = ("/etc/ssl/openssl.cnf",)


@dataclass(frozen=True, slots=True)
class JailConfig:
    """What all jails of one sandbox share."""

    bwrap: str
    binds: tuple[str, ...]
    masks: tuple[str, ...]
    python: str
    packages: tuple[str, ...]
    environment: Mapping[str, str]
    harness: Path
    seccomp: bytes
    uid: int | None  # None: one uid for everything (an unprivileged user namespace)
    cgroups: CgroupTrees | None
    name: str  # prefix of the names of cgroups: plaudit-<pid>-<start time>
    no_namespace: NoNamespaceConfig | None = None  # of jails without bubblewrap

    def uid_of(self, jail_kind: JailKind) -> int | None:
        """The uid of a jail's programs; the test side never shares one with what it tests."""
        return None if self.uid is None else self.uid + int(jail_kind in (*TEST_SIDE, "helpers"))


def make_jail_config(name: str, home: Path, uid: int | None, cgroups: CgroupTrees | None, level: Level) -> JailConfig:
    """Make the harness and everything else that the jails of a sandbox share."""
    harness = home / "harness"
    make_harness(harness, [os.geteuid()] if uid is None else [uid, uid + 1])
    binds = ["/usr", "/bin", "/lib", "/lib64", "/sbin", "/etc/ld.so.cache", "/etc/alternatives"]
    binds += languages.settings_folders()
    python_home = languages.python_home()
    if not python_home.is_relative_to("/usr"):
        binds.append(str(python_home))
    binds = [path for path in binds if os.path.lexists(path)]
    masks = masked_paths(binds)
    bwrap = shutil.which("bwrap") or ""
    without = None
    if level in ("landlock", "none"):
        without = no_namespace_config(level, uid, [*binds, str(harness / PYTEST_FOLDER)], masks)
    elif not bwrap:
        raise IsolationUnavailable("bubblewrap (the bwrap program)")
    return JailConfig(
        bwrap=bwrap,
        binds=tuple(binds),
        masks=masks,
        python=str(languages.python_binary()),
        packages=languages.python_packages(),
        environment=languages.ENVIRONMENT,
        harness=harness,
        seccomp=b"" if level == "none" else build_filter(pairs_only=without is not None, counted=cgroups is not None),
        uid=uid,
        cgroups=cgroups,
        name=name,
        no_namespace=without,
    )


def no_namespace_config(level: Level, uid: int | None, binds: list[str], masks: tuple[str, ...]) -> NoNamespaceConfig:
    """What the jails of a level without namespaces share. Raises IsolationUnavailable without uids for `landlock`."""
    if level == "landlock" and uid is None:
        raise IsolationUnavailable("root: programs need a uid of their own")
    reaper_uid = 0 if uid is None else FIRST_REAPER_UID + (uid - FIRST_UID) // 2
    if level == "none":
        return NoNamespaceConfig(reaper_uid, landlock=False)
    readable, listable = no_namespace.around(
        [*binds, *(path for path in ALSO_READABLE if os.path.lexists(path))], masks
    )
    return NoNamespaceConfig(reaper_uid, landlock=True, readable=readable, listable=listable)


def masked_paths(binds: list[str]) -> tuple[str, ...]:
    """Directories of plaudit itself inside bound ones, to be covered: programs never see their judge."""
    root = Path(__file__).resolve().parent.parent
    own_folders = [root / package for package in ("sandbox", "service", "training")]
    if sys.prefix != sys.base_prefix:
        own_folders.append(Path(sys.prefix).resolve())
    bound = [Path(path) for path in binds if not os.path.islink(path)]
    return tuple(str(path) for path in own_folders if path.is_dir() and any(path.is_relative_to(top) for top in bound))
