"""Values become rewards: the four ways to combine the terms of one item.

- `weighted_sum` and `gated`: a term's contribution is its weight times its value.
- `tests_first` (formula: `plaudit.tests_first`): the pass rate, and less than half of one test for everything else.
- `auto`: the terms in their order, each worth at most half of a step of the one before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from plaudit.errors import Invalid
from plaudit.schemas import (
    AgreementTerm,
    CompletionReward,
    Component,
    EvidenceTerm,
    ExamplesTerm,
    ExecuteResult,
    ExecuteTerm,
    ProgramResult,
    RewardSpec,
    ScoreTerm,
    Term,
)
from plaudit.tests_first import base, tie_scale, unit
from service.api.handlers.evidence import Observed
from service.api.handlers.evidence_terms import unavailable


def combined(
    spec: RewardSpec,
    columns: Mapping[str, Sequence[Component]],
    execution: ExecuteResult | None,
    observed: Observed | None,
) -> list[CompletionReward]:
    """The rewards of a group, from each term's components."""
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if spec.combine == "auto":
        scales = _scales(spec, columns, execution, observed)
        return [_in_order(spec, row, scales) for row in rows]
    if spec.combine == "tests_first":
        assert execution is not None
        scale = tie_scale({program.total for program in execution.programs if program.total})
        return [_tests_first(spec, row, program, scale) for row, program in zip(rows, execution.programs, strict=True)]
    return [_combine(spec, row) for row in rows]


def _combine(spec: RewardSpec, components: dict[str, Component]) -> CompletionReward:
    missing = [name for name, component in components.items() if component.value is None]
    gate_missing = spec.gate is not None and components[spec.gate.term].value is None
    if missing and (spec.on_missing == "null" or len(missing) == len(components) or gate_missing):
        status = components[missing[0]].status
        return CompletionReward(status=status, reward=None, trainable=False, components=components)
    closed = spec.gate is not None and (components[spec.gate.term].value or 0.0) < spec.gate.min
    counted: dict[str, Component] = {}
    for term in spec.terms:
        component = components[term.name]
        contribution = None if component.value is None else 0.0 if closed else term.weight * component.value
        counted[term.name] = component.model_copy(update={"contribution": contribution})
    reward = sum_of(counted)
    if not math.isfinite(reward):
        raise Invalid("spec: with these weights the reward is not a finite number")
    reward = _clipped(spec, reward)
    return CompletionReward(status="ok", reward=reward, trainable=not missing, components=counted)


def _tests_first(
    spec: RewardSpec, components: dict[str, Component], program: ProgramResult, scale: float
) -> CompletionReward:
    """The pass rate, and less than half of one test for everything else; `scale` is that of the item's ties."""
    (tests,) = (term for term in spec.terms if isinstance(term, ExecuteTerm))
    if components[tests.name].value is None:
        status = components[tests.name].status
        return CompletionReward(status=status, reward=None, trainable=False, components=components)
    assert program.pass_rate is not None
    base_value, tie_factor = base(program.pass_rate, all_or_nothing=tests.policy == "all_or_nothing")
    sum_of_tie_weights = sum(abs(term.weight) for term in spec.terms if term is not tests)
    counted: dict[str, Component] = {}
    for term in spec.terms:
        component = components[term.name]
        if term is tests:
            contribution = tests.weight * base_value
        elif component.value is None or not sum_of_tie_weights:
            contribution = 0.0
        else:
            share = unit(component.value, bounded=_bounded(term), negative=term.weight < 0)
            contribution = tests.weight * tie_factor * scale * (abs(term.weight) / sum_of_tie_weights) * share
        counted[term.name] = component.model_copy(update={"contribution": contribution})
    reward = _clipped(spec, sum_of(counted))
    return CompletionReward(status="ok", reward=reward, trainable=True, components=counted)


def _scales(
    spec: RewardSpec,
    columns: Mapping[str, Sequence[Component]],
    execution: ExecuteResult | None,
    observed: Observed | None,
) -> dict[str, float]:
    """What each term is worth under `auto`: the first 1, each next one at most half of a step of the one before.

    A term that the group has no evidence for is passed over: it has no scale.
    """
    scales: dict[str, float] = {}
    scale = 1.0
    for term in spec.terms:
        if isinstance(term, EvidenceTerm):
            assert observed is not None
            passed_over = unavailable(term, observed) is not None
        else:
            is_needed = isinstance(term, ExecuteTerm | AgreementTerm)
            passed_over = not is_needed and all(component.value is None for component in columns[term.name])
        if passed_over:
            continue
        scales[term.name] = scale
        totals = {len(observed.kept)} if isinstance(term, ExamplesTerm) and observed else set()
        if isinstance(term, ExecuteTerm) and execution is not None:
            totals = {program.total for program in execution.programs if program.total}
        scale *= tie_scale(totals)
    return scales


def _in_order(spec: RewardSpec, components: dict[str, Component], scales: Mapping[str, float]) -> CompletionReward:
    """Each term orders what those before it find equal. What had to run and did not leaves no reward."""
    needed = [term.name for term in spec.terms if isinstance(term, EvidenceTerm | ExecuteTerm | AgreementTerm)]
    missing = [name for name in needed if name in scales and components[name].value is None]
    if missing or not scales:
        status = components[missing[0] if missing else spec.terms[0].name].status
        return CompletionReward(status=status, reward=None, trainable=False, components=components)
    counted: dict[str, Component] = {}
    for term in spec.terms:
        component, contribution = components[term.name], 0.0
        if component.value is not None and term.name in scales:
            contribution = scales[term.name] * unit(component.value, bounded=_bounded(term))
        counted[term.name] = component.model_copy(update={"contribution": contribution})
    return CompletionReward(status="ok", reward=_clipped(spec, sum_of(counted)), trainable=True, components=counted)


def _bounded(term: Term) -> bool:
    """Whether a term's value lies in [0, 1] by itself."""
    return not isinstance(term, ScoreTerm) or term.transform == "sigmoid"


def sum_of(components: Mapping[str, Component]) -> float:
    return sum(component.contribution for component in components.values() if component.contribution is not None)


def _clipped(spec: RewardSpec, reward: float) -> float:
    return reward if spec.clip is None else min(spec.clip.max, max(spec.clip.min, reward))
