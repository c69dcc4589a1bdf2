"""Decides which sequences are scored together. Plain Python over plain values: no torch, no clock of its own, no I/O.

- Groups (one prompt, its completions) wait by lane, then by arrival.
- `schedule` fills a batch up to a token budget and never waits for more: what is there when the model is free runs.
- Whole groups go first when they fit. A group larger than the budget runs in slices. A batch exceeds the budget only
  for a single sequence that alone is longer.
- Between two slices of a group a higher lane goes first, and a group that is late or that nobody waits for is removed,
  with the scores that it has.

Groups of one prompt are scored together, whichever requests they came in. When a group is taken, waiting groups of the
same prompt are taken with it as far as they fit whole. The prompt is counted once for all of them, or not at all if the
model has it cached from an earlier batch. So a trainer that sends one completion per call gets the batches of one that
sends the group. The first group that waits is always the first that runs: being overtaken in this way costs a group at
most one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

MAX_HELD_BATCHES = 2  # how many batches of a lane a worker encodes ahead; no other worker can take what it holds
MAX_ENCODING = 64  # jobs that it encodes at once


class TokenSequence(Protocol):
    """What the scheduler needs of an encoded sequence: its tokens, and how many of them are its prompt's."""

    @property
    def ids(self) -> tuple[int, ...]: ...

    @property
    def prompt_tokens(self) -> int: ...


S = TypeVar("S", bound=TokenSequence)


@dataclass(frozen=True, slots=True)
class ScoreFailure:
    """The reason there is no score. `is_server_error`: the job fails; otherwise the input is invalid."""

    code: str
    detail: str
    is_server_error: bool = False


Score = float | ScoreFailure


@dataclass(slots=True)
class SequenceGroup(Generic[S]):
    """The sequences of one job. `alone`: runs in a batch of its own, because it may have crashed a worker."""

    key: str
    sequences: list[S]
    lane: int
    deadline_ms: int
    alone: bool = False
    scores: list[Score] = field(default_factory=list)  # of sequences[:len(scores)]
    scheduled: int = 0
    prompt: tuple[int, ...] = field(init=False)  # what all of its sequences begin with

    def __post_init__(self) -> None:
        num_shared = min((sequence.prompt_tokens for sequence in self.sequences), default=0)
        self.prompt = self.sequences[0].ids[:num_shared] if self.sequences else ()
        if any(sequence.ids[:num_shared] != self.prompt for sequence in self.sequences):  # truncated differently
            self.prompt = ()

    @property
    def done(self) -> bool:
        return len(self.scores) == len(self.sequences)


@dataclass(frozen=True, slots=True)
class Slice(Generic[S]):
    """Consecutive sequences of one group."""

    group: SequenceGroup[S]
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class ScheduledBatch(Generic[S]):
    """`tokens`: what is computed when each prompt is computed once."""

    slices: tuple[Slice[S], ...]
    tokens: int

    @property
    def sequences(self) -> list[S]:
        return [sequence for piece in self.slices for sequence in piece.group.sequences[piece.start : piece.stop]]


