"""Agreement inside a group, checked against values worked out by hand."""

from __future__ import annotations

import math
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plaudit.errors import Invalid
from service.agreement import agreement, consensus


def test_consensus_by_hand() -> None:
    # Three one-token texts, so no pairs. df(a) = 2, df(b) = 1; every vector has one term and length 1 after norming.
    assert consensus(["a", "a", "b"]) == pytest.approx([0.5, 0.5, 0.0])


def test_consensus_weighs_rare_terms_by_the_groups_own_idf() -> None:
    # "a b" has terms a, b and the pair; "a" only a. n = 2: idf(a) = 1, idf(b) = idf(pair) = ln(3/2) + 1.
    rare = math.log(3 / 2) + 1
    cosine = 1 / math.sqrt(1 + 2 * rare**2)
    assert consensus(["a b", "a"]) == pytest.approx([cosine, cosine])


def test_consensus_prefers_the_medoid() -> None:
    group = ["return sorted(xs)", "return sorted(xs)[:k]", "return sorted(xs)[::-1][:k]", "raise NotImplementedError"]
    values = consensus(group)
    assert values.index(max(values)) == 1
    assert values.index(min(values)) == 3


@pytest.mark.parametrize(("group", "expected"), [([], []), (["x"], [0.0]), (["", ""], [0.0, 0.0])])
def test_nobody_to_agree_with_is_zero(group: list[str], expected: list[float]) -> None:
    assert consensus(group) == expected


@given(st.lists(st.text(max_size=30), max_size=6))
def test_consensus_stays_in_the_unit_interval_and_follows_its_completion(group: list[str]) -> None:
    values = consensus(group)
    assert all(0.0 <= value <= 1.0 for value in values)
    assert consensus(group[::-1])[::-1] == pytest.approx(values)


def test_a_group_of_64_long_completions_takes_less_than_a_second() -> None:
    draw = random.Random(1)
    words = [f"name_{i}" for i in range(300)]
    group = ["\n    ".join(draw.choices(words, k=500))[:4096] for _ in range(64)]
    start = time.process_time()
    consensus(group)
    assert time.process_time() - start < 1.0


def test_agreement_by_hand() -> None:
    # Tests: 0 and 1 are right, 2 is wrong. Two right programs agree on {0, 1}; one program games the wrong test; one
    # passes only test 0; one nothing. 5 programs, 3 tests: 15.
    passes = [
        [True, True, False],
        [True, True, False],
        [False, False, True],
        [True, False, False],
        [False, False, False],
    ]
    assert agreement(passes) == pytest.approx([4 / 15, 4 / 15, 1 / 15, 1 / 15, 0.0])


def test_a_large_group_on_few_tests_can_beat_a_lone_program_on_many() -> None:
    passes = [[True, False, False]] * 4 + [[True, True, True]]
    assert agreement(passes) == pytest.approx([4 / 15] * 4 + [3 / 15])


def test_full_agreement_on_everything_is_one() -> None:
    assert agreement([[True, True]] * 3) == [1.0, 1.0, 1.0]


def test_agreement_without_programs_or_tests() -> None:
    assert agreement([]) == []
    assert agreement([[], []]) == [0.0, 0.0]


def test_programs_judged_by_different_tests_are_refused() -> None:
    with pytest.raises(Invalid):
        agreement([[True], [True, False]])
