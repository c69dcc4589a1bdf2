"""HTTP connections that end: uvicorn's protocol with timeouts, and a bound on how many are open.

- A request head must be complete `header_timeout_s` after the connection was opened or the head begun.
- A body must not pause for longer than `idle_timeout_s`, nor the client's reading of an answer. A pause in which this
  server does not read does not count.
- Between two requests a connection may be idle for `idle_timeout_s`, too (uvicorn's own timer).
- When `max_connections` are open, a new one replaces the one that has waited longest for its request: first those whose
  head is not complete, then idle ones. If all are at work, the new one is closed.
- A connection that is closed for one of these reasons gets no answer, and is counted as rejected.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, Literal

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service import metrics

log = logging.getLogger("plaudit.connections")

RESERVED_DESCRIPTORS = 640  # for Redis, logs and files, if half of all are not fewer
LOG_EVERY_S = 10.0

Awaited = Literal["head", "body", "idle", ""]


def max_connections(num_descriptors: int) -> int:
    """How many connections may be open with so many descriptors."""
    return num_descriptors - min(RESERVED_DESCRIPTORS, num_descriptors // 2)


class ConnectionLimits:
    """What all connections of one API process share."""

    def __init__(self, header_timeout_s: float, idle_timeout_s: float, most: int) -> None:
        self.header_timeout_s = header_timeout_s
        self.idle_timeout_s = idle_timeout_s
        self.most = most
        self.awaiting: dict[Awaited, dict[TimedProtocol, None]] = {"head": {}, "idle": {}}  # the oldest first
        self._logged_at = -LOG_EVERY_S

    def make_room(self, num_open: int) -> None:
        """Close a connection if more are open than may be."""
        if num_open > self.most:
            oldest = next(iter(self.awaiting["head"] or self.awaiting["idle"]))  # the new one at least awaits its head
            self.close(oldest, "connections")

    def close(self, connection: TimedProtocol, reason: str) -> None:
        """Close a connection for this reason (a label of `plaudit_rejected_total`)."""
        metrics.rejected.labels(reason).inc()
        if time.monotonic() - self._logged_at >= LOG_EVERY_S:
            self._logged_at = time.monotonic()
            log.warning("connections are closed: %s", reason, extra={"client": connection.client})
        connection.expect("")
        connection.transport.abort()


class TimedProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *args: Any, limits: ConnectionLimits, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limits = limits
        self._awaited: Awaited = ""
        self._timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def expect(self, awaited: Awaited) -> None:
        """From now on this is what the client is to send; its time begins."""
        waiting = self._limits.awaiting
        waiting.get(self._awaited, {}).pop(self, None)
        if awaited in waiting:
            waiting[awaited][self] = None
        self._awaited = awaited
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if awaited in ("head", "body"):
            timeout_s = self._limits.header_timeout_s if awaited == "head" else self._limits.idle_timeout_s
            self._timer = self.loop.call_later(timeout_s, self._expire)

    def _expire(self) -> None:
        if self.flow.read_paused:
            self.expect(self._awaited)
        else:
            self._limits.close(self, f"slow_{self._awaited}")

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.expect("head")
        self._limits.make_room(len(self.connections))

    def connection_lost(self, exc: Exception | None) -> None:
        self.expect("")
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._awaited == "body":
            self.expect("body")
        super().data_received(data)
        if self._awaited == "idle":  # what came begins no request
            self.expect("head")

    def on_message_begin(self) -> None:
        self.expect("head")
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self.expect("body")
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        answered = self.cycle is None or self.cycle.response_complete  # before the body had ended
        self.expect("head" if answered else "")

    def on_response_complete(self) -> None:
        super().on_response_complete()  # which starts uvicorn's timer, unless a pipelined request follows
        if self._awaited == "" and self.timeout_keep_alive_task is not None and not self.transport.is_closing():
            self.expect("idle")

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timer = self.loop.call_later(self._limits.idle_timeout_s, self._limits.close, self, "slow_reader")

    def resume_writing(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        super().resume_writing()
