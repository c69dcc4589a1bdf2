"""Work that ends when its client hangs up: then it is cancelled, which takes its jobs back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from fastapi import Request

from plaudit.errors import Invalid
from service.api.dispatch.tasks import end

A = TypeVar("A")


async def while_connected(request: Request, work: Awaitable[A]) -> A:
    """Run until done or until the client is gone. The request's body must have been read."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait([task, gone], return_when=asyncio.FIRST_COMPLETED)
        return await task if task.done() else await _cancelled(task)
    finally:
        await end([task, gone])


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _cancelled(task: asyncio.Future[A]) -> A:
    await end([task])
    raise Invalid("the client closed the connection")  # nobody reads this
