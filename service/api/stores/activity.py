"""Recent requests and slow work, shared by all API processes through Redis, and kept apart by tenant.

- A request is kept with its way through the service, a slow piece of work with where its time went. Neither holds a
  text of the request: names of items, digests and sizes, and an error's first words.
- A process writes once a second, after the answers. Where Redis is away or full, what it cannot write is lost, and
  answers go on as before.
- Bounded by number, per tenant: `MAX_REQUESTS` requests and as many failed ones, and `MAX_SLOW` samples per kind and
  five minutes. All of it expires after an hour. The bytes of an entry are bounded by those of its fields.
- Who reads: a key reads its own tenant's, an admin key everybody's. Without keys everybody is one tenant. Callers whose
  key was rejected are the tenant `""` of a deployment with keys, which only an admin key reads.
"""

from __future__ import annotations

import heapq
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, get_args

import msgspec

from plaudit.errors import BrokerUnavailable, ClientClosed, Overloaded, PlauditError, RequestUnknown
from plaudit.schemas import RequestSummary, SlowAnswer, SlowSample
from service import metrics
from service.api.dispatch import trail
from service.api.dispatch.request_context import RequestContext
from service.api.dispatch.shards import Shards
from service.api.dispatch.trail import SampleKind, SlowRecord, Trail
from service.api.stores.history import FLUSH_S, History
from service.queue.protocol import broker_errors, now_ms

log = logging.getLogger("plaudit.activity")

FLUSH_EVERY_S = 1.0
KEEP_S = 3600
BUCKET_S = 300
MAX_REQUESTS = 200  # per tenant, and as many failed ones
MAX_SLOW = 10  # per tenant, kind and bucket
MAX_SHOWN = 50  # of a kind, in an answer
MAX_PENDING = 200  # entries of one flush
KINDS: tuple[SampleKind, ...] = get_args(SampleKind)
PROBED = frozenset({"/health", "/ready", "/metrics"})
WORK_METHODS = ("POST", "PUT", "DELETE")

_encoder = msgspec.msgpack.Encoder()
_sample_decoder = msgspec.msgpack.Decoder(SlowRecord)
_any_decoder = msgspec.msgpack.Decoder(dict[str, Any])


