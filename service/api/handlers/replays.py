"""What it takes to reproduce a request's verdicts, kept by request id for a while.

- A record holds what was asked (items with their programs, limits, options), the suites, the toolchain digest and the
  verdicts.
- It is packed and stored after the answer; no request waits for it. Where Redis is away or full, or more is to be kept
  than can be written, that request has no replay.
- Records are bounded by age and by the sum of their bytes; the oldest are dropped first.
- A client may choose its request ids, so records are kept per tenant: no caller can read or replace another's. If one
  caller uses an id twice, the later request counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import zlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from plaudit.errors import BrokerUnavailable, Overloaded, RequestUnknown
from plaudit.extract import last_fence
from plaudit.schemas import ExecuteResult, GivenVerdict, ProgramResult, ReplayAnswer, ReplayItem
from service.api import json_body
from service.api.dispatch.request_context import RequestContext
from service.api.dispatch.shards import Shards
from service.api.dispatch.tasks import cancel_and_wait, in_thread
from service.api.handlers.execute import ExecuteGroup
from service.jobs import Job, encode
from service.queue.keys import script
from service.queue.producer import Queue
from service.queue.protocol import broker_errors, now_ms

log = logging.getLogger("plaudit.replays")

MAX_PENDING = 64  # records being written at a time; further ones are not kept


class _ReplayedItem(msgspec.Struct, frozen=True):
    request: dict[str, Any]  # without its tests
    suite: str
    frame: bytes  # of the suite; empty where an earlier item of the record has the same
    jobs: list[str | None]
    given: list[dict[str, Any]]


class _Record(msgspec.Struct, frozen=True):
    answered_ms: int
    toolchain: str
    items: list[_ReplayedItem]
    other: str = ""  # the id of the record that this one stands for


_decoder = msgspec.msgpack.Decoder(_Record)


class Replays:
    """One per API process. With `keep_s` 0 nothing is kept. A record is on the shard of its request id."""

    def __init__(self, shards: Shards, keep_s: int, max_bytes: int) -> None:
        self.shards = shards
        self.keep_s = keep_s
        self.max_bytes = max_bytes
        self._keep = shards.queues[0].client.register_script(script("keep"))
        self._pending: set[asyncio.Task[None]] = set()

    def keep(
        self, context: RequestContext, toolchain: str, groups: Sequence[ExecuteGroup], results: Sequence[ExecuteResult]
    ) -> None:
        """Store a record of what was judged, soon."""
        answered_ms = now_ms()
        self._store_soon(context.tenant, context.request_id, lambda: pack(answered_ms, toolchain, groups, results))

    def alias(self, tenant: str, request_id: str, other: str) -> None:
        """Let a durable request, which has an id of its own, be found under the caller's request id."""
        if request_id != other:
            self._store_soon(tenant, request_id, lambda: zlib.compress(encode(_Record(now_ms(), "", [], other))))

    def _store_soon(self, tenant: str, request_id: str, make_frame: Callable[[], bytes]) -> None:
        if not self.keep_s or len(self._pending) >= MAX_PENDING:
            return
        queue = self.shards.queue_of("replay", tenant, request_id)
        key = self._key(queue, tenant, request_id)
        task = asyncio.create_task(self._store(queue, key, make_frame), name="replay")
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    async def _store(self, queue: Queue, key: str, make_frame: Callable[[], bytes]) -> None:
        frame = await asyncio.to_thread(make_frame)  # compression releases the interpreter lock
        prefix = queue.keys.prefix
        keys = [key, f"{prefix}replays", f"{prefix}replays:sizes", f"{prefix}replays:bytes", queue.keys.budgets]
        with contextlib.suppress(BrokerUnavailable, Overloaded), broker_errors():
            arguments = [frame, self.keep_s * 1000, queue.clock.now_ms(), self.max_bytes]
            await self._keep(keys=keys, args=arguments, client=queue.client)

    async def of(self, request_id: str, tenant: str) -> ReplayAnswer:
        """The replay of a request of this caller. Raises RequestUnknown.

        Its suites are stored again, so that a client can refer to them by digest.
        """
        record = await self._read(request_id, tenant)
        if record is not None and record.other:
            record = await self._read(record.other, tenant)
        if record is None:
            raise RequestUnknown(f"no replay of request {request_id} is kept")
        await self.shards.put_suites({item.suite: item.frame for item in record.items if item.frame}, self.keep_s)
        expires_ms = record.answered_ms + 1000 * self.keep_s
        return ReplayAnswer(
            request_id=request_id,
            answered_at=_iso_time(record.answered_ms),
            expires_at=_iso_time(expires_ms),
            toolchain=record.toolchain,
            items=await in_thread(lambda: list(map(unpack, record.items))),
        )

    async def _read(self, request_id: str, tenant: str) -> _Record | None:
        if not self.keep_s:
            return None
        queue = self.shards.queue_of("replay", tenant, request_id)
        with broker_errors():
            frame = await queue.client.get(self._key(queue, tenant, request_id))
        return None if frame is None else _decoder.decode(zlib.decompress(frame))

    @staticmethod
    def _key(queue: Queue, tenant: str, request_id: str) -> str:
        return f"{queue.keys.prefix}replay:{tenant}:{request_id}"

    async def close(self) -> None:
        """Wait a second for what is being written, then stop."""
        if self._pending:
            await asyncio.wait(self._pending, timeout=1.0)
        await cancel_and_wait(self._pending)


