"""A child of the tree as plain data, its environment, and how it is started so that it cannot outlive its parent."""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO

from plaudit.errors import UsageError
from service.settings import FOREIGN, PREFIX, Settings

_prctl = ctypes.CDLL(None, use_errno=True).prctl  # resolved before any fork
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Child:
    """One process to keep running.

    Attributes:
        name: for logs.
        argv: its command line.
        env: its environment.
        stage: stages start upwards and stop downwards, one after the other.
        announces: it prints a line when it is ready. Until then an exit that says why it cannot run ends the tree.
        front: its ready line says that the tree is ready.
        probe: returns None once the child serves, and then the next one is started; else why it does not serve yet.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    stage: int = 0
    announces: bool = False
    front: bool = False
    probe: Callable[[], str | None] | None = None


def spawn(child: Child, stdout: int | IO[bytes]) -> subprocess.Popen[bytes]:
    """Start a child that gets SIGTERM when this process ends. For the main thread of a process without other threads.

    The kernel ties that signal to the *thread* that forked: a child started from a thread that ends is ended with it.
    """
    exit_with_this_one = functools.partial(end_with_parent, os.getpid())
    return subprocess.Popen(
        child.argv,
        env=child.env,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        process_group=0,
        preexec_fn=exit_with_this_one,  # noqa: PLW1509 - unsafe with other threads, and there are none
    )


def end_with_parent(parent: int) -> None:
    """Have the kernel send this process SIGTERM when the thread that started it ends; at once if it has ended."""
    if _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) or os.getppid() != parent:
        os._exit(1)


def environ_of(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """An environment in which `settings.load` gives exactly these settings. Secrets travel here, never in argv."""
    env = {name: value for name, value in environ.items() if not name.startswith(PREFIX) or name in FOREIGN}
    for name in Settings.model_fields:
        value, default = getattr(settings, name), Settings.model_fields[name].get_default(call_default_factory=True)
        if value == default:
            continue
        if isinstance(value, dict):
            value = [f"{key}={path}" for key, path in value.items()]
        if isinstance(value, list):
            if any("," in part for part in value):
                raise UsageError(f"{name}: a comma separates values and cannot be part of one")
            value = ",".join(value)
        env[f"{PREFIX}{name.upper()}"] = "" if value is None else str(value)
    return env


def command(*words: str) -> tuple[str, ...]:
    """argv of a `plaudit` command under this interpreter; -P: do not import a `service` from the working directory."""
    return (sys.executable, "-P", "-m", "service.cli", *words)
