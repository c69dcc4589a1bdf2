"""The head that turns the pooled hidden state into a score, under the names that reward checkpoints use.

| tensors                          | written by                                                        |
|----------------------------------|-------------------------------------------------------------------|
| `score.weight`                   | Hugging Face sequence classifiers of decoders, TRL, OpenRLHF      |
| `score.0.*`, `score.2.*`         | two linear layers with a ReLU between (Qwen2.5-Math-RM)           |
| `v_head.summary.*`               | TRL's value head, with bias: AceCodeRM; LLaMA-Factory, in the     |
|                                  | weights or in `value_head.safetensors` / `value_head.bin`         |
| `v_head.*`, `value_head.*`       | InternLM2 reward, OpenRLHF before its head was named `score`      |
| `lm_head.weight`                 | process reward models that answer by a token (Math-Shepherd): the |
|                                  | difference of two rows, one per label                             |
| `classifier.*`                   | encoders (cross-encoders): the model's own classifier runs        |

The backbone is loaded without its own head, so logits over the vocabulary are never computed. The head runs in float32
on pooled positions only. A process reward model's two labels become one number: the log-odds of the good one, whose
sigmoid is the softmax that its authors print.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from plaudit.errors import UsageError
from service.scoring.checkpoint import Tensors

CLASSIFIER = "classifier"
LM_HEAD = "lm_head"
TIED = ("model.embed_tokens.weight", "embed_tokens.weight")
NAMES = ("score", "v_head.summary", "v_head", "value_head.summary", "value_head", CLASSIFIER)


@dataclass(frozen=True, slots=True)
class RewardHead:
    """One linear layer, or several with a ReLU between them; the last gives one number."""

    name: str
    layers: tuple[tuple[torch.Tensor, torch.Tensor | None], ...]  # weight (out, in), bias (out)

    @property
    def parameters(self) -> int:
        return sum(part.numel() for layer in self.layers for part in layer if part is not None)

    def __call__(self, pooled: torch.Tensor) -> torch.Tensor:
        """(N, H) → (N)"""
        hidden = pooled.float()
        for at, (weight, bias) in enumerate(self.layers):
            hidden = torch.nn.functional.linear(torch.relu(hidden) if at else hidden, weight, bias)
        return hidden[:, 0]


def find(tensors: Tensors) -> str:
    """The name of the head that is in a checkpoint. Raises `UsageError` unless there is exactly one."""
    names = [
        name for name in NAMES if any(_starts(tensor, name) for tensor in tensors) and not _is_outer(tensors, name)
    ]
    if len(names) != 1:
        raise UsageError(
            f"{tensors.folder}: {' and '.join(names) or 'no tensor of a known head'} found; `head` in "
            f"reward_model.json names one of {', '.join(NAMES)}"
        )
    return names[0]


def read(tensors: Tensors, name: str, *, steps: bool = False) -> RewardHead:
    """Read the head with this name.

    Args:
        tensors: of the checkpoint.
        name: one of `NAMES`.
        steps: whether it scores steps; then it may have two labels, of which the second is the good one.

    Raises:
        UsageError: the head is missing, not finite, or gives more than one number.
    """
    stack = sorted(
        {
            int(part)
            for tensor in tensors
            if _starts(tensor, name)
            if (part := tensor.removeprefix(f"{name}.").split(".")[0]).isdigit()
        }
    )
    prefixes = [f"{name}.{at}" for at in stack] or [name]
    layers = []
    for prefix in prefixes:
        if f"{prefix}.weight" not in tensors:
            raise UsageError(f"{tensors.folder}: weights are missing: {prefix}.weight, the head")
        bias = tensors.read(f"{prefix}.bias") if f"{prefix}.bias" in tensors else None
        layers.append((tensors.read(f"{prefix}.weight"), bias))
    labels = layers[-1][0].shape[0]
    if labels == 2 and steps:
        weight, bias = layers[-1]
        layers[-1] = (weight[1:] - weight[:1], None if bias is None else bias[1:] - bias[:1])
    elif labels != 1:
        raise UsageError(f"{tensors.folder}: {labels} labels; a reward model has one")
    if not all(bool(torch.isfinite(part).all()) for layer in layers for part in layer if part is not None):
        raise UsageError(f"{tensors.folder}: weights that are not finite: {name}, the head")
    return RewardHead(name, tuple(layers))


def read_labels(tensors: Tensors, good: int, bad: int) -> RewardHead:
    """The log-odds of one token over another, from a language model's own head or its tied embeddings."""
    names = [name for name in (f"{LM_HEAD}.weight", *TIED) if name in tensors]
    if not names:
        raise UsageError(f"{tensors.folder}: weights are missing: {LM_HEAD}.weight, the head")
    weight = tensors.row(names[0], good) - tensors.row(names[0], bad)  # (H)
    if not bool(torch.isfinite(weight).all()):
        raise UsageError(f"{tensors.folder}: weights that are not finite: {names[0]}, the head")
    return RewardHead(LM_HEAD, ((weight[None], None),))


def _starts(tensor: str, name: str) -> bool:
    return tensor.startswith(f"{name}.")


def _is_outer(tensors: Tensors, name: str) -> bool:
    """Whether a longer name fits, too: `v_head.summary.weight` is not the head `v_head`."""
    return any(other.startswith(f"{name}.") and any(_starts(t, other) for t in tensors) for other in NAMES)
