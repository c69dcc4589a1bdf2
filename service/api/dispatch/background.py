"""Background loops of the API that outlive what they meet.

A loop is one function, called again and again. What it raises is logged and counted, and the next call comes after a
pause that doubles from `FIRST_PAUSE_S` to `LONGEST_PAUSE_S`; the first call that returns resets the pause. A process
whose loop fails goes on answering what it can, and says in `plaudit_loop_failures_total` that something is wrong.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NoReturn

from service import metrics

log = logging.getLogger("plaudit.loops")

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0


async def repeat(name: str, turn: Callable[[], Awaitable[None]], every_s: float = 0.0) -> NoReturn:
    """Call `turn` until this task is cancelled.

    Args:
        name: the loop's name in log lines and metrics.
        turn: one turn of the loop. Whatever it raises costs that turn only.
        every_s: the pause in seconds between two turns that returned.
    """
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            await turn()
        except Exception:  # a background loop outlives what it meets
            metrics.loop_failures.labels(name).inc()
            log.exception("loop %s failed; it goes on in %.1f s", name, pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)
        else:
            pause_s = FIRST_PAUSE_S
            await asyncio.sleep(every_s)
