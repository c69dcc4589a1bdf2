"""Which process owns which directories, uids and cgroups on this host, and how those of killed owners are removed.

- A sandbox belongs to one process. Its directory is named by pid, start time and a number, so that a dead owner is not
  mistaken for a live one. Its cgroups have the same name.
- A pair of uids belongs to the sandbox that holds the lock of its file.
- `sweep` removes what killed owners left. Any process of the same uid may call it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from sandbox.cgroup import NAME, remove_stale
from sandbox.errors import SandboxError
from sandbox.inside import reaper
from sandbox.procfs import start_time

FIRST_UID = 20_000
MAX_OWNERS = 2_000
FIRST_REAPER_UID = FIRST_UID + 2 * MAX_OWNERS  # of the uids that end programs and run none


def state_directory() -> Path:
    """Where owners keep their directories: private to our uid, the same for all processes of that uid."""
    run = Path("/run")
    place = run / "plaudit" if os.access(run, os.W_OK) else Path(tempfile.gettempdir()) / f"plaudit-{os.geteuid()}"
    place.mkdir(mode=0o711, exist_ok=True)
    about = place.lstat()
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.geteuid():
        raise SandboxError(f"{place} belongs to another user: remove it")
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
    """Remove an owner's directory. Where programs wrote, no link is followed."""
    for folder in home.glob("work-*"):
        with suppress(OSError):
            reaper.remove_below(str(folder))
    shutil.rmtree(home, ignore_errors=True)


def kill_strays(home: Path) -> None:
    """End the bubblewraps of a dead owner that were killed before their child could end with them (`kill_bwrap`)."""
    mark = os.fsencode(home / "harness")
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "cmdline").read_bytes().split(b"\0"):
                os.kill(int(process.name), signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it has ended by itself, or is not ours


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
    raise SandboxError(f"all {MAX_OWNERS} pairs of uids for sandboxes are taken on this host")
