"""Terms become rewards: pure functions over the results of one item.

- A term's value is None where the service could not get it; its status says why. Nothing missing ever becomes 0.
- Under `on_missing: null` the reward is None, too; under `drop` the term is left out of the sum and named in
  `components`.
- Without clipping the reward is the sum of the contributions. A closed gate makes every contribution 0, so this holds.
- Under `tests_first` (formula: `plaudit.tests_first`) no failing program outranks one that passes more tests. Only the
  tests are needed there: a tie-breaker without a value adds 0, says why, and the reward stays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, pstdev

from plaudit.errors import TooLarge
from plaudit.extract import fences
from plaudit.grading import Verdict
from plaudit.schemas import (
    AgreementTerm,
    BehaviorTerm,
    CompletionReward,
    CompletionScore,
    Component,
    ConsensusTerm,
    ExamplesTerm,
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
from service.agreement import agreement, consensus
from service.api.handlers.evidence import Observed
from service.api.handlers.evidence_terms import evidence_values, margin
from service.api.handlers.plan import best_index
from service.api.handlers.reward_combine import combined, sum_of


def join(
    spec: RewardSpec,
    item: RewardItem,
    scores: dict[str, ScoreResult],
    execution: ExecuteResult | None,
    observed: Observed | None = None,
) -> RewardResult:
    """One item's answer. `scores` are by term name; `execution` and `observed` are there where a term needs them."""
    columns = {term.name: _values(term, item, scores.get(term.name), execution, observed) for term in spec.terms}
    completions = combined(spec, columns, execution, observed)
    best_first = _order(completions)
    group = statistics([completion.reward for completion in completions], best_first)
    if spec.combine == "auto" and observed is not None and group.best is not None:
        sure = margin(observed, group.best)
        group = group if sure is None else group.model_copy(update={"margin": sure})
    return RewardResult(
        id=item.id,
        evidence=None if observed is None else observed.evidence,
        completions=_with_decided_term(completions, best_first),
        group=group,
    )


def ranked(result: RewardResult) -> RankResult:
    """The same with its completions' order."""
    return RankResult(**dict(result), order=order(result))


def order(result: RewardResult) -> list[int]:
    """Indices by reward, best first, the earlier of equals first; those without a reward last."""
    return _order(result.completions)


def _order(completions: Sequence[CompletionReward]) -> list[int]:
    """Where a clip made rewards equal, the sum before the clip decides."""

    def key(index: int) -> tuple[bool, float, float, int]:
        completion = completions[index]
        return completion.reward is None, -(completion.reward or 0.0), -sum_of(completion.components), index

    return sorted(range(len(completions)), key=key)


def _with_decided_term(completions: list[CompletionReward], best_first: Sequence[int]) -> list[CompletionReward]:
    """The same, with the term marked that sets the best apart from the second; none where nothing does."""
    if len(best_first) < 2 or any(completions[index].reward is None for index in best_first[:2]):
        return completions
    first, second = (completions[index].components for index in best_first[:2])
    gains = {
        name: (component.contribution or 0.0) - (second[name].contribution or 0.0) for name, component in first.items()
    }
    decided = max(gains, key=lambda name: gains[name])
    if not gains[decided] > 0:
        return completions
    return [_with_decided(completion, decided) for completion in completions]


def _with_decided(completion: CompletionReward, term: str) -> CompletionReward:
    component = completion.components[term].model_copy(update={"decided": True})
    return completion.model_copy(update={"components": {**completion.components, term: component}})


def statistics(rewards: Sequence[float | None], best_first: Sequence[int] | None = None) -> GroupStatistics:
    """What a group's rewards have in common. `best_first`: their order, where more than the rewards makes it."""
    known = [reward for reward in rewards if reward is not None]
    std = pstdev(known) if known else None
    top_two = sorted(known, reverse=True)[:2]
    return GroupStatistics(
        n=len(rewards),
        n_ok=len(known),
        mean=fmean(known) if known else None,
        std=std,
        degenerate=len(known) < 2 or max(known) == min(known),
        best=best_first[0] if best_first and known else best_index(rewards),
        margin=top_two[0] - top_two[1] if len(top_two) == 2 else None,
    )


# --- the value of each term ------------------------------------------------------------------------------------------


def _values(
    term: Term,
    item: RewardItem,
    scores: ScoreResult | None,
    execution: ExecuteResult | None,
    observed: Observed | None,
) -> list[Component]:
    """One component per completion, without its contribution yet."""
    match term:
        case ScoreTerm():
            assert scores is not None
            return _score_values(term, scores.completions)
        case ExecuteTerm():
            assert execution is not None
            return [_execute_value(term, program) for program in execution.programs]
        case AgreementTerm():
            assert execution is not None
            return _agreement_values(execution.programs)
        case ConsensusTerm():
            return _consensus_values(item.completions)
        case ExamplesTerm() | BehaviorTerm():
            assert observed is not None
            return evidence_values(term, observed)
        case FormatTerm():
            return [Component(status="ok", value=float(_well_formed(term, text))) for text in item.completions]


def _consensus_values(completions: Sequence[str]) -> list[Component]:
    """A group that is too large to compare has no values, and its components say so."""
    try:
        return [Component(status="ok", value=value) for value in consensus(completions)]
    except TooLarge as error:
        problem = ResultError(code=error.code, detail=error.detail)
        return [Component(status="invalid", error=problem)] * len(completions)


def _score_values(term: ScoreTerm, completions: Sequence[CompletionScore]) -> list[Component]:
    known = [completion.score for completion in completions if completion.score is not None]
    mean, std = (fmean(known), pstdev(known)) if known else (0.0, 0.0)

    def transform(score: float) -> float:
        if term.transform == "sigmoid":
            return 1 / (1 + math.exp(-score)) if score >= 0 else math.exp(score) / (1 + math.exp(score))
        if term.transform == "zscore_in_group":
            return (score - mean) / std if std > 0 else 0.0
        return score

    return [
        Component(
            status=completion.status,
            value=None if completion.score is None else transform(completion.score),
            error=completion.error,
        )
        for completion in completions
    ]


def _execute_value(term: ExecuteTerm, program: ProgramResult) -> Component:
    if program.status != "ok" or program.pass_rate is None:
        return Component(status=program.status, error=program.error)
    if program.total == 0:
        problem = ResultError(code="unjudgeable", detail="none of the tests can be judged, so there is no pass rate")
        return Component(status="invalid", verdict=program.verdict, error=problem)
    value = program.pass_rate if term.policy == "pass_rate" else float(program.passed == program.total)
    if term.policy == "plus_minus_one":
        value = 2.0 * value - 1.0
    return Component(status="ok", value=value, verdict=program.verdict)


def _agreement_values(programs: Sequence[ProgramResult]) -> list[Component]:
    """Agreement among the programs that ran; a program without a verdict agrees with none and has no value."""
    ran = [index for index, program in enumerate(programs) if program.status == "ok"]
    total = max((programs[index].total or 0 for index in ran), default=0)
    passes = [[test.verdict is Verdict.PASSED for test in programs[index].tests] or [False] * total for index in ran]
    values = dict(zip(ran, agreement(passes), strict=True))
    return [
        Component(status=program.status, value=values.get(index), verdict=program.verdict, error=program.error)
        for index, program in enumerate(programs)
    ]


def _well_formed(term: FormatTerm, text: str) -> bool:
    if term.require == "non_empty":
        return bool(text.strip())
    blocks = [block for block in fences(text) if block.strip()]
    return len(blocks) == 1 if term.require == "single_code_fence" else bool(blocks)
