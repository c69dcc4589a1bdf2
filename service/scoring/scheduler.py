"""Decides what is scored together. Plain Python over plain values: no torch, no clock of its own, no I/O.

Groups (one prompt, its completions) wait by lane, then by arrival. `schedule` fills a batch up to a token budget and
never waits for more: whatever is there when the model is free is what runs next. Whole groups go first when they fit;
a group larger than the budget runs in slices, so nothing starves and no batch passes the budget but a single sequence
that alone is longer. A group whose deadline passed before its first slice is handed back as expired.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar


class Sequence_(Protocol):
    """What the scheduler needs to know of an encoded sequence."""

    @property
    def ids(self) -> tuple[int, ...]: ...


S = TypeVar("S", bound=Sequence_)


@dataclass(slots=True)
class Group(Generic[S]):
    """One job's sequences on their way. `alone`: runs without batch mates (it may be what killed a worker)."""

    key: str
    sequences: list[S]
    lane: int
    deadline_ms: int
    alone: bool = False
    scores: list[float] = field(default_factory=list)  # of sequences[:len(scores)]
    scheduled: int = 0

    @property
    def done(self) -> bool:
        return len(self.scores) == len(self.sequences)


@dataclass(frozen=True, slots=True)
class Slice(Generic[S]):
    """Consecutive sequences of one group."""

    group: Group[S]
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Batch(Generic[S]):
    slices: tuple[Slice[S], ...]
    tokens: int

    @property
    def sequences(self) -> list[S]:
        return [one for part in self.slices for one in part.group.sequences[part.start : part.stop]]


class Scheduler(Generic[S]):
    def __init__(self, max_batch_tokens: int) -> None:
        self.max_batch_tokens = max_batch_tokens
        self._waiting: list[Group[S]] = []
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def waiting_tokens(self) -> int:
        return sum(len(one.ids) for group in self._waiting for one in group.sequences[group.scheduled :])

    def add(self, group: Group[S]) -> None:
        """Queue a group behind those of its lane. A group of no sequences is an error of the caller."""
        if not group.sequences:
            raise ValueError(f"group {group.key} has no sequences")
        at = next((i for i, other in enumerate(self._waiting) if other.lane > group.lane and not other.scheduled),
                  len(self._waiting))  # fmt: skip
        self._waiting.insert(at, group)

    def drop_expired(self, now_ms: int) -> list[Group[S]]:
        """Take out the groups whose deadline has passed and of which nothing has run yet."""
        late = [group for group in self._waiting if group.deadline_ms < now_ms and not group.scheduled]
        self._waiting = [group for group in self._waiting if group not in late]
        return late

    def schedule(self) -> Batch[S]:
        """The next batch; empty if nothing waits. Its groups stay here until `finish` has all their scores."""
        slices: list[Slice[S]] = []
        room = self.max_batch_tokens
        for group in self._waiting:
            if group.alone and slices:
                continue
            part, cost = self._slice(group, room, whole=bool(slices))
            if part is None:
                continue
            slices.append(part)
            group.scheduled = part.stop
            room -= cost
            if group.alone or room <= 0:
                break
        return Batch(tuple(slices), self.max_batch_tokens - room)

    def _slice(self, group: Group[S], room: int, *, whole: bool) -> tuple[Slice[S] | None, int]:
        """As much of a group as fits; at least one sequence for the first of a batch, all or nothing for later ones."""
        start, stop, cost = group.scheduled, group.scheduled, 0
        while stop < len(group.sequences):
            length = len(group.sequences[stop].ids)
            if cost + length > room and (whole or stop > start):
                break
            cost += length
            stop += 1
        if stop == start or (whole and stop < len(group.sequences)):
            return None, 0
        return Slice(group, start, stop), cost

    def finish(self, batch: Batch[S], scores: Sequence[float]) -> list[Group[S]]:
        """Hand a batch's scores to its groups; answers the groups that are complete, which leave."""
        if len(scores) != len(batch.sequences):
            raise ValueError(f"{len(scores)} scores for {len(batch.sequences)} sequences")
        at = 0
        for part in batch.slices:
            count = part.stop - part.start
            part.group.scores.extend(scores[at : at + count])
            at += count
        done = [part.group for part in batch.slices if part.group.done]
        self._waiting = [group for group in self._waiting if group not in done]
        return done

    def abandon(self, batch: Batch[S]) -> list[Group[S]]:
        """Take a failed batch's groups out, as if they had never come; answers them."""
        groups = [part.group for part in batch.slices]
        self._waiting = [group for group in self._waiting if group not in groups]
        return groups
