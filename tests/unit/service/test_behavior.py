"""Execution consensus: its properties, whatever the outcomes are."""

from __future__ import annotations

import random

import pytest

from plaudit.errors import Invalid
from service.evidence.behavior import behavior, confidence


def drawn_group(seed: int) -> tuple[list[list[str]], list[float]]:
    draw = random.Random(seed)
    kinds = ["v:1", "v:2", "v:3", "e:ValueError", "t:time_limit", "t:budget", "o:generator"]
    outcomes = [[draw.choice(kinds) for _ in range(8)] for _ in range(draw.randint(1, 12))]
    return outcomes, [draw.random() for _ in outcomes]


@pytest.mark.parametrize("seed", range(30))
def test_values_lie_in_the_unit_interval(seed: int) -> None:
    assert all(0.0 <= value <= 1.0 for value in behavior(*drawn_group(seed)))


@pytest.mark.parametrize("seed", range(30))
def test_values_do_not_depend_on_the_order_of_the_group(seed: int) -> None:
    outcomes, rates = drawn_group(seed)
    order = random.Random(seed).sample(range(len(outcomes)), len(outcomes))
    shuffled = behavior([outcomes[at] for at in order], [rates[at] for at in order])
    values = behavior(outcomes, rates)
    assert shuffled == pytest.approx([values[at] for at in order])


@pytest.mark.parametrize("seed", range(30))
def test_programs_that_answer_alike_have_equal_values(seed: int) -> None:
    outcomes, rates = drawn_group(seed)
    values = behavior([*outcomes, outcomes[0]], [*rates, 1 - rates[0]])
    assert values[0] == values[-1]


def test_a_majority_that_crashes_alike_supports_nobody() -> None:
    crash = ["e:TypeError"] * 6
    values = behavior([crash] * 9 + [[f"v:{at}" for at in range(6)], [f"v:{at + 1}" for at in range(6)]])
    assert values[:9] == [0.0] * 9
    assert min(values[9:]) > 0


def test_the_larger_side_wins_without_examples() -> None:
    one, other = [f"v:{at}" for at in range(6)], [f"v:{at * at + 7}" for at in range(6)]
    values = behavior([one, one, one, other])
    assert values[0] == values[2] > values[3]


def test_programs_that_pass_the_examples_have_more_say() -> None:
    wrong, right = [f"v:{at}" for at in range(6)], [f"v:{at * at + 7}" for at in range(6)]
    values = behavior([wrong, wrong, wrong, right], [0.0, 0.0, 0.0, 1.0])
    assert values[3] > values[0]


def test_a_program_whose_answers_never_vary_counts_less() -> None:
    constant = ["v:0"] * 8
    varied = [f"v:{at % 4}" for at in range(8)]
    values = behavior([constant, constant, varied, varied])
    assert values[2] > values[0]


def test_inputs_on_which_nearly_all_crash_say_little() -> None:
    """One candidate that answers where the others crash does not win by that."""
    group = [["v:1", "v:2", "e:E"], ["v:1", "v:2", "e:E"], ["v:1", "v:2", "e:E"], ["v:3", "v:4", "v:5"]]
    values = behavior([*group, ["v:8", "v:9", "v:6"]])
    assert values[0] > values[3]


def test_groups_that_nothing_tells_apart_have_no_value() -> None:
    assert behavior([]) == []
    assert behavior([["v:1", "v:2"]]) == [0.0]
    assert behavior([["v:1"], ["v:1"]]) == [0.0, 0.0]
    assert behavior([[], []], [1.0, 0.0]) == [0.0, 0.0]


def test_rows_and_rates_must_fit() -> None:
    with pytest.raises(Invalid):
        behavior([["v:1"], ["v:1", "v:2"]])
    with pytest.raises(Invalid):
        behavior([["v:1"], ["v:2"]], [1.0])


@pytest.mark.parametrize("seed", range(30))
def test_confidence_lies_in_the_unit_interval(seed: int) -> None:
    outcomes, rates = drawn_group(seed)
    for best in range(len(outcomes)):
        assert 0.0 <= confidence(outcomes, rates, best) <= 1.0


def test_confidence_is_the_share_that_answers_alike() -> None:
    one, other = ["v:1", "v:2"], ["v:1", "v:3"]
    assert confidence([one, one, one, other], None, 0) == pytest.approx(0.75)
    assert confidence([one, one, one, other], None, 3) == pytest.approx(0.25)
    assert confidence([one, other], [0.5, 0.0], 0) == pytest.approx(0.5 * 0.52 / 0.54)


def test_nothing_is_sure_of_a_program_that_answers_nothing() -> None:
    assert confidence([["e:E", "t:time_limit"]] * 3, None, 0) == 0.0
