"""What is finished of a late group is answered, and a Redis that does not answer delays nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from plaudit.errors import BrokerUnavailable
from service.api.dispatch.shards import Shards
from service.api.handlers.score_cache import ScoreCache
from service.jobs import encode
from service.queue.cached_scores import CachedScore

DONE = CachedScore(1.5, 7, False, None)


class StoredScores:
    """A queue that knows one score, and garbage under another key."""

    async def stored(self, keys: Sequence[str]) -> list[bytes | None]:
        return [{"done": encode(DONE), "garbage": b"\xc1"}.get(key) for key in keys]


class Away(StoredScores):
    async def stored(self, keys: Sequence[str]) -> list[bytes | None]:
        raise BrokerUnavailable("the queue does not answer")


class Silent(StoredScores):
    async def stored(self, keys: Sequence[str]) -> list[bytes | None]:
        await asyncio.sleep(60)
        return []


def cache(queue: Any) -> ScoreCache:
    return ScoreCache(Shards({"": queue}), 3600)


async def test_what_can_be_read_of_a_late_group_is_answered() -> None:
    assert await cache(StoredScores()).look_up_late(0, ["done", "missing", "garbage"]) == [DONE, None, None]


async def test_a_redis_that_is_away_or_silent_means_nothing_is_finished() -> None:
    for queue in (Away(), Silent()):
        async with asyncio.timeout(5):
            assert await cache(queue).look_up_late(0, ["done", "missing"]) == [None, None]
