"""The process trees of `plaudit`: the whole service (`plaudit up`), or the workers of one kind (`plaudit worker`)."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import logging
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from plaudit.errors import UsageError
from service.api.listening import bind
from service.queue.shards import deal, served_shards
from service.settings import Settings
from service.up import broker
from service.up.process import Child, command, environ_of
from service.up.supervisor import Supervisor

log = logging.getLogger("plaudit.up")

MAX_SOCKET_PATH = 107  # bytes of sun_path, less its terminator
LOCK_WAIT_S = 6.0  # how long the previous tree with this state folder may take to end
BROKER, WORKERS, API = 0, 1, 2  # stages: started upwards, stopped downwards


def up(settings: Settings) -> int:
    """Broker, API, scorers and executors until SIGTERM; returns the exit code."""
    with contextlib.ExitStack() as stack:
        port = settings.port
        if settings.uds is None:
            address = stack.enter_context(reserved(settings.host, settings.port, shared=settings.apis > 1))
            port = address.getsockname()[1]
        run = stack.enter_context(run_folder())
        locks = [stack.enter_context(locked(settings.state_dir))] if settings.state_dir else []
        brokers: dict[str, Path] = {}
        children: list[Child] = []
        redis_url = settings.redis_url
        if redis_url is not None:
            _greet(settings)
        else:
            children, redis_url, brokers = _brokers(settings, run)
        shared = settings.model_copy(update={"redis_url": redis_url, "metrics_port": 0, "state_dir": None})
        env = _environ(shared, run)
        children += _workers("score", settings.scorers, shared, env)
        children += _workers("execute", num_executors(settings), shared, env)
        children += _apis(settings.apis, env, port)

        def on_exit(child: Child, pid: int, code: int) -> None:
            _remove_gauges(run, pid)
            if child.stage == BROKER and code != 0:
                _print_last_lines(brokers[child.name] / "broker.log")

        supervisor = Supervisor(
            children,
            drain_s=settings.drain_s + 2,
            folders=[run],
            keep_open=locks,
            on_ready=_announce,
            on_exit=on_exit,
        )
        return supervisor.run()


def apis(settings: Settings, on_ready: Callable[[dict[str, Any]], None]) -> int:
    """The API alone, on a Redis that is given, until SIGTERM. Returns the exit code."""
    _greet(settings)
    with reserved(settings.host, settings.port, shared=settings.apis > 1) as address, run_folder() as run:
        env = _environ(settings.model_copy(update={"metrics_port": 0}), run)
        supervisor = Supervisor(
            _apis(settings.apis, env, address.getsockname()[1]),
            drain_s=settings.drain_s + 2,
            folders=[run],
            on_ready=on_ready,
            on_exit=lambda _, pid, code: _remove_gauges(run, pid),
        )
        return supervisor.run()


def _apis(count: int, env: dict[str, str], port: int) -> list[Child]:
    names = ["api"] if count == 1 else [f"api-{number}" for number in range(1, count + 1)]
    api_env = {**env, "PLAUDIT_PORT": str(port)}
    return [Child(name, command("serve"), api_env, API, announces=True, front=True) for name in names]


def _brokers(settings: Settings, run: Path) -> tuple[list[Child], str, dict[str, Path]]:
    """The embedded brokers, their URLs as `redis_url` has them, and the folder of each one's data by its name."""
    server, data = broker.find_server(), settings.state_dir or run
    children, urls, folders = [], [], {}
    for number in range(1, settings.shards + 1):
        alone = settings.shards == 1
        name, unix_socket = ("broker", run / "s") if alone else (f"broker-{number}", run / f"s{number}")
        folder = data if number == 1 else data / f"shard-{number}"  # one broker's data are the first's of several
        folder.mkdir(mode=0o700, exist_ok=True)
        children.append(
            Child(
                name,
                broker.argv(server, unix_socket, folder),
                {"PATH": os.defpath},
                BROKER,
                probe=functools.partial(broker.ping, unix_socket),
            )
        )
        urls.append(f"unix://{unix_socket}" if alone else f"unix://{unix_socket}#{number}")
        folders[name] = folder
    return children, " ".join(urls), folders


def _greet(settings: Settings) -> None:
    """Wait for a Redis that is not part of the tree; the client is imported only if there is one."""
    from service.queue.connections import greet_shards

    greet_shards(settings)


