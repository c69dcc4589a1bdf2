"""What it takes to reproduce a verdict, kept by request id for a while.

A record holds what was asked (items with their programs, limits, options), the suites, the toolchain digest and the
verdicts given. It is packed and stored behind the answer's back: nobody waits for it, and where Redis is away or full,
or more is to be kept than can be written, there is just no replay of that request. Records are bounded by age and by
their sum of bytes; the oldest go first.

A request id may be chosen by the client, so records are kept by tenant: no caller can read or replace another's. The
same id used twice by one caller means the later request.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from plaudit.errors import BrokerUnavailable, Overloaded, RequestUnknown
from plaudit.extract import last_fence
from plaudit.schemas import ExecuteResult, GivenVerdict, ProgramResult, ReplayAnswer, ReplayItem
from service.api.dispatch.request_context import Context
from service.api.dispatch.tasks import end
from service.api.handlers.execute import ExecuteGroup
from service.jobs import Job, encode
from service.queue.keys import script
from service.queue.producer import Queue
from service.queue.protocol import broker_errors, now_ms

log = logging.getLogger("plaudit.replays")

MAX_PENDING = 64  # records being written; while there are more, none is added


class _Item(msgspec.Struct, frozen=True):
    request: dict[str, Any]  # without its tests
    suite: str
    frame: bytes  # of the suite
    jobs: list[str | None]
    given: list[dict[str, Any]]


class _Record(msgspec.Struct, frozen=True):
    answered_ms: int
    toolchain: str
    items: list[_Item]
    other: str = ""  # the id under which it really is


_decoder = msgspec.msgpack.Decoder(_Record)


class Replays:
    """One per API process. `keep_s` 0: nothing is kept, and everything is unknown."""

    def __init__(self, queue: Queue, keep_s: int, max_bytes: int) -> None:
        self.queue = queue
        self.keep_s = keep_s
        self.max_bytes = max_bytes
        self._keep = queue.client.register_script(script("keep"))
        self._pending: set[asyncio.Task[None]] = set()

    def keep(
        self, context: Context, toolchain: str, groups: Sequence[ExecuteGroup], results: Sequence[ExecuteResult]
    ) -> None:
        """Remember what was judged, soon."""
        at = now_ms()
        self._soon(context.tenant, context.request_id, lambda: pack(at, toolchain, groups, results))

    def alias(self, tenant: str, request_id: str, other: str) -> None:
        """Let a request be found under another id of the same caller: a durable one has its own."""
        if request_id != other:
            self._soon(tenant, request_id, lambda: zlib.compress(encode(_Record(now_ms(), "", [], other))))

    def _soon(self, tenant: str, request_id: str, make: Any) -> None:
        if not self.keep_s or len(self._pending) >= MAX_PENDING:
            return
        task = asyncio.create_task(self._store(self._key(tenant, request_id), make), name="replay")
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    async def _store(self, key: str, make: Any) -> None:
        frame = await asyncio.to_thread(make)  # the compression lets go of the interpreter
        prefix = self.queue.keys.prefix
        keys = [key, f"{prefix}replays", f"{prefix}replays:sizes", f"{prefix}replays:bytes"]
        with contextlib.suppress(BrokerUnavailable, Overloaded), broker_errors():
            await self._keep(keys=keys, args=[frame, self.keep_s * 1000, now_ms(), self.max_bytes])

    async def of(self, request_id: str, tenant: str) -> ReplayAnswer:
        """The replay of a request of this caller; its suites can be named by digest again. Raises RequestUnknown."""
        record = await self._read(request_id, tenant)
        if record is not None and record.other:
            record = await self._read(record.other, tenant)
        if record is None:
            raise RequestUnknown(f"no replay of request {request_id} is kept")
        await self.queue.keep_suites({item.suite: item.frame for item in record.items}, self.keep_s)
        expires_ms = record.answered_ms + 1000 * self.keep_s
        return ReplayAnswer(
            request_id=request_id,
            answered_at=_clock(record.answered_ms),
            expires_at=_clock(expires_ms),
            toolchain=record.toolchain,
            items=[unpack(item) for item in record.items],
        )

    async def _read(self, request_id: str, tenant: str) -> _Record | None:
        if not self.keep_s:
            return None
        with broker_errors():
            frame = await self.queue.client.get(self._key(tenant, request_id))
        return None if frame is None else _decoder.decode(zlib.decompress(frame))

    def _key(self, tenant: str, request_id: str) -> str:
        return f"{self.queue.keys.prefix}replay:{tenant}:{request_id}"

    async def close(self) -> None:
        """Let what is being written be written, for a moment."""
        if self._pending:
            await asyncio.wait(self._pending, timeout=1.0)
        await end(self._pending)


def pack(at_ms: int, toolchain: str, groups: Sequence[ExecuteGroup], results: Sequence[ExecuteResult]) -> bytes:
    """A record of what was asked and what was answered, compressed."""
    judged = {program.toolchain for result in results for program in result.programs if program.toolchain}
    if len(judged) == 1:
        toolchain = judged.pop()
    items = [
        _Item(
            group.item.model_dump(mode="json", exclude={"tests"}),
            group.sha256,
            group.frame,
            [job.id if isinstance(job, Job) else None for job in group.jobs],
            [given(program) for program in result.programs],
        )
        for group, result in zip(groups, results, strict=True)
    ]
    return zlib.compress(encode(_Record(at_ms, toolchain, items)), 1)


def given(program: ProgramResult) -> dict[str, Any]:
    """What was answered about a program, without what differs from run to run."""
    known = {name: getattr(program, name) for name in GivenVerdict.model_fields if hasattr(program, name)}
    return known | {"tests": [test.verdict for test in program.tests]}


def unpack(item: _Item) -> ReplayItem:
    """An item as `/execute` takes it, and what was answered. A suite's frame has the contract's own fields."""
    suite = json.loads(item.frame)
    tests = {"kind": suite["kind"], **suite["suite"]}
    for holder in (tests, *tests.get("cases", ())):  # files are pairs in a suite, and names with contents in a request
        if "files" in holder:
            holder["files"] = dict(holder["files"])
    answer = ReplayItem.model_validate({"request": {**item.request, "tests": tests}, "suite": item.suite, "given": []})
    fenced = answer.request.extract != "none"
    sources = [(last_fence(text) or "") if fenced else text for text in answer.request.programs]
    verdicts = [
        GivenVerdict(sha256=hashlib.sha256(source.encode()).hexdigest(), job=job, **told)
        for source, job, told in zip(sources, item.jobs, item.given, strict=True)
    ]
    return answer.model_copy(update={"given": verdicts})


def _clock(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat(timespec="seconds")
