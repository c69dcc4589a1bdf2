"""Requests that outlive a connection and this process: asynchronous ones, and those with an idempotency key.

- A durable request is a Redis hash with its body, its owner (an API process that keeps a short-lived key alive) and, at
  the end, its answer. Finished items go into a stream beside it, which long-polls and server-sent events read.
- The body is there while the request runs; the items are there while it runs, and are in its answer afterwards.
  Answers are compressed. All of them together have a budget of bytes: a new request that does not fit is rejected.
- An answer whose caller waits for it (`brief`) is kept for less long where memory is short, but for two minutes.
- Who waits for a request waits for the process's one `EventReader`, which holds the only connection that blocks.
- When the owner dies, the next process that is asked about the request takes it over and runs it again. All work is
  identified by its content, so running jobs are joined and finished ones are answered from the cache. An item that was
  sent before is then sent again.
- An answer that a retry could improve (a `partial` one, or one with a server error in it) goes to those who wait for it
  and stays readable. The next request under the same idempotency key runs again.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import json
import logging
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from plaudit.errors import BrokerUnavailable, Conflict, InfraError, NotFound, Overloaded, PlauditError
from plaudit.schemas import JobEvent, JobStatus, ProblemDocument
from service import metrics
from service.api.dispatch.request_context import RequestContext
from service.api.dispatch.shards import Shards
from service.api.dispatch.tasks import cancel_and_wait
from service.api.error_handlers import problem_document
from service.api.stores.event_reader import EventReader, Watched
from service.queue.keys import script
from service.queue.producer import Queue
from service.queue.protocol import broker_errors, no_room, now_ms

log = logging.getLogger("plaudit.durable_requests")

ALIVE_MS = 4000  # an owner without a heartbeat for so long is dead
HEARTBEAT_S = ALIVE_MS / 8000
EVENTS_PER_READ = 1000
KEEP_BRIEF_MS = 120_000  # longer than any client goes on retrying
MAX_INLINE_BYTES = 256 * 1024  # of an answer that is compressed in the event loop; larger ones go to a thread
START = "0-0"  # the cursor before the first item
CONFIRM_S = 60.0  # how long an ending that replicas do not have is written again
OVERDUE_MS = 10_000  # as in claim.lua
LONGEST_WAIT_S = 30.0  # after so long a waiter looks at its request, whatever the reader says

Perform = Callable[[str, bytes, RequestContext], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class DurableRequest:
    """What is known of a durable request at one moment. `num_items` of them make it complete."""

    state: str
    num_items: int
    owner: str
    answer: dict[str, Any] | None
    problem: ProblemDocument | None
    deadline_ms: int = 0  # by the clock of its Redis
    order: str = ""  # of the items of an ended request: `event:index` each
    end: str = ""  # the event that ended it

    def items_after(self, cursor: str) -> tuple[str, list[JobEvent]]:
        """The items of an ended request that ended after a cursor, from its answer, and the last cursor."""
        assert self.answer is not None
        read = _moment(cursor)
        pairs = [pair.split(":") for pair in self.order.split()]
        indexes = [int(index) for event_id, index in pairs if _moment(event_id) > read]
        results = self.answer["results"]
        events = [JobEvent(index=index, result=results[index]) for index in indexes]
        return max(cursor, self.end, key=_moment), events


def _moment(cursor: str) -> tuple[int, ...]:
    return tuple(map(int, cursor.split("-")))


def _pack(answer: dict[str, Any]) -> bytes:
    return zlib.compress(json.dumps(answer).encode(), 1)


def _unpack(stored: bytes) -> dict[str, Any]:
    """An answer as it is stored; older versions store it as JSON."""
    answer: dict[str, Any] = json.loads(stored if stored.startswith(b"{") else zlib.decompress(stored))
    return answer


def request_id_of(tenant: str, idempotency_key: str) -> str:
    """The id of a caller's request under its idempotency key."""
    return hashlib.sha256(f"{tenant}\0{idempotency_key}".encode()).hexdigest()[:32]