def pack(answered_ms: int, toolchain: str, groups: Sequence[ExecuteGroup], results: Sequence[ExecuteResult]) -> bytes:
    """A record of what was asked and what was answered, compressed."""
    toolchains = {program.toolchain for result in results for program in result.programs if program.toolchain}
    if len(toolchains) == 1:  # what judged, not what the jobs were admitted for
        (toolchain,) = toolchains
    frames = {group.sha256: group.frame for group in groups}
    items = [
        _ReplayedItem(
            group.item.model_dump(mode="json", exclude={"tests"}),
            group.sha256,
            frames.pop(group.sha256, b""),
            [job.id if isinstance(job, Job) else None for job in group.jobs],
            [given_verdict(program) for program in result.programs],
        )
        for group, result in zip(groups, results, strict=True)
    ]
    return zlib.compress(encode(_Record(answered_ms, toolchain, items)), 1)


def given_verdict(program: ProgramResult) -> dict[str, Any]:
    """What was answered about a program, without what differs between runs."""
    fields = {name: getattr(program, name) for name in GivenVerdict.model_fields if hasattr(program, name)}
    return fields | {"tests": [test.verdict for test in program.tests]}


def unpack(item: _ReplayedItem) -> ReplayItem:
    """An item as `/execute` takes it, and what was answered. A suite that an earlier item has is named by digest."""
    tests = _tests_of(item.frame) if item.frame else {"kind": "ref", "sha256": item.suite}
    replay = ReplayItem.model_validate({"request": {**item.request, "tests": tests}, "suite": item.suite, "given": []})
    is_fenced = replay.request.extract != "none"
    sources = [(last_fence(text) or "") if is_fenced else text for text in replay.request.programs]
    verdicts = [
        GivenVerdict(sha256=hashlib.sha256(source.encode()).hexdigest(), job=job, **given)
        for source, job, given in zip(sources, item.jobs, item.given, strict=True)
    ]
    return replay.model_copy(update={"given": verdicts})


def _tests_of(frame: bytes) -> dict[str, Any]:
    """A suite as a request has it. The fields of an encoded suite are the contract's."""
    suite = json_body.load(frame)
    tests = {"kind": suite["kind"], **suite["suite"]}
    for fields in (tests, *tests.get("cases", ())):  # files are pairs in a suite, and an object in a request
        if "files" in fields:
            fields["files"] = dict(fields["files"])
    return tests


def _iso_time(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat(timespec="seconds")
