"""Terms become rewards: pure functions over the results of one item. Nothing is ever turned into 0 that is not one.

A term's value is None where the service could not get it (then its status says why); the reward is None too under
`on_missing: null`, or the term is left out of the sum and named in `components` under `drop`. Without clipping the
reward is the sum of the contributions; a closed gate makes every contribution 0, so that stays true.

Under `tests_first` (formula: `plaudit.tests_first`) no failing program outranks one that passes more tests.
Only the tests are needed there: a tie-breaker without a value adds 0, says why, and the reward stays.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, pstdev

from plaudit.errors import Invalid
from plaudit.extract import fences
from plaudit.grading import Verdict
from plaudit.schemas import (
    AgreementTerm,
    CompletionReward,
    CompletionScore,
    Component,
    ConsensusTerm,
    ExecuteResult,
    ExecuteTerm,
    FormatTerm,
    GroupStatistics,
    ProgramResult,
    RankResult,
    ResultError,
    RewardItem,
    RewardResult,
    RewardSpec,
    ScoreResult,
    ScoreTerm,
    Term,
)
from plaudit.tests_first import base, tie_scale, unit
from service.agreement import agreement, consensus
from service.api.handlers.score import best


def join(spec: RewardSpec, item: RewardItem, scores: dict[str, ScoreResult], run: ExecuteResult | None) -> RewardResult:
    """One item's answer. `scores` by term name; `run` where a term executes."""
    values = {term.name: _values(term, item, scores.get(term.name), run) for term in spec.terms}
    rows = [{name: column[at] for name, column in values.items()} for at in range(len(item.completions))]
    if spec.combine == "tests_first":
        assert run is not None
        scale = tie_scale({program.total for program in run.programs if program.total})
        completions = [_tests_first(spec, row, run.programs[at], scale) for at, row in enumerate(rows)]
    else:
        completions = [_combine(spec, row) for row in rows]
    best_first = _order(completions)
    return RewardResult(
        id=item.id,
        completions=_decided(completions, best_first),
        group=statistics([one.reward for one in completions], best_first),
    )


def ranked(result: RewardResult) -> RankResult:
    """The same with its completions' order."""
    return RankResult(**dict(result), order=order(result))


def order(result: RewardResult) -> list[int]:
    """Indices by reward, best first, the earlier of equals first; those without a reward last."""
    return _order(result.completions)


def _order(completions: Sequence[CompletionReward]) -> list[int]:
    """Where a clip made rewards equal, what was clipped decides."""

    def key(at: int) -> tuple[bool, float, float, int]:
        one = completions[at]
        return one.reward is None, -(one.reward or 0.0), -_sum(one.components), at

    return sorted(range(len(completions)), key=key)


def _decided(completions: list[CompletionReward], best_first: Sequence[int]) -> list[CompletionReward]:
    """The same, with the term marked that sets the best apart from the second; none where nothing does."""
    if len(best_first) < 2 or any(completions[at].reward is None for at in best_first[:2]):
        return completions
    first, second = (completions[at].components for at in best_first[:2])
    gains = {name: (part.contribution or 0.0) - (second[name].contribution or 0.0) for name, part in first.items()}
    name = max(gains, key=lambda one: gains[one])
    if not gains[name] > 0:
        return completions
    return [
        one.model_copy(
            update={
                "components": {
                    **one.components,
                    name: one.components[name].model_copy(update={"decided": True}),
                }
            }
        )
        for one in completions
    ]


def statistics(rewards: Sequence[float | None], best_first: Sequence[int] | None = None) -> GroupStatistics:
    """What a group's rewards have in common. `best_first`: their order, where more than the rewards makes it."""
    known = [reward for reward in rewards if reward is not None]
    std = pstdev(known) if known else None
    top = sorted(known, reverse=True)[:2]
    return GroupStatistics(
        n=len(rewards),
        n_ok=len(known),
        mean=fmean(known) if known else None,
        std=std,
        degenerate=len(known) < 2 or max(known) == min(known),
        best=best_first[0] if best_first and known else best(rewards),
        margin=top[0] - top[1] if len(top) == 2 else None,
    )


# --- the value of each term ------------------------------------------------------------------------------------------


def _values(term: Term, item: RewardItem, scores: ScoreResult | None, run: ExecuteResult | None) -> list[Component]:
    """One component a completion, without its contribution yet."""
    match term:
        case ScoreTerm():
            assert scores is not None
            return _score_values(term, scores.completions)
        case ExecuteTerm():
            assert run is not None
            return [_execute_value(term, program) for program in run.programs]
        case AgreementTerm():
            assert run is not None
            return _agreement_values(run.programs)
        case ConsensusTerm():
            return [Component(status="ok", value=value) for value in consensus(item.completions)]
        case FormatTerm():
            return [Component(status="ok", value=float(_well_formed(term, text))) for text in item.completions]


