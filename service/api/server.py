"""The API process: bind, serve, announce readiness, drain, exit."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import signal
from collections.abc import Iterator
from typing import Any, cast

import uvicorn

from service import descriptors, tracing
from service.api.app import create_app
from service.api.handlers.readiness import readiness
from service.api.http_protocol import ConnectionLimits, TimedProtocol, max_connections
from service.api.listening import listen, tls_options
from service.api.state import AppState
from service.queue.connections import greet_shards
from service.settings import Settings

SHUTDOWN_NOTICE_S = 1.0  # the end of the drain, when requests that are still open get 503


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
    tracing.configure("api")
    app = create_app(settings)
    tls = tls_options(settings)
    sock, url = listen(settings)
    greet_shards(settings)
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
        forwarded_allow_ips="*" if settings.uds is not None else settings.forwarded_allow_ips,
        **tls,
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
        if settings.uds is not None:
            settings.uds.unlink(missing_ok=True)
        tracing.shut_down()
    return 0 if server.started else 1
