"""The deployment's history: what happened per step of time, counted by all API processes into the same keys of Redis.

- Two series: steps of 10 s for an hour, steps of 4 min for a day. A step is a hash of counters and gauges; it expires
  by itself, so the series are bounded: 360 hashes each, of a bounded number of fields.
- A process adds what it has counted every `FLUSH_S`. What it cannot add (Redis is away or full) is added later; a
  process that crashes loses at most so much.
- Counters say what happened and never who asked, but for the number of requests per tenant.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from plaudit.schemas import HistoryPoint, ScoreSummary
from service.metrics import SECONDS
from service.queue.producer import Queue
from service.queue.protocol import broker_errors, now_ms

FLUSH_S = 5.0
KEEP_S: dict[int, int] = {10: 3600, 240: 86_400}  # by step: how long it is kept
MAX_FIELDS = 512  # of one flush; names beyond are not counted


class History:
    """One per API process."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self._counts: dict[str, float] = defaultdict(float)

    def add(self, counts: Mapping[str, float]) -> None:
        """Count what has happened now."""
        for name, value in counts.items():
            if name in self._counts or len(self._counts) < MAX_FIELDS:
                self._counts[name] += value

    def add_request(self, status: int, seconds: float, tenant: str, code: str) -> None:
        kind = "server_errors" if status >= 500 else "client_errors" if status >= 400 else ""
        kind = "rejected" if status in (429, 503) else kind
        counts = {"requests": 1.0, f"latency:{bisect.bisect_left(SECONDS, seconds)}": 1.0, f"tenant:{tenant}": 1.0}
        if kind:
            counts |= {kind: 1.0, f"code:{code or status}": 1.0}
        self.add(counts)

    async def flush(self, gauges: Mapping[str, float]) -> None:
        """Add what was counted to the current step of each series. Raises BrokerUnavailable, Overloaded."""
        counts, self._counts = self._counts, defaultdict(float)
        try:
            with broker_errors():
                pipe = self.queue.client.pipeline(transaction=False)
                for step_s, keep_s in KEEP_S.items():
                    key = self._key(step_s, now_ms() // 1000 // step_s)
                    for name, value in counts.items():
                        pipe.hincrbyfloat(key, name, value)
                    if gauges:
                        pipe.hset(key, mapping=dict(gauges))
                    if counts or gauges:
                        pipe.expire(key, keep_s + step_s)
                await pipe.execute()
        except BaseException:
            self.add(counts)
            raise

    async def read(self, step_s: int, since_ms: int) -> list[HistoryPoint]:
        """The steps that begin at or after a moment, oldest first. Raises BrokerUnavailable."""
        last = now_ms() // 1000 // step_s
        first = max(-(-since_ms // 1000 // step_s), last - KEEP_S[step_s] // step_s + 1)
        numbers = range(first, last + 1)
        hashes = await self._hashes(step_s, numbers)
        found = zip(numbers, hashes, strict=True)
        return [_point(number * step_s * 1000, fields) for number, fields in found if fields]

    async def num_requests(self) -> dict[str, int]:
        """Requests of the last hour by tenant. Raises BrokerUnavailable."""
        last = now_ms() // 240_000
        totals: dict[str, int] = defaultdict(int)
        for fields in await self._hashes(240, range(last - 14, last + 1)):
            for name, value in fields.items():
                if name.startswith("tenant:"):
                    totals[name.removeprefix("tenant:")] += int(float(value))
        return totals

    async def _hashes(self, step_s: int, numbers: range) -> list[dict[str, str]]:
        with broker_errors():
            pipe = self.queue.client.pipeline(transaction=False)
            for number in numbers:
                pipe.hgetall(self._key(step_s, number))
            found: list[dict[bytes, bytes]] = await pipe.execute()
        return [{name.decode(): value.decode() for name, value in fields.items()} for fields in found]

    def _key(self, step_s: int, number: int) -> str:
        return f"{self.queue.keys.prefix}history:{step_s}:{number}"


def _point(at_ms: int, fields: Mapping[str, str]) -> HistoryPoint:
    """A step as the contract tells it."""
    plain: dict[str, float] = {}
    groups: dict[str, dict[str, float]] = defaultdict(dict)
    for name, value in fields.items():
        group, colon, rest = name.partition(":")
        if colon:
            groups[group][rest] = float(value)
        else:
            plain[name] = float(value)
    latencies = {int(index): count for index, count in groups["latency"].items()}
    counts: dict[str, Any] = {
        name: int(plain.get(name, 0))
        for name in ("requests", "rejected", "client_errors", "server_errors", "programs", "scores", "jobs", "cached")
    }
    return HistoryPoint(
        at_ms=at_ms,
        **counts,
        p50_ms=quantile_ms(latencies, 0.5),
        p99_ms=quantile_ms(latencies, 0.99),
        verdicts={name: int(value) for name, value in groups["verdict"].items()},
        flags={name: int(value) for name, value in groups["flag"].items()},
        codes={name: int(value) for name, value in groups["code"].items()},
        depth=groups["depth"],
        oldest_ms=groups["oldest"],
        workers={kind: int(value) for kind, value in groups["workers"].items()},
        score={
            model: _summary(num, groups["score_sum"].get(model, 0.0), groups["score_squares"].get(model, 0.0))
            for model, num in groups["score_n"].items()
            if num > 0
        },
    )


def _summary(num: float, total: float, squares: float) -> ScoreSummary:
    mean = total / num
    return ScoreSummary(num=int(num), mean=mean, std=max(0.0, squares / num - mean * mean) ** 0.5)


def quantile_ms(counts: Mapping[int, float], share: float) -> float | None:
    """A quantile of times counted by bucket, interpolated within its bucket as Prometheus does; None for none.

    Bucket `i` holds the times up to `SECONDS[i]`; the last one has no upper end, and counts as its lower one.
    """
    total = sum(counts.values())
    if not total:
        return None
    below = 0.0
    for index in sorted(counts):
        if below + counts[index] >= share * total:
            low = SECONDS[index - 1] if index else 0.0
            high = SECONDS[index] if index < len(SECONDS) else low
            return 1000 * (low + (high - low) * (share * total - below) / counts[index])
        below += counts[index]
    return 1000 * SECONDS[-1]
