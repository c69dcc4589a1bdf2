"""JSONL through the service: items in, results out in the same order, bounded in memory and in requests in flight.

- A line that is not an item, and an item that the service rejects, becomes a line `{"id", "line", "error"}` in its
  place and does not fail the others.
- An error that every item would meet (no connection, a wrong key) ends the run.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, TextIO

from pydantic import BaseModel, ValidationError

from plaudit.errors import EXIT_FAILED, EXIT_OK, EXIT_USAGE, BadRequest, Invalid, PlauditError, TooLarge
from plaudit.schemas import ExecuteItem, ExecuteResult, RewardItem, RewardResult, ScoreItem, ScoreResult

AHEAD = 4  # requests begun for each in flight, so that one slow request does not idle the others
SERVER_FAULTS = frozenset({"timeout_queue", "infra_error", "cancelled"})

Item = ScoreItem | ExecuteItem | RewardItem
Result = ScoreResult | ExecuteResult | RewardResult
SendItems = Callable[[Sequence[Any]], Awaitable[Sequence[Result]]]


@dataclass(frozen=True, slots=True)
class InputLine:
    """A line of the input: an item, or why it is not one."""

    number: int
    size: int
    item: Item | None
    problem: PlauditError | None = None


@dataclass(slots=True)
class Tally:
    """How far the run is. `failed`: items lost to server errors; `rejected`: items that were rejected as invalid."""

    total_bytes: int | None = None
    read_bytes: int = 0
    items: int = 0
    completions: int = 0
    failed: int = 0
    rejected: int = 0
    began: float = field(default_factory=time.monotonic)

    @property
    def exit_code(self) -> int:
        if self.failed:
            return EXIT_FAILED
        return EXIT_USAGE if self.rejected else EXIT_OK


async def run(
    call: SendItems,
    kind: type[Item],
    source: IO[bytes],
    sink: TextIO,
    *,
    batch: int,
    concurrency: int,
    progress: ProgressBar,
) -> Tally:
    """Send every line of `source` through `call` and write the results to `sink`, in the same order.

    Args:
        call: Sends a batch of items, such as `AsyncClient.score`.
        kind: The class of an item.
        batch: Items per request.
        concurrency: Requests in flight.
    """
    tally = progress.tally
    slots = asyncio.Semaphore(concurrency)
    window: deque[tuple[list[InputLine], asyncio.Task[list[str]]]] = deque()

    async def send(lines: list[InputLine]) -> list[str]:
        async with slots:
            return await _answers(call, lines, tally)

    async def write_first() -> None:
        lines, task = window.popleft()
        for text in await task:
            sink.write(text + "\n")
        tally.items += len(lines)
        tally.read_bytes += sum(line.size for line in lines)
        sink.flush()
        progress.show()

    try:
        batches = _batches(source, kind, batch)
        while lines := await asyncio.to_thread(next, batches, None):
            window.append((lines, asyncio.create_task(send(lines))))
            while len(window) >= concurrency * AHEAD or (window and window[0][1].done()):
                await write_first()
        while window:
            await write_first()
    finally:
        for _, task in window:
            task.cancel()
        await asyncio.gather(*(task for _, task in window), return_exceptions=True)
        progress.end()
    return tally


def _batches(source: IO[bytes], kind: type[Item], size: int) -> Iterator[list[InputLine]]:
    lines: list[InputLine] = []
    for number, raw in enumerate(source, start=1):
        if not raw.strip():
            continue
        lines.append(_line(number, raw, kind))
        if len(lines) == size:
            yield lines
            lines = []
    if lines:
        yield lines


def _line(number: int, raw: bytes, kind: type[Item]) -> InputLine:
    try:
        return InputLine(number, len(raw), kind.model_validate_json(raw))
    except ValidationError as error:
        causes = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" if e["loc"] else e["msg"] for e in error.errors()]
        return InputLine(number, len(raw), None, Invalid("; ".join(causes)))


async def _answers(call: SendItems, lines: list[InputLine], tally: Tally) -> list[str]:
    """One line of output for each line of input, in order."""
    outcomes = await _send(call, [line for line in lines if line.item is not None])
    answers = []
    for line in lines:
        outcome = outcomes[line.number] if line.problem is None else line.problem
        if isinstance(outcome, BaseModel):
            statuses = _statuses(outcome)
            tally.completions += len(statuses)
            tally.failed += not SERVER_FAULTS.isdisjoint(statuses)
            answers.append(outcome.model_dump_json())
            continue
        tally.rejected += 1
        error = {"code": outcome.code, "detail": outcome.detail, "retryable": outcome.retryable}
        name = line.item.id if line.item else None
        answers.append(json.dumps({"id": name, "line": line.number, "error": error}))
    return answers


async def _send(call: SendItems, lines: list[InputLine]) -> dict[int, Result | PlauditError]:
    """By line number: a result, or why the service rejected it. A rejected batch is halved down to the wrong item."""
    if not lines:
        return {}
    try:
        results = await call([line.item for line in lines])
    except (Invalid, BadRequest, TooLarge) as error:
        if len(lines) == 1:
            return {lines[0].number: error}
        half = len(lines) // 2
        return await _send(call, lines[:half]) | await _send(call, lines[half:])
    return {line.number: result for line, result in zip(lines, results, strict=True)}


def _statuses(result: Result) -> list[str]:
    entries = result.programs if isinstance(result, ExecuteResult) else result.completions
    return [entry.status for entry in entries]


class ProgressBar:
    """A bar on a terminal, a plain line now and then elsewhere; always on standard error."""

    def __init__(self, total_bytes: int | None, stream: TextIO = sys.stderr, *, plain_every_s: float = 10.0) -> None:
        self.tally = Tally(total_bytes)
        self.stream = stream
        self.bar = stream.isatty()
        self.every_s = 0.1 if self.bar else plain_every_s
        self._shown = time.monotonic()

    def show(self) -> None:
        now = time.monotonic()
        if now - self._shown >= self.every_s:
            self._shown = now
            self._write(end="" if self.bar else "\n")

    def end(self) -> None:
        self._write(end="\n")

    def _write(self, end: str) -> None:
        start = "\r\x1b[K" if self.bar else ""
        self.stream.write(f"{start}{self.text(time.monotonic())}{end}")
        self.stream.flush()

    def text(self, now: float) -> str:
        """`[#####.....] 50 %  120 items  960 completions  80.0/s  12 s left`"""
        tally, elapsed = self.tally, max(1e-9, now - self.tally.began)
        parts = [f"{tally.items} items", f"{tally.completions} completions", f"{tally.completions / elapsed:.1f}/s"]
        if tally.total_bytes:
            share = min(1.0, tally.read_bytes / tally.total_bytes)
            bar = f"[{'#' * int(share * 20):.<20}] " if self.bar else ""
            parts.insert(0, f"{bar}{share:4.0%}")
            if 0 < share < 1:
                parts.append(f"{elapsed / share - elapsed:.0f} s left")
        if tally.failed:
            parts.append(f"{tally.failed} failed")
        if tally.rejected:
            parts.append(f"{tally.rejected} rejected")
        return "  ".join(parts)
