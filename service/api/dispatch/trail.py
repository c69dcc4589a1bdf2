"""The way of one request through the service, and what of it is worth remembering: times, counts, its slowest work.

- The middleware opens a trail around every request, as a context variable. Whatever works for the request finds it
  there, tasks of durable requests included, so nothing has to hand it on.
- A trail holds no text of a request, but names that the client gave (the ids of its items), digests and sizes.
- Writing into a trail is a few additions. What is slow enough to be remembered is described only then.
"""

from __future__ import annotations

import heapq
import time
from collections import defaultdict
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from service.jobs import Reply

SampleKind = Literal["prompt", "program", "suite"]

MAX_SAMPLES = 6  # of a kind, of one request
MAX_NAME = 64  # characters of a name that a client gave
MAX_WORKERS = 4
MAX_DETAIL = 200


class SlowRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """Slow work: what it was, and where its time went. Fields as in `plaudit.schemas.SlowSample`."""

    request_id: str
    route: str
    at_ms: int
    total_ms: float
    why: str
    parts: dict[str, float]
    item: str
    index: int | None = None
    digest: str = ""
    num_bytes: int = 0
    language: str = ""
    tests: str = ""
    num_tests: int = 0
    num_programs: int = 0
    slowest_test: str = ""
    verdict: str = ""
    model: str = ""
    tokens: int = 0
    trace_id: str = ""


@dataclass(slots=True)
class Trail:
    """One request.

    Args:
        request_id: as the client reads it in `X-Request-Id`.
        began_s: monotonic seconds at its arrival.
        floors_ms: per kind, how slow work has to be to be remembered.
        trace_id: of its trace; empty without one.
    """

    request_id: str
    began_s: float
    floors_ms: dict[SampleKind, float] = field(default_factory=dict)
    trace_id: str = ""
    route: str = ""
    num_items: int = 0
    num_jobs: int = 0
    num_cached: int = 0
    queue_ms: float = 0.0
    compute_ms: float = 0.0
    workers: list[str] = field(default_factory=list)
    code: str = ""
    detail: str = ""
    counts: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    stages_ms: dict[str, float] = field(default_factory=dict)
    closed: bool = False
    id_is_own: bool = False  # made here: a client's own id may say something, so no metric shows it
    _slowest: dict[SampleKind, list[tuple[float, int, SlowRecord]]] = field(default_factory=dict)
    _number: int = 0

    def stage(self, name: str, *, again: bool = False) -> None:
        """A stage of its way has been reached. The first time counts, or with `again` the last."""
        if again or name not in self.stages_ms:
            self.stages_ms[name] = round(1000 * (time.monotonic() - self.began_s), 2)

    def submitted(self, num_jobs: int) -> None:
        self.num_jobs += num_jobs
        self.stage("admitted")

    def replied(self, reply: Reply) -> None:
        """A job of it has ended."""
        self.stage("first_result")
        self.stage("last_result", again=True)
        if reply.worker == "cache":
            self.num_cached += 1
            return
        self.queue_ms = max(self.queue_ms, reply.queue_ms)
        self.compute_ms += reply.compute_ms
        if reply.worker and reply.worker not in self.workers and len(self.workers) < MAX_WORKERS:
            self.workers.append(reply.worker)

    def failed(self, code: str, detail: str) -> None:
        self.code, self.detail = code, detail[:MAX_DETAIL]

    def wants(self, kind: SampleKind, total_ms: float) -> bool:
        """Whether work that took so long is slow enough to be remembered."""
        slowest = self._slowest.get(kind, [])
        return total_ms > self.floors_ms.get(kind, 0.0) and (len(slowest) < MAX_SAMPLES or total_ms > slowest[0][0])

    def remember(self, kind: SampleKind, sample: SlowRecord) -> None:
        """Keep it among the slowest of its kind."""
        slowest = self._slowest.setdefault(kind, [])
        self._number += 1
        entry = sample.total_ms, self._number, sample
        if len(slowest) == MAX_SAMPLES:
            heapq.heapreplace(slowest, entry)
        else:
            heapq.heappush(slowest, entry)

    @property
    def exemplar(self) -> dict[str, str]:
        """What names this request in a metric, which anybody may read: its trace, or an id that was made here."""
        if self.trace_id:
            return {"trace_id": self.trace_id}
        return {"request_id": self.request_id} if self.id_is_own else {}

    def absorb(self, part: Trail) -> None:
        """Take in the trail of work that was done for this request by a task of its own."""
        self.num_items = self.num_items or part.num_items
        self.num_jobs += part.num_jobs
        self.num_cached += part.num_cached
        self.queue_ms = max(self.queue_ms, part.queue_ms)
        self.compute_ms += part.compute_ms
        self.workers = [*self.workers, *part.workers][:MAX_WORKERS]
        for name, value in part.counts.items():
            self.counts[name] += value
        offset_ms = 1000 * (part.began_s - self.began_s)
        for name, ms in part.stages_ms.items():
            self.stages_ms.setdefault(name, round(ms + offset_ms, 2))
        for kind, sample in part.samples():
            if self.wants(kind, sample.total_ms):
                self.remember(kind, sample)

    def samples(self) -> list[tuple[SampleKind, SlowRecord]]:
        """What is to be remembered, the slowest first."""
        return [(kind, entry[2]) for kind, entries in self._slowest.items() for entry in sorted(entries, reverse=True)]


_current: ContextVar[Trail | None] = ContextVar("trail", default=None)


def begin(trail: Trail) -> None:
    """From here on this is the trail of the current task, and of those that it starts."""
    _current.set(trail)


def current() -> Trail:
    """The trail of the request that this task works for; one that nobody reads where there is none."""
    trail = _current.get()
    return Trail("", time.monotonic(), {"prompt": 1e18, "program": 1e18, "suite": 1e18}) if trail is None else trail


def current_or_none() -> Trail | None:
    return _current.get()
