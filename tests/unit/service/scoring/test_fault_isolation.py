"""One bad sequence costs nobody else a score, and no failure becomes a number."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from service.scoring.encoder import Encoded
from service.scoring.fault_isolation import CANARY, out_of_memory, score_apart
from service.scoring.scheduler import ScoreFailure

POISON, NAN, NAN_IN_COMPANY = 1001, 1002, 1003


def encoded(*ids: int) -> Encoded:
    return Encoded(ids, 0, truncated=False)


class Fake:
    """Scores a sequence by its first id; memory holds `room` tokens."""

    def __init__(self, room: int = 10**9, *, broken: bool = False) -> None:
        self.room = room
        self.broken = broken
        self.calls: list[int] = []

    def __call__(self, batch: Sequence[Encoded]) -> list[float]:
        self.calls.append(len(batch))
        first = [one.ids[0] for one in batch]
        if self.broken:
            raise RuntimeError("a kernel failed")
        if POISON in first:
            raise IndexError("index out of range in self")
        if sum(len(one.ids) for one in batch) > self.room:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes")
        return [math.nan if i == NAN or (i == NAN_IN_COMPANY and len(batch) > 1) else float(i) for i in first]


def test_a_good_batch_is_one_call() -> None:
    fake = Fake()
    assert score_apart(fake, [encoded(3), encoded(4)]).scores == [3.0, 4.0]
    assert fake.calls == [2]


def test_out_of_memory_halves_the_batch_and_says_how_often() -> None:
    outcome = score_apart(Fake(room=20), [encoded(at, *[0] * 9) for at in range(8)])
    assert outcome.scores == [float(at) for at in range(8)]
    assert outcome.halvings == 2


def test_a_sequence_that_alone_needs_too_much_memory_is_our_fault_and_its_own_only() -> None:
    outcome = score_apart(Fake(room=5), [encoded(1), encoded(2, *[0] * 9), encoded(3)])
    assert outcome.scores[0] == 1.0
    assert outcome.scores[2] == 3.0
    refused = outcome.scores[1]
    assert isinstance(refused, ScoreFailure)
    assert (refused.code, refused.is_server_error) == ("out_of_memory", True)


def test_a_poisoned_sequence_is_invalid_and_its_mates_are_scored() -> None:
    outcome = score_apart(Fake(), [encoded(1), encoded(POISON), encoded(3), encoded(4), encoded(5)])
    refused = outcome.scores.pop(1)
    assert outcome.scores == [1.0, 3.0, 4.0, 5.0]
    assert refused == ScoreFailure("invalid", "the model cannot score this text: IndexError")
    assert outcome.halvings == 0


def test_poison_alone_is_invalid_because_the_model_scores_something_else() -> None:
    fake = Fake()
    assert score_apart(fake, [encoded(POISON)]).scores == [
        ScoreFailure("invalid", "the model cannot score this text: IndexError")
    ]
    assert fake([CANARY]) == [0.0]


def test_a_model_that_scores_nothing_is_our_fault_and_blames_no_text() -> None:
    scores = score_apart(Fake(broken=True), [encoded(1), encoded(2)]).scores
    assert scores == [ScoreFailure("model_failed", "the model no longer scores any text", is_server_error=True)] * 2


def test_a_score_that_is_no_number_is_tried_alone_and_then_refused() -> None:
    scores = score_apart(Fake(), [encoded(1), encoded(NAN), encoded(NAN_IN_COMPANY)]).scores
    assert scores == [
        1.0,
        ScoreFailure("not_finite", "the model gave no finite score", is_server_error=True),
        float(NAN_IN_COMPANY),
    ]


@settings(deadline=None, derandomize=True, max_examples=200)
@given(
    firsts=st.lists(st.integers(0, 9) | st.sampled_from([POISON, NAN, NAN_IN_COMPANY]), min_size=1, max_size=20),
    room=st.integers(1, 30),
)
def test_every_good_sequence_gets_its_score_whatever_else_is_there(firsts: list[int], room: int) -> None:
    scores = score_apart(Fake(room), [encoded(first) for first in firsts]).scores
    assert [isinstance(score, float) for score in scores] == [first not in (POISON, NAN) for first in firsts]
    assert all(score == first for score, first in zip(scores, firsts, strict=True) if isinstance(score, float))


def test_the_ways_in_which_memory_runs_out_are_known() -> None:
    assert out_of_memory(MemoryError())
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert out_of_memory(RuntimeError("could not create a primitive"))
    assert out_of_memory(RuntimeError("std::bad_alloc"))
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**55)
    assert out_of_memory(raised.value)