class Scheduler(Generic[S]):
    """The waiting groups of one loaded model.

    Args:
        max_batch_tokens: the budget of a batch, in tokens to compute.
        sharing: whether the model computes a prompt once; without it every sequence is counted whole.
        is_cached: whether the model has a prompt cached, so that it costs nothing.
    """

    def __init__(
        self,
        max_batch_tokens: int,
        *,
        sharing: bool = True,
        is_cached: Callable[[tuple[int, ...]], bool] = lambda prompt: False,
    ) -> None:
        self.max_batch_tokens = max_batch_tokens
        self._sharing = sharing
        self._is_cached = is_cached
        self._waiting: list[SequenceGroup[S]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def first_lane(self) -> int:
        """The lane of the next batch. Only while something waits."""
        return self._waiting[0].lane

    def waiting_tokens(self, lane: int) -> int:
        """Tokens left to compute of this lane and the higher ones, if each prompt is computed once."""
        groups = [group for group in self._waiting if group.lane <= lane]
        prompts = {group.prompt for group in groups} if self._sharing else set()
        return sum(self._cost(prompt) for prompt in prompts) + sum(
            self._own_tokens(group, index) for group in groups for index in range(group.scheduled, len(group.sequences))
        )

    def add(self, group: SequenceGroup[S]) -> None:
        """Queue a group behind those of its lane. Raises `ValueError` for a group without sequences."""
        if not group.sequences:
            raise ValueError(f"group {group.key} has no sequences")
        index = next((i for i, other in enumerate(self._waiting) if other.lane > group.lane), len(self._waiting))
        self._waiting.insert(index, group)

    def drop_expired(self, now_ms: int) -> list[SequenceGroup[S]]:
        """Remove and return the groups whose deadline has passed. Not between `schedule` and `finish`."""
        expired = [group for group in self._waiting if group.deadline_ms < now_ms]
        self._remove(expired)
        return expired

    def drop(self, group: SequenceGroup[S]) -> None:
        """Remove a group, whatever has run of it. Not between `schedule` and `finish`."""
        self._remove([group])

    def schedule(self) -> ScheduledBatch[S]:
        """The next batch; empty if nothing waits. Its groups stay queued until `finish` has all their scores."""
        slices: list[Slice[S]] = []
        prompts: set[tuple[int, ...]] = set()
        room = self.max_batch_tokens
        for group in self._by_prompt():
            if group.alone and slices:
                continue
            piece, cost = self._slice(group, room, prompts, whole=bool(slices))
            if piece is None:
                continue
            slices.append(piece)
            prompts.add(group.prompt)
            group.scheduled = piece.stop
            room -= cost
            if group.alone or room <= 0:
                break
        return ScheduledBatch(tuple(slices), self.max_batch_tokens - room)

    def _by_prompt(self) -> Iterator[SequenceGroup[S]]:
        """The waiting groups in order, with all groups of a prompt moved up to the first of them."""
        same_prompt: dict[tuple[int, ...], list[SequenceGroup[S]]] = {}
        for group in self._waiting:
            same_prompt.setdefault(group.prompt, []).append(group)
        for group in self._waiting:
            if not (self._sharing and group.prompt):
                yield group
            elif group.prompt in same_prompt:
                yield from same_prompt.pop(group.prompt)

    def _slice(
        self, group: SequenceGroup[S], room: int, prompts: set[tuple[int, ...]], *, whole: bool
    ) -> tuple[Slice[S] | None, int]:
        """As much of a group as fits; at least one sequence for the first of a batch, all or nothing for later ones."""
        start, stop = group.scheduled, group.scheduled
        cost = self._cost(group.prompt) if self._sharing and group.prompt not in prompts else 0
        while stop < len(group.sequences):
            new_cost = cost + self._own_tokens(group, stop)
            if new_cost > room and (whole or stop > start):
                break
            cost, stop = new_cost, stop + 1
        if stop == start or (whole and stop < len(group.sequences)):
            return None, 0
        return Slice(group, start, stop), cost

    def _cost(self, prompt: tuple[int, ...]) -> int:
        """Tokens that a prompt adds to a batch that does not have it yet."""
        return 0 if self._is_cached(prompt) else len(prompt)

    def _own_tokens(self, group: SequenceGroup[S], index: int) -> int:
        """Tokens that a sequence adds to a batch that has its prompt."""
        return len(group.sequences[index].ids) - (len(group.prompt) if self._sharing else 0)

    def finish(self, batch: ScheduledBatch[S], scores: Sequence[Score]) -> list[SequenceGroup[S]]:
        """Give a batch's scores to its groups; removes and returns the groups that are complete."""
        if len(scores) != len(batch.sequences):
            raise ValueError(f"{len(scores)} scores for {len(batch.sequences)} sequences")
        first = 0
        for piece in batch.slices:
            count = piece.stop - piece.start
            piece.group.scores.extend(scores[first : first + count])
            first += count
        done = [piece.group for piece in batch.slices if piece.group.done]
        self._remove(done)
        return done

    def _remove(self, groups: list[SequenceGroup[S]]) -> None:
        removed = {id(group) for group in groups}  # by identity: the groups of two jobs may be equal
        self._waiting = [group for group in self._waiting if id(group) not in removed]
