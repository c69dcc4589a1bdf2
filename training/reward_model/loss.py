"""The losses of both trainers: Bradley-Terry with the options that papers give it, and a pass / fail cross-entropy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from plaudit.errors import UsageError


def preference_loss(
    chosen: Tensor, rejected: Tensor, *, margin: Tensor | None = None, weight: Tensor | None = None, centre: float = 0.0
) -> Tensor:
    """Weighted mean over pairs of -log sigmoid(chosen - rejected - margin) + centre · (chosen + rejected)², in float32.

    Args:
        chosen: scores of the better completions, (P,).
        rejected: scores of the worse ones, (P,).
        margin: the margin of Llama 2 (arXiv 2307.09288, eq. 2), (P,).
        weight: weight of each pair, (P,). The mean divides by the number of pairs, not by their weights. A multiple of
            the gap of the pass rates gives AceCoder's ScaleBT.
        centre: weight of the term that draws scores to a mean of zero (Eisenstein et al., arXiv 2312.09244, eq. 2).

    Returns:
        a float32 scalar.
    """
    chosen, rejected = chosen.float(), rejected.float()
    loss = functional.softplus(rejected - chosen if margin is None else rejected - chosen + margin)
    if centre:
        loss = loss + centre * (chosen + rejected) ** 2
    return (loss if weight is None else weight * loss).mean()


def bradley_terry(
    scores: Tensor,
    pairs: Sequence[tuple[int, int]],
    margins: Sequence[float] | None = None,
    centre: float = 0.0,
    weights: Sequence[float] | None = None,
) -> Tensor:
    """`preference_loss` over index pairs (better, worse) of these scores (N,)."""
    better, worse = torch.tensor(pairs).T  # (P,), (P,)
    margin = None if margins is None else torch.tensor(margins)
    weight = None if weights is None else torch.tensor(weights)
    return preference_loss(scores[better], scores[worse], margin=margin, weight=weight, centre=centre)


def pointwise(scores: Tensor, passed: Sequence[bool]) -> Tensor:
    """Mean cross-entropy of scores (N,) read as log-odds of passing."""
    target = torch.tensor(passed, dtype=torch.float32)
    return functional.binary_cross_entropy_with_logits(scores.float(), target)


def gaps_of(factor: float, rates: Sequence[tuple[float | None, float | None]]) -> list[float]:
    """The margins (`fit.margin`) or weights (`fit.scale`) of pairs: `factor` times the gap of their pass rates.

    Raises `UsageError` where a pass rate is missing.
    """
    if any(rate is None for pair in rates for rate in pair):
        raise UsageError(
            "fit.margin and fit.scale need pass rates, and programs of these pairs have none: set them to 0"
        )
    return [factor * (high - low) for high, low in rates if high is not None and low is not None]