def _score_values(term: ScoreTerm, completions: Sequence[CompletionScore]) -> list[Component]:
    known = [one.score for one in completions if one.score is not None]
    mean, std = (fmean(known), pstdev(known)) if known else (0.0, 0.0)

    def transform(score: float) -> float:
        if term.transform == "sigmoid":
            return 1 / (1 + math.exp(-score)) if score >= 0 else math.exp(score) / (1 + math.exp(score))
        if term.transform == "zscore_in_group":
            return (score - mean) / std if std > 0 else 0.0
        return score

    return [
        Component(status=one.status, value=None if one.score is None else transform(one.score), error=one.error)
        for one in completions
    ]


def _execute_value(term: ExecuteTerm, program: ProgramResult) -> Component:
    if program.status != "ok" or program.pass_rate is None:
        return Component(status=program.status, error=program.error)
    if program.total == 0:
        problem = ResultError(code="unjudgeable", detail="none of the tests can be judged, so there is no pass rate")
        return Component(status="invalid", verdict=program.verdict, error=problem)
    value = program.pass_rate if term.policy == "pass_rate" else float(program.passed == program.total)
    return Component(status="ok", value=value, verdict=program.verdict)


def _agreement_values(programs: Sequence[ProgramResult]) -> list[Component]:
    """Among the programs that ran; a program without a verdict agrees with nobody and has no value."""
    ran = [at for at, program in enumerate(programs) if program.status == "ok"]
    total = max((programs[at].total or 0 for at in ran), default=0)
    passes = [[test.verdict is Verdict.PASSED for test in programs[at].tests] or [False] * total for at in ran]
    values = dict(zip(ran, agreement(passes), strict=True))
    return [
        Component(status=program.status, value=values.get(at), verdict=program.verdict, error=program.error)
        for at, program in enumerate(programs)
    ]


def _well_formed(term: FormatTerm, text: str) -> bool:
    if term.require == "non_empty":
        return bool(text.strip())
    blocks = [block for block in fences(text) if block.strip()]
    return len(blocks) == 1 if term.require == "single_code_fence" else bool(blocks)


# --- the sum ---------------------------------------------------------------------------------------------------------


def _combine(spec: RewardSpec, components: dict[str, Component]) -> CompletionReward:
    missing = [name for name, part in components.items() if part.value is None]
    gate_unknown = spec.gate is not None and components[spec.gate.term].value is None
    if missing and (spec.on_missing == "null" or len(missing) == len(components) or gate_unknown):
        status = components[missing[0]].status
        return CompletionReward(status=status, reward=None, trainable=False, components=components)
    closed = spec.gate is not None and (components[spec.gate.term].value or 0.0) < spec.gate.min
    counted: dict[str, Component] = {}
    for term in spec.terms:
        part = components[term.name]
        contribution = None if part.value is None else 0.0 if closed else term.weight * part.value
        counted[term.name] = part.model_copy(update={"contribution": contribution})
    reward = _sum(counted)
    if not math.isfinite(reward):
        raise Invalid("spec: the weights make a reward that is not a finite number")
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
    worth, within = base(program.pass_rate, all_or_nothing=tests.policy == "all_or_nothing")
    others = sum(abs(term.weight) for term in spec.terms if term is not tests)
    counted: dict[str, Component] = {}
    for term in spec.terms:
        part = components[term.name]
        if term is tests:
            contribution = tests.weight * worth
        elif part.value is None or not others:
            contribution = 0.0
        else:
            share = unit(part.value, bounded=_bounded(term), negative=term.weight < 0)
            contribution = tests.weight * within * scale * (abs(term.weight) / others) * share
        counted[term.name] = part.model_copy(update={"contribution": contribution})
    reward = _clipped(spec, _sum(counted))
    return CompletionReward(status="ok", reward=reward, trainable=True, components=counted)


def _bounded(term: Term) -> bool:
    """Whether a term's value lies in [0, 1] by itself."""
    return not isinstance(term, ScoreTerm) or term.transform == "sigmoid"


def _sum(components: Mapping[str, Component]) -> float:
    return sum(part.contribution for part in components.values() if part.contribution is not None)


def _clipped(spec: RewardSpec, reward: float) -> float:
    return reward if spec.clip is None else min(spec.clip.max, max(spec.clip.min, reward))
