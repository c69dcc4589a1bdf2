"""The Bradley-Terry loss with the options that papers give it, for every loop that learns from pairs."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def preference_loss(
    chosen: Tensor, rejected: Tensor, *, margin: Tensor | None = None, weight: Tensor | None = None, centre: float = 0.0
) -> Tensor:
    """Weighted mean over pairs of -log sigmoid(chosen - rejected - margin) + centre · (chosen + rejected)², in float32.

    All tensors are (P,), one entry a pair. The margin is that of Llama 2 (arXiv 2307.09288, eq. 2); the second term
    draws scores to a mean of zero (Eisenstein et al. 2023, arXiv 2312.09244, eq. 2). The mean divides by the number
    of pairs, not by their weights.
    """
    chosen, rejected = chosen.float(), rejected.float()
    loss = functional.softplus(rejected - chosen if margin is None else rejected - chosen + margin)
    if centre:
        loss = loss + centre * (chosen + rejected) ** 2
    return (loss if weight is None else weight * loss).mean()
