"""What the language model learns, all in one forward: the next token, and what a reward model needs to see.

- The last token of a text is the one whose state the reward model pools. Language modelling never uses that state. Here
  it tells which flaw the text has, if any, and the numbers of its surface.
- A token that ends a name tells whether anything in the text defines that name. Undefined names are the most frequent
  mistake of sampled programs that can be seen without running them.
- The next token is learnt from texts without a flaw only.
- Right padding needs no mask: attention is causal, and padded targets are left out of the losses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from service.scoring.surface import CLAMP, NUM_NUMBERS
from training.reward_model.documents import UNMARKED
from training.reward_model.flaws import NUM_KINDS

IGNORED = -100


class SummaryHead(torch.nn.Module):
    """Linear maps from a token's state: the kind of flaw, the surface in standard deviations, an undefined name.

    Args:
        width: of a state.
        rows: of the text; the mean and deviation of their surface are kept.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, width: int, rows: Sequence[dict[str, Any]]) -> None:
        super().__init__()
        self.kind = torch.nn.Linear(width, NUM_KINDS)
        self.surface = torch.nn.Linear(width, NUM_NUMBERS)
        self.name = torch.nn.Linear(width, 1)
        numbers = torch.tensor([row["surface"] for row in rows if "surface" in row]).reshape(-1, NUM_NUMBERS)  # (R, S)
        mean = numbers.nanmean(0)
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", (numbers - mean).square().nanmean(0).sqrt() + 1e-3)

    def targets(self, rows: Sequence[dict[str, Any]]) -> Tensor:
        """The surface of these rows in standard deviations (R, S), NaN where a text has no such number."""
        numbers = torch.tensor([row["surface"] for row in rows])
        return ((numbers - self.mean) / self.deviation).clamp(-CLAMP, CLAMP)


class Objectives(torch.nn.Module):
    """The language model with its heads.

    Args:
        model: a causal language model.
        summary: the heads beside the next token, None for the next token alone.
        weight: of the losses of flaw and surface.
    """

    def __init__(self, model: Any, summary: SummaryHead | None = None, weight: float = 0.0) -> None:
        super().__init__()
        self.model, self.summary, self.weight = model, summary, weight

    def forward(self, rows: Sequence[dict[str, Any]], limit: int) -> dict[str, Tensor]:
        """The losses of these rows by name, each row cut at `limit` tokens: `loss` (next token), others, `total`."""
        longest = min(limit, max(len(row["ids"]) for row in rows))
        ids = torch.zeros(len(rows), longest, dtype=torch.long)  # (B, T)
        targets = torch.full((len(rows), longest), IGNORED)  # (B, T)
        names = torch.full((len(rows), longest), UNMARKED)  # (B, T)
        for at, row in enumerate(rows):
            cut = torch.tensor(row["ids"][:longest])
            ids[at, : len(cut)] = cut
            if not row.get("flaw"):
                targets[at, : len(cut)] = cut
            if "names" in row:
                names[at, : len(cut)] = torch.tensor(row["names"][:longest])
        with torch.autocast("cpu", torch.bfloat16):
            hidden = self.model.base_model(input_ids=ids, use_cache=False).last_hidden_state  # (B, T, H)
            is_target = targets[:, 1:] != IGNORED  # (B, T - 1)
            logits = self.model.get_output_embeddings()(hidden[:, :-1][is_target])  # (K, V), K targets
        losses = {}
        total = torch.zeros(())
        if len(logits):
            losses["loss"] = functional.cross_entropy(logits.float(), targets[:, 1:][is_target])
            share = sum(not row.get("flaw") for row in rows) / len(rows)
            total = total + share * losses["loss"]
        if self.summary is not None:
            for name, weight, loss in self._told(self.summary, rows, hidden, names):
                losses[name] = loss
                total = total + weight * loss
        return {**losses, "total": total}

    def _told(
        self, summary: SummaryHead, rows: Sequence[dict[str, Any]], hidden: Tensor, names: Tensor
    ) -> Iterator[tuple[str, float, Tensor]]:
        """Name, weight and value of the losses beside the next token, where rows have targets for them."""
        told = [at for at, row in enumerate(rows) if "flaw" in row]
        if told:
            last = hidden[told, [len(rows[at]["ids"]) - 1 for at in told]].float()  # (N, H)
            kinds = torch.tensor([rows[at]["flaw"] for at in told])
            yield "flaw", self.weight, functional.cross_entropy(summary.kind(last), kinds)
            numbers = summary.targets([rows[at] for at in told])  # (N, S)
            known = ~numbers.isnan()
            missed = summary.surface(last) - numbers.nan_to_num()
            yield "surface", self.weight, missed.square()[known].mean()
        marked = names != UNMARKED
        if marked.any():
            answers = summary.name(hidden[marked].float())[:, 0]
            yield "names", 1.0, functional.binary_cross_entropy_with_logits(answers, names[marked].float())
