"""The row of a batch holds what sequences begin with in common once, and every token finds its own past in it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.scoring.packing import Ids, Packing, num_common, pack, rows

# Two letters and short lengths: nested prefixes, equal sequences and deep trees are the rule here.
SEQUENCE = st.lists(st.integers(0, 1), min_size=1, max_size=12).map(tuple)
BATCH = st.lists(SEQUENCE, max_size=24)
EVERYTHING = settings(deadline=None, derandomize=True, max_examples=200)


def past(packing: Packing, at: int, offset: int = 0) -> Ids:
    """What the token at this place of the row attends to, itself included, as attention reads the layout: its own
    segment up to itself, and all of every segment that reaches over it. `offset`: so many tokens are not in the row."""
    own = next(segment for segment in packing.segments if segment.start <= at < segment.stop)
    above = [segment for segment in packing.segments if segment.stop <= at < segment.reach]
    seen = [*(place for segment in above for place in range(segment.start, segment.stop)), *range(own.start, at + 1)]
    assert [packing.positions[place] for place in seen] == list(range(offset, offset + len(seen)))
    return tuple(packing.ids[place] for place in seen)


@EVERYTHING
@given(batch=BATCH, min_saved=st.integers(1, 6), max_depth=st.integers(0, 6))
def test_every_sequence_can_be_read_back_from_its_last_token(batch: list[Ids], min_saved: int, max_depth: int) -> None:
    packing = pack(batch, min_saved=min_saved, max_depth=max_depth)

    assert [past(packing, at) for at in packing.pooled] == batch
    for at, ids in enumerate(batch):
        assert [past(packing, packing.place(at, position)) for position in range(len(ids))] == [
            ids[: position + 1] for position in range(len(ids))
        ]
    assert packing.num_given == sum(map(len, batch))
    assert packing.num_computed + packing.num_shared == packing.num_given
    assert packing.longest == max(map(len, batch), default=0)


@EVERYTHING
@given(batch=BATCH, lengths=st.lists(st.integers(0, 11), min_size=24, max_size=24), min_saved=st.integers(1, 6))
def test_what_is_known_of_a_sequence_is_not_in_the_row_and_comes_before_all_that_continues_it(
    batch: list[Ids], lengths: list[int], min_saved: int
) -> None:
    known = [min(length, len(ids) - 1) for length, ids in zip(lengths, batch, strict=False)]
    packing = pack(batch, known, min_saved=min_saved)

    for at, ids in enumerate(batch):
        before = [one.known for one in packing.continued if one.start <= packing.pooled[at] < one.stop]
        assert before == ([ids[: known[at]]] if known[at] else [])
        for position in range(known[at], len(ids)):
            place = packing.place(at, position)
            assert past(packing, place, known[at]) == ids[known[at] : position + 1]
    assert packing.num_computed <= sum(len(ids) - length for ids, length in zip(batch, known, strict=True))
    assert packing.num_computed + packing.num_shared == sum(map(len, batch))
    assert packing.longest == max(map(len, batch), default=0)


@EVERYTHING
@given(batch=BATCH, cut=st.integers(0, 12))
def test_a_beginning_is_found_where_it_lies(batch: list[Ids], cut: int) -> None:
    packing = pack(batch, min_saved=1)
    for at, ids in enumerate(batch):
        tokens = min(cut, len(ids))
        assert tuple(i for part in packing.beginning(at, tokens) for i in packing.ids[part]) == ids[:tokens]


@EVERYTHING
@given(batch=BATCH)
def test_nothing_is_computed_twice_when_every_split_is_allowed(batch: list[Ids]) -> None:
    packing = pack(batch, min_saved=1, max_depth=10**9)

    assert packing.num_computed == len({ids[:stop] for ids in batch for stop in range(1, len(ids) + 1)})


@EVERYTHING
@given(batch=BATCH, min_saved=st.integers(1, 6))
def test_segments_are_a_tree_in_preorder_whose_paths_lead_from_the_first_token(
    batch: list[Ids], min_saved: int
) -> None:
    packing = pack(batch, min_saved=min_saved)

    assert [segment.start for segment in packing.segments] == [0, *(s.stop for s in packing.segments)][: -1 or None]
    for index, segment in enumerate(packing.segments):
        assert segment.start < segment.stop <= segment.reach
        path = packing.path(index)
        assert path[-1] is segment
        assert path[0].offset == 0
        assert all(a.stop <= b.start and b.reach <= a.reach for a, b in pairwise(path))
        assert all(a.offset + a.stop - a.start == b.offset for a, b in pairwise(path))


@EVERYTHING
@given(batch=BATCH, seed=st.randoms())
def test_the_order_of_a_batch_does_not_change_its_row(batch: list[Ids], seed: st.DataObject) -> None:
    order = list(range(len(batch)))
    seed.shuffle(order)  # type: ignore[attr-defined]
    straight, shuffled = pack(batch), pack([batch[at] for at in order])

    assert shuffled.ids == straight.ids
    assert shuffled.segments == straight.segments
    assert shuffled.pooled == [straight.pooled[at] for at in order]


@EVERYTHING
@given(batch=BATCH, max_tokens=st.integers(1, 40), lengths=st.lists(st.integers(0, 11), min_size=24, max_size=24))
def test_rows_hold_every_sequence_once_and_keep_to_their_size(
    batch: list[Ids], max_tokens: int, lengths: list[int]
) -> None:
    known = [min(length, len(ids) - 1) for length, ids in zip(lengths, batch, strict=False)]
    found = rows(batch, max_tokens, known)

    assert sorted(at for row in found for at in row) == list(range(len(batch)))
    for row in found:
        packing = pack([batch[at] for at in row], [known[at] for at in row], min_saved=1, max_depth=10**9)
        assert packing.num_computed <= max_tokens or len(row) == 1


@EVERYTHING
@given(left=SEQUENCE, right=SEQUENCE, long=st.integers(0, 300))
def test_the_common_beginning_is_found_to_the_token(left: Ids, right: Ids, long: int) -> None:
    same = (7,) * long
    expected = next(
        (at for at, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right))
    )

    assert num_common(same + left, same + right) == long + expected
    assert num_common(same + left, same + right, known=long) == long + expected


def test_a_group_is_its_prompt_and_its_completions() -> None:
    prompt = tuple(range(100, 150))
    packing = pack([(*prompt, 1, 2), (*prompt, 3), (*prompt, 1, 2)])

    assert packing.ids == [*prompt, 1, 2, 3]
    assert packing.pooled == [51, 52, 51]
    assert packing.num_shared == 2 * 50 + 2


def test_a_chain_of_a_thousand_prefixes_is_neither_a_deep_tree_nor_a_deep_recursion() -> None:
    chain = [(5,) * length for length in range(1, 1001)]
    packing = pack(chain)

    assert max(len(packing.path(index)) for index in range(len(packing.segments))) <= 9
    assert all(past(packing, packing.pooled[at]) == chain[at] for at in (0, 1, 500, 999))


def test_an_empty_sequence_is_the_callers_error_and_an_empty_batch_an_empty_row() -> None:
    with pytest.raises(ValueError, match="no last token"):
        pack([(1,), ()])
    with pytest.raises(ValueError, match="no last token"):
        pack([(1, 2)], [2])
    assert pack([]) == Packing([], [], [], [], 0, [], [])
    assert rows([], 10) == []
