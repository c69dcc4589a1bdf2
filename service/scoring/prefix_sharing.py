"""Whether prompts may be shared when a model scores: what its config says, then a probe of the loaded model.

Sharing is exact for a model whose every layer mixes tokens by causal softmax attention through transformers'
`AttentionInterface`, and whose positions are given by `position_ids`. A recurrence, a convolution, an attention of its
own, or a rotary scaling by the longest sequence of the batch would make a score depend on the rest of the batch. A
model that is not known to be safe, or fails the probe, is scored one sequence at a time.
"""

from __future__ import annotations

import logging
from typing import Any

import torch

from service.scoring.attention import Layers, Unsharable, packed
from service.scoring.checkpoint import rope_types
from service.scoring.device import to_device
from service.scoring.packing import Packing, pack

log = logging.getLogger(__name__)

FAILURES = (Unsharable, RuntimeError, ValueError, TypeError, IndexError, AttributeError)  # of a probe
# Largest relative difference of a pooled hidden state that rounding explains; a wrong neighbour moves it by about 1.
PROBE_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.1}
LENGTH_DEPENDENT = frozenset({"dynamic", "longrope"})
ATTENTION_LAYERS = frozenset({"full_attention", "sliding_attention"})


def why_not(backbone: Any, max_length: int) -> str | None:
    """The reason not to share prompts; None if sharing is exact."""
    config = backbone.config.get_text_config()
    if other := set(getattr(config, "layer_types", None) or ()) - ATTENTION_LAYERS:
        return f"layers of type {', '.join(sorted(other))}"
    if not getattr(backbone, "_supports_attention_backend", False):
        return f"{type(backbone).__name__} does not support transformers' AttentionInterface"
    scaled = rope_types(getattr(config, "rope_parameters", None)) & LENGTH_DEPENDENT
    known = getattr(config, "original_max_position_embeddings", None) or getattr(config, "max_position_embeddings", 0)
    if scaled and max_length > int(known or 0):
        return f"rotary positions of type {', '.join(sorted(scaled))} depend on the longest sequence of a batch"
    try:
        return _probe(backbone, max_length)
    except FAILURES as error:
        return f"the probe failed: {error}"


@torch.inference_mode()
def _probe(backbone: Any, max_length: int) -> str | None:
    """Score a small tree of sequences packed and one at a time; the results must agree."""
    config = backbone.config.get_text_config()
    size = config.vocab_size
    beginning, middle = _tokens(11, size), _tokens(5, size, 3)
    sequences = [
        beginning + _tokens(9, size, 5),
        beginning + middle + _tokens(4, size, 7),
        beginning + middle + _tokens(6, size, 11),
        beginning,
        _tokens(8, size, 13),
    ]
    packing = pack(sequences, min_saved=1)
    with packed(backbone, packing) as row:
        hidden = _last_states(backbone, packing)  # (5, H)
    alone = torch.stack(
        [
            backbone(input_ids=to_device([ids], backbone.device), use_cache=False).last_hidden_state[0, -1]
            for ids in sequences
        ]
    )
    difference = (hidden - alone.float()).norm(dim=1) / alone.float().norm(dim=1)  # (5)
    if not bool((difference <= PROBE_TOLERANCE[alone.dtype]).all()):
        return f"the probe differs by {difference.max().item():.2g}: tokens interact outside of attention"
    if row.layers != config.num_hidden_layers:
        return f"{row.layers} of {config.num_hidden_layers} layers use transformers' AttentionInterface"
    window = _window(config, max_length)
    if window is not None and window not in row.windows:
        return f"a sliding window of {window} tokens that is not passed to attention"
    return None


def _window(config: Any, max_length: int) -> int | None:
    """The sliding window, if it is shorter than the longest text."""
    types = getattr(config, "layer_types", None)
    window: int | None = getattr(config, "sliding_window", None)
    slides = types is None or "sliding_attention" in types
    return window if window is not None and window < max_length and slides else None


@torch.inference_mode()
def cache_bytes_per_token(backbone: Any, max_length: int) -> int:
    """Bytes of one token's keys and values in all layers, if prompts may be cached between batches; else 0.

    For a model whose prompts are shared, without a sliding window. It is proven by a probe, as sharing is.
    """
    if _window(backbone.config.get_text_config(), max_length) is not None:
        return 0
    try:
        return _probe_continued(backbone)
    except FAILURES as error:
        log.warning("prompts are not cached between batches: the probe failed: %s", error)
        return 0


def _probe_continued(backbone: Any) -> int:
    size = backbone.config.get_text_config().vocab_size
    prompt, first, second = _tokens(11, size), _tokens(9, size, 5), _tokens(6, size, 7)
    layers: Layers = []
    before = pack([prompt + first])
    with packed(backbone, before, kept=[(before.beginning(0, len(prompt)), layers)]):
        _last_states(backbone, before)
    behind, whole = pack([prompt + second], [len(prompt)]), pack([prompt + second])
    with packed(backbone, behind, known=[layers]):
        continued = _last_states(backbone, behind)
    with packed(backbone, whole):
        right = _last_states(backbone, whole)
    difference = ((continued - right).norm() / right.norm()).item()
    if difference > PROBE_TOLERANCE[backbone.dtype]:
        return 0
    return sum(part.nbytes for pair in layers for part in pair) // len(prompt)


def _last_states(backbone: Any, packing: Packing) -> torch.Tensor:
    """The last hidden state of every sequence's last token: (N, H), in float32."""
    ids, positions = (to_device([part], backbone.device) for part in (packing.ids, packing.positions))
    hidden: torch.Tensor = backbone(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state
    return hidden[0, packing.pooled].float()


def _tokens(count: int, size: int, seed: int = 1) -> tuple[int, ...]:
    return tuple((seed * 7919 + at * 104_729) % size for at in range(count))
