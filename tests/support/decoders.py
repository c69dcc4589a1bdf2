"""Small random decoders of several families, with heads large enough that scores differ."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

VOCABULARY = 97
MAX_LENGTH = 96
WINDOW = 16

_SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": MAX_LENGTH,
    "num_labels": 1,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.3,
}


def classifier(family: str, **changes: Any) -> Any:
    """A `…ForSequenceClassification` of this family with fixed random weights."""
    import transformers

    torch.manual_seed(7)
    config, model = (FAMILIES | UNSHARED)[family](transformers)
    made = model(config(**_SHAPE | _OF.get(family, {}) | changes)).eval().requires_grad_(False)
    torch.nn.init.normal_(made.score.weight)
    return made


def causal(family: str, **changes: Any) -> Any:
    """A `…ForCausalLM` of this family with fixed random weights."""
    import transformers

    torch.manual_seed(7)
    config, _ = (FAMILIES | UNSHARED)[family](transformers)
    return transformers.AutoModelForCausalLM.from_config(config(**_SHAPE | _OF.get(family, {}) | changes)).eval()


def _named(name: str) -> Callable[[Any], tuple[Any, Any]]:
    return lambda module: (getattr(module, f"{name}Config"), getattr(module, f"{name}ForSequenceClassification"))


FAMILIES: dict[str, Callable[[Any], tuple[Any, Any]]] = {
    "qwen2": _named("Qwen2"),
    "qwen3": _named("Qwen3"),
    "llama": _named("Llama"),
    "mistral": _named("Mistral"),
    "gemma": _named("Gemma"),
    "phi": _named("Phi"),
    "phi3": _named("Phi3"),
    "gemma3": lambda module: (module.Gemma3TextConfig, module.Gemma3TextForSequenceClassification),
}
UNSHARED = {"gemma2": _named("Gemma2")}  # soft caps
_OF: dict[str, dict[str, Any]] = {
    "qwen2": {"num_key_value_heads": 2},
    "qwen3": {"num_key_value_heads": 1, "head_dim": 12},
    "llama": {"num_key_value_heads": 4},
    "mistral": {"num_key_value_heads": 2, "sliding_window": WINDOW},
    "gemma": {"num_key_value_heads": 1, "head_dim": 16},
    "phi": {"num_key_value_heads": 2, "partial_rotary_factor": 0.5},
    "phi3": {"num_key_value_heads": 2},
    "gemma3": {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": WINDOW},
    "gemma2": {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": WINDOW},
}
