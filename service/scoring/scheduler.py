"""Decides what is scored together. Plain Python over plain values: no torch, no clock of its own, no I/O.

Groups (one prompt, its completions) wait by lane, then by arrival. `schedule` fills a batch up to a token budget and
never waits for more: whatever is there when the model is free is what runs next. Whole groups go first when they fit;
a group larger than the budget runs in slices, so nothing starves and no batch passes the budget but a single sequence
that alone is longer. A group whose deadline passed before its first slice is handed back as expired.

Groups of one prompt are scored together, whichever requests they came in: when a group is taken, those waiting with
the same prompt are taken behind it as far as they fit whole, and the prompt is counted once for all of them, or not at
all where the model still has it from an earlier batch. A trainer that sends one completion a call gets the batches of
one that sends the group. The first that waits is always the first that runs, so being overtaken this way costs a group
at most what one batch holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar


class Sequence_(Protocol):
    """What the scheduler needs to know of an encoded sequence: its tokens, and how many of them are its prompt's."""

    @property
    def ids(self) -> tuple[int, ...]: ...

    @property
    def prompt_tokens(self) -> int: ...


S = TypeVar("S", bound=Sequence_)


@dataclass(frozen=True, slots=True)
class Refused:
    """What stands in a score's place where there is none. `fault`: ours (the job fails), not the input's."""

    code: str
    detail: str
    fault: bool = False


Score = float | Refused


@dataclass(slots=True)
class Group(Generic[S]):
    """One job's sequences on their way. `alone`: runs without batch mates (it may be what killed a worker)."""

    key: str
    sequences: list[S]
    lane: int
    deadline_ms: int
    alone: bool = False
    scores: list[Score] = field(default_factory=list)  # of sequences[:len(scores)]
    scheduled: int = 0
    prompt: tuple[int, ...] = field(init=False)  # what all of its sequences begin with, and other groups may

    def __post_init__(self) -> None:
        shared = min((one.prompt_tokens for one in self.sequences), default=0)
        self.prompt = self.sequences[0].ids[:shared] if self.sequences else ()
        if any(one.ids[:shared] != self.prompt for one in self.sequences):  # cut on the left by different amounts
            self.prompt = ()

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
    """`tokens`: what is computed when each prompt is computed once."""

    slices: tuple[Slice[S], ...]
    tokens: int

    @property
    def sequences(self) -> list[S]:
        return [one for part in self.slices for one in part.group.sequences[part.start : part.stop]]


class Scheduler(Generic[S]):
    """`sharing`: whether the model computes a prompt once; without it every sequence is counted whole. `known`: whether
    it has a prompt already, and computes it not even once."""

    def __init__(
        self,
        max_batch_tokens: int,
        *,
        sharing: bool = True,
        known: Callable[[tuple[int, ...]], bool] = lambda prompt: False,
    ) -> None:
        self.max_batch_tokens = max_batch_tokens
        self._sharing = sharing
        self._known = known
        self._waiting: list[Group[S]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def waiting_tokens(self) -> int:
        """What is left to compute if each prompt is computed once."""
        prompts = {group.prompt for group in self._waiting} if self._sharing else set()
        return sum(self._cost(prompt) for prompt in prompts) + sum(
            self._own_tokens(group, index)
            for group in self._waiting
            for index in range(group.scheduled, len(group.sequences))
        )

    def add(self, group: Group[S]) -> None:
        """Queue a group behind those of its lane. A group of no sequences is an error of the caller."""
        if not group.sequences:
            raise ValueError(f"group {group.key} has no sequences")
        at = next(
            (i for i, other in enumerate(self._waiting) if other.lane > group.lane and not other.scheduled),
            len(self._waiting),
        )
        self._waiting.insert(at, group)

    def drop_expired(self, now_ms: int) -> list[Group[S]]:
        """Take out the groups whose deadline has passed and of which nothing has run yet."""
        late = [group for group in self._waiting if group.deadline_ms < now_ms and not group.scheduled]
        self._take_out(late)
        return late

    def schedule(self) -> Batch[S]:
        """The next batch; empty if nothing waits. Its groups stay here until `finish` has all their scores."""
        slices: list[Slice[S]] = []
        prompts: set[tuple[int, ...]] = set()
        room = self.max_batch_tokens
        for group in self._by_prompt():
            if group.alone and slices:
                continue
            part, cost = self._slice(group, room, prompts, whole=bool(slices))
            if part is None:
                continue
            slices.append(part)
            prompts.add(group.prompt)
            group.scheduled = part.stop
            room -= cost
            if group.alone or room <= 0:
                break
        return Batch(tuple(slices), self.max_batch_tokens - room)

    def _by_prompt(self) -> Iterator[Group[S]]:
        """Those that wait, in their order, but each prompt's groups together where the first of them stands."""
        mates: dict[tuple[int, ...], list[Group[S]]] = {}
        for group in self._waiting:
            mates.setdefault(group.prompt, []).append(group)
        for group in self._waiting:
            if not (self._sharing and group.prompt):
                yield group
            elif group.prompt in mates:
                yield from mates.pop(group.prompt)

    def _slice(
        self, group: Group[S], room: int, prompts: set[tuple[int, ...]], *, whole: bool
    ) -> tuple[Slice[S] | None, int]:
        """As much of a group as fits; at least one sequence for the first of a batch, all or nothing for later ones."""
        start, stop = group.scheduled, group.scheduled
        cost = self._cost(group.prompt) if self._sharing and group.prompt not in prompts else 0
        while stop < len(group.sequences):
            grown = cost + self._own_tokens(group, stop)
            if grown > room and (whole or stop > start):
                break
            cost, stop = grown, stop + 1
        if stop == start or (whole and stop < len(group.sequences)):
            return None, 0
        return Slice(group, start, stop), cost

    def _cost(self, prompt: tuple[int, ...]) -> int:
        """Tokens that a prompt adds to a batch that is the first to have it."""
        return 0 if self._known(prompt) else len(prompt)

    def _own_tokens(self, group: Group[S], index: int) -> int:
        """Tokens that a sequence adds to a batch that has its prompt."""
        return len(group.sequences[index].ids) - (len(group.prompt) if self._sharing else 0)

    def finish(self, batch: Batch[S], scores: Sequence[Score]) -> list[Group[S]]:
        """Hand a batch's scores to its groups; answers the groups that are complete, which leave."""
        if len(scores) != len(batch.sequences):
            raise ValueError(f"{len(scores)} scores for {len(batch.sequences)} sequences")
        at = 0
        for part in batch.slices:
            count = part.stop - part.start
            part.group.scores.extend(scores[at : at + count])
            at += count
        done = [part.group for part in batch.slices if part.group.done]
        self._take_out(done)
        return done

    def abandon(self, batch: Batch[S]) -> list[Group[S]]:
        """Take a failed batch's groups out, as if they had never come; answers them."""
        groups = [part.group for part in batch.slices]
        self._take_out(groups)
        return groups

    def _take_out(self, groups: list[Group[S]]) -> None:
        gone = {id(group) for group in groups}  # groups are equal by value, and two jobs may be
        self._waiting = [group for group in self._waiting if id(group) not in gone]
