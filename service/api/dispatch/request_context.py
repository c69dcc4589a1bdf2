"""What travels with one request: its id, its deadline, its caller, and the time that it has cost so far."""

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
class RequestContext:
    """One request.

    Args:
        request_id: as the client reads it in `X-Request-Id`.
        deadline_ms: Unix time in milliseconds.
        lane: its priority in the queue.
        tenant: a digest of the caller's key; empty without keys.
        progress: called as `progress(index, result)` with every finished item.
        queue_ms: the longest wait of one of its jobs.
        compute_ms: the sum of its jobs' work.
        began_at: `time.monotonic()` when the work began.
    """

    request_id: str
    deadline_ms: int
    lane: Lane = "normal"
    tenant: str = ""
    progress: Progress | None = None
    queue_ms: float = 0.0
    compute_ms: float = 0.0
    began_at: float = field(default_factory=time.monotonic)
    _num_reported: int = field(default=0, init=False)

    @property
    def left_s(self) -> float:
        return (self.deadline_ms - now_ms()) / 1000

    def add_timing(self, queue_ms: float, compute_ms: float) -> None:
        """A reply's share: the longest wait counts, and the sum of the work."""
        self.queue_ms = max(self.queue_ms, queue_ms)
        self.compute_ms += compute_ms

    def report(self, index: int, result: Any) -> None:
        """Give a finished item to `progress`."""
        if self.progress is not None:
            self._num_reported += 1
            self.progress(index, result)

    @property
    def restartable(self) -> bool:
        """Whether the request may be planned again: not once the client has seen an item of it."""
        return self._num_reported == 0

    @property
    def timing(self) -> Timing:
        wall_ms = (time.monotonic() - self.began_at) * 1000
        return Timing(queue_ms=round(self.queue_ms, 3), compute_ms=round(self.compute_ms, 3), wall_ms=round(wall_ms, 3))


def new_request_id() -> str:
    return uuid.uuid4().hex


def deadline(settings: Settings, body_ms: int | None, header: str | None, *, default_ms: int | None = None) -> int:
    """When the caller wants an answer: the sooner of the body's `deadline_ms` and `X-Deadline-Ms`.

    Args:
        settings: the default and the largest budget.
        body_ms: the budget in the body, in milliseconds from arrival.
        header: the value of `X-Deadline-Ms`.
        default_ms: the budget without either, instead of the settings' own.

    Returns:
        Unix time in milliseconds.

    Raises:
        Invalid: for a header that is not a number of milliseconds within the limit.
    """
    budgets = [] if body_ms is None else [body_ms]
    if header is not None:
        is_number = header.isascii() and header.isdigit() and len(header) <= 12
        if not is_number or not 1 <= int(header) <= settings.max_deadline_ms:
            raise Invalid(f"header X-Deadline-Ms: takes whole milliseconds from 1 to {settings.max_deadline_ms}")
        budgets.append(int(header))
    budget = min(budgets, default=default_ms or settings.default_deadline_ms)
    return now_ms() + min(budget, settings.max_deadline_ms)
