"""How tasks are ended, so that they do end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

AGAIN_S = 0.2


async def end(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancel tasks and wait until they are gone; how they ended is nobody's concern any more.

    Cancelled again and again: `asyncio.wait_for`, through which redis-py sends every command, forgets a cancellation
    that arrives as its inner task is done (Python before 3.12), and a loop cancelled once would go on for ever.
    """
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN_S)
