"""Where text comes from: one interface over an OpenAI-compatible server, a local model, and completions of record.

A source takes asks and gives replies, in whatever order they finish; an ask is named by its key, and the key with the
seed is all that a reply may depend on. A source that cannot answer raises: a missing reply is never an empty one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from plaudit.errors import UsageError
from training.pipeline import config


@dataclass(frozen=True, slots=True)
class Ask:
    """`n` independent completions of one prompt: chat messages (role, content), or plain text to be continued."""

    key: str
    prompt: str | tuple[tuple[str, str], ...]
    n: int
    seed: int


@dataclass(frozen=True, slots=True)
class Reply:
    """What came for an ask: exactly `n` texts, why each ended (`stop`, `length`), and what it cost in tokens."""

    key: str
    texts: tuple[str, ...]
    endings: tuple[str, ...]
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Source(Protocol):
    """A context manager; `name` says in the data who wrote the texts."""

    @property
    def name(self) -> str: ...

    def replies(self, asks: Iterable[Ask]) -> Iterator[Reply]:
        """One reply an ask, as they finish. Raises a `PlauditError` for the first that cannot be had."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...


def open_source(settings: config.Source) -> Source:
    """The source that a recipe's section describes."""
    if settings.kind == "openai":
        from training.generation.sources.openai import OpenAISource

        key = Path(settings.key_file).read_text(encoding="utf-8").strip() if settings.key_file else None
        return OpenAISource(settings, key)
    if settings.kind == "hf":
        from training.generation.sources.local import LocalSource

        return LocalSource(settings)
    if settings.kind == "recorded":
        from training.generation.sources.recorded import RecordedSource

        return RecordedSource(settings)
    raise UsageError(f"source.kind must be openai, hf or recorded, not {settings.kind!r}")


def seed_of(seed: int, key: str) -> int:
    """A seed for this ask alone, in the 31 bits that every server takes."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:4]) >> 1


def identity(settings: config.Source) -> tuple[object, ...]:
    """What of a section the texts depend on: where the server is and how patient we are is none of it."""
    return (
        settings.kind,
        settings.model,
        settings.path,
        settings.chat,
        settings.json_mode,
        settings.temperature,
        settings.top_p,
        settings.max_tokens,
        settings.stop,
    )


@dataclass(slots=True)
class Usage:
    """What a run of a source has cost so far."""

    requests: int = 0
    completions: int = 0
    cut: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, reply: Reply) -> None:
        self.requests += 1
        self.completions += len(reply.texts)
        self.cut += reply.endings.count("length")
        self.prompt_tokens += reply.prompt_tokens
        self.completion_tokens += reply.completion_tokens

    def cost(self, settings: config.Source) -> float:
        """In the currency of the recipe's prices, which are per million tokens."""
        return (self.prompt_tokens * settings.prompt_price + self.completion_tokens * settings.completion_price) / 1e6

    def note(self, settings: config.Source) -> str:
        """For a progress line."""
        text = f"{self.prompt_tokens} + {self.completion_tokens} tokens"
        return f"{text}, cost {self.cost(settings):.2f}" if settings.prompt_price or settings.completion_price else text
