"""Execution consensus: how much of a group agrees with what each candidate answers to inputs that nobody has judged.

- As MBR-exec (Shi et al. 2022, arXiv 2204.11454): support is counted input by input. Clusters of whole outcome vectors
  (AlphaCode, arXiv 2203.07814) split programs that differ on one odd input.
- As CodeT (Chen et al. 2022, arXiv 2207.10397): programs that pass more examples have more say.
- Values compare inside one group only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from plaudit.errors import Invalid

VALUE = "v:"  # the outcomes that count as answers (`sandbox.judge.observe`); all others give and get no support
UNPROVEN = 0.02  # the say of a program that passes no example, where one that passes all of them has 1 more
CONSTANT_SHARE = 0.95  # of a program's answers: as many alike are no answer to the inputs
MIN_ANSWERS = 5  # before a program is called constant
CONSTANT_FACTOR = 0.5


def behavior(outcomes: Sequence[Sequence[str]], example_rates: Sequence[float] | None = None) -> list[float]:
    """Share of the group, weighted, that answers as each candidate does.

    A candidate's weight is rate² + `UNPROVEN`. On one input its support is the weight of all that answer the same over
    the weight of all. An input counts by the weight of those that answer it, so that inputs on which nearly all crash
    say little, and not at all if all answers to it are the same. The value of a candidate whose answers hardly vary is
    multiplied by `CONSTANT_FACTOR`.

    Args:
        outcomes: `outcomes[i][j]` is what candidate i answers to input j.
        example_rates: the share of the examples that each candidate passes, in [0, 1]; None without examples.

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
    weights = [rate**2 + UNPROVEN for rate in rates]
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
    if not counted:
        return values
    factors = [CONSTANT_FACTOR if is_constant(row) else 1.0 for row in outcomes]
    return [min(1.0, factor * value / counted) for factor, value in zip(factors, values, strict=True)]


def is_constant(row: Sequence[str]) -> bool:
    """Whether a program answers nearly all inputs alike."""
    answers = Counter(answer for answer in row if answer.startswith(VALUE))
    num_answers = answers.total()
    return num_answers > MIN_ANSWERS and max(answers.values()) > CONSTANT_SHARE * num_answers
