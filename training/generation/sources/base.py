"""The interface of a completion source: requests in, replies out, in whatever order they finish.

- A request is named by its key; a reply may depend on its prompt and its seed only.
- A source that cannot answer raises: a missing reply is never an empty one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from training.pipeline import config


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """`n` independent completions of one prompt: chat messages (role, content), or plain text to be continued.

    `stop`: texts that end a completion, beside those of the source.
    """

    key: str
    prompt: str | tuple[tuple[str, str], ...]
    n: int
    seed: int
    stop: tuple[str, ...] = ()

    @property
    def identity(self) -> tuple[object, ...]:
        """What the answer depends on."""
        return (self.key, self.prompt, self.n, self.seed, *((self.stop,) if self.stop else ()))


def before_stop(text: str, stops: Sequence[str]) -> str:
    """The text up to the first of these that stands in it."""
    return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]


@dataclass(frozen=True, slots=True)
class CompletionReply:
    """The reply to a request: exactly `n` texts, why each ended (`stop`, `length`), and its tokens."""

    key: str
    texts: tuple[str, ...]
    endings: tuple[str, ...]
    prompt_tokens: int = 0
    completion_tokens: int = 0


class CompletionSource(Protocol):
    """A context manager. `name` is who wrote the texts, as the data shows it."""

    @property
    def name(self) -> str: ...

    def replies(self, requests: Iterable[CompletionRequest]) -> Iterator[CompletionReply]:
        """One reply per request, as they finish. Raises a `PlauditError` for the first request that fails."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...


def request_seed(seed: int, key: str) -> int:
    """A seed for this request alone, in the 31 bits that every server takes."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:4]) >> 1


def source_identity(settings: config.SourceConfig) -> tuple[object, ...]:
    """The settings that the texts depend on, which are not the URL and the time limits."""
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
class TokenUsage:
    """Requests, completions and tokens of a source so far."""

    requests: int = 0
    completions: int = 0
    cut: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, reply: CompletionReply) -> None:
        """Count a reply."""
        self.requests += 1
        self.completions += len(reply.texts)
        self.cut += reply.endings.count("length")
        self.prompt_tokens += reply.prompt_tokens
        self.completion_tokens += reply.completion_tokens

    def cost(self, settings: config.SourceConfig) -> float:
        """In the currency of the recipe's prices, which are per million tokens."""
        return (self.prompt_tokens * settings.prompt_price + self.completion_tokens * settings.completion_price) / 1e6

    def progress_text(self, settings: config.SourceConfig) -> str:
        """Tokens, and the cost where the recipe has prices."""
        text = f"{self.prompt_tokens} + {self.completion_tokens} tokens"
        return f"{text}, cost {self.cost(settings):.2f}" if settings.prompt_price or settings.completion_price else text
