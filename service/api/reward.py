"""Terms become rewards: pure functions over the results of one item. Nothing is ever turned into 0 that is not one.

A term's value is None where the service could not get it (then its status says why); the reward is None too under
`on_missing: null`, or the term is left out of the sum and named in `components` under `drop`. Without clipping the
reward is the sum of the contributions; a closed gate makes every contribution 0, so that stays true.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, pstdev

from sandbox.types import Verdict
from service.api.plans import best
from service.errors import Invalid
from service.extract import fences
from service.schemas import (
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
    RewardItem,
    RewardResult,
    RewardSpec,
    ScoreResult,
    ScoreTerm,
    Term,
)
from service.scoring.agreement import agreement, consensus


def join(spec: RewardSpec, item: RewardItem, scores: dict[str, ScoreResult], run: ExecuteResult | None) -> RewardResult:
    """One item's answer. `scores` by term name; `run` where a term executes."""
    values = {term.name: _values(term, item, scores.get(term.name), run) for term in spec.terms}
    completions = [
        _combine(spec, {name: column[at] for name, column in values.items()}) for at in range(len(item.completions))
    ]
    return RewardResult(id=item.id, completions=completions, group=statistics([one.reward for one in completions]))


def ranked(result: RewardResult) -> RankResult:
    """The same with its completions' order."""
    return RankResult(**dict(result), order=order(result))


def order(result: RewardResult) -> list[int]:
    """Indices by reward, best first, the earlier of equals first; those without a reward last."""
    rewards = [one.reward for one in result.completions]
    return sorted(range(len(rewards)), key=lambda at: (rewards[at] is None, -(rewards[at] or 0.0), at))


def statistics(rewards: Sequence[float | None]) -> GroupStatistics:
    known = [reward for reward in rewards if reward is not None]
    std = pstdev(known) if known else None
    return GroupStatistics(
        n=len(rewards), n_ok=len(known), mean=fmean(known) if known else None, std=std,
        degenerate=len(known) < 2 or max(known) == min(known), best=best(rewards),
    )  # fmt: skip


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
    reward = sum(part.contribution for part in counted.values() if part.contribution is not None)
    if not math.isfinite(reward):
        raise Invalid("spec: the weights make a reward that is not a finite number")
    if spec.clip is not None:
        reward = min(spec.clip.max, max(spec.clip.min, reward))
    return CompletionReward(status="ok", reward=reward, trainable=not missing, components=counted)