def workers(
    settings: Settings,
    kind: Literal["score", "execute"],
    count: int,
    on_ready: Callable[[dict[str, Any]], None] | None = None,
) -> int:
    """Several workers of one kind on this host; the first one serves the metrics of all. Returns the exit code.

    `on_ready`: called once, when the first of them is ready.
    """
    _greet(settings)
    with run_folder() as run:
        env = _environ(settings.model_copy(update={"metrics_port": 0}), run)
        first, *others = _workers(kind, count, settings, env)
        if settings.metrics_port:
            first = replace(first, env={**first.env, "PLAUDIT_METRICS_PORT": str(settings.metrics_port)})
        children = [first, *others] if on_ready is None else [replace(child, front=True) for child in (first, *others)]
        supervisor = Supervisor(
            children,
            drain_s=settings.drain_s + 2,
            folders=[run],
            on_ready=on_ready,
            on_exit=lambda _, pid, code: _remove_gauges(run, pid),
        )
        return supervisor.run()


def _workers(kind: Literal["score", "execute"], count: int, settings: Settings, env: dict[str, str]) -> list[Child]:
    """One process each; their settings say that they are one, so that none of them supervises others.

    If there are at least as many as shards, each serves one shard, in turn; otherwise each serves all of them.
    """
    setting, role = ("PLAUDIT_SCORERS", "scorer") if kind == "score" else ("PLAUDIT_EXECUTORS", "executor")
    shards = served_shards(settings)
    children = []
    for index, served in enumerate(deal(len(shards), count)):
        single = {**env, setting: "1"}
        if len(served) < len(shards):
            single["PLAUDIT_SERVE_SHARD"] = shards[served[0]].name
        children.append(Child(f"{role}-{index + 1}", command("worker", kind), single, WORKERS, announces=True))
    return children


def num_executors(settings: Settings) -> int:
    """As many as asked for, else one per core that this process may use."""
    return len(os.sched_getaffinity(0)) if settings.executors is None else settings.executors


def _environ(settings: Settings, run: Path) -> dict[str, str]:
    """The children's environment: all processes count into one metrics folder."""
    metrics = run / "metrics"
    metrics.mkdir()
    return environ_of(settings, os.environ) | {"PROMETHEUS_MULTIPROC_DIR": str(metrics)}


@contextlib.contextmanager
def run_folder() -> Iterator[Path]:
    """A private temporary folder whose path is short enough for a socket in it; the reaper removes it, too."""
    base = tempfile.gettempdir()
    if len(os.fsencode(base)) + len("/plaudit-12345678/s") > MAX_SOCKET_PATH:
        base = "/tmp"
    with tempfile.TemporaryDirectory(prefix="plaudit-", dir=base, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@contextlib.contextmanager
def reserved(host: str, port: int, *, shared: bool = False) -> Iterator[socket.socket]:
    """A bound socket that never listens: it reserves the port while the API restarts, and finds a free one for port 0.

    Linux lets the API bind beside it because both set SO_REUSEADDR and this one does not listen. `shared`: by several
    APIs, which need SO_REUSEPORT on this one, too. It is set when the port is known to be nobody else's.
    """
    with contextlib.ExitStack() as stack:
        reserved = stack.enter_context(bind(host, port))
        if shared:
            port = reserved.getsockname()[1]
            reserved.close()
            reserved = stack.enter_context(bind(host, port, shared=True))
        yield reserved


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[int]:
    """A lock on a state folder; the reaper inherits it, so it is held until the last process of the tree has ended."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UsageError(f"--state-dir {folder}: {error.strerror}") from error
    try:
        until = time.monotonic() + LOCK_WAIT_S
        while not _try_lock(lock):
            if time.monotonic() > until:
                raise UsageError(f"--state-dir {folder}: another plaudit uses it")
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
        log.warning("standard output is closed; the ready line is not printed")


def _remove_gauges(run: Path, pid: int) -> None:
    """Remove the gauges of a process that exited; its counters stay in the sums (prometheus-client's file names)."""
    for path in (run / "metrics").glob(f"gauge_live*_{pid}.db"):
        path.unlink(missing_ok=True)


def _print_last_lines(path: Path) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.writelines(f"broker: {line}\n" for line in path.read_text("utf-8", "replace").splitlines()[-5:])
