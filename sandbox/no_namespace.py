"""Jails without namespaces, as the host sees them: levels `landlock` and `none`, where bubblewrap does not work.

Programs and judges call the working folder `/tmp`. Here it is a private folder of the jail, and only `JobFolder`
translates between the two. No namespace ends the processes of a jail: `end_uid` kills whatever still runs under its
uid, in a process of its own (`inside/reaper.py`).
"""

from __future__ import annotations

import errno
import os
import pwd
import re
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sandbox.errors import SandboxError
from sandbox.inside import reaper

TMP = re.compile(r"(?<!/var)/tmp(?=[/:]|$)")
END_TIMEOUT_S = 20.0
SCAN_INTERVAL_S = 0.1


@dataclass(frozen=True, slots=True)
class NoNamespaceConfig:
    """What all jails without namespaces of a sandbox share."""

    reaper_uid: int  # the uid that ends processes of the jails' uids; 0 where programs run as ourselves
    landlock: bool
    readable: tuple[str, ...] = ()
    listable: tuple[str, ...] = ()


class JobFolder:
    """The folder of a jail that its programs use as /tmp."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.next_scan = 0.0

    def place(self, text: str) -> str:
        """A path, a word of a command or a variable's value, with this folder in place of /tmp."""
        return TMP.sub(lambda _match: self.path, text)

    def environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        return {name: self.place(value) for name, value in variables.items()}

    def overflows(self, most_bytes: int, most_files: int) -> bool:
        """Whether more than that lies in it, scanned every `SCAN_INTERVAL_S`. What is too deep to scan is too much."""
        now = time.monotonic()
        if now < self.next_scan:
            return False
        self.next_scan = now + SCAN_INTERVAL_S
        waiting, used, files = [self.path], 0, 0
        while waiting:
            try:
                entries = os.scandir(waiting.pop())
            except OSError as error:
                if error.errno == errno.ENAMETOOLONG:
                    return True
                continue  # it has gone meanwhile
            with entries:
                for entry in entries:
                    files += 1
                    try:
                        used += 512 * entry.stat(follow_symlinks=False).st_blocks
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append(entry.path)
                    except FileNotFoundError:
                        pass  # it has gone meanwhile
                    except OSError:
                        return True
                    if files > most_files or used > most_bytes:
                        return True
        return False

    def remove(self) -> None:
        """Remove it; no process may use it any more. What cannot be removed now goes with the sandbox's directory."""
        with suppress(OSError):
            reaper.remove_below(self.path)
            os.rmdir(self.path)


def end_uid(python: str, harness: Path, uid: int, reaper_uid: int) -> None:
    """End all processes of a uid of ours. Raises SandboxError if one does not end."""
    line = [python, "-I", "-S", str(harness / "reaper.pyc"), str(uid), str(reaper_uid)]
    try:
        done = subprocess.run(
            line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=END_TIMEOUT_S, env={}, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SandboxError(f"the processes of uid {uid} cannot be ended: {error}") from error
    if done.returncode != 0:
        reason = done.stderr.strip().rpartition("\n")[2]
        raise SandboxError(f"processes of uid {uid} do not end {reason}".strip())


def end_below(pid: int) -> None:
    """End the descendants of a zygote that shares its uid with them, as far as they can be found."""
    for _ in range(100):
        if not list(reaper.descendants(pid)):
            return
        reaper.kill_below(pid)


def is_known_user(uid: int) -> bool:
    """Whether this host knows the uid as a user's: killing by uid would hit that user."""
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def around(binds: Sequence[str], masks: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What may be read and what may be listed, so that all of `binds` except `masks` is readable.

    A folder above a masked one is replaced by its other entries. It may be listed with everything in it, because the
    importer lists folders before it opens a file. So programs can see the names of masked files, but not read them.
    """
    readable: list[str] = []
    listable: list[str] = []
    hidden = [Path(mask) for mask in masks]
    for bind in binds:
        top = Path(os.path.realpath(bind))
        parts = list(parts_of(top, hidden))
        readable += parts
        if parts != [str(top)]:
            listable.append(str(top))
    return tuple(readable), tuple(listable)


def parts_of(place: Path, hidden: Sequence[Path]) -> Iterator[str]:
    if place in hidden:
        return
    if not any(mask.is_relative_to(place) for mask in hidden):
        yield str(place)
        return
    for entry in sorted(place.iterdir()):
        if not entry.is_symlink():  # where it leads is readable by its own name, or not meant to be
            yield from parts_of(entry, hidden)


def unreachable(paths: Sequence[str]) -> list[str]:
    """Folders on the way to `paths` that a uid without rights of its own cannot pass."""
    folders: list[str] = []
    for path in paths:
        place = Path(os.path.realpath(path))
        for folder in (*reversed(place.parents), place):
            if folder.is_dir() and not folder.stat().st_mode & 0o001 and str(folder) not in folders:
                folders.append(str(folder))
    return folders
