"""What travels with one request through the desk: who asks, until when, and what it has cost so far."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from plaudit.errors import Invalid
from plaudit.schemas import Timing
from service.jobs import Lane
from service.queue.protocol import now_ms
from service.settings import Settings

Progress = Callable[[int, Any], None]


@dataclass(slots=True)
class Context:
    """One request. `deadline_ms` is Unix time; `progress(index, result)` hears of every finished item.

    `told`: something of it is out already, so it cannot begin anew under another revision of a model.
    """

    request_id: str
    deadline_ms: int
    lane: Lane = "normal"
    tenant: str = ""
    progress: Progress | None = None
    queue_ms: float = 0.0
    compute_ms: float = 0.0
    told: bool = False
    began: float = field(default_factory=time.perf_counter)

    @property
    def left_s(self) -> float:
        return (self.deadline_ms - now_ms()) / 1000

    def saw(self, queue_ms: float, compute_ms: float) -> None:
        """A reply's share: the longest wait counts, and the sum of the work."""
        self.queue_ms = max(self.queue_ms, queue_ms)
        self.compute_ms += compute_ms

    @property
    def timing(self) -> Timing:
        return Timing(queue_ms=round(self.queue_ms, 3), compute_ms=round(self.compute_ms, 3))


def new_request_id() -> str:
    return uuid.uuid4().hex


def deadline(settings: Settings, body_ms: int | None, header: str | None, *, default_ms: int | None = None) -> int:
    """Unix ms by which the caller wants an answer: the sooner of body and `X-Deadline-Ms`. Raises Invalid."""
    budgets = [] if body_ms is None else [body_ms]
    if header is not None:
        digits = header.isascii() and header.isdigit() and len(header) <= 12
        if not digits or not 1 <= int(header) <= settings.max_deadline_ms:
            raise Invalid(f"header X-Deadline-Ms: takes whole milliseconds from 1 to {settings.max_deadline_ms}")
        budgets.append(int(header))
    budget = min(budgets, default=default_ms or settings.default_deadline_ms)
    return now_ms() + min(budget, settings.max_deadline_ms)
