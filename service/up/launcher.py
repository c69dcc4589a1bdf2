"""The trees that `plaudit` grows: the whole service (`plaudit up`), or the workers of one kind (`plaudit worker`)."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from plaudit.errors import UsageError
from service.settings import Settings
from service.up import broker
from service.up.process import Child, command, environ_of
from service.up.supervisor import Supervisor

log = logging.getLogger("plaudit.up")

MAX_SOCKET_PATH = 107  # bytes of sun_path, less its terminator
LOCK_PATIENCE_S = 6.0  # how long the tree that had the state folder before may take to go
BROKER, WORKERS, API = 0, 1, 2  # stages: started upwards, stopped downwards


def up(settings: Settings) -> int:
    """Broker, API, scorers and executors until SIGTERM; answers the exit code."""
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(_reserved(settings.host, settings.port))
        run = stack.enter_context(_run_folder())
        data = settings.state_dir or run
        locks = [stack.enter_context(_locked(settings.state_dir))] if settings.state_dir else []
        children: list[Child] = []
        redis_url = settings.redis_url
        if redis_url is not None:
            _greet(redis_url, settings.redis_wait_s)
        else:
            server, unix_socket = broker.find_server(), run / "s"
            redis_url = f"unix://{unix_socket}"
            children.append(
                Child(
                    "broker",
                    broker.argv(server, unix_socket, data),
                    {"PATH": os.defpath},
                    BROKER,
                    probe=lambda: broker.ping(unix_socket),
                )
            )
        shared = settings.model_copy(update={"redis_url": redis_url, "metrics_port": 0, "state_dir": None})
        env = _environ(shared, run)
        children += _workers("score", settings.scorers, env)
        children += _workers("execute", num_executors(settings), env)
        port = str(address.getsockname()[1])
        children.append(Child("api", command("serve"), {**env, "PLAUDIT_PORT": port}, API, announces=True))

        def on_death(child: Child, pid: int, code: int) -> None:
            _forget_gauges(run, pid)
            if child.stage == BROKER and code != 0:
                _tell_last_lines(data / "broker.log")

        supervisor = Supervisor(
            children,
            drain_s=settings.drain_s + 2,
            folders=[run],
            keep_open=locks,
            on_ready=_announce,
            on_death=on_death,
        )
        return supervisor.run()


def _greet(redis_url: str, wait_s: float) -> None:
    """Wait for a Redis that is not this tree's own; the client is loaded only where there is one."""
    from service.queue.connections import greet

    greet(redis_url, wait_s)


def workers(settings: Settings, kind: Literal["score", "execute"], count: int) -> int:
    """Several workers of one kind on this host; the first one serves the metrics of all."""
    assert settings.redis_url is not None
    _greet(settings.redis_url, settings.redis_wait_s)
    with _run_folder() as run:
        env = _environ(settings.model_copy(update={"metrics_port": 0}), run)
        first, *others = _workers(kind, count, env)
        if settings.metrics_port:
            first = replace(first, env={**first.env, "PLAUDIT_METRICS_PORT": str(settings.metrics_port)})
        supervisor = Supervisor(
            [first, *others],
            drain_s=settings.drain_s + 2,
            folders=[run],
            on_death=lambda _, pid, code: _forget_gauges(run, pid),
        )
        return supervisor.run()


def _workers(kind: Literal["score", "execute"], count: int, env: dict[str, str]) -> list[Child]:
    """One process each; they are told that they are one, so that none of them supervises in its turn."""
    setting, role = ("PLAUDIT_SCORERS", "scorer") if kind == "score" else ("PLAUDIT_EXECUTORS", "executor")
    alone = {**env, setting: "1"}
    return [Child(f"{role}-{n}", command("worker", kind), alone, WORKERS) for n in range(1, count + 1)]


def num_executors(settings: Settings) -> int:
    """As many as asked for, else one per core that this process may use."""
    return len(os.sched_getaffinity(0)) if settings.executors is None else settings.executors


def _environ(settings: Settings, run: Path) -> dict[str, str]:
    """The children's environment, in which all processes count into one metrics folder."""
    metrics = run / "metrics"
    metrics.mkdir()
    return environ_of(settings, os.environ) | {"PROMETHEUS_MULTIPROC_DIR": str(metrics)}


@contextlib.contextmanager
def _run_folder() -> Iterator[Path]:
    """A private temporary folder whose path is short enough for a socket in it; the janitor removes it too."""
    base = tempfile.gettempdir()
    if len(os.fsencode(base)) + len("/plaudit-12345678/s") > MAX_SOCKET_PATH:
        base = "/tmp"
    with tempfile.TemporaryDirectory(prefix="plaudit-", dir=base, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@contextlib.contextmanager
def _reserved(host: str, port: int) -> Iterator[socket.socket]:
    """A bound socket that never listens: it keeps the port ours while the API is started again, and finds a free one.

    Linux lets the API bind beside it because both say SO_REUSEADDR and this one does not listen.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            reserved.bind((host, port))
        except OSError as error:
            raise UsageError(f"cannot listen on {host} port {port}: {error.strerror}") from error
        yield reserved


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """A lock on a state folder; the janitor inherits it, so it is held until the last of the tree has gone."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UsageError(f"--state-dir {folder}: {error.strerror}") from error
    try:
        until = time.monotonic() + LOCK_PATIENCE_S
        while not _try_lock(lock):
            if time.monotonic() > until:
                raise UsageError(f"--state-dir {folder} is in use by another plaudit")
            time.sleep(0.1)
        yield lock
    finally:
        os.close(lock)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _announce(event: dict[str, Any]) -> None:
    """The one line on standard output that scripts wait for."""
    try:
        print(json.dumps({"event": "ready", "url": event["url"], "pid": os.getpid()}), flush=True)
    except BrokenPipeError:
        log.warning("nobody reads standard output")


def _forget_gauges(run: Path, pid: int) -> None:
    """Gauges of a live process end with it; its counters stay in the sums (prometheus-client's file names)."""
    for path in (run / "metrics").glob(f"gauge_live*_{pid}.db"):
        path.unlink(missing_ok=True)


def _tell_last_lines(path: Path) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.writelines(f"broker: {line}\n" for line in path.read_text("utf-8", "replace").splitlines()[-5:])
