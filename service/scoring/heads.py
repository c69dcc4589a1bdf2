"""The head that turns pooled hidden states into a score, under the names that reward checkpoints use.

| tensors                          | written by                                                        |
|----------------------------------|-------------------------------------------------------------------|
| `score.weight`                   | Hugging Face sequence classifiers of decoders, TRL, OpenRLHF      |
| `score.0.*`, `score.2.*`         | two linear layers with a ReLU between (Qwen2.5-Math-RM)           |
| `v_head.summary.*`               | TRL's value head, with bias: AceCodeRM; LLaMA-Factory, in the     |
|                                  | weights or in `value_head.safetensors` / `value_head.bin`         |
| `v_head.*`, `value_head.*`       | OpenRLHF before its head was named `score`                        |
| `regression_layer`, `gating`     | ArmoRM: several outputs, weighed by a network that reads the      |
|                                  | prompt (`spec.Gating`)                                            |
| `lm_head.weight`                 | language models that answer by a token: one logit (Nemotron,      |
|                                  | bge-reranker-v2-gemma), or the difference of two (Math-Shepherd,  |
|                                  | Qwen3-Reranker)                                                   |
| any other name                   | as `head` in `reward_model.json` says                             |
| `classifier`                     | the checkpoint's own class runs whole: encoders, and decoders     |
|                                  | whose head is more than linear layers                             |

Only the backbone is kept of a checkpoint's class, so logits over the vocabulary are never computed. The head runs in
float32 on pooled positions only. Two labels become one number: the log-odds of the good one, whose sigmoid is the
softmax that its authors print.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

from plaudit.errors import UsageError
from service.scoring.checkpoint import Tensors
from service.scoring.spec import SPEC_FILE, Gating

CLASSIFIER = "classifier"
LM_HEAD = "lm_head"
GATED = "regression_layer"
TIED = ("model.embed_tokens.weight", "embed_tokens.weight")
NAMES = ("score", "v_head.summary", "v_head", "value_head.summary", "value_head", GATED, CLASSIFIER)
LOG_ODDS = (-1.0, 1.0)
# Of two labels by their names in a config, the first is the bad one; transformers' own names say as much.
BAD_GOOD = (
    ("label_0", "label_1"),
    ("0", "1"),
    ("negative", "positive"),
    ("bad", "good"),
    ("no", "yes"),
    ("false", "true"),
    ("incorrect", "correct"),
    ("irrelevant", "relevant"),
    ("not relevant", "relevant"),
    ("rejected", "chosen"),
)

Layers = tuple[tuple[torch.Tensor, torch.Tensor | None], ...]  # weight (out, in), bias (out)


@dataclass(frozen=True, slots=True)
class RewardHead:
    """One linear layer, or several with a ReLU between them, then a weighted sum of what comes out.

    Attributes:
        weights: (K), of the K outputs; None: there is one.
        cap: outputs are cap · tanh(output / cap) first (Gemma 2's `final_logit_softcapping`).
        multiplier: of the outputs, before the cap (Cohere's `logit_scale`, Granite's `logits_scaling`).
        mean: subtracted from the sum, which is then divided by `std`.
    """

    name: str
    layers: Layers
    weights: torch.Tensor | None = None
    cap: float | None = None
    multiplier: float = 1.0
    mean: float = 0.0
    std: float = 1.0

    @property
    def parameters(self) -> int:
        return _num_elements(self.layers)

    @property
    def good_label(self) -> int | None:
        """Of two labels whose log-odds the head computes, the place of the good one; None: another head."""
        weights = [] if self.weights is None else self.weights.tolist()
        return weights.index(1.0) if sorted(weights) == [-1.0, 1.0] else None

    def __call__(self, pooled: torch.Tensor) -> torch.Tensor:
        """(N, H) → (N, 1)"""
        outputs = _stack(self.layers, pooled) * self.multiplier  # (N, K)
        if self.cap is not None:
            outputs = self.cap * torch.tanh(outputs / self.cap)
        if self.weights is not None:
            outputs = (outputs @ self.weights)[:, None]
        return (outputs - self.mean) / self.std

    def sequence_logits(self, rows: Sequence[Sequence[float]]) -> list[float]:
        """A number per pooled position of a sequence, from what the call returned for it."""
        return [row[0] for row in rows]


@dataclass(frozen=True, slots=True)
class GatedHead:
    """Several outputs of the last token, weighed by a network that reads a token of the prompt (`spec.Gating`)."""

    name: str
    layers: Layers
    network: Layers
    temperature: float

    @property
    def parameters(self) -> int:
        return _num_elements(self.layers) + _num_elements(self.network)

    def __call__(self, pooled: torch.Tensor) -> torch.Tensor:
        """(N, H) → (N, 2 K): gates, then outputs."""
        gates = torch.softmax(_stack(self.network, pooled) / self.temperature, dim=-1)
        return torch.cat([gates, _stack(self.layers, pooled)], dim=1)

    def sequence_logits(self, rows: Sequence[Sequence[float]]) -> list[float]:
        """The gates of the first position over the outputs of the last."""
        at, last = rows[0], rows[-1]
        return [
            math.fsum(gate * output for gate, output in zip(at[: len(at) // 2], last[len(last) // 2 :], strict=True))
        ]


def _num_elements(layers: Layers) -> int:
    return sum(part.numel() for layer in layers for part in layer if part is not None)


def _stack(layers: Layers, hidden: torch.Tensor) -> torch.Tensor:
    """(N, H) → (N, K)"""
    hidden = hidden.float()
    for at, (weight, bias) in enumerate(layers):
        hidden = torch.nn.functional.linear(torch.relu(hidden) if at else hidden, weight, bias)
    return hidden


def find(tensors: Tensors, *, has_own_class: bool = False) -> str:
    """The name of the head that is in a checkpoint.

    Args:
        tensors: of the checkpoint.
        has_own_class: whether transformers has the class that wrote it, a sequence classifier; then a head of another
            name is that class's, which runs whole.

    Raises:
        UsageError: there is not exactly one.
    """
    names = [
        name for name in NAMES if any(_starts(tensor, name) for tensor in tensors) and not _is_outer(tensors, name)
    ]
    # `score.out_proj` (T5Gemma) is a module of its class's own; `score.0` is layer after layer, a reward model's.
    is_module = names == ["score"] and any(re.match(r"score\.[a-z_]+\.weight$", tensor) for tensor in tensors)
    if has_own_class and (not names or is_module):
        return CLASSIFIER
    if len(names) != 1:
        raise UsageError(
            f"{tensors.folder}: {' and '.join(names) or 'no tensor of a known head'} found{_candidates(tensors)}; "
            f"`head` in {SPEC_FILE} names the head: one of {', '.join(NAMES)}, another prefix of its tensors, or "
            f"{LM_HEAD} with `labels` for the logits of tokens"
        )
    return names[0]


def _candidates(tensors: Tensors) -> str:
    """What else could be a head: matrices outside of the layers with few rows."""
    few = [
        name.removesuffix(".weight")
        for name in tensors
        if name.endswith(".weight") and ".layers." not in name and ".layer." not in name and ".h." not in name
        if len(shape := tensors.shape(name)) == 2 and shape[0] <= 64
    ]
    return f" ({', '.join(sorted(few)[:3])} might be one)" if few else ""


def label_weights(folder: Any, names: Sequence[str]) -> tuple[float, ...] | None:
    """What the outputs of a classifier with these labels count; None: it has one.

    Raises:
        UsageError: which label is the good one is unknown.
    """
    if len(names) == 1:
        return None
    lower = tuple(name.lower() for name in names)
    if lower in BAD_GOOD:
        return LOG_ODDS
    if lower[::-1] in BAD_GOOD:
        return LOG_ODDS[::-1]
    raise UsageError(
        f"{folder}: {len(names)} labels ({', '.join(names[:5])}), and which of them count is unknown; write `weights` "
        f"into {SPEC_FILE}, one per label: [-1, 1] is the log-odds of the second of two"
    )


def read(
    tensors: Tensors, name: str, *, steps: bool = False, weights: Sequence[float] | None = None, normalize: bool = False
) -> RewardHead:
    """Read the head with this name.

    Args:
        tensors: of the checkpoint.
        name: prefix of its tensors.
        steps: whether it scores steps; then it may have two labels, of which the second is the good one.
        weights: of its outputs; None: it has one.
        normalize: whether the checkpoint's `mean` and `std` are applied.

    Raises:
        UsageError: the head is missing, not finite, or has another number of outputs.
    """
    layers = _read_layers(tensors, name)
    labels = layers[-1][0].shape[0]
    if weights is None:
        if labels not in ((1, 2) if steps else (1,)):
            raise UsageError(
                f"{tensors.folder}: {labels} labels; a reward model has one, or `weights` in {SPEC_FILE} gives each a "
                "weight ([-1, 1]: the log-odds of the second of two)"
            )
        weights = (1.0,) if labels == 1 else LOG_ODDS
    if len(weights) != labels:
        raise UsageError(f"{SPEC_FILE}: weights has {len(weights)} numbers and the head {name} {labels} outputs")
    mean, std = _statistics(tensors) if normalize else (0.0, 1.0)
    return RewardHead(name, layers, None if weights == (1.0,) else torch.tensor(weights), mean=mean, std=std)


def read_gated(tensors: Tensors, name: str, gating: Gating) -> GatedHead:
    """Read a head whose outputs a network weighs. Raises `UsageError` if a part is missing, or shapes do not fit."""
    layers, network = _read_layers(tensors, name), _read_layers(tensors, gating.network)
    outputs = layers[-1][0].shape[0]
    if network[-1][0].shape[0] != outputs:
        raise UsageError(
            f"{tensors.folder}: {gating.network} weighs {network[-1][0].shape[0]} outputs and {name} has {outputs}"
        )
    weight, bias = layers[-1]
    if gating.transform is not None:
        matrix = _required(tensors, gating.transform)
        if matrix.shape != (outputs, outputs):
            raise UsageError(f"{tensors.folder}: {gating.transform} is not a matrix of {outputs} by {outputs}")
        weight, bias = matrix.T @ weight, None if bias is None else bias @ matrix
    if gating.scale is not None:
        scale = float(_required(tensors, gating.scale).view(-1)[0])
        weight, bias = weight * scale, None if bias is None else bias * scale
    return GatedHead(name, (*layers[:-1], (weight, bias)), network, gating.temperature)


def read_labels(tensors: Tensors, ids: Sequence[int], config: Any) -> RewardHead:
    """The logit of one token, or the log-odds of one over another, from a language model's own head or its tied
    embeddings.

    Args:
        tensors: of the checkpoint.
        ids: the token for good, and the one for bad if there is one.
        config: of the language model, as its class reads it with its defaults; it may scale the logits or cap them.

    Raises:
        UsageError: the head is missing or not finite.
    """
    tied = getattr(MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None), "_tied_weights_keys", None) or {}
    own = [f"{LM_HEAD}.weight", *tied, "embed_out.weight"]  # the last is GPT-NeoX's in files
    embeddings = [] if getattr(config, "tie_word_embeddings", None) is False else [*tied.values(), *TIED]
    names = [name for name in (*own, *embeddings) if name in tensors]
    if not names:
        raise UsageError(f"{tensors.folder}: weights are missing: {' or '.join(dict.fromkeys(own))}, the head")
    weight = torch.stack([tensors.row(names[0], at) for at in ids])  # (1 or 2, H)
    biases = [found for name in own if (found := f"{name.removesuffix('weight')}bias") in tensors]
    bias = tensors.read(biases[0])[list(ids)] if biases else None
    _check_finite(tensors, names[0], ((weight, bias),))
    multiplier = float(getattr(config, "logit_scale", None) or 1.0)
    multiplier *= float(getattr(config, "lm_head_multiplier", None) or 1.0)
    return RewardHead(
        LM_HEAD,
        ((weight, bias),),
        torch.tensor((1.0, -1.0)[: len(ids)]),
        cap=getattr(config, "final_logit_softcapping", None),
        multiplier=multiplier / float(getattr(config, "logits_scaling", None) or 1.0),
    )


def _read_layers(tensors: Tensors, name: str) -> Layers:
    """The linear layers under this prefix, in order."""
    parts = {tensor.removeprefix(f"{name}.").split(".")[0] for tensor in tensors if _starts(tensor, name)}
    prefixes = [f"{name}.{at}" for at in sorted(int(part) for part in parts if part.isdigit())] or [name]
    layers = tuple(
        (
            _required(tensors, f"{prefix}.weight"),
            tensors.read(f"{prefix}.bias") if f"{prefix}.bias" in tensors else None,
        )
        for prefix in prefixes
    )
    if any(weight.dim() != 2 for weight, _ in layers):
        raise UsageError(f"{tensors.folder}: {name}, the head, is not made of linear layers")
    _check_finite(tensors, name, layers)
    return layers


def _required(tensors: Tensors, name: str) -> torch.Tensor:
    if name not in tensors:
        raise UsageError(f"{tensors.folder}: weights are missing: {name}, the head")
    return tensors.read(name)


def _statistics(tensors: Tensors) -> tuple[float, float]:
    """The checkpoint's `mean` and `std` of a reward."""
    mean, std = (float(_required(tensors, name).view(-1)[0]) for name in ("mean", "std"))
    if not (math.isfinite(mean) and math.isfinite(std) and std > 0):
        raise UsageError(f"{tensors.folder}: mean {mean:g} and std {std:g} cannot normalise a reward")
    return mean, std


def _check_finite(tensors: Tensors, name: str, layers: Layers) -> None:
    if not all(bool(torch.isfinite(part).all()) for layer in layers for part in layer if part is not None):
        raise UsageError(f"{tensors.folder}: weights that are not finite: {name}, the head")


def _starts(tensor: str, name: str) -> bool:
    return tensor.startswith(f"{name}.")


def _is_outer(tensors: Tensors, name: str) -> bool:
    """Whether a longer name fits, too: `v_head.summary.weight` is not the head `v_head`."""
    return any(other.startswith(f"{name}.") and any(_starts(t, other) for t in tensors) for other in NAMES)
