"""The API's side of the cached scores: what is known already, and what is to be remembered.

- Reading is part of a request: what is found is not scored again.
- When a request's deadline passes, what a scorer has finished of its groups is read, too.
- Writing is not: it happens soon after the answer. What is lost is computed again.
- An entry that another version wrote and this one cannot read counts as missing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

import msgspec

from plaudit.errors import BrokerUnavailable
from service import metrics
from service.api.dispatch.shards import Shards
from service.jobs import Completion, OnOverflow, TaskPrompt, encode
from service.queue.cached_scores import CachedScore, cached_score_keys
from service.queue.keys import queue_of_model

log = logging.getLogger("plaudit.score_cache")

LATE_LOOK_UP_S = 0.25  # what is finished of a late group is looked up for so long at most

_decoder = msgspec.msgpack.Decoder(CachedScore)


class ScoreCache:
    """One per API process. Scores are on the shard of their group."""

    def __init__(self, shards: Shards, keep_s: int) -> None:
        self.shards = shards
        self.keep_s = keep_s

    def keys(
        self, revision: str, prompt: TaskPrompt, on_overflow: OnOverflow, completions: Sequence[Completion]
    ) -> list[str]:
        """The key of each completion of a group."""
        return cached_score_keys(self.shards.queues[0].keys, revision, prompt, on_overflow, completions)

    def is_storing(self, shard: int, keys: Sequence[str]) -> bool:
        """Whether one of these is about to be stored, so that only `look_up` can see it."""
        return self.shards.queues[shard].remembers(keys)

    async def look_up(self, shard: int, model: str, revision: str, keys: Sequence[str]) -> list[CachedScore | None]:
        """What is remembered under each key. Raises RevisionMoved if another revision of the model is active."""
        return self.decode(await self.shards.queues[shard].recall(queue_of_model(model), revision, keys))

    async def look_up_late(self, shard: int, keys: Sequence[str]) -> list[CachedScore | None]:
        """What is finished of a group that is late; nothing if Redis does not answer at once."""
        try:
            async with asyncio.timeout(LATE_LOOK_UP_S):
                frames = await self.shards.queues[shard].stored(keys)
        except (BrokerUnavailable, TimeoutError) as error:
            log.warning("the finished part of a late group is not answered: %s", error)
            return [None] * len(keys)
        return [None if frame is None else _decode(frame) for frame in frames]

    def decode(self, frames: Sequence[bytes | None]) -> list[CachedScore | None]:
        """Stored frames as scores, counted as hits."""
        scores = [None if frame is None else _decode(frame) for frame in frames]
        metrics.cache_hits.labels("score").inc(sum(score is not None for score in scores))
        return scores

    def store(self, shard: int, scores: Mapping[str, CachedScore]) -> None:
        """Remember scores by key, soon."""
        self.shards.queues[shard].remember({key: encode(score) for key, score in scores.items()}, self.keep_s)


def _decode(frame: bytes) -> CachedScore | None:
    try:
        return _decoder.decode(frame)
    except msgspec.DecodeError:
        metrics.unreadable.labels("remembered_score").inc()
        return None
