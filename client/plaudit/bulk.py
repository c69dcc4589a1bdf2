"""JSONL through the service: items in, results out in the same order, bounded in memory and in requests in flight.

- A line that is not an item, and an item that the service rejects, becomes a line `{"id", "line", "error"}` in its
  place and does not fail the others.
- A field that belongs to an item of another command is left out, so that one file serves `score` and `rank`.
- An error that every item would meet (no connection, a wrong key) ends the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, TextIO

from pydantic import BaseModel, ValidationError

from plaudit.errors import EXIT_FAILED, EXIT_OK, EXIT_USAGE, BadRequest, Invalid, PlauditError, TooLarge, UsageError
from plaudit.field_errors import sentence
from plaudit.schemas import ExecuteItem, ExecuteResult, RewardItem, RewardResult, ScoreItem, ScoreResult

MAX_REFUSALS = 5  # that are shown on standard error; all of them are in the output
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


@dataclass(frozen=True, slots=True)
class OutputLine:
    """A line of the output; of a rejected item also why, for the terminal."""

    text: str
    refusal: str = ""


@dataclass(slots=True)
class Tally:
    """How far the run is.

    Args:
        failed: items lost to server errors.
        rejected: items that were rejected as invalid; `refusals` says why the first ones were.
        left_out: fields that belong to items of other commands.
        resumed: items that an earlier run has answered.
    """

    total_bytes: int | None = None
    read_bytes: int = 0
    items: int = 0
    completions: int = 0
    failed: int = 0
    rejected: int = 0
    resumed: int = 0
    lines: int = 0  # of the input, read so far
    refusals: list[str] = field(default_factory=list)
    left_out: set[str] = field(default_factory=set)
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
    sink: IO[str],
    *,
    batch: int,
    concurrency: int,
    progress: ProgressBar,
    done: Answered | None = None,
) -> Tally:
    """Send every line of `source` through `call` and write the results to `sink`, in the same order.

    Args:
        call: Sends a batch of items, such as `AsyncClient.score`.
        kind: The class of an item.
        batch: Items per request.
        concurrency: Requests in flight.
        done: What an earlier run has written; as many lines of the input are left out.

    Raises:
        UsageError: what was written before is not about this input.
    """
    tally = progress.tally
    if done is not None:
        _skip(source, done, tally)
    slots = asyncio.Semaphore(concurrency)
    window: deque[tuple[list[InputLine], asyncio.Task[list[OutputLine]]]] = deque()

    async def send(lines: list[InputLine]) -> list[OutputLine]:
        async with slots:
            return await _answers(call, lines, tally)

    async def write_first() -> None:
        lines, task = window.popleft()
        for line, answer in zip(lines, await task, strict=True):
            sink.write(answer.text + "\n")
            if answer.refusal and len(tally.refusals) < MAX_REFUSALS:
                tally.refusals.append(f"line {line.number}: {answer.refusal}")
        tally.items += len(lines)
        tally.read_bytes += sum(line.size for line in lines)
        sink.flush()
        progress.show()

    try:
        batches = _batches(source, kind, batch, tally)
        while lines := await asyncio.to_thread(next, batches, None):
            window.append((lines, asyncio.create_task(send(lines))))
            while len(window) >= concurrency * AHEAD or (window and window[0][1].done()):
                await write_first()
        while window:
            await write_first()
        tally.read_bytes = tally.total_bytes or tally.read_bytes  # blank lines, too
    finally:
        for _, task in window:
            task.cancel()
        await asyncio.gather(*(task for _, task in window), return_exceptions=True)
        progress.end()
    return tally


@dataclass(frozen=True, slots=True)
class Answered:
    """What an earlier run has written: its number of lines, and the id in the last of them."""

    lines: int
    last_id: str | None

    @classmethod
    def of(cls, path: str) -> Answered:
        """Of that file; a last line without an end is removed from it. Raises UsageError."""
        count, whole, last = 0, 0, b""
        try:
            with open(path, "rb+") as file:
                for raw in file:
                    if not raw.endswith(b"\n"):
                        break
                    count, whole, last = count + 1, whole + len(raw), raw
                file.truncate(whole)
        except FileNotFoundError:
            return cls(0, None)
        except OSError as error:
            raise UsageError(f"--out {path}: {error.strerror}") from error
        return cls(count, _id_of(last))


def _id_of(raw: bytes) -> str | None:
    try:
        row = json.loads(raw)
    except ValueError:
        return None
    return row.get("id") if isinstance(row, dict) else None


def _skip(source: IO[bytes], done: Answered, tally: Tally) -> None:
    """Read past the lines that are answered. Raises UsageError if they are others than those of the output."""
    raw = b""
    while tally.resumed < done.lines:
        if not (raw := source.readline()):
            raise UsageError(
                f"--resume: --out has {done.lines} lines and the input only {tally.resumed}; "
                "the output is of another input"
            )
        tally.lines += 1
        tally.read_bytes += len(raw)
        tally.resumed += bool(raw.strip())
    given = _id_of(raw)
    if done.last_id is not None and given is not None and given != done.last_id:
        raise UsageError(
            f"--resume: line {tally.lines} of the input has the id {given!r}, and the last line of --out "
            f"{done.last_id!r}; the output is of another input"
        )


def _batches(source: IO[bytes], kind: type[Item], size: int, tally: Tally) -> Iterator[list[InputLine]]:
    lines: list[InputLine] = []
    for raw in source:
        tally.lines += 1
        if not raw.strip():
            continue
        lines.append(_line(tally.lines, raw, kind, tally))
        if len(lines) == size:
            yield lines
            lines = []
    if lines:
        yield lines


def _line(number: int, raw: bytes, kind: type[Item], tally: Tally) -> InputLine:
    try:
        return InputLine(number, len(raw), kind.model_validate_json(raw.strip()))
    except ValidationError as error:
        errors = error.errors()
    others = {str(one["loc"][0]) for one in errors if one["type"] == "extra_forbidden" and len(one["loc"]) == 1}
    others &= set().union(*(item.model_fields for item in (ScoreItem, ExecuteItem, RewardItem)))
    if others:
        row = json.loads(raw)
        with contextlib.suppress(ValidationError):  # what is wrong with the whole is said below
            item = kind.model_validate_json(json.dumps({name: row[name] for name in row if name not in others}))
            tally.left_out |= others
            return InputLine(number, len(raw), item)
    if errors[0]["type"] == "json_invalid":
        why = re.sub(r"at line 1 column (\d+)", r"at column \1", str(errors[0]["msg"]).removeprefix("Invalid JSON: "))
        return InputLine(number, len(raw), None, Invalid(f"not JSON: {why}"))
    return InputLine(number, len(raw), None, Invalid(sentence(errors)))


async def _answers(call: SendItems, lines: list[InputLine], tally: Tally) -> list[OutputLine]:
    """One line of output for each line of input, in order."""
    outcomes = await _send(call, [line for line in lines if line.item is not None])
    answers = []
    for line in lines:
        outcome = outcomes[line.number] if line.problem is None else line.problem
        if isinstance(outcome, BaseModel):
            statuses = _statuses(outcome)
            tally.completions += len(statuses)
            tally.failed += not SERVER_FAULTS.isdisjoint(statuses)
            answers.append(OutputLine(outcome.model_dump_json()))
            continue
        tally.rejected += 1
        error = {"code": outcome.code, "detail": outcome.detail, "retryable": outcome.retryable}
        name = line.item.id if line.item else None
        answers.append(OutputLine(json.dumps({"id": name, "line": line.number, "error": error}), outcome.detail))
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
        tally = self.tally
        notes = tally.refusals.copy()
        if tally.rejected > len(notes):
            notes.append(f"and {tally.rejected - len(notes)} more; they are in the output, with their lines")
        if tally.left_out:
            notes.append(f"left out, as fields of another command: {', '.join(sorted(tally.left_out))}")
        self.stream.writelines(f"  {note}\n" for note in notes)
        self.stream.flush()

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
        if tally.resumed:
            parts.append(f"{tally.resumed} from before")
        if tally.failed:
            parts.append(f"{tally.failed} failed")
        if tally.rejected:
            parts.append(f"{tally.rejected} rejected")
        return "  ".join(parts)
