"""A float32 decoder layer of the Llama family through oneDNN, with fewer passes over memory than the original.

    h ← h + O · attention(rope(Q · norm(h)), rope(K · norm(h)), V · norm(h))
    h ← h + down(silu(gate(norm(h))) · up(norm(h)))

- Both sums are made in place, and the feed-forward half runs `ROWS` tokens at a time, so that intermediate values stay
  in the processor's cache.
- Rotary positions are one product of complex numbers: the rows of Q and K are reordered so that the two numbers that
  are rotated together are neighbours. Both are reordered alike, so their dot products stay the same.
- Behind the last layer of a packed row only pooled tokens are read: there queries, the output of attention and the
  feed-forward half are computed for them alone (`attention.py`).
- Attention itself is the one that the model's config names, as in the original.

A layer is replaced only if it gives the original's numbers on a probe.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface

from service.scoring import attention, linear
from service.scoring.linear import ROWS, GatedMLP, OneDNNLinear, is_gated, is_plain

FAMILIES = ("Llama", "Mistral", "Qwen2", "Qwen3")
PROBE_TOKENS = 24
PROBE_TOLERANCE = 1e-4  # largest difference, as a share of the largest number: fp32 kernels differ by 1e-6


class DecoderLayer(torch.nn.Module):
    """A layer's forward, without its gradient and without a KV cache. Its input is changed in place."""

    is_causal = True

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        own: Any = layer.get_submodule("self_attn")
        self.config = own.config
        self.head_dim: int = own.head_dim
        self.scaling: float = own.scaling
        self.num_key_value_groups: int = own.num_key_value_groups
        self.window: int | None = _window(own)
        self.query = OneDNNLinear(_joined([_paired(own.q_proj, self.head_dim)]))
        self.key_value = OneDNNLinear(_joined([_paired(own.k_proj, self.head_dim), own.v_proj]))
        self.out = OneDNNLinear(own.o_proj)
        self.query_norm, self.key_norm = (
            _paired_norm(own.get_submodule(name)) if hasattr(own, name) else None for name in ("q_norm", "k_norm")
        )
        self.input_layernorm = layer.get_submodule("input_layernorm")
        self.post_attention_layernorm = layer.get_submodule("post_attention_layernorm")
        self.feed_forward = GatedMLP(layer.get_submodule("mlp"))

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_embeddings: Positions | None = None,
        past_key_values: Any = None,
        **_: Any,
    ) -> torch.Tensor:
        """(B, T, H) → (B, T, H). Raises `ValueError` for a cache."""
        if past_key_values is not None or position_embeddings is None:
            raise ValueError("a layer for scoring needs rotary positions and takes no cache")
        hidden = hidden_states
        places = attention.places_in_last_layer(self.window)
        normed = _norm(self.input_layernorm, hidden)
        turns = position_embeddings.turns
        both = self._heads(self.key_value(normed))  # (B, T, 2 · Hkv, D)
        key, value = both.chunk(2, dim=2)
        key = _turned(_normed(self.key_norm, key), turns)
        if places is not None:
            normed, hidden, turns = normed[:, places], hidden[:, places], turns[:, places]
        query = _turned(_normed(self.query_norm, self._heads(self.query(normed))), turns)
        mixed, _weights = AttentionInterface()[self.config._attn_implementation](
            self,
            query.transpose(1, 2),
            key.transpose(1, 2),
            value.transpose(1, 2),
            attention_mask,
            dropout=0.0,
            scaling=self.scaling,
            sliding_window=self.window,
        )
        hidden.add_(self.out(mixed.flatten(2)))
        for part in torch.split(hidden, ROWS, dim=1):
            part.add_(self.feed_forward(_norm(self.post_attention_layernorm, part)))
        if places is None:
            return hidden
        whole = torch.zeros_like(hidden_states)
        whole[:, places] = hidden
        return whole

    def _heads(self, given: torch.Tensor) -> torch.Tensor:
        """(B, T, heads · D) → (B, T, heads, D)"""
        return given.view(*given.shape[:-1], -1, self.head_dim)


class Positions(tuple[torch.Tensor, torch.Tensor]):
    """Cosines and sines, (B, T, D) each, of two equal halves. `turns`: the same as complex numbers (B, T, 1, D / 2)."""

    turns: torch.Tensor


