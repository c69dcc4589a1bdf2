"""Rows to rewards by `/reward`, as steps without I/O, so that blocking and awaiting trainers share them.

- Rows of one prompt and label become one item; all items become one request (of at most `MAX_ITEMS`).
- A server error is a `RowReward` without a reward, for the rows that it hit and no others. Rows that a retry may mend
  are sent again until the deadline.
- An invalid row (an oversized program) does not fail the other rows: the request is halved until it is alone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from plaudit.calls import Calls
from plaudit.errors import InfraError, Invalid, PlauditError, Poisoned, TooLarge
from plaudit.integrations.config import BatcherConfig, Misconfigured
from plaudit.integrations.rows import RowItem, TrainerRow, item_of
from plaudit.retries import CallSteps
from plaudit.schemas import CompletionReward, ExecuteTerm, RewardRequest, RewardSpec, ScoreTerm

MAX_ITEMS = 256  # of one request; what a deployment takes by default
RETRY_S = 0.5  # pause before rows that a server error hit are sent again
NO_SUCH_LANGUAGE = frozenset({"language_unknown", "language_unavailable", "kind_unavailable"})


@dataclass(frozen=True, slots=True)
class RowReward:
    """A reward and what it is made of; or, with `reward` None, the error that stands in its way."""

    reward: float | None
    pass_rate: float | None = None
    rm: float | None = None
    error: PlauditError | None = None
    retryable: bool = False  # the error hit this row only, and a retry may mend it

    def value(self) -> float:
        """The reward. Raises the row's error where there is none: no number is made up."""
        if self.reward is None:
            raise self.error or InfraError("no reward, and no reason given")
        return self.reward

    def metrics(self, fallback: float | None = None) -> dict[str, float]:
        """Always the same keys, numbers only. Without a reward `fallback` and `reward_ok` 0; without both it raises."""
        score = self.value() if self.reward is not None or fallback is None else fallback
        return {
            "score": score,
            "reward_ok": float(self.reward is not None),
            "pass_rate": self.pass_rate or 0.0,
            "rm": self.rm or 0.0,
        }


def rewards_of(
    calls: Calls, config: BatcherConfig, rows: Sequence[TrainerRow], *, one_batch: bool
) -> CallSteps[list[RowReward]]:
    """Send all rows, and again those that a passing server error hit, until the deadline.

    Args:
        one_batch: Whether the rows are one call's. Then a wrong row raises before anything else is sent; else it is
            a `RowReward` with its error, since the others belong to other callers.
    """
    until = time.monotonic() + config.timeout_s
    rewards: list[RowReward | None] = [None] * len(rows)
    items: list[RowItem] = []
    for index, row in enumerate(rows):
        try:
            items.append(item_of(config, index, row))
        except Invalid as error:
            rewards[index] = RowReward(None, error=error)
            if one_batch:
                raise
    while items:
        answered = yield from _send(calls, config, items, until, one_batch=one_batch)
        for index, reward in answered.items():
            rewards[index] = reward
        items = [item for item in items if (last := rewards[item.index]) is not None and last.retryable]
        if time.monotonic() + RETRY_S >= until:
            break
        if items:
            yield RETRY_S
    return [reward or RowReward(None, error=InfraError("no reward before the deadline")) for reward in rewards]


def raise_misconfigured(rewards: list[RowReward]) -> list[RowReward]:
    """The rewards, unless one of them fails by the configuration or the data set: then that is raised."""
    for reward in rewards:
        if isinstance(reward.error, Misconfigured):
            raise reward.error
    return rewards


def _send(
    calls: Calls, config: BatcherConfig, items: list[RowItem], until: float, *, one_batch: bool
) -> CallSteps[dict[int, RowReward]]:
    """By row: its reward. Sends `MAX_ITEMS` groups per request, and halves a request that the service rejects."""
    by_group: dict[str, list[RowItem]] = {}
    for item in items:
        by_group.setdefault(item.group, []).append(item)
    groups = list(by_group.values())
    rewards: dict[int, RowReward] = {}
    for start in range(0, len(groups), MAX_ITEMS):
        batch = groups[start : start + MAX_ITEMS]
        sent = [item for group in batch for item in group]
        try:
            answer = yield from calls.reward(_request(config, batch, until))
        except (Invalid, TooLarge) as error:
            if len(sent) == 1:
                index = sent[0].index
                rejected = error if isinstance(error, TooLarge) else Misconfigured(f"row {index}: {error.detail}")
                rewards[index] = RowReward(None, error=rejected)
                if one_batch:
                    raise_misconfigured([rewards[index]])
                continue
            middle = len(sent) // 2
            for half in (sent[:middle], sent[middle:]):
                rewards.update((yield from _send(calls, config, half, until, one_batch=one_batch)))
        except PlauditError as error:
            if not error.retryable:
                raise
            rewards.update({item.index: RowReward(None, error=error) for item in sent})
        else:
            completions = [completion for result in answer.results for completion in result.completions]
            for item, completion in zip(sent, completions, strict=True):
                rewards[item.index] = _row_reward(config.effective_spec, completion)
    return rewards


def _request(config: BatcherConfig, groups: Sequence[Sequence[RowItem]], until: float) -> RewardRequest:
    """One item per group, with the completions of all its rows."""
    items = [
        group[0].item.model_copy(update={"completions": [row.item.completions[0] for row in group]}) for group in groups
    ]
    left_ms = max(1, int(1000 * (until - time.monotonic())))
    spec = {} if config.spec is None else {"spec": config.spec}
    return RewardRequest(**spec, items=items, priority=config.priority, deadline_ms=left_ms)


def _row_reward(spec: RewardSpec, completion: CompletionReward) -> RowReward:
    components = completion.components
    terms = [term for term in spec.terms if term.name in components]
    pass_rates = [_share(term, components[term.name].value) for term in terms if isinstance(term, ExecuteTerm)]
    scores = [components[term.name].value for term in terms if isinstance(term, ScoreTerm)]
    if completion.trainable and completion.reward is not None:
        return RowReward(completion.reward, pass_rates[0] if pass_rates else None, scores[0] if scores else None)
    problems = [component.error for component in components.values() if component.error is not None]
    if unknown := next((problem for problem in problems if problem.code in NO_SUCH_LANGUAGE), None):
        return RowReward(None, error=Misconfigured(f"language: {unknown.detail}"))
    detail = "; ".join(sorted({f"{problem.code}: {problem.detail}" for problem in problems})) or completion.status
    if completion.status == "invalid":
        return RowReward(None, error=Invalid(detail))
    if completion.status == "infra_error" and not all(problem.retryable for problem in problems):
        return RowReward(None, error=Poisoned(detail))
    return RowReward(None, error=InfraError(detail), retryable=True)


def _share(term: ExecuteTerm, value: float | None) -> float | None:
    """The value as a share of 1: of every test under `pass_rate`, else whether all passed."""
    return (value + 1.0) / 2.0 if value is not None and term.policy == "plus_minus_one" else value
