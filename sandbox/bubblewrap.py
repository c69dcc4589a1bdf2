"""The command lines that start a jail's first process, with bubblewrap around it and without, and how it is killed."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from sandbox.harness import HARNESS
from sandbox.jail_config import JailConfig

EARLY = {"LD_BIND_NOW": "1"}  # for the zygote alone: what it has looked up, no forked process looks up again
ROOT_CAPABILITIES = ("CAP_SETUID", "CAP_SETGID", "CAP_SYS_ADMIN", "CAP_KILL")
TMP_BYTES = 64 << 20


def bwrap_command(config: JailConfig, control: int, seccomp: int) -> list[str]:
    """The bubblewrap command line of a jail."""
    line = [config.bwrap, "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    line += ["--as-pid-1", "--die-with-parent", "--new-session", "--hostname", "plaudit", "--cap-drop", "ALL"]
    if config.uid is None:
        line += ["--unshare-user", "--proc", "/proc"]
    else:
        for capability in ROOT_CAPABILITIES:
            line += ["--cap-add", capability]
        line += ["--dir", "/proc"]
    for path in config.binds:
        if os.path.islink(path):
            line += ["--symlink", os.readlink(path), path]
        else:
            for parent in reversed(Path(path).parents[:-1]):
                line += ["--dir", str(parent)]  # bubblewrap would make it readable for root only
            line += ["--ro-bind", path, path]
    for path in config.masks:
        line += ["--tmpfs", path]
    line += [
        "--ro-bind",
        str(config.harness),
        HARNESS,
        "--tmpfs",
        "/dev",
        "--dir",
        "/var",
        "--symlink",
        "/tmp",
        "/var/tmp",
    ]
    for name in ("passwd", "group"):
        line += ["--ro-bind", str(config.harness / name), f"/etc/{name}"]
    for name in ("null", "zero", "full", "random", "urandom"):
        line += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        line += ["--symlink", f"/proc/self/fd/{number}", f"/dev/{name}"]
    line += ["--symlink", "/proc/self/fd", "/dev/fd", "--dir", "/dev/shm", "--dir", "/tmp"]
    if config.uid is None:
        line += ["--perms", "1777", "--size", str(TMP_BYTES), "--tmpfs", "/tmp"]
        line += ["--perms", "1777", "--size", str(TMP_BYTES), "--tmpfs", "/dev/shm"]
    line += ["--remount-ro", "/dev", "--remount-ro", "/", "--clearenv"]
    for name, value in {**config.environment, **EARLY}.items():
        line += ["--setenv", name, value]
    line += ["--chdir", "/", "--seccomp", str(seccomp), "--"]
    return [*line, *zygote_command(config.python, HARNESS, control)]


def zygote_command(python: str, harness: Path | str, control: int) -> list[str]:
    return [python, "-s", "-S", "-P", f"{harness}/zygote.pyc", str(control)]


def kill_bwrap(process: subprocess.Popen[bytes]) -> None:
    """Kill bubblewrap with its process group.

    Its child waits for the parent before it asks to be killed with it. If only the parent is killed in between, the
    child waits without end. Until the child has a session of its own, it is in the group.
    """
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
