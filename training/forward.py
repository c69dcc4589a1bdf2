"""A group of completions through a Qwen2 backbone, their prompt computed once.

Training scores a dozen completions under one prompt at a time. Each of them would otherwise carry its own copy of the
prompt, which is most of the tokens. Here the prompt's tokens and every completion's own tokens stand in one pack: the
linear layers see the pack without padding, the prompt attends to itself, and each completion to the prompt and to its
own past. That is the same sum as one sequence at a time (a test holds it to the plain forward), so the scores that are
learnt are the scores that are served.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def group_scores(model: Any, prompt: Sequence[int], completions: Sequence[Sequence[int]]) -> Tensor:
    """Float32 scores (N,) of a Qwen2 sequence classifier; `completions` are the ids after the shared prompt's."""
    hidden = group_hidden(model.model, prompt, completions)  # (N, H)
    with torch.autocast("cpu", enabled=False):
        return functional.linear(hidden.float(), model.score.weight)[:, 0]  # (N,)


def group_hidden(backbone: Any, prompt: Sequence[int], completions: Sequence[Sequence[int]]) -> Tensor:
    """The last hidden state of every completion's last token, (N, H)."""
    shared, lengths = len(prompt), [len(completion) for completion in completions]
    count, longest = len(lengths), max(lengths)
    ids = torch.tensor([*prompt, *(token for completion in completions for token in completion)])  # (T,)
    positions = torch.cat([torch.arange(shared), *(torch.arange(shared, shared + length) for length in lengths)])
    rows = torch.repeat_interleave(torch.arange(count), torch.tensor(lengths))  # (T - P,): whose token it is
    columns = positions[shared:] - shared  # (T - P,): which of its own tokens it is
    causal = torch.ones(longest, longest, dtype=torch.bool).tril()
    mask = torch.cat([torch.ones(longest, shared, dtype=torch.bool), causal], dim=1)  # (R, P + R)
    last = shared + torch.cumsum(torch.tensor(lengths), 0) - 1  # (N,)

    x = backbone.embed_tokens(ids)  # (T, H)
    cos, sin = backbone.rotary_emb(x[None], positions[None])  # (1, T, D)
    for layer in backbone.layers:
        residual, x = x, layer.input_layernorm(x)
        attended = _attend(layer.self_attn, x, cos, sin, shared, count, longest, rows, columns, mask)
        if layer is backbone.layers[-1]:  # only the last tokens are read after this
            residual, attended = residual[last], attended[last]
        x = residual + layer.self_attn.o_proj(attended)
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    return backbone.norm(x)  # type: ignore[no-any-return]


def _attend(
    attention: Any, x: Tensor, cos: Tensor, sin: Tensor, shared: int, count: int, longest: int,
    rows: Tensor, columns: Tensor, mask: Tensor,
) -> Tensor:  # fmt: skip
    size = attention.head_dim
    query = _rotated(attention.q_proj(x).view(len(x), -1, size), cos, sin)  # (T, heads, D)
    key = _rotated(attention.k_proj(x).view(len(x), -1, size), cos, sin)
    value = attention.v_proj(x).view(len(x), -1, size)
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)

    def own(part: Tensor) -> Tensor:
        """The completions' tokens as a rectangle, (N, heads, R, D)."""
        rectangle = part.new_zeros(count, longest, *part.shape[1:])
        return rectangle.index_put((rows, columns), part[shared:]).transpose(1, 2)

    def with_prompt(part: Tensor) -> Tensor:
        head = part[:shared].transpose(0, 1).expand(count, -1, -1, -1)  # (N, heads, P, D)
        return torch.cat([head, own(part)], dim=2)  # (N, heads, P + R, D)

    q, k, v = (part[:shared].transpose(0, 1)[None] for part in (query, key, value))  # (1, heads, P, D)
    of_prompt = functional.scaled_dot_product_attention(q, k, v, is_causal=True)[0].transpose(0, 1)  # (P, heads, D)
    of_own = functional.scaled_dot_product_attention(
        own(query), with_prompt(key), with_prompt(value), attn_mask=mask
    ).transpose(1, 2)[rows, columns]  # (T - P, heads, D)
    return torch.cat([of_prompt, of_own]).flatten(1)  # (T, heads · D)


def _rotated(part: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions on (T, heads, D)."""
    cos, sin = cos[0, :, None], sin[0, :, None]  # (T, 1, D)
    first, second = part.chunk(2, dim=-1)
    return (part * cos + torch.cat([-second, first], dim=-1) * sin).to(part.dtype)