def is_improvable(answer: Any) -> bool:
    """Whether a retry could improve an answer: something in it is partial, timed out, cancelled or a server error."""
    if isinstance(answer, dict):
        if answer.get("status") in ("partial", "timeout_queue", "infra_error", "cancelled"):
            return True
        return any(is_improvable(value) for value in answer.values())
    return isinstance(answer, list) and any(is_improvable(value) for value in answer)


class DurableRequests:
    """One per API process.

    Args:
        queue: whose Redis keeps the requests.
        owner: this process's name.
        keep_s: how long an ended request can be read, in seconds.
        perform: `perform(route, body, context)` answers a request.
        reader: says when a request has new events.
    """

    def __init__(self, queue: Queue, owner: str, keep_s: int, perform: Perform, reader: EventReader) -> None:
        self.queue = queue
        self.reader = reader
        self.owner = owner
        self.keep_ms = keep_s * 1000
        self.perform = perform
        self._claim = queue.client.register_script(script("claim"))
        self._end_once = queue.client.register_script(script("settle", spare=True))  # it frees the body
        self._add = queue.client.register_script(script("event"))
        self._announce = queue.client.register_script(script("alive", spare=True))
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._records: dict[str, dict[str, Any]] = {}  # of the same requests, in case Redis restarts empty
        self._settling: set[asyncio.Future[None]] = set()

    def _key(self, request_id: str) -> str:
        return f"{self.queue.keys.prefix}request:{request_id}"

    def _events(self, request_id: str) -> str:
        return f"{self._key(request_id)}:events"

    def _alive_key(self, owner: str) -> str:
        return f"{self.queue.keys.prefix}api:{owner}"

    async def heartbeat(self) -> None:
        """Announce that this process lives, and stop the requests that another process has cancelled."""
        with contextlib.suppress(BrokerUnavailable), broker_errors():
            await self._announce(keys=[self._alive_key(self.owner)], args=[ALIVE_MS])
            tasks = dict(self._tasks)
            async with self.queue.client.pipeline(transaction=False) as pipe:
                for request_id in tasks:
                    pipe.hget(self._key(request_id), "state")
                states = await pipe.execute() if tasks else []
            for task, state in zip(tasks.values(), states, strict=True):
                if state == b"cancelled":
                    task.cancel()

    async def close(self) -> None:
        """Stop what is unfinished; the next process that is asked takes it over."""
        await cancel_and_wait(self._tasks.values())
        with contextlib.suppress(BrokerUnavailable, Overloaded), broker_errors():
            await self.queue.client.delete(self._alive_key(self.owner))

    async def start(
        self,
        request_id: str,
        route: str,
        body: bytes,
        tenant: str,
        deadline_ms: int,
        num_items: int,
        *,
        brief: bool = False,
    ) -> None:
        """Make sure that this request is worked on, by this process or another one.

        Args:
            request_id: new, or `request_id_of` an idempotency key.
            route: of the operation.
            body: of the request, as JSON.
            tenant: whose request it is.
            deadline_ms: by the clock of this process (`now_ms`).
            num_items: how many results it will have.
            brief: whether its caller waits for the answer, so that it may be kept for less than `keep_s`.

        Raises:
            Conflict: when the id stands for another body or route.
            Overloaded: when the memory for answers is full.
            BrokerUnavailable: also when a replica that takes over may not know a request that is not `brief`.
        """
        with broker_errors():
            await self._announce(keys=[self._alive_key(self.owner)], args=[ALIVE_MS])
            body_hash = hashlib.sha256(route.encode() + b"\0" + body).hexdigest()
            arguments = [
                self.owner,
                body_hash,
                route,
                body,
                self.queue.clock.now_ms(),
                self.keep_ms + max(0, deadline_ms - now_ms()),
                tenant,
                self.queue.clock.here(deadline_ms),
                self.queue.keys.prefix,
                num_items,
                min(self.keep_ms, KEEP_BRIEF_MS) if brief else "",
            ]
            if brief:  # nothing is acknowledged before the answer
                claim, is_replicated = await self._claim(keys=[self._key(request_id)], args=arguments), True
            else:
                claim, is_replicated = await self.queue.replicated(self._claim, [self._key(request_id)], arguments)
        if isinstance(claim, list):
            metrics.rejected.labels("memory").inc()
            raise no_room(claim)
        if claim == b"conflict":
            raise Conflict("this Idempotency-Key was used with another body or route")
        if claim == b"mine" and request_id not in self._tasks:
            work = self._work(request_id, route, body, tenant, deadline_ms)
            task = asyncio.create_task(work, name=f"request-{request_id}")
            self._tasks[request_id] = task
            self._records[request_id] = {
                "hash": body_hash,
                "route": route,
                "tenant": tenant,
                "items": num_items,
                "owner": self.owner,
            }
            task.add_done_callback(functools.partial(self._ended, request_id))
        if not is_replicated:
            raise self.queue.too_few_replicas("the request")

    def _ended(self, request_id: str, task: asyncio.Task[None]) -> None:
        """End a request whose work raised something unexpected; otherwise its callers would wait without end."""
        self._tasks.pop(request_id, None)
        record = self._records.pop(request_id, {})
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("request failed", exc_info=error, extra={"request_id": request_id})
            unexpected = PlauditError("unexpected error; the server's log has the traceback")
            problem = problem_document(unexpected, request_id).model_dump_json()
            settling = asyncio.ensure_future(self._settle(request_id, "failed", **record, problem=problem, again="1"))
            self._settling.add(settling)
            settling.add_done_callback(self._settling.discard)

    async def _work(self, request_id: str, route: str, body: bytes, tenant: str, deadline_ms: int) -> None:
        pending: set[asyncio.Task[None]] = set()
        event_ids: dict[int, str] = {}

        async def add_event(index: int, result: Any) -> None:
            event = JobEvent(index=index, result=result.model_dump(mode="json"))
            with broker_errors():
                keys = [self._key(request_id), self._events(request_id)]
                arguments = [self.queue.keys.prefix, event.model_dump_json(), self.keep_ms]
                event_ids[index] = (await self._add(keys=keys, args=arguments)).decode()

        def progress(index: int, result: Any) -> None:
            task = asyncio.ensure_future(add_event(index, result))
            pending.add(task)
            task.add_done_callback(pending.discard)

        try:
            context = RequestContext(request_id, deadline_ms, tenant=tenant, progress=progress)
            answer = await self.perform(route, body, context)
        except PlauditError as error:
            problem = problem_document(error, request_id).model_dump_json()
            await self._settle(request_id, "failed", problem=problem, again="1" if error.retryable else "0")
            return
        finally:
            await asyncio.gather(*pending, return_exceptions=True)
        fields: dict[str, Any] = {"again": "1" if is_improvable(answer) else "0"}
        if len(event_ids) == len(answer.get("results", ())) > 0:  # the items are in the answer
            order = sorted(event_ids.items(), key=lambda pair: _moment(pair[1]))
            fields["order"] = " ".join(f"{event_id}:{index}" for index, event_id in order)
        is_large = len(body) > MAX_INLINE_BYTES
        fields["answer"] = await asyncio.to_thread(_pack, answer) if is_large else _pack(answer)
        await self._settle(request_id, "done", **fields)

    async def _settle(self, request_id: str, state: str, **fields: Any) -> None:
        """Write the ending unless there is one. Waits for Redis if it is away or full: no answer may be lost.

        The record is written with it, so that a Redis that came back empty has the answer, too.
        """
        fields = {**self._records.get(request_id, {}), **fields}
        pairs = [name_or_value for pair in fields.items() for name_or_value in pair]
        keys = [self._key(request_id), self._events(request_id)]
        arguments = [state, self.keep_ms, self.queue.keys.prefix, *pairs]
        while True:
            try:
                with broker_errors():
                    await self._end_once(keys=keys, args=arguments)
                if self.queue.num_replicas and fields.get("again") != "1":  # the next run may have begun
                    confirming = asyncio.ensure_future(self._confirm(keys, arguments))
                    self._settling.add(confirming)
                    confirming.add_done_callback(self._settling.discard)
                return
            except (BrokerUnavailable, Overloaded) as error:
                log.warning("the answer of request %s waits for the queue: %s", request_id, error.detail)
                await asyncio.sleep(0.25)

    async def _confirm(self, keys: Sequence[str], arguments: Sequence[Any]) -> None:
        """Write an ending until enough replicas have it, so that the request ends in one that takes over, too."""
        until = asyncio.get_running_loop().time() + CONFIRM_S
        while asyncio.get_running_loop().time() < until:
            with contextlib.suppress(BrokerUnavailable, Overloaded), broker_errors():
                if (await self.queue.replicated(self._end_once, keys, arguments))[1]:
                    return
            await asyncio.sleep(0.25)
        log.warning("too few replicas have the ending of a request: %s", keys[0])

    async def read(self, request_id: str, tenant: str) -> DurableRequest:
        """Raises NotFound for a request that is unknown, expired or another caller's."""
        names = ("tenant", "state", "items", "owner", "answer", "problem", "deadline", "order", "end")
        with broker_errors():
            values = await self.queue.client.hmget(self._key(request_id), names)
        stored_tenant, state, num_items, owner, answer, problem, deadline, order, end = values
        record = self._records.get(request_id)
        if stored_tenant is None and record is not None and record["tenant"] == tenant:  # Redis restarted empty
            return DurableRequest("running", record["items"], self.owner, None, None)
        if stored_tenant is None or stored_tenant.decode() != tenant:
            raise NotFound(f"no request {request_id}")
        return DurableRequest(
            state.decode(),
            int(num_items),
            owner.decode(),
            _unpack(answer) if answer else None,
            ProblemDocument.model_validate_json(problem) if problem else None,
            int(deadline or 0),
            order.decode() if order else "",
            end.decode() if end else "",
        )

    async def _adopt(self, request_id: str, durable: DurableRequest) -> None:
        """Take over a running request whose owner is dead, or does not know that it runs.

        A replica that takes over for its primary may have missed an ending: its owner, which has forgotten the
        request, runs it again when it is asked about it; any other process does so once its deadline is long past.
        """
        if durable.owner == self.owner:
            if request_id in self._tasks:
                return
        elif self.queue.clock.now_ms() < durable.deadline_ms + OVERDUE_MS:
            with broker_errors():
                if await self.queue.client.exists(self._alive_key(durable.owner)):
                    return
        await self._take_over(request_id, durable.num_items)

    async def _take_over(self, request_id: str, num_items: int) -> None:
        """Start a request from its record, unless that has expired."""
        with broker_errors():
            names = ("route", "body", "tenant", "deadline", "least")
            route, body, tenant, deadline, least = await self.queue.client.hmget(self._key(request_id), names)
        if route is not None and body is not None:
            deadline_ms = self.queue.clock.of_process(int(deadline))
            is_brief = least is not None
            await self.start(request_id, route.decode(), body, tenant.decode(), deadline_ms, num_items, brief=is_brief)

    async def run_again(self, request_id: str, tenant: str) -> bool:
        """Run an ended request again whose answer a retry could improve. False if its deadline has passed."""
        durable = await self.read(request_id, tenant)
        with broker_errors():
            deadline = await self.queue.client.hget(self._key(request_id), "deadline")
        if deadline is None or int(deadline) <= self.queue.clock.now_ms():
            return False
        await self._take_over(request_id, durable.num_items)
        return True

    async def wait(self, request_id: str, tenant: str) -> DurableRequest:
        """Wait for the ending; take the request over if its owner dies. Raises InfraError if Redis has lost it."""
        cursor = START
        while True:
            if task := self._tasks.get(request_id):
                await asyncio.wait([task])  # its ending is written by then
            try:
                durable = await self.read(request_id, tenant)
            except NotFound as error:
                raise InfraError("the queue lost this request; did it restart empty?", retry_after_s=1.0) from error
            if durable.state != "running":
                return durable
            await self._adopt(request_id, durable)
            cursor, events = await self._read_events(request_id, cursor)
            if not events:
                await self._await_events(request_id, durable.owner, cursor, LONGEST_WAIT_S)

    async def status(self, request_id: str, tenant: str, cursor: str, wait_s: float) -> JobStatus:
        """What is new since `cursor`, waiting at most `wait_s` for something. Raises NotFound."""
        clock = asyncio.get_running_loop().time
        until = clock() + wait_s
        while True:
            durable = await self.read(request_id, tenant)
            if durable.state == "running":
                await self._adopt(request_id, durable)
            last_cursor, events = await self._read_events(request_id, cursor)
            left_s = until - clock()
            if not events and durable.state == "running" and left_s > 0:
                await self._await_events(request_id, durable.owner, cursor, min(left_s, LONGEST_WAIT_S))
            else:
                durable = await self.read(request_id, tenant)
                if durable.order:  # it has ended, and its stream was trimmed, maybe before it was read
                    last_cursor, items = durable.items_after(cursor)
                else:
                    if durable.state != "running":  # it may have ended since the events were read
                        last_cursor, last_events = await self._read_events(request_id, last_cursor)
                        events += last_events
                    items = [JobEvent.model_validate_json(fields[b"item"]) for fields in events if b"item" in fields]
                return JobStatus(
                    job_id=request_id,
                    state=durable.state,  # type: ignore[arg-type]
                    cursor=last_cursor,
                    items=items,
                    total=durable.num_items,
                    answer=durable.answer,
                    error=durable.problem,
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
        durable = await self.read(request_id, tenant)
        if durable.state == "running":
            await self._settle(request_id, "cancelled")
            if task := self._tasks.get(request_id):
                task.cancel()
        if self.queue.num_replicas and durable.state in ("running", "cancelled"):
            with broker_errors():
                keys = [self._key(request_id), self._events(request_id)]
                arguments = ["cancelled", self.keep_ms, self.queue.keys.prefix]
                if not (await self.queue.replicated(self._end_once, keys, arguments))[1]:
                    raise self.queue.too_few_replicas("the cancellation")
        return await self.status(request_id, tenant, START, 0.0)

    async def _await_events(self, request_id: str, owner: str, cursor: str, timeout_s: float) -> None:
        """Wait for events of a running request. One that this process works on cannot lose its owner or its record."""
        events = self._events(request_id)
        if owner == self.owner:
            watched = Watched(events)
        else:
            watched = Watched(events, self._key(request_id), self._alive_key(owner))
        await self.reader.wait(watched, cursor, timeout_s)

    async def _read_events(self, request_id: str, cursor: str) -> tuple[str, list[dict[bytes, bytes]]]:
        with broker_errors():
            streams = await self.queue.client.xread({self._events(request_id): cursor}, count=EVENTS_PER_READ)
        events = [(event_id.decode(), fields) for _, entries in streams for event_id, fields in entries]
        return (events[-1][0] if events else cursor), [fields for _, fields in events]


class ShardedDurableRequests:
    """The durable requests of an API process: each lives on the shard of its id, whatever shards its jobs are on.

    Args:
        shards: in the order of `of_shard`.
        of_shard: one per shard.
    """

    def __init__(self, shards: Shards, of_shard: Sequence[DurableRequests]) -> None:
        self._shards = shards
        self._of_shard = of_shard

    def of(self, request_id: str) -> DurableRequests:
        """Where this request is kept, or is to be."""
        return self._of_shard[self._shards.place("request", request_id)]

    async def close(self) -> None:
        await asyncio.gather(*(durable_requests.close() for durable_requests in self._of_shard))
