"""A vLLM server as a child of the scoring worker, in the environment of its own interpreter.

- It listens on a Unix socket in a private folder, so no other user of the host can reach it and no port can be taken.
- It asks the kernel for SIGTERM at the worker's end (`setpriv`), and vLLM ends its own processes at SIGTERM. At SIGKILL
  it does not. So it has a process group of its own, and the rest of that group is killed before a new server starts and
  at the end.
- Its output goes to the log, line by line, at level debug. When it exits, the last lines are in the error.
- A server that exits is restarted by the next batch, which waits until it serves.

Not promised: if worker and server are both killed with SIGKILL at once, vLLM's engine process stays.
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
MAX_LAST_LINES = 15


class ServerExited(EngineUnavailable):
    """The server has exited. Waiting does not help; restarting it may."""


class VllmServer:
    """Not started until `start`, which needs a thread that lives as long as the worker: SIGTERM comes at its end."""

    def __init__(self, python: Path, folder: Path, max_length: int, settings: Settings) -> None:
        if not os.access(python, os.X_OK):
            raise HostLacks(f"--vllm-python {python}: not an executable interpreter")
        if shutil.which("setpriv") is None:
            raise HostLacks(
                "--vllm-python needs setpriv (util-linux) on PATH, which ties the vLLM server to this process"
            )
        self._home = Path(tempfile.mkdtemp(prefix="plaudit-vllm-"))  # mode 0700
        self.socket = self._home / "s"
        self._argv = argv(python, folder, max_length, self.socket, settings)
        self._env = environ(os.environ, settings.torch_threads)
        self._process: subprocess.Popen[str] | None = None
        self._log_reader: threading.Thread | None = None
        self._last_lines: deque[str] = deque(maxlen=MAX_LAST_LINES)
        atexit.register(self.stop)

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the server unless it runs."""
        if self.alive:
            return
        self._kill_group()
        self.socket.unlink(missing_ok=True)
        self._last_lines.clear()
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
        self._log_reader = threading.Thread(
            target=self._read_log, args=(self._process.stdout,), daemon=True, name="vllm-log"
        )
        self._log_reader.start()

    def _read_log(self, output: IO[str]) -> None:
        with output:
            for line in output:
                self._last_lines.append(line.rstrip())
                log.debug("%s", line.rstrip())

    def check(self) -> None:
        """Raises `ServerExited`, with its last lines, if it has exited."""
        if self._process is not None and (code := self._process.poll()) is not None:
            if self._log_reader is not None:
                self._log_reader.join(1.0)  # until it has read all
            raise ServerExited(f"the vLLM server exited with {code}:\n  " + "\n  ".join(self._last_lines))

    def check_listening(self) -> None:
        """Raises `EngineUnavailable` if it does not listen yet; vLLM binds its socket long before it listens."""
        self.check()
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.socket))
            except OSError as error:
                raise EngineUnavailable(f"the vLLM server does not listen yet: {error.strerror}") from error

    def stop(self) -> None:
        """SIGTERM, then SIGKILL, then remove its folder. May be called again."""
        if self._process is not None and self.alive:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_S)
        self._kill_group()
        shutil.rmtree(self._home, ignore_errors=True)

    def _kill_group(self) -> None:
        """Kill what is left of its process group, and wait for it."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None
        if self._log_reader is not None:
            self._log_reader.join(1.0)


def argv(python: Path, folder: Path, max_length: int, unix_socket: Path, settings: Settings) -> list[str]:
    """The command line. It runs the module, because some builds ship a broken script `vllm`.

    `--vllm-args` comes last, so it overrides the rest.
    """
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


def environ(base: Mapping[str, str], threads: int) -> dict[str, str]:
    """The worker's environment without plaudit's settings, some of which are secrets; vLLM's own variables stay."""
    env = {name: value for name, value in base.items() if not name.startswith(PREFIX)}
    return {
        "OMP_NUM_THREADS": str(threads),
        **env,
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }
