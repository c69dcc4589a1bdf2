"""A vLLM server as a child of the scoring worker, in the environment that its interpreter stands in.

It listens on a Unix socket in a private folder, so no other user of the host can reach it and no port can be taken. It
stays in the worker's process group and asks the kernel for SIGTERM at the worker's death (`setpriv`): whoever ends the
worker ends it. Its output goes to the log, line by line at level debug; the last lines are told when it dies.

A server that dies is started again by the next batch; until it serves, that batch waits.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from service.errors import HostLacks
from service.scoring.engine import EngineUnavailable
from service.settings import PREFIX, Settings

log = logging.getLogger("plaudit.vllm")

STOP_S = 15.0
TOLD_LINES = 15


class Server:
    """Not started until `start`. For the main thread: a child's tie to this process is to the thread that made it."""

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
        self._last: deque[str] = deque(maxlen=TOLD_LINES)
        atexit.register(self.stop)

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it unless it runs."""
        if self.alive:
            return
        self.socket.unlink(missing_ok=True)
        self._last.clear()
        self._process = subprocess.Popen(self._argv, env=self._env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                         stderr=subprocess.STDOUT, text=True, errors="replace")  # fmt: skip
        log.info("vLLM server started", extra={"pid": self._process.pid})
        threading.Thread(target=self._listen, args=(self._process.stdout,), daemon=True, name="vllm-log").start()

    def _listen(self, output: IO[str]) -> None:
        for line in output:
            self._last.append(line.rstrip())
            log.debug("%s", line.rstrip())

    def check(self) -> None:
        """Raises `EngineUnavailable` with its last words if it has died."""
        if self._process is not None and (code := self._process.poll()) is not None:
            raise EngineUnavailable(f"the vLLM server ended with {code}:\n  " + "\n  ".join(self._last))

    def stop(self) -> None:
        """SIGTERM, then SIGKILL, then its folder; nothing of it is left. May be called again."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self._home)


def argv(python: Path, folder: Path, max_length: int, socket: Path, settings: Settings) -> list[str]:
    """The module and not the script `vllm`, which some builds ship broken; the caller's arguments last, so they win."""
    return [
        "setpriv", "--pdeathsig", "TERM", "--",
        str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), "--runner", "pooling",
        "--dtype", settings.dtype, "--max-model-len", str(max_length), "--uds", str(socket),
        "--enable-prompt-tokens-details", "--disable-uvicorn-access-log", *shlex.split(settings.vllm_args),
    ]  # fmt: skip


def environ(ours: Mapping[str, str], threads: int) -> dict[str, str]:
    """The worker's environment without its settings, some of which are secrets; vLLM's own variables pass."""
    env = {name: value for name, value in ours.items() if not name.startswith(PREFIX)}
    return {"OMP_NUM_THREADS": str(threads), **env, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1"}  # fmt: skip