class Rotary(torch.nn.Module):
    """A model's rotary positions, with the complex numbers that `DecoderLayer` needs, computed once for all layers."""

    def __init__(self, original: torch.nn.Module) -> None:
        super().__init__()
        self.original = original

    def forward(self, hidden_states: torch.Tensor, position_ids: torch.Tensor) -> Positions:
        positions = Positions(self.original(hidden_states, position_ids))
        cos, sin = (part[..., : part.shape[-1] // 2] for part in positions)
        positions.turns = torch.complex(cos, sin).unsqueeze(2)
        return positions


def _norm(norm: Any, given: torch.Tensor) -> torch.Tensor:
    return torch.rms_norm(given, norm.weight.shape, norm.weight, norm.variance_epsilon)


def _normed(norm: Any, heads: torch.Tensor) -> torch.Tensor:
    return heads if norm is None else _norm(norm, heads)


def _turned(heads: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """(B, T, heads, D), in pairs, rotated in place."""
    torch.view_as_complex(heads.view(*heads.shape[:-1], -1, 2)).mul_(turns)
    return heads


def _window(own: Any) -> int | None:
    """The layer's sliding window: Mistral's is in the config, Qwen's in the layer, and Llama has none."""
    if type(own).__name__ == "MistralAttention":
        window: int | None = own.config.sliding_window
        return window
    return getattr(own, "sliding_window", None)


def _pairs(rows: torch.Tensor, head_dim: int) -> torch.Tensor:
    """(heads · D, ...) with the number at i and the one at i + D / 2 of a head side by side."""
    return rows.detach().view(-1, 2, head_dim // 2, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)


def _linear(weight: torch.Tensor, bias: torch.Tensor | None) -> torch.nn.Linear:
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = torch.nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        layer.bias = torch.nn.Parameter(bias, requires_grad=False)
    return layer


def _paired(layer: torch.nn.Linear, head_dim: int) -> torch.nn.Linear:
    return _linear(_pairs(layer.weight, head_dim), None if layer.bias is None else _pairs(layer.bias, head_dim))


def _paired_norm(norm: Any) -> torch.nn.Module:
    paired: torch.nn.Module = type(norm)(norm.weight.shape[0], eps=norm.variance_epsilon)
    paired.weight = torch.nn.Parameter(_pairs(norm.weight, norm.weight.shape[0]), requires_grad=False)
    return paired


def _joined(layers: list[torch.nn.Linear]) -> torch.nn.Linear:
    """One layer whose output is the concatenation of theirs."""
    biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
    weight = torch.cat([layer.weight.detach() for layer in layers])
    return _linear(weight, torch.cat(biases) if len(biases) == len(layers) else None)


def _known(layer: torch.nn.Module) -> bool:
    """Whether a layer is of a known family and has the parts of that family."""
    name = type(layer).__name__
    if name not in {f"{family}DecoderLayer" for family in FAMILIES}:
        return False
    parts = dict(layer.named_modules())
    names = [f"self_attn.{part}_proj" for part in "qkvo"]
    if not all(name in parts and is_plain(parts[name]) for name in names) or not is_gated(parts["mlp"]):
        return False
    return (parts["self_attn.k_proj"].bias is None) == (parts["self_attn.v_proj"].bias is None)


@torch.inference_mode()
def _agree(fast: torch.nn.Module, layer: Any, rotary: Rotary) -> bool:
    """Whether both layers give the same numbers for a few random tokens."""
    size = layer.input_layernorm.weight.shape[0]
    given = torch.randn(1, PROBE_TOKENS, size, generator=torch.Generator().manual_seed(0))  # (1, T, H)
    positions = rotary(given, 7 * torch.arange(PROBE_TOKENS)[None])
    right = layer(given.clone(), attention_mask=None, position_embeddings=positions)
    fast_output = fast(given.clone(), position_embeddings=positions)
    return bool((fast_output - right).abs().max() <= PROBE_TOLERANCE * right.abs().max())


def speed_up(backbone: torch.nn.Module) -> int:
    """Replace a float32 model's decoder layers, then its other linear layers; returns how many were replaced."""
    layers, rotary = getattr(backbone, "layers", None), getattr(backbone, "rotary_emb", None)
    count = 0
    if linear.usable() and isinstance(layers, torch.nn.ModuleList) and isinstance(rotary, torch.nn.Module):
        fast_rotary = Rotary(rotary)
        for at, layer in enumerate(layers):
            if _known(layer) and _agree(fast := DecoderLayer(layer), layer, fast_rotary):
                layers[at] = fast
                count += 1
        if count:
            backbone.rotary_emb = fast_rotary
    return count + linear.speed_up(backbone)
