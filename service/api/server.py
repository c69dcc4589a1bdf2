"""The API process: bind, serve, announce readiness, drain, exit."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import signal
import socket
from collections.abc import Iterator
from typing import Any, cast

import uvicorn

from plaudit.errors import UsageError
from service import descriptors
from service.api.app import create_app
from service.api.handlers.readiness import readiness
from service.api.http_protocol import ConnectionLimits, TimedProtocol, max_connections
from service.api.state import AppState
from service.queue.connections import greet_shards
from service.settings import Settings

SHUTDOWN_NOTICE_S = 1.0  # the end of the drain, when requests that are still open get 503


def bind(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A socket bound to this address; port 0 takes a free one. Raises UsageError when the address is not available.

    `shared`: with other API processes of this user, among which the kernel divides the connections.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise UsageError(f"cannot listen on {host} port {port}: {error.strerror}") from error
    return sock


class _Server(uvicorn.Server):
    """uvicorn, but a signal that made it drain is not raised again afterwards."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; then finish what is running, at most `drain_s`. Returns the exit code."""
    app = create_app(settings)
    sock = bind(settings.host, settings.port, shared=settings.apis > 1)
    greet_shards(settings)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{host}:{sock.getsockname()[1]}"
    limits = ConnectionLimits(
        settings.header_timeout_s, settings.idle_timeout_s, max_connections(descriptors.raise_limit())
    )
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="on",
        timeout_graceful_shutdown=int(settings.drain_s) or 1,
        backlog=4096,
        http=cast(Any, functools.partial(TimedProtocol, limits=limits)),
        timeout_keep_alive=cast(Any, settings.idle_timeout_s),  # uvicorn's type is int, its timer takes any number
    )
    server = _Server(config)

    def is_ready() -> bool:
        app_state: AppState = app.state.plaudit
        return readiness(app_state.fleet, settings).ready

    async def announce() -> None:
        while not (server.started and is_ready()):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        print(json.dumps({"event": "ready", "url": url, "pid": os.getpid()}), flush=True)

    async def end_in_time() -> None:
        """Answer what the drain does not finish while its connection is still open."""
        while not server.should_exit:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        await asyncio.sleep(max(0.0, int(settings.drain_s) - SHUTDOWN_NOTICE_S))
        app.state.drain.end()

    async def main() -> None:
        background = [asyncio.create_task(announce()), asyncio.create_task(end_in_time())]
        try:
            await server.serve(sockets=[sock])
        finally:
            for task in background:
                task.cancel()

    try:
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(main())
    finally:
        sock.close()
    return 0 if server.started else 1
