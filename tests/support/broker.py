"""A real Redis (or Valkey) as a process of its own, on a Unix socket, that tests may stop, kill and start again."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import redis

from service.up.broker import find_server, ping

START_S = 10.0


class Broker:
    """A context manager: the server lives inside it, its folder too.

    `append_only` keeps data over a death; `environ` is added to the environment of the server.
    """

    def __init__(
        self, *, append_only: bool = False, options: tuple[str, ...] = (), environ: dict[str, str] | None = None
    ) -> None:
        self.environ = os.environ | (environ or {})
        # Unix socket paths are at most 107 bytes long, and pytest's folders are deep.
        self.folder = Path(tempfile.mkdtemp(prefix="plaudit-broker-"))
        self.socket = self.folder / "s"
        self.url = f"unix://{self.socket}"
        self.argv = (
            shutil.which("redis-server") or find_server(),
            "--port",
            "0",
            "--unixsocket",
            str(self.socket),
            "--dir",
            str(self.folder),
            "--save",
            "",
            "--appendonly",
            "yes" if append_only else "no",
            "--logfile",
            str(self.folder / "log"),
            *options,
        )
        self.user = ""  # and its password, where nobody may ask without a name
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and wait until it answers."""
        self.process = subprocess.Popen(
            self.argv, env=self.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until = time.monotonic() + START_S
        while (why := ping(self.socket, self.user)) is not None:
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < until, why
            time.sleep(0.01)

    def kill(self) -> None:
        """SIGKILL, as if the power went; `start` brings back what is on disk."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    def client(self) -> redis.Redis:
        """A connection of the test's own; close it."""
        return redis.Redis.from_url(self.url)

    def __enter__(self) -> Broker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
