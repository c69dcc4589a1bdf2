"""Requests that outlive a connection, and this process: asynchronous ones, and those with an idempotency key.

A durable request is a Redis hash with its body, its owner (an API process that keeps a short-lived key alive) and, at
the end, its answer; finished items go into a stream beside it, which is what long-polls and server-sent events read.
When the owner dies, whoever asks next takes the request over and runs it again: everything below is identified by
content, so jobs in flight are joined and finished ones are recalled. An item that was told before is then told again.

An answer that a retry could better (a `partial` one, or one with a failure of ours) goes to those who wait for it and
stays readable, but the next request under the same idempotency key runs again.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from plaudit.errors import BrokerUnavailable, Conflict, InfraError, NotFound, Overloaded, PlauditError
from plaudit.schemas import JobEvent, JobStatus, ProblemDocument
from service.api.dispatch.tasks import end
from service.api.error_handlers import problem_of
from service.queue.keys import BLOCK_S, script
from service.queue.producer import Queue
from service.queue.protocol import broker_errors, now_ms

log = logging.getLogger("plaudit.ledger")

ALIVE_MS = 4000  # an owner that has not said so for this long is dead
BEAT_S = ALIVE_MS / 8000
START = "0-0"

Perform = Callable[[str, bytes, str, str, int, Callable[[int, Any], None]], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of a durable request at one moment."""

    state: str
    items: int
    owner: str
    answer: dict[str, Any] | None
    problem: ProblemDocument | None


def request_id_of(tenant: str, idempotency_key: str) -> str:
    return hashlib.sha256(f"{tenant}\0{idempotency_key}".encode()).hexdigest()[:32]


def improvable(answer: Any) -> bool:
    """Whether a retry might do better: something in it is partial, timed out, cancelled or failed on our side."""
    if isinstance(answer, dict):
        if answer.get("status") in ("partial", "timeout_queue", "infra_error", "cancelled"):
            return True
        return any(improvable(value) for value in answer.values())
    return isinstance(answer, list) and any(improvable(value) for value in answer)


