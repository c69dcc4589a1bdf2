"""Execution consensus: how much of a group agrees with what each candidate answers to inputs that nobody has judged.

- As MBR-exec (Shi et al. 2022, arXiv 2204.11454): support is counted input by input. Clusters of whole outcome vectors
  (AlphaCode, arXiv 2203.07814) split programs that differ on one odd input.
- As CodeT (Chen et al. 2022, arXiv 2207.10397): programs that pass more examples have more say.
- Values compare inside one group only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from plaudit.errors import Invalid

VALUE = "v:"  # the outcomes that count as answers (`sandbox.judge.observe`); all others give and get no support
CONSTANT_SHARE = 0.95  # of a program's answers: as many alike are no answer to the inputs
MIN_ANSWERS = 5  # before a program is called constant


@dataclass(frozen=True, slots=True)
class Formula:
    """The constants of `behavior`, chosen on training folds (`benchmarks/evidence.py`).

    Args:
        unproven: the say of a program that passes no example, where one that passes all of them has 1 more.
        exponent: of the share of the examples that a program passes.
        constant_factor: what the value of a program is multiplied by that answers nearly everything alike.
    """

    unproven: float = 0.02
    exponent: float = 1.0
    constant_factor: float = 0.25


SHIPPED = Formula()


def behavior(
    outcomes: Sequence[Sequence[str]], example_rates: Sequence[float] | None = None, formula: Formula = SHIPPED
) -> list[float]:
    """Share of the group, weighted, that answers as each candidate does.

    A candidate's weight is the share of the examples that it passes, and `unproven`. On one input its support is the
    weight of all that answer the same over the weight of all. An input counts by the weight of those that answer it, so
    that inputs on which nearly all crash say little, and not at all if all answers to it are the same. The value of a
    candidate whose answers hardly vary is multiplied by `constant_factor`.

    Args:
        outcomes: `outcomes[i][j]` is what candidate i answers to input j.
        example_rates: the share of the examples that each candidate passes, in [0, 1]; None without examples.
        formula: its constants.

    Returns:
        One value in [0, 1] per candidate; 0.0 where no input tells candidates apart.

    Raises:
        Invalid: if the rows differ in length, or there is not one rate per candidate.
    """
    if not outcomes:
        return []
    num_inputs = len(outcomes[0])
    if any(len(row) != num_inputs for row in outcomes):
        raise Invalid("every candidate of a group must be observed on the same inputs")
    rates = [0.0] * len(outcomes) if example_rates is None else list(example_rates)
    if len(rates) != len(outcomes):
        raise Invalid(f"{len(rates)} example rates for {len(outcomes)} candidates")
    weights = [rate**formula.exponent + formula.unproven for rate in rates]
    values, counted = _support(outcomes, weights)
    if not counted:
        return values
    factors = [formula.constant_factor if is_constant(row) else 1.0 for row in outcomes]
    return [min(1.0, factor * value / counted) for factor, value in zip(factors, values, strict=True)]


def _support(outcomes: Sequence[Sequence[str]], weights: Sequence[float]) -> tuple[list[float], float]:
    """Each candidate's support, summed over the inputs by what they count, and what they count together."""
    total, counted = sum(weights), 0.0
    values = [0.0] * len(outcomes)
    for column in zip(*outcomes, strict=True):
        support: dict[str, float] = {}
        for answer, weight in zip(column, weights, strict=True):
            if answer.startswith(VALUE):
                support[answer] = support.get(answer, 0.0) + weight
        if len(support) < 2:
            continue
        share = sum(support.values()) / total
        counted += share
        for number, answer in enumerate(column):
            values[number] += share * support.get(answer, 0.0) / total
    return values, counted


def confidence(
    outcomes: Sequence[Sequence[str]],
    example_rates: Sequence[float] | None,
    best: int,
    formula: Formula = SHIPPED,
    num_unknown: int = 0,
) -> float:
    """How sure it is that a candidate is right: what it passes, times the share of the group that answers as it does.

    It measures a whole answer where `behavior` counts input by input: among programs that agree on most inputs, few may
    agree on all. `benchmarks/results/evidence.md` says how often the best candidate is right by this number.

    Args:
        outcomes: of each candidate on all inputs.
        example_rates: the share of the examples that each candidate passes; None without examples.
        best: the candidate.
        formula: its weights.
        num_unknown: programs of which it is not known what they pass; each may be right, and another answer's.

    Returns:
        A number in [0, 1].
    """
    rates = [0.0] * len(outcomes) if example_rates is None else list(example_rates)
    weights = [rate**formula.exponent + formula.unproven for rate in rates]
    alike = sum(weight for row, weight in zip(outcomes, weights, strict=True) if list(row) == list(outcomes[best]))
    answered = any(answer.startswith(VALUE) for answer in outcomes[best])
    passes = 1.0 if example_rates is None else rates[best]
    unknown = num_unknown * (1.0 + formula.unproven)
    return passes * alike / (sum(weights) + unknown) if answered else 0.0


def is_settled(outcomes: Sequence[Sequence[str]], weights: Sequence[float], num_left: int) -> bool:
    """Whether no answers to the inputs that are left can change which candidate is best.

    One input moves the difference of two candidates by 1 at most, before the values are divided by what all inputs
    count. Candidates that have answered everything as the best one may still take its place: this is not settled.

    Args:
        outcomes: on the inputs so far.
        weights: of the candidates.
        num_left: how many inputs are left.
    """
    values, _ = _support(outcomes, weights)
    best = max(range(len(values)), key=values.__getitem__)
    answers = Counter(answer for answer in outcomes[best] if answer.startswith(VALUE))
    most = max(answers.values(), default=0)
    may_be_constant = most + num_left > CONSTANT_SHARE * (answers.total() + num_left)
    rivals = [value for at, value in enumerate(values) if at != best]
    return not may_be_constant and values[best] - max(rivals, default=0.0) > num_left


def is_constant(row: Sequence[str]) -> bool:
    """Whether a program answers nearly all inputs alike."""
    answers = Counter(answer for answer in row if answer.startswith(VALUE))
    num_answers = answers.total()
    return num_answers > MIN_ANSWERS and max(answers.values()) > CONSTANT_SHARE * num_answers
