"""Lays sequences out in one row so that common prefixes are computed once. Plain Python, no torch.

Sequences are token ids. Sorted, sequences with a common prefix are neighbours and form a radix tree: a segment is a run
of tokens that the same sequences share, and its children continue it. The row holds the tree in preorder, so a
segment's descendants are one contiguous stretch directly behind it:

    prompt p, completions a, b, and b again with c behind it      row:  [ p ][ a ][ b ][ c ]
                                                                        p reaches to the end, b reaches to the end of c

A token attends to the earlier tokens of its own segment and to every token of the segments above it; these are exactly
the tokens before it in its own sequence, and its position is the one it has there. Equal sequences are one leaf.

Cached prompts (`prefix_cache.py`) are left out of the row: the trees behind each of them stand one after the other, and
`continued` says which tokens continue which prompt.

A split pays for its extra kernel calls only if it saves enough tokens (`MIN_SAVED`), and chains of prefixes are not
split beyond `MAX_DEPTH`. Both cost tokens, never exactness.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MIN_SAVED = 8
MAX_DEPTH = 8

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Segment:
    """Tokens `start:stop` of the row, whose descendants are `stop:reach`; the first has position `offset`."""

    start: int
    stop: int
    reach: int
    offset: int
    parent: int | None  # index in `Packing.segments`


@dataclass(frozen=True, slots=True)
class Continued:
    """Tokens `start:stop` of the row, all of which continue `known`, tokens that are not in the row."""

    start: int
    stop: int
    known: Ids


@dataclass(frozen=True, slots=True)
class Packing:
    """One row. `pooled[i]` is where the last token of the i-th given sequence is."""

    ids: list[int]
    positions: list[int]
    segments: list[Segment]
    pooled: list[int]
    num_given: int  # tokens of all given sequences together
    leaves: list[int]  # the segment in which each given sequence ends
    continued: list[Continued]

    @property
    def num_computed(self) -> int:
        return len(self.ids)

    @property
    def num_shared(self) -> int:
        """Tokens that need no computing."""
        return self.num_given - len(self.ids)

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence, known ones included."""
        return max(self.positions, default=-1) + 1

    def place(self, sequence: int, position: int) -> int:
        """Where in the row a token of a given sequence is; the token must be in it."""
        segment = self.segments[self.leaves[sequence]]
        while segment.offset > position:
            assert segment.parent is not None
            segment = self.segments[segment.parent]
        return segment.start + position - segment.offset

    def beginning(self, sequence: int, tokens: int) -> list[slice]:
        """Where in the row the first `tokens` tokens of a given sequence are, in their order."""
        path = (segment for segment in self.path(self.leaves[sequence]) if segment.offset < tokens)
        return [slice(segment.start, min(segment.stop, segment.start + tokens - segment.offset)) for segment in path]

    def path(self, index: int) -> list[Segment]:
        """The segments from the root of the tree down to this one."""
        path = [self.segments[index]]
        while (parent := path[-1].parent) is not None:
            path.append(self.segments[parent])
        return path[::-1]


