"""A vLLM server as a child of the scoring worker, in the environment that its interpreter stands in.

It listens on a Unix socket in a private folder, so no other user of the host can reach it and no port can be taken. It
asks the kernel for SIGTERM at the worker's death (`setpriv`), and vLLM ends its own processes at SIGTERM. At SIGKILL it
does not: it has a process group of its own, and what is left of that group is killed before a new server starts and at
the end. If worker and server are both killed with SIGKILL at once, vLLM's engine process stays; nobody is left to act.

Its output goes to the log, line by line at level debug; the last lines are told when it dies. A server that dies is
started again by the next batch, which waits until it serves.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from plaudit.errors import HostLacks
from service.scoring.engine import EngineUnavailable
from service.settings import PREFIX, Settings

log = logging.getLogger("plaudit.vllm")

STOP_S = 15.0
TOLD_LINES = 15


class ServerDied(EngineUnavailable):
    """Waiting does not help; starting it again may."""


class Server:
    """Not started until `start`, from a thread that lives as long as the worker: a child's tie is to that thread."""

    def __init__(self, python: Path, folder: Path, max_length: int, settings: Settings) -> None:
        if not os.access(python, os.X_OK):
            raise HostLacks(f"--vllm-python {python} is no interpreter")
        if shutil.which("setpriv") is None:
            raise HostLacks("no setpriv (util-linux) on PATH; it ties a vLLM server to this process")
        self._home = Path(tempfile.mkdtemp(prefix="plaudit-vllm-"))  # mode 0700
        self.socket = self._home / "s"
        self._argv = argv(python, folder, max_length, self.socket, settings)
        self._env = environ(os.environ, settings.torch_threads)
        self._process: subprocess.Popen[str] | None = None
        self._ear: threading.Thread | None = None
        self._last: deque[str] = deque(maxlen=TOLD_LINES)
        atexit.register(self.stop)

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it unless it runs."""
        if self.alive:
            return
        self._sweep()
        self.socket.unlink(missing_ok=True)
        self._last.clear()
        self._process = subprocess.Popen(
            self._argv,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            process_group=0,
        )
        log.info("vLLM server started", extra={"pid": self._process.pid})
        self._ear = threading.Thread(target=self._listen, args=(self._process.stdout,), daemon=True, name="vllm-log")
        self._ear.start()

    def _listen(self, output: IO[str]) -> None:
        with output:
            for line in output:
                self._last.append(line.rstrip())
                log.debug("%s", line.rstrip())

    def check(self) -> None:
        """Raises `ServerDied` with its last words if it has died."""
        if self._process is not None and (code := self._process.poll()) is not None:
            if self._ear is not None:
                self._ear.join(1.0)  # until it has heard all
            raise ServerDied(f"the vLLM server ended with {code}:\n  " + "\n  ".join(self._last))

    def listening(self) -> None:
        """Raises `EngineUnavailable` if it does not listen yet; vLLM binds its socket long before."""
        self.check()
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.socket))
            except OSError as error:
                raise EngineUnavailable(f"the vLLM server does not listen yet: {error.strerror}") from error

    def stop(self) -> None:
        """SIGTERM, then SIGKILL, then its folder; nothing of it is left. May be called again."""
        if self._process is not None and self.alive:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_S)
        self._sweep()
        shutil.rmtree(self._home, ignore_errors=True)

    def _sweep(self) -> None:
        """Kill what is left of its process group, and hear of its end."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None
        if self._ear is not None:
            self._ear.join(1.0)


def argv(python: Path, folder: Path, max_length: int, unix_socket: Path, settings: Settings) -> list[str]:
    """The module and not the script `vllm`, which some builds ship broken; the caller's arguments last, so they win."""
    return [
        "setpriv",
        "--pdeathsig",
        "TERM",
        "--",
        str(python),
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--model",
        str(folder),
        "--runner",
        "pooling",
        "--dtype",
        settings.dtype,
        "--max-model-len",
        str(max_length),
        "--uds",
        str(unix_socket),
        "--disable-uvicorn-access-log",
        *shlex.split(settings.vllm_args),
    ]


def environ(ours: Mapping[str, str], threads: int) -> dict[str, str]:
    """The worker's environment without its settings, some of which are secrets; vLLM's own variables pass."""
    env = {name: value for name, value in ours.items() if not name.startswith(PREFIX)}
    return {
        "OMP_NUM_THREADS": str(threads),
        **env,
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }
