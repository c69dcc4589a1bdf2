"""Scores as they are cached in Redis, one entry per completion: by revision, prompt, overflow rule and text.

The API caches the scores of the answers that it gives. A scorer caches those of each slice of a group whose other
slices are still to come, so a group that never ends (its client hung up, its deadline passed) loses nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from service.jobs import Completion, OnOverflow, TaskPrompt, content_hash
from service.queue.keys import Keys


class CachedScore(msgspec.Struct, frozen=True):
    """A completion's score as it is remembered."""

    score: float
    tokens: int
    truncated: bool
    pass_probability: float | None
    steps: list[float] | None = None


def cached_score_keys(
    keys: Keys, revision: str, prompt: TaskPrompt, on_overflow: OnOverflow, completions: Sequence[Completion]
) -> list[str]:
    """The key of each completion of a group."""
    prefix = content_hash("score", revision, prompt, on_overflow)
    return [f"{keys.prefix}score:{content_hash(prefix, completion)}" for completion in completions]