def pack(
    sequences: Sequence[Ids],
    known: Sequence[int] | None = None,
    *,
    min_saved: int = MIN_SAVED,
    max_depth: int = MAX_DEPTH,
) -> Packing:
    """Lay sequences out in one row.

    Args:
        sequences: token ids, none of them empty.
        known: how many first tokens of each are left out of the row; fewer than it has.
        min_saved: tokens that a split must save.
        max_depth: of the tree.

    Raises:
        ValueError: a sequence is empty, or all of it is known.
    """
    beginnings = _beginnings(sequences, known)
    if not all(len(ids) > len(first) for ids, first in zip(sequences, beginnings, strict=True)):
        raise ValueError("an empty sequence has no last token")
    order = sorted(range(len(sequences)), key=lambda at: (beginnings[at], sequences[at]))
    ids: list[int] = []
    positions: list[int] = []
    parents: list[int | None] = []
    spans: list[tuple[int, int, int]] = []  # start, stop, offset
    pooled, leaves = [0] * len(sequences), [0] * len(sequences)
    continued: list[Continued] = []

    def lay(tokens: Ids, offset: int, parent: int | None) -> int:
        spans.append((len(ids), len(ids) + len(tokens), offset))
        parents.append(parent)
        ids.extend(tokens)
        positions.extend(range(offset, offset + len(tokens)))
        return len(spans) - 1

    def grow(low: int, high: int, done: int) -> None:
        """The tree of order[low:high], which agree on their first `done` tokens, behind these."""
        # Still to lay out: order[low:high], whose first `done` tokens are in the path of `parent`, and which agree on
        # the first `agreed`. A stack, not recursion: the depth of the tree depends on the input.
        todo: list[tuple[int, int, int, int, int | None, int]] = [(low, high, done, done, None, 0)]
        while todo:
            low, high, done, agreed, parent, depth = todo.pop()
            if low == high:
                continue
            first, last = sequences[order[low]], sequences[order[high - 1]]
            common = num_common(first, last, agreed)
            same = common == len(last)  # the last in order is the longest of equals
            saved = (common - done) * (high - low - 1)
            if same or (saved >= min_saved and depth < max_depth):
                if common > done:
                    parent = lay(first[done:common], done, parent)
                done, depth = common, depth + 1
            leaf: int | None = parent if done == common else None
            while low < high and len(sequences[order[low]]) == common:  # those that end here, all equal
                if leaf is None:
                    leaf = lay(first[done:], done, parent)
                pooled[order[low]], leaves[order[low]] = spans[leaf][1] - 1, leaf
                low += 1
            todo.extend(
                (start, stop, done, common + 1, parent, depth)
                for start, stop in reversed(list(_runs(sequences, order, low, high, common)))
            )

    low = 0
    while low < len(order):
        first = beginnings[order[low]]
        high = next((at for at in range(low, len(order)) if beginnings[order[at]] != first), len(order))
        start = len(ids)
        grow(low, high, len(first))
        if first:
            continued.append(Continued(start, len(ids), first))
        low = high
    return Packing(ids, positions, _segments(spans, parents), pooled, sum(map(len, sequences)), leaves, continued)


def _beginnings(sequences: Sequence[Ids], known: Sequence[int] | None) -> list[Ids]:
    """The known tokens of each sequence."""
    return [()] * len(sequences) if known is None else [s[:k] for s, k in zip(sequences, known, strict=True)]


def _runs(sequences: Sequence[Ids], order: list[int], low: int, high: int, at: int) -> Iterator[tuple[int, int]]:
    """Stretches of order[low:high] with the same token at this position."""
    start = low
    for index in range(low + 1, high + 1):
        if index == high or sequences[order[index]][at] != sequences[order[start]][at]:
            yield start, index
            start = index


def _segments(spans: list[tuple[int, int, int]], parents: list[int | None]) -> list[Segment]:
    reach = [stop for _, stop, _ in spans]
    for index in range(len(spans) - 1, -1, -1):  # children come after their parent
        parent = parents[index]
        if parent is not None:
            reach[parent] = max(reach[parent], reach[index])
    return [
        Segment(start, stop, to, offset, parent)
        for (start, stop, offset), to, parent in zip(spans, reach, parents, strict=True)
    ]


def num_common(left: Ids, right: Ids, known: int = 0) -> int:
    """Length of the common beginning of two sequences that agree on the first `known` tokens."""
    low, high = known, min(len(left), len(right))
    step = 64
    while low < high:  # compare slices, in C, in growing steps, then halve into the step that differs
        stop = min(low + step, high)
        if left[low:stop] == right[low:stop]:
            low, step = stop, step * 2
        else:
            high, step = stop - 1, max(1, (stop - low) // 2)
            while low < high:
                middle = (low + high + 1) // 2
                if left[low:middle] == right[low:middle]:
                    low = middle
                else:
                    high = middle - 1
            return low
    return low


def rows(sequences: Sequence[Ids], max_tokens: int, known: Sequence[int] | None = None) -> list[list[int]]:
    """Indices of the sequences of each row. Neighbours in the tree stay together.

    A row computes at most `max_tokens`, unless it is one sequence that alone is longer. `known`: tokens of each that
    need no computing.
    """
    beginnings = _beginnings(sequences, known)
    made: list[list[int]] = []
    room = 0
    before: Ids = ()
    for index in sorted(range(len(sequences)), key=lambda at: (beginnings[at], sequences[at])):
        ids, begun = sequences[index], len(beginnings[index])
        beside = made and beginnings[made[-1][-1]] == beginnings[index]
        cost = len(ids) - (num_common(before, ids, begun) if beside else begun)
        if not made or cost > room:
            made.append([])
            room, cost = max_tokens, len(ids) - begun
        made[-1].append(index)
        room -= cost
        before = ids
    return made