class Ledger:
    """One per API process. `perform(route, body, request_id, tenant, deadline_ms, progress)` does a request's work."""

    def __init__(self, queue: Queue, owner: str, keep_s: int, perform: Perform) -> None:
        self.queue = queue
        self.owner = owner
        self.keep_ms = keep_s * 1000
        self.perform = perform
        self._claim = queue.client.register_script(script("claim"))
        self._end_once = queue.client.register_script(script("settle"))
        self._say_alive = queue.client.register_script(script("alive", spare=True))
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._records: dict[str, dict[str, Any]] = {}  # of the same requests: what Redis was told, should it forget
        self._endings: set[asyncio.Future[None]] = set()

    def _key(self, request_id: str) -> str:
        return f"{self.queue.keys.prefix}request:{request_id}"

    def _events(self, request_id: str) -> str:
        return f"{self._key(request_id)}:events"

    @property
    def _alive(self) -> str:
        return f"{self.queue.keys.prefix}api:{self.owner}"

    async def turn(self) -> None:
        """Say that this process lives, and drop what another process was told to cancel."""
        with contextlib.suppress(BrokerUnavailable), broker_errors():
            await self._say_alive(keys=[self._alive], args=[ALIVE_MS])
            tasks = dict(self._tasks)
            async with self.queue.client.pipeline(transaction=False) as pipe:
                for request_id in tasks:
                    pipe.hget(self._key(request_id), "state")
                states = await pipe.execute() if tasks else []
            for task, state in zip(tasks.values(), states, strict=True):
                if state == b"cancelled":
                    task.cancel()

    async def close(self) -> None:
        """Hand over what is unfinished: the next process that is asked takes it up."""
        await end(self._tasks.values())
        with contextlib.suppress(BrokerUnavailable, Overloaded), broker_errors():
            await self.queue.client.delete(self._alive)

    async def start(self, request_id: str, route: str, body: bytes, tenant: str, deadline_ms: int, items: int) -> None:
        """Make sure that this request is being worked on, here or elsewhere. Raises Conflict."""
        with broker_errors():
            await self._say_alive(keys=[self._alive], args=[ALIVE_MS])
            body_hash = hashlib.sha256(route.encode() + b"\0" + body).hexdigest()
            arguments = [
                self.owner,
                body_hash,
                route,
                body,
                now_ms(),
                self.keep_ms + max(0, deadline_ms - now_ms()),
                tenant,
                deadline_ms,
                self.queue.keys.prefix,
                items,
            ]
            word = await self._claim(keys=[self._key(request_id)], args=arguments)
        if word == b"conflict":
            raise Conflict("this Idempotency-Key was used with another body or route")
        if word == b"mine" and request_id not in self._tasks:
            work = self._work(request_id, route, body, tenant, deadline_ms)
            task = asyncio.create_task(work, name=f"request-{request_id}")
            self._tasks[request_id] = task
            self._records[request_id] = {
                "hash": body_hash,
                "route": route,
                "tenant": tenant,
                "items": items,
                "owner": self.owner,
            }
            task.add_done_callback(functools.partial(self._ended, request_id))

    def _ended(self, request_id: str, task: asyncio.Task[None]) -> None:
        """A request whose work ended in a way that nobody expected must end too, or its callers would wait for ever."""
        self._tasks.pop(request_id, None)
        record = self._records.pop(request_id, {})
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("request failed", exc_info=error, extra={"request_id": request_id})
            problem = problem_of(PlauditError("an unexpected error; the log has it"), request_id).model_dump_json()
            ending = asyncio.ensure_future(self._settle(request_id, "failed", **record, problem=problem, again="1"))
            self._endings.add(ending)
            ending.add_done_callback(self._endings.discard)

    async def _work(self, request_id: str, route: str, body: bytes, tenant: str, deadline_ms: int) -> None:
        told: set[int] = set()
        pending: set[asyncio.Task[None]] = set()

        def progress(index: int, result: Any) -> None:
            told.add(index)
            event = JobEvent(index=index, result=result.model_dump(mode="json"))
            task = asyncio.ensure_future(self._tell(request_id, {"item": event.model_dump_json()}))
            pending.add(task)
            task.add_done_callback(pending.discard)

        try:
            answer = await self.perform(route, body, request_id, tenant, deadline_ms, progress)
        except PlauditError as error:
            problem = problem_of(error, request_id).model_dump_json()
            await self._settle(request_id, "failed", problem=problem, again="1" if error.retryable else "0")
            return
        finally:
            await asyncio.gather(*pending, return_exceptions=True)
        await self._settle(request_id, "done", answer=json.dumps(answer), again="1" if improvable(answer) else "0")

    async def _tell(self, request_id: str, fields: dict[str, str]) -> None:
        with broker_errors():
            await self.queue.client.xadd(self._events(request_id), fields)
            await self.queue.client.pexpire(self._events(request_id), self.keep_ms)

    async def _settle(self, request_id: str, state: str, **fields: Any) -> None:
        """Write the ending unless another one stands; waits for Redis if it is away or full: no answer may be lost.

        The record goes with it, so that even a Redis that came back empty has an answer to give.
        """
        fields = {**self._records.get(request_id, {}), **fields}
        words = [word for pair in fields.items() for word in pair]
        while True:
            try:
                with broker_errors():
                    keys = [self._key(request_id), self._events(request_id)]
                    await self._end_once(keys=keys, args=[state, self.keep_ms, *words])
                return
            except (BrokerUnavailable, Overloaded) as error:
                log.warning("answer of %s waits for the queue: %s", request_id, error.detail)
                await asyncio.sleep(0.25)

    async def entry(self, request_id: str, tenant: str) -> Entry:
        """Raises NotFound for a request that is unknown, expired or another caller's."""
        names = ("tenant", "state", "items", "owner", "answer", "problem")
        with broker_errors():
            raw = await self.queue.client.hmget(self._key(request_id), names)
        record = self._records.get(request_id)
        if raw[0] is None and record is not None and record["tenant"] == tenant:  # Redis forgot what we work on
            return Entry("running", record["items"], self.owner, None, None)
        if raw[0] is None or raw[0].decode() != tenant:
            raise NotFound(f"no request {request_id}")
        problem = ProblemDocument.model_validate_json(raw[5]) if raw[5] else None
        return Entry(raw[1].decode(), int(raw[2]), raw[3].decode(), json.loads(raw[4]) if raw[4] else None, problem)

    async def _adopt(self, request_id: str, entry: Entry) -> None:
        """Take a running request over if the process that ran it is dead."""
        if entry.owner == self.owner:
            return
        with broker_errors():
            if await self.queue.client.exists(f"{self.queue.keys.prefix}api:{entry.owner}"):
                return
        await self._take_up(request_id, entry.items)

    async def _take_up(self, request_id: str, items: int) -> None:
        """Start a request from its record, if there still is one."""
        with broker_errors():
            names = ("route", "body", "tenant", "deadline")
            route, body, tenant, deadline = await self.queue.client.hmget(self._key(request_id), names)
        if route is not None:
            await self.start(request_id, route.decode(), body, tenant.decode(), int(deadline), items)

    async def again(self, request_id: str, tenant: str) -> bool:
        """Run a request that ended in a way that a retry may better once more; False if its deadline has passed."""
        entry = await self.entry(request_id, tenant)
        with broker_errors():
            deadline = await self.queue.client.hget(self._key(request_id), "deadline")
        if deadline is None or int(deadline) <= now_ms():
            return False
        await self._take_up(request_id, entry.items)
        return True

    async def wait(self, request_id: str, tenant: str) -> Entry:
        """Wait for the ending, taking the request over if its owner dies. Raises InfraError if Redis has lost it."""
        cursor = START
        while True:
            if task := self._tasks.get(request_id):
                await asyncio.wait([task])  # its ending is written by then
            try:
                entry = await self.entry(request_id, tenant)
            except NotFound as error:
                raise InfraError("the queue lost this request; did it restart empty?", retry_after_s=1.0) from error
            if entry.state != "running":
                return entry
            await self._adopt(request_id, entry)
            cursor, _ = await self._read(request_id, cursor, BLOCK_S)

    async def status(self, request_id: str, tenant: str, cursor: str, wait_s: float) -> JobStatus:
        """What is new since `cursor`, waiting at most so long for something."""
        until = asyncio.get_running_loop().time() + wait_s
        while True:
            entry = await self.entry(request_id, tenant)
            if entry.state == "running":
                await self._adopt(request_id, entry)
            left = until - asyncio.get_running_loop().time()
            block_s = min(BLOCK_S, left) if entry.state == "running" else 0.0
            cursor, events = await self._read(request_id, cursor, max(0.0, block_s))
            if events or left <= 0 or entry.state != "running":
                entry = await self.entry(request_id, tenant)
                if entry.state != "running":  # it may have ended since: then its last items are there too
                    cursor, last = await self._read(request_id, cursor, 0.0)
                    events += last
                items = [JobEvent.model_validate_json(fields[b"item"]) for fields in events if b"item" in fields]
                return JobStatus(
                    job_id=request_id,
                    state=entry.state,  # type: ignore[arg-type]
                    cursor=cursor,
                    items=items,
                    total=entry.items,
                    answer=entry.answer,
                    error=entry.problem,
                )

    async def events(self, request_id: str, tenant: str, cursor: str) -> AsyncIterator[JobStatus]:
        """Everything that is new, as it comes, until the request has ended."""
        while True:
            status = await self.status(request_id, tenant, cursor, 10.0)
            cursor = status.cursor
            yield status
            if status.state != "running":
                return

    async def cancel(self, request_id: str, tenant: str) -> JobStatus:
        """End a running request as `cancelled`; one that has ended stays as it is."""
        entry = await self.entry(request_id, tenant)
        if entry.state == "running":
            await self._settle(request_id, "cancelled")
            if task := self._tasks.get(request_id):
                task.cancel()
        return await self.status(request_id, tenant, START, 0.0)

    async def _read(self, request_id: str, cursor: str, block_s: float) -> tuple[str, list[dict[bytes, bytes]]]:
        with broker_errors():
            block = int(block_s * 1000) or None
            found = await self.queue.client.xread({self._events(request_id): cursor}, count=1000, block=block)
        events = [(entry.decode(), fields) for _, entries in found for entry, fields in entries]
        return (events[-1][0] if events else cursor), [fields for _, fields in events]
