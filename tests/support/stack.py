"""The service as users run it: separate processes, told what they need by flags, found by the line they print."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from support.broker import Broker
from support.preloaded import Preloaded, can_fork

READY_S = 90.0
LEAVE_S = 40.0
WRONG_CLOCK = Path(__file__).with_name("wrong_clock.py")


def wait_for(condition: Callable[[], Any], seconds: float = 15.0, what: str = "the condition") -> Any:
    """Ask again until it is true; answers what it answered."""
    until = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < until, f"waited {seconds:g} s in vain for {what}"
        time.sleep(0.02)
    return value


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


class Process:
    """One `plaudit` process; its log is `log`, a JSON object a line. Its clock may be off by `clock_s` seconds."""

    forked = True  # from a process that has loaded the libraries, where that changes nothing

    def __init__(self, argv: list[str], log: Path, environ: dict[str, str], clock_s: float = 0.0) -> None:
        self.log = log
        self.popen: subprocess.Popen[bytes] | Preloaded
        program = [str(WRONG_CLOCK), str(clock_s)] if clock_s else ["-m", "service.cli"]
        with log.open("ab") as stderr:
            if self.forked and not clock_s and can_fork(argv, environ):
                self.popen = Preloaded(argv, stderr, environ)
            else:
                command = self._command([sys.executable, *program, *argv])
                self.popen = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, env=environ)

    def _command(self, argv: list[str]) -> list[str]:
        """What is executed to run this."""
        return argv

    @property
    def pid(self) -> int:
        return self.popen.pid

    def line(self, seconds: float = READY_S) -> dict[str, Any]:
        """The next line that it prints, as JSON."""
        assert self.popen.stdout is not None
        ready, _, _ = select.select([self.popen.stdout], [], [], seconds)
        text = self.popen.stdout.readline() if ready else b""
        assert text, f"said nothing in {seconds:g} s; its log ends with:\n{self.log.read_text()[-4000:]}"
        told: dict[str, Any] = json.loads(text)
        return told

    def logged(self) -> list[dict[str, Any]]:
        """Every line of its log so far."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def signal(self, number: int) -> None:
        self.popen.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and gone."""
        self.popen.kill()
        self.popen.wait()

    def stop(self) -> int:
        """SIGTERM; answers the exit code."""
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(LEAVE_S)

    def close(self) -> None:
        """Whatever state it is in: gone, asked politely first (an executor has cgroups to give back)."""
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGCONT)
            self.popen.send_signal(signal.SIGTERM)
            try:
                self.popen.wait(LEAVE_S)
            except subprocess.TimeoutExpired:
                self.kill()
        if self.popen.stdout is not None:
            self.popen.stdout.close()


class Stack:
    """A broker, an API, and the workers asked for. A context manager; leaving it ends every process it started.

    `settings` are environment variables without their prefix, the same for all processes: `lease_s="1"`. Metrics of
    all processes are on the API's `/metrics`, as under `plaudit up`.
    """

    def __init__(self, broker: Broker, model: Path, *, scorers: int = 1, executors: int = 1, **settings: str) -> None:
        self.broker = broker
        self.redis_urls = [broker.url]
        self.model = model
        self.folder = Path(tempfile.mkdtemp(prefix="plaudit-stack-"))
        (self.folder / "metrics").mkdir()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PLAUDIT_")}
        self.environ = (
            inherited
            | {f"PLAUDIT_{name.upper()}": value for name, value in settings.items()}
            | {
                "PROMETHEUS_MULTIPROC_DIR": str(self.folder / "metrics"),
                "OMP_NUM_THREADS": "1",
                "HF_HUB_OFFLINE": "1",
            }
        )
        self.processes: list[Process] = []
        self.api: Process | None = None
        self.url = ""
        self.num = {"score": scorers, "execute": executors}

    def _start(self, name: str, argv: list[str], clock_s: float = 0.0) -> Process:
        log = self.folder / f"{name}-{len(self.processes)}.log"
        process = Process([*argv, "--redis-url", *self.redis_urls], log, self.environ, clock_s)
        self.processes.append(process)
        return process

    def start_scorer(self, *flags: str) -> Process:
        return self._start("score", ["worker", "score", "--model", f"default={self.model}", *flags])

    def start_executor(self, *flags: str, clock_s: float = 0.0) -> Process:
        argv = ["worker", "execute", "--executors", "1", "--isolation-accept", "userns", *flags]
        return self._start("execute", argv, clock_s)

    def start_api(self, *flags: str, port: int = 0, wait: bool = True, clock_s: float = 0.0) -> Process:
        """Start the API; waits for its ready line, which needs a worker of each kind, or else only until it answers."""
        port = port or (0 if wait else free_port())
        self.api = self._start("api", ["serve", "--port", str(port), *flags], clock_s)
        if wait:
            self.url = self.api.line()["url"]
        else:
            self.url = f"http://127.0.0.1:{port}"
            wait_for(self._answers, READY_S, "the API")
        return self.api

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return client.get("/health").is_success
        except httpx.TransportError:
            return False

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def of_kind(self, kind: str) -> list[Process]:
        """Live workers that this stack started: `score`, `execute` or `api`."""
        return [one for one in self.processes if one.log.name.startswith(kind) and one.popen.poll() is None]

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60, trust_env=False, **options)

    def async_client(self, **options: Any) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=256)
        return httpx.AsyncClient(base_url=self.url, timeout=60, trust_env=False, limits=limits, **options)

    def metric(self, sample: str) -> float:
        """One sample of `/metrics`, by its name with labels as they are written there; 0.0 if there is none yet."""
        with self.client() as client:
            lines = client.get("/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.rsplit(" ", 1)[0] == sample)

    def __enter__(self) -> Stack:
        try:
            for _ in range(self.num["score"]):
                self.start_scorer()
            for _ in range(self.num["execute"]):
                self.start_executor()
            self.start_api(wait=all(self.num.values()))
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """End every process, the API first; a broker that was killed is started for their goodbyes."""
        if self.broker.process is None:
            self.broker.start()
        for process in reversed(self.processes):
            process.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)
