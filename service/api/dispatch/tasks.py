"""asyncio tasks: how they are ended, run together, tied to a client's connection, and repeated.

- `cancel_and_wait` ends tasks, `gather_or_cancel` runs them together and leaves none behind.
- `off_loop` does work on a whole request: in a thread, if the request is large.
- `cancel_on_disconnect` ties a handler's work to its client's connection.
- `repeat` runs a background loop. A step that fails is logged and counted; the next one follows after a pause that
  doubles from `FIRST_PAUSE_S` to `LONGEST_PAUSE_S`, and the first step that returns resets the pause. A process whose
  loop fails goes on answering what it can; `plaudit_loop_failures_total` shows that something is wrong.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any, NoReturn, ParamSpec, TypeVar

from fastapi import Request

from plaudit.errors import ClientClosed
from service import metrics

log = logging.getLogger("plaudit.loops")

CANCEL_EVERY_S = 0.2
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0

AnyResult = TypeVar("AnyResult")
Arguments = ParamSpec("Arguments")

SMALL_BYTES = 64 * 1024  # what a request of up to so many bytes takes is done in the event loop
MAX_THREADS = 2  # at work on large requests; the event loop takes turns with all of them
_threads = ThreadPoolExecutor(MAX_THREADS, "large-request")
_is_large: ContextVar[bool] = ContextVar("is_large", default=False)  # of the request that this task works for


def mark_large() -> None:
    """The request that this task works for is large."""
    _is_large.set(True)


async def in_thread(
    function: Callable[Arguments, AnyResult], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> AnyResult:
    """Call a function in one of the threads for large requests."""
    call = functools.partial(function, *args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(_threads, call)


async def off_loop(
    function: Callable[Arguments, AnyResult], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> AnyResult:
    """Call a function that takes as long as its request is large: in a thread, unless the request is small."""
    if _is_large.get():
        return await in_thread(function, *args, **kwargs)
    return function(*args, **kwargs)


async def cancel_and_wait(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancel tasks and wait until all have ended. Their results and exceptions are not raised.

    The cancellation is repeated: `asyncio.wait_for`, through which redis-py sends every command, loses a cancellation
    that arrives just as its inner task is done (Python before 3.12), so a task cancelled once might never end.
    """
    running = {task for task in tasks if not task.done()}
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=CANCEL_EVERY_S)


async def gather_or_cancel(awaitables: Iterable[Awaitable[AnyResult]]) -> list[AnyResult]:
    """Like `asyncio.gather`, but when one fails the others are cancelled."""
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


async def cancel_on_disconnect(request: Request, work: Awaitable[AnyResult]) -> AnyResult:
    """Run until done, or until the client has closed the connection: then the work is cancelled.

    Args:
        request: whose body has been read.
        work: takes its jobs back from the queue when it is cancelled.

    Raises:
        ClientClosed: when the client was faster. Nobody reads the answer.
    """
    task = asyncio.ensure_future(work)
    disconnect = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait([task, disconnect], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return await task
        raise ClientClosed("the client closed the connection before the answer was ready")
    finally:
        await cancel_and_wait([task, disconnect])


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def repeat(name: str, step: Callable[[], Awaitable[None]], every_s: float = 0.0) -> NoReturn:
    """Call `step` until this task is cancelled.

    Args:
        name: the loop's name in log lines and metrics.
        step: one pass of the loop. An exception costs that pass only.
        every_s: the pause in seconds between two passes that returned.
    """
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            await step()
        except Exception:  # a background loop goes on whatever one pass raises
            metrics.loop_failures.labels(name).inc()
            log.exception("loop %s failed; it goes on in %.1f s", name, pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)
        else:
            pause_s = FIRST_PAUSE_S
            await asyncio.sleep(every_s)