class Activity:
    """One per API process.

    Args:
        shards: it is all on the one where `activity` lives.
        tenants: every tenant there can be.
        gauges: what the history is told of queues and workers now.
    """

    def __init__(self, shards: Shards, tenants: Iterable[str], gauges: Callable[[], Mapping[str, float]]) -> None:
        self.queue = shards.queue_of("activity")
        self.tenants = list(dict.fromkeys(["", *tenants]))
        self.history = History(self.queue)
        self._gauges = gauges
        self._requests: deque[tuple[str, dict[str, Any]]] = deque(maxlen=MAX_PENDING)
        self._slow: deque[tuple[SampleKind, str, SlowRecord]] = deque(maxlen=MAX_PENDING)
        self._top: dict[tuple[str, SampleKind], list[float]] = {}  # the slowest of this bucket, of this process
        self._floors: dict[str, dict[SampleKind, float]] = {}
        self._bucket = 0
        self._until_history = 0.0
        self._is_away = False

    async def observed(
        self, perform: Callable[[str, bytes, RequestContext], Awaitable[dict[str, Any]]], *call: Any
    ) -> dict[str, Any]:
        """Do a durable request's work under a trail of its own.

        It becomes a part of the HTTP request that waits for it, or else a request that is kept by itself.

        Args:
            perform: does it.
            call: what it takes: the route, the stored body, and the context.
        """
        route, _, context = call
        asked = trail.current_or_none()
        request_id = context.request_id if asked is None else asked.request_id
        here = Trail(request_id, time.monotonic(), self.floors(context.tenant), route=route)
        here.trace_id = "" if asked is None else asked.trace_id
        trail.begin(here)
        status = ClientClosed.status
        try:
            answer = await perform(*call)
            status = 200
            return answer
        except PlauditError as error:
            status = error.status
            here.failed(error.code, error.detail)
            raise
        finally:
            if asked is None or asked.closed:
                self.record(here, context.tenant, "POST", status, time.monotonic() - here.began_s)
            else:
                asked.absorb(here)

    # --- writing -----------------------------------------------------------------------------------------------------

    def floors(self, tenant: str) -> dict[SampleKind, float]:
        """How slow work of a tenant has to be to be among the slowest, by kind; it changes while requests run."""
        return self._floors.setdefault(tenant, {})

    def record(self, done: Trail, tenant: str, method: str, status: int, seconds: float) -> None:
        """A request has been answered, or its client has gone. Polls and reads that succeed are not kept."""
        done.closed = True
        if done.route in PROBED or (method not in WORK_METHODS and status < 400):
            return
        self.history.add_request(status, seconds, tenant, done.code)
        self.history.add(done.counts)
        self.history.add({"jobs": float(done.num_jobs), "cached": float(done.num_cached)})
        summary = {
            "request_id": done.request_id,
            "at_ms": now_ms(),
            "method": method,
            "route": done.route[:128],
            "status": status,
            "took_ms": round(1000 * seconds, 2),
            "code": done.code,
            "detail": done.detail,
            "num_items": done.num_items,
            "num_jobs": done.num_jobs,
            "num_cached": done.num_cached,
            "queue_ms": round(done.queue_ms, 2),
            "compute_ms": round(done.compute_ms, 2),
            "stages_ms": done.stages_ms,
            "workers": done.workers,
            "trace_id": done.trace_id,
        }
        self._requests.append((tenant, {name: value for name, value in summary.items() if value not in ("", [], {})}))
        for kind, sample in done.samples():
            job_kind = "score" if kind == "prompt" else "execute"
            queue_ms = sample.parts.get("queue", 0.0)
            if done.exemplar and kind != "suite":
                metrics.exemplars.observe("plaudit_job_queue_seconds", job_kind, queue_ms / 1000, done.exemplar)
                worked_s = (sample.total_ms - queue_ms) / 1000
                metrics.exemplars.observe("plaudit_job_compute_seconds", job_kind, worked_s, done.exemplar)
            if self._is_slow(tenant, kind, sample.total_ms):
                self._slow.append((kind, tenant, sample))

    def _is_slow(self, tenant: str, kind: SampleKind, total_ms: float) -> bool:
        bucket = now_ms() // 1000 // BUCKET_S
        if bucket != self._bucket:
            self._bucket = bucket
            self._top.clear()
            for floors in self._floors.values():
                floors.clear()
        top = self._top.setdefault((tenant, kind), [])
        if len(top) < MAX_SLOW:
            heapq.heappush(top, total_ms)
        elif total_ms > top[0]:
            heapq.heapreplace(top, total_ms)
        else:
            return False
        if len(top) == MAX_SLOW:
            self.floors(tenant)[kind] = top[0]
        return True

    async def flush(self) -> None:
        """Write what has come since the last time; a background loop calls it every `FLUSH_EVERY_S`."""
        requests, slow = list(self._requests), list(self._slow)
        self._requests.clear()
        self._slow.clear()
        self._until_history -= FLUSH_EVERY_S
        try:
            if requests or slow:
                await self._write(requests, slow)
            if self._until_history <= 0:
                await self.history.flush(self._gauges())
                self._until_history = FLUSH_S
            self._is_away = False
        except (BrokerUnavailable, Overloaded) as error:
            if not self._is_away:
                log.warning("recent requests and slow work are not kept: %s", error.detail)
            self._is_away = True

    async def close(self) -> None:
        """Write what is left, the history too."""
        self._until_history = 0.0
        await self.flush()

    async def _write(
        self, requests: Sequence[tuple[str, dict[str, Any]]], slow: Sequence[tuple[SampleKind, str, SlowRecord]]
    ) -> None:
        with broker_errors():
            pipe = self.queue.client.pipeline(transaction=False)
            keys = set()
            for tenant, summary in requests:
                frame = _encoder.encode(summary)
                for errors in (False, True) if summary["status"] >= 400 else (False,):
                    key = self._requests_key(tenant, errors=errors)
                    pipe.xadd(key, {"r": frame}, maxlen=MAX_REQUESTS, approximate=False)
                    keys.add(key)
            bucket = now_ms() // 1000 // BUCKET_S
            for kind, tenant, sample in slow:
                key = self._slow_key(tenant, kind, bucket)
                pipe.zadd(key, {_encoder.encode(sample): sample.total_ms})
                pipe.zremrangebyrank(key, 0, -MAX_SLOW - 1)
                keys.add(key)
            for key in keys:
                pipe.expire(key, KEEP_S + BUCKET_S)
            await pipe.execute()

    # --- reading -----------------------------------------------------------------------------------------------------

    async def requests(self, tenants: Sequence[str], limit: int, *, errors: bool) -> list[RequestSummary]:
        """The newest requests of these tenants, newest first; with `errors` only failed ones."""
        with broker_errors():
            pipe = self.queue.client.pipeline(transaction=False)
            for tenant in tenants:
                pipe.xrevrange(self._requests_key(tenant, errors=errors), count=limit)
            found = await pipe.execute()
        since_ms = now_ms() - 1000 * KEEP_S
        summaries = []
        for tenant, entries in zip(tenants, found, strict=True):
            for _, fields in entries:
                summary = _read(_any_decoder, fields.get(b"r", b""))
                if summary is not None and summary["at_ms"] >= since_ms:
                    summaries.append(RequestSummary(tenant=tenant, **summary))
        return sorted(summaries, key=lambda summary: summary.at_ms, reverse=True)[:limit]

    async def request(self, tenants: Sequence[str], request_id: str) -> RequestSummary:
        """The newest request with this id. Raises RequestUnknown."""
        for errors in (False, True):
            for summary in await self.requests(tenants, MAX_REQUESTS * len(tenants), errors=errors):
                if summary.request_id == request_id:
                    return summary
        raise RequestUnknown(f"no request {request_id} of the last hour is kept; the latest {MAX_REQUESTS} are")

    async def slow(self, tenants: Sequence[str]) -> SlowAnswer:
        """The slowest work of the last hour of these tenants, slowest first."""
        since_ms = now_ms() - 1000 * KEEP_S
        last = now_ms() // 1000 // BUCKET_S
        buckets = range(last - KEEP_S // BUCKET_S, last + 1)
        with broker_errors():
            pipe = self.queue.client.pipeline(transaction=False)
            for kind in KINDS:
                for tenant in tenants:
                    for bucket in buckets:
                        pipe.zrange(self._slow_key(tenant, kind, bucket), 0, -1)
            found: list[list[bytes]] = await pipe.execute()
        per_kind = len(tenants) * len(buckets)
        slowest: dict[str, list[SlowSample]] = {}
        for number, kind in enumerate(KINDS):
            frames = [frame for entry in found[number * per_kind : (number + 1) * per_kind] for frame in entry]
            read = (_read(_sample_decoder, frame) for frame in frames)
            samples = [sample for sample in read if sample is not None and sample.at_ms >= since_ms]
            samples.sort(key=lambda sample: sample.total_ms, reverse=True)
            slowest[kind] = [SlowSample.model_validate(msgspec.to_builtins(sample)) for sample in samples[:MAX_SHOWN]]
        return SlowAnswer(
            since_ms=since_ms, prompts=slowest["prompt"], programs=slowest["program"], suites=slowest["suite"]
        )

    def _requests_key(self, tenant: str, *, errors: bool) -> str:
        return f"{self.queue.keys.prefix}{'failed' if errors else 'recent'}:{tenant}"

    def _slow_key(self, tenant: str, kind: SampleKind, bucket: int) -> str:
        return f"{self.queue.keys.prefix}slow:{kind}:{bucket}:{tenant}"


def _read(decoder: Any, frame: bytes) -> Any:
    """What a frame holds; None, and counted, if another version wrote it."""
    try:
        return decoder.decode(frame)
    except msgspec.DecodeError:
        metrics.unreadable.labels("activity").inc()
        return None
