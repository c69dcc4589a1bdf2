"""One reader per API process for the event streams of durable requests, however many callers wait for them.

- One connection of its own and one background loop read all awaited streams at once. So a thousand long-polls cost
  Redis as many commands as one, and hold none of the connections that everything else uses.
- The reader tells a waiter that its stream has something new. The waiter then reads it by itself.
- A stream that is awaited while the reader is blocked wakes it through a stream of its own, `wake:{api}`. Should that
  fail, the read ends by itself within `BLOCK_S`.
- What no stream tells is looked at once a second, in two commands for all waiters: whether the owners of their requests
  live, and whether Redis still has the requests. A waiter that it concerns is woken and finds out.
- While nobody waits, nothing is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from typing import Any

import redis.asyncio

from plaudit.errors import BrokerUnavailable, Overloaded
from service.queue.keys import BLOCK_S, script
from service.queue.producer import Queue
from service.queue.protocol import broker_errors

log = logging.getLogger("plaudit.event_reader")

PAUSE_S = 0.02  # after a read that found something: what begins to wait meanwhile joins the next read
CHECK_S = 1.0  # between two looks at owners and requests
KEEP_WAKE_MS = 60_000

Position = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Watched:
    """What a waiter waits for.

    Attributes:
        events: key of the stream.
        request: key of the request; "" if it need not be looked at.
        owner: key that its owner keeps alive; "" if it need not be looked at.
    """

    events: str
    request: str = ""
    owner: str = ""


def position_of(cursor: str) -> Position:
    """Where in a stream the entry with this id stands."""
    milliseconds, _, sequence = cursor.partition("-")
    return int(milliseconds), int(sequence or 0)


class EventReader:
    """Request handlers call `wait`; background loops of the same event loop call `receive` and `check`.

    Args:
        client: a connection for nothing but the blocked read.
        queue: whose pool sends everything else.
        owner: this process's name.
    """

    def __init__(self, client: redis.asyncio.Redis, queue: Queue, owner: str) -> None:
        self._client: Any = client  # redis-py types every reply as a union of all replies
        self._queue = queue
        self._wake_key = queue.keys.wake(owner)
        self._wake_cursor = "0-0"
        self._wake_script = queue.client.register_script(script("wake", spare=True))
        self._waking: asyncio.Task[None] | None = None
        self._waiters: dict[asyncio.Future[None], tuple[Watched, Position]] = {}
        self._awaited = asyncio.Event()  # somebody waits
        self._reading: dict[str, Position] = {}  # from where the blocked read reads each stream
        self._blocked = False
        self._connection_lost = False

    def __len__(self) -> int:
        return len(self._waiters)

    async def wait(self, watched: Watched, cursor: str, timeout_s: float) -> None:
        """Wait until the stream has an event after `cursor`, or there is another reason to look, or for `timeout_s`."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        position = position_of(cursor)
        self._waiters[future] = watched, position
        self._awaited.set()
        try:
            read_from = self._reading.get(watched.events)
            if self._blocked and (read_from is None or position < read_from):
                self._wake()
            await asyncio.wait([future], timeout=timeout_s)
        finally:
            del self._waiters[future]
            if not self._waiters:
                self._awaited.clear()

    async def receive(self) -> None:
        """Read all awaited streams once, and notify the waiters of those that have something new."""
        await self._awaited.wait()
        self._reading = {}
        for watched, position in self._waiters.values():
            self._reading[watched.events] = min(position, self._reading.get(watched.events, position))
        cursors = {key: f"{position[0]}-{position[1]}" for key, position in self._reading.items()}
        self._blocked = True
        try:
            with broker_errors():
                streams = await self._client.xread(
                    {self._wake_key: self._wake_cursor, **cursors}, count=1, block=int(BLOCK_S * 1000)
                )
        except BrokerUnavailable as error:
            if not self._connection_lost:
                log.warning("no events are received: %s", error.detail)
            self._connection_lost = True
            await asyncio.sleep(0.1)
            self._notify(list(self._waiters))  # they learn by themselves whether Redis is away
            return
        finally:
            self._blocked = False
        self._connection_lost = False
        first_events = {key.decode(): entries[0][0].decode() for key, entries in streams}
        self._wake_cursor = first_events.pop(self._wake_key, self._wake_cursor)
        first_positions = {key: position_of(cursor) for key, cursor in first_events.items()}
        self._notify(
            [
                future
                for future, (watched, position) in self._waiters.items()
                if position < first_positions.get(watched.events, position)
            ]
        )
        if streams:
            await asyncio.sleep(PAUSE_S)

    async def check(self) -> None:
        """Notify the waiters whose request has lost its owner, and all of them if Redis has lost a request."""
        watched = {one for one, _ in self._waiters.values()}
        requests = sorted({one.request for one in watched if one.request})
        owners = sorted({one.owner for one in watched if one.owner})
        with contextlib.suppress(BrokerUnavailable), broker_errors():  # `receive` notices it, too
            num_requests = await self._queue.client.exists(*requests) if requests else 0
            alive = await self._queue.client.mget(owners) if owners else []
            dead = {owner for owner, value in zip(owners, alive, strict=True) if value is None}
            lost = num_requests < len(requests)
            self._notify([future for future, (one, _) in self._waiters.items() if lost or one.owner in dead])

    @staticmethod
    def _notify(futures: list[asyncio.Future[None]]) -> None:
        for future in futures:
            if not future.done():
                future.set_result(None)

    def _wake(self) -> None:
        if self._waking is None or self._waking.done():
            self._waking = asyncio.create_task(self._send_wake(), name="wake-event-reader")

    async def _send_wake(self) -> None:
        with contextlib.suppress(BrokerUnavailable, Overloaded), broker_errors():
            await self._wake_script(keys=[self._wake_key], args=[KEEP_WAKE_MS])
