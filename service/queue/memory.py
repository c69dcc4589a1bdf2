"""What the keys in Redis may take, family by family, and what they take now.

- A family has a budget: a setting, or a share of Redis' memory. The API measures once a second and writes the budgets
  into Redis, where the scripts that write keys read them. The same scripts count the bytes (`lua/bytes.lua`), so the
  counts are right whichever process crashes.
- A cache that fills up keeps new entries for less long, and none once it is full. Answers and test suites that do not
  fit are rejected before any work is admitted. Work in hand is never rejected.
- When Redis as a whole is nearly full, whoever fills it, the budgets shrink: those of the caches first.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from service.queue.keys import script
from service.queue.producer import Queue
from service.queue.protocol import broker_errors
from service.settings import Settings

log = logging.getLogger("plaudit.memory")

Family = Literal["results", "scores", "replays", "answers", "suites"]
FAMILIES: tuple[Family, ...] = get_args(Family)
SHARES: Mapping[Family, float] = {"results": 0.15, "scores": 0.15, "replays": 0.125, "answers": 0.25, "suites": 0.15}
CACHES = frozenset({"results", "scores", "replays"})
ASSUMED_BYTES = 2**30  # of a Redis without a maxmemory
# From the first share of Redis' memory on, the budgets shrink; at the second they are 0.
CACHES_SHRINK, ANSWERS_SHRINK = (0.85, 0.92), (0.92, 0.97)


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Bytes at one moment: of Redis as a whole (`max_bytes` 0: it has no limit), and of each family."""

    used_bytes: int = 0
    max_bytes: int = 0
    families: Mapping[str, int] = field(default_factory=dict)
    budgets: Mapping[str, int] = field(default_factory=dict)


def budgets_of(settings: Settings, used_bytes: int, max_bytes: int) -> dict[str, int]:
    """The budget of each family, for a Redis that uses so much of its memory (`max_bytes` 0: it has no limit)."""
    base = settings.max_redis_bytes or max_bytes or ASSUMED_BYTES
    given: dict[Family, int | None] = {
        "results": settings.max_result_bytes,
        "scores": settings.max_score_bytes,
        "replays": min(settings.max_replay_bytes, int(SHARES["replays"] * base)),
        "answers": settings.max_answer_bytes,
        "suites": settings.max_testset_bytes,
    }
    fill = used_bytes / max_bytes if max_bytes else 0.0
    budgets: dict[str, int] = {}
    for family, share in SHARES.items():
        chosen = given[family]
        full = int(share * base) if chosen is None else chosen
        first, last = CACHES_SHRINK if family in CACHES else ANSWERS_SHRINK
        percent = round(100 * min(1.0, max(0.0, (last - fill) / (last - first))))
        budgets[family] = full * percent // 100
    return budgets


class MemoryMonitor:
    """One per API process. `use` is what was last measured."""

    def __init__(self, queue: Queue, settings: Settings) -> None:
        self.queue = queue
        self.settings = settings
        self.use = MemoryUse()
        self._measure = queue.client.register_script(script("memory", spare=True))
        self._evicting: str | None = None  # the policy of a Redis that evicts keys, once it was logged

    async def refresh(self) -> None:
        """Measure, and write the budgets. Raises BrokerUnavailable."""
        prefix = self.queue.keys.prefix
        with broker_errors():
            info: dict[str, Any] = await self.queue.client.info("memory")
            used_bytes = int(info.get("used_memory", 0))
            max_bytes = int(info.get("maxmemory", 0))
            budgets = budgets_of(self.settings, used_bytes, max_bytes)
            pairs = [word for pair in budgets.items() for word in pair]
            live = await self._measure(keys=[], args=[prefix, *pairs])
        self.use = MemoryUse(used_bytes, max_bytes, dict(zip(budgets, live, strict=True)), budgets)
        policy = str(info.get("maxmemory_policy", "noeviction"))
        if policy not in ("noeviction", self._evicting):
            log.error("Redis may evict jobs: set its maxmemory-policy to noeviction, it is %s", policy)
            self._evicting = policy
