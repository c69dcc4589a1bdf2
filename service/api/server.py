"""The API process: bind, serve, say when ready, drain, leave."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import Iterator

import uvicorn

from plaudit.errors import UsageError
from service.api.app import create_app
from service.queue.connections import greet
from service.settings import Settings

LAST_WORDS_S = 1.0  # of the drain, in which open requests are told that they will not be answered


def bind(host: str, port: int) -> socket.socket:
    """A listening address; port 0 takes a free one. Raises UsageError when it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise UsageError(f"cannot listen on {host} port {port}: {error.strerror}") from error
    return sock


class _Server(uvicorn.Server):
    """uvicorn, but a signal that it has drained for is not raised a second time."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; then finish what is running, at most `drain_s`. Answers the exit code."""
    app = create_app(settings)
    sock = bind(settings.host, settings.port)
    assert settings.redis_url is not None  # create_app has seen to it
    greet(settings.redis_url, settings.redis_wait_s)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{host}:{sock.getsockname()[1]}"
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="on",
        timeout_graceful_shutdown=int(settings.drain_s) or 1,
        backlog=4096,
        timeout_keep_alive=75,
    )
    server = _Server(config)

    async def announce() -> None:
        while not (server.started and app.state.services.readiness().ready):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        print(json.dumps({"event": "ready", "url": url, "pid": os.getpid()}), flush=True)

    async def end_in_time() -> None:
        """What the drain does not finish is told so while there is still a connection to tell it on."""
        while not server.should_exit:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        await asyncio.sleep(max(0.0, int(settings.drain_s) - LAST_WORDS_S))
        app.state.drain.end()

    async def main() -> None:
        beside = [asyncio.create_task(announce()), asyncio.create_task(end_in_time())]
        try:
            await server.serve(sockets=[sock])
        finally:
            for task in beside:
                task.cancel()

    try:
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(main())
    finally:
        sock.close()
    return 0 if server.started else 1
