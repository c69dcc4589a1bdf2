"""The checkpoint's own Hugging Face class: which one it is, and what it answers, to compare with what is served.

A score is the checkpoint's only if the same token is pooled, the same head is applied and the same token types are
given as in the class that trained it. So the weights are loaded through that class wherever transformers has it. It
scores a few examples, then only its backbone stays: the weights are in memory once.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)
from transformers.models.auto import modeling_auto

from service.scoring import heads
from service.scoring.device import to_device
from service.scoring.spec import RewardModelSpec

EXAMPLES = (
    "Write a function that adds two numbers.",
    ["def add(a, b):\n    return a + b\n", "", "I do not know.", "def add(a, b):\n    return a - b"],
)
# Largest difference of a score that rounding explains, as a share of the examples' largest. Twelve layers of random
# weights, which amplify rounding, were 1e-4 apart in float32; another token is another score.
TOLERANCE = {"float32": 5e-3, "bfloat16": 0.05}
SMALLEST_SCALE = 1e-3
SEQUENCES = modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
TOKENS = modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES
LANGUAGE = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


LABELLED = (AutoModelForSequenceClassification, AutoModelForTokenClassification)


def is_sequence_classifier(config: dict[str, Any]) -> bool:
    """Whether a class of transformers that classifies sequences wrote this checkpoint."""
    return _is(config, SEQUENCES)


def _is(config: dict[str, Any], names: Any) -> bool:
    architecture = (config.get("architectures") or [None])[0]
    return architecture is not None and names.get(config.get("model_type")) == architecture


def auto_class(config: dict[str, Any], spec: RewardModelSpec, tensors: Sequence[str]) -> Any:
    """The Auto class to load a checkpoint with: its own class, or `AutoModel` if transformers has none for its head.

    Args:
        config: `config.json`.
        spec: of the checkpoint.
        tensors: names of its tensors.
    """
    if spec.head == heads.CLASSIFIER:
        return AutoModelForSequenceClassification
    plain = "score.weight" in tensors and spec.gating is None and not spec.normalize
    if spec.head == "score" and plain and spec.steps is None and _is(config, SEQUENCES):
        return AutoModelForSequenceClassification
    if spec.head == "score" and plain and spec.steps is not None and _is(config, TOKENS):
        return AutoModelForTokenClassification
    if spec.head == heads.LM_HEAD and _is(config, LANGUAGE):
        return AutoModelForCausalLM
    return AutoModel


def has_head(model: Any) -> bool:
    """Whether this is more than a backbone."""
    return model.base_model is not model


@torch.inference_mode()
def scores(own: Any, texts: Sequence[dict[str, list[int]]], spec: RewardModelSpec, labels: Sequence[int]) -> list[Any]:
    """What the checkpoint's own class answers for texts, one at a time.

    Args:
        own: an instance of it.
        texts: `input_ids` of each, and what else its tokenizer gives.
        spec: which outputs count.
        labels: ids of the tokens for good and bad, with head `lm_head`.

    Returns:
        A number per text, or one per token for a class that scores tokens.
    """
    own.config.get_text_config().use_cache = False  # of keys and values, which nothing continues
    device = own.get_input_embeddings().weight.device
    answers = []
    with _head_in_float32(own, labels):
        for text in texts:
            inputs = {name: to_device([values], device) for name, values in text.items()}  # (1, T) each
            logits = own(**inputs).logits[0].float()  # (T, K), or (K) of a sequence classifier
            weights = spec.weights or ((1.0,) if logits.shape[-1] == 1 else heads.LOG_ODDS)
            if labels:
                weights = (1.0, -1.0)[: len(labels)]
            values = logits @ torch.tensor(weights, device=logits.device)
            answers.append(values.tolist())
    return answers


@contextlib.contextmanager
def _head_in_float32(own: Any, rows: Sequence[int]) -> Iterator[None]:
    """The head, or these rows of a language model's, in float32: otherwise a score is rounded more than the states."""
    head = own.get_output_embeddings() if rows else getattr(own, "score", None)
    if not isinstance(head, torch.nn.Linear):  # the class runs whole, or peft wraps it
        yield
        return
    put = own.set_output_embeddings if rows else functools.partial(setattr, own, "score")
    put(_InFloat32(head, rows))
    try:
        yield
    finally:
        put(head)


class _InFloat32(torch.nn.Module):
    """A linear layer, or a few of its rows."""

    def __init__(self, layer: torch.nn.Linear, rows: Sequence[int]) -> None:
        super().__init__()
        chosen: Any = list(rows) if rows else slice(None)
        self.weight = torch.nn.Parameter(layer.weight[chosen].float(), requires_grad=False)
        self.bias = None if layer.bias is None else layer.bias[chosen].float()

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(given.float(), self.weight, self.bias)


def differs(served: float, own: float, scale: float, dtype: str) -> bool:
    """Whether a served score is another one than the own class's. `scale`: the largest score of the examples."""
    return not abs(served - own) <= TOLERANCE[dtype] * max(scale, SMALLEST_SCALE)
