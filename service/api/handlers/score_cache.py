"""Scores that are remembered in Redis, per completion: by revision, prompt, overflow rule and text.

- Reading is part of a request: what is found is not scored again.
- Writing is not: it happens soon after the answer. What is lost is computed again.
- An entry that another version wrote and this one cannot read counts as missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from service import metrics
from service.jobs import content_hash, encode
from service.queue.keys import queue_of_model
from service.queue.producer import Queue


class CachedScore(msgspec.Struct, frozen=True):
    """A completion's score as it is remembered."""

    score: float
    tokens: int
    truncated: bool
    pass_probability: float | None
    steps: list[float] | None = None


_decoder = msgspec.msgpack.Decoder(CachedScore)


class ScoreCache:
    """One per API process."""

    def __init__(self, queue: Queue, keep_s: int) -> None:
        self.queue = queue
        self.keep_s = keep_s

    def keys(
        self, revision: str, prompt: str | list[dict[str, str]] | None, on_overflow: str, texts: Sequence[str]
    ) -> list[str]:
        """The key of each completion of a group."""
        prefix = content_hash("score", revision, prompt, on_overflow)
        return [f"{self.queue.keys.prefix}score:{content_hash(prefix, text)}" for text in texts]

    def is_storing(self, keys: Sequence[str]) -> bool:
        """Whether one of these is about to be stored, so that only `look_up` can see it."""
        return self.queue.remembers(keys)

    async def look_up(self, model: str, revision: str, keys: Sequence[str]) -> list[CachedScore | None]:
        """What is remembered under each key. Raises RevisionMoved if another revision of the model is active."""
        return self.decode(await self.queue.recall(queue_of_model(model), revision, keys))

    def decode(self, frames: Sequence[bytes | None]) -> list[CachedScore | None]:
        """Stored frames as scores, counted as hits."""
        return [None if frame is None else self._decode(frame) for frame in frames]

    def _decode(self, frame: bytes) -> CachedScore | None:
        try:
            score = _decoder.decode(frame)
        except msgspec.DecodeError:
            metrics.unreadable.labels("remembered_score").inc()
            return None
        metrics.cache_hits.labels("score").inc()
        return score

    def store(self, scores: Mapping[str, CachedScore]) -> None:
        """Remember scores by key, soon."""
        self.queue.remember({key: encode(score) for key, score in scores.items()}, self.keep_s)
