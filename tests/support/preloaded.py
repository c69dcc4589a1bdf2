"""Processes of `plaudit` that begin where their imports end: forked from one process that has loaded the libraries.

A scorer's start is 4 CPU-seconds, of which 3.5 load torch and transformers. What runs then is `service.cli.main` with
the process's own arguments, environment and streams. `plaudit up`, and what a test starts by a command, load for
themselves.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import subprocess
import sys
from multiprocessing import forkserver
from multiprocessing.reduction import DupFd
from typing import IO, Any
from unittest import mock

# No module that counts: prometheus_client looks at the environment when it is imported.
LIBRARIES = (
    "service.scoring.reward_model",
    "transformers.modeling_utils",
    "fastapi",
    "uvicorn",
    "redis.asyncio",
    "sandbox.open",
    "sandbox.judge",
)
# What the interpreter, its allocator or the libraries read before `main` does.
AT_START = ("PYTHON", "LD_", "MALLOC_", "TORCH", "OMP_", "MKL_", "HF_")
DEFAULTS = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def can_fork(argv: list[str], environ: dict[str, str]) -> bool:
    """Whether a process of these arguments and this environment may begin with loaded libraries."""

    def early(values: dict[str, str]) -> dict[str, str]:
        return {name: value for name, value in values.items() if name.startswith(AT_START)}

    return argv[0] in ("serve", "worker") and early(environ) == early({**os.environ, **DEFAULTS})


class Preloaded:
    """What a test uses of `subprocess.Popen`, for one command line of `plaudit`."""

    def __init__(self, argv: list[str], stderr: IO[bytes], environ: dict[str, str]) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(LIBRARIES))
        with mock.patch.dict(os.environ, DEFAULTS):
            forkserver.ensure_running()
        reader, writer = os.pipe()
        self.stdout = os.fdopen(reader, "rb")
        self.args = argv
        self._process = context.Process(
            target=_become, args=(argv, environ, os.getcwd(), DupFd(writer), DupFd(stderr.fileno()))
        )
        self._process.start()
        os.close(writer)

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()


def _become(argv: list[str], environ: dict[str, str], folder: str, stdout: Any, stderr: Any) -> None:
    for number, given in ((1, stdout), (2, stderr)):
        fd = given.detach()
        os.dup2(fd, number)
        os.close(fd)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    sys.argv = ["plaudit", *argv]
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    from service.cli import main

    try:
        sys.exit(main(argv))
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
