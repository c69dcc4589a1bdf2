"""Groups of completions through a Llama or Qwen2 backbone, the prompt of each group computed once.

- Training scores a dozen completions of one prompt at a time. Without sharing, copies of the prompt are most tokens.
- One pack holds the tokens of all prompts and of all completions. The linear layers see it without padding.
- A prompt attends to itself; a completion attends to its group's prompt and to its own past.
- That computes the scores of one sequence at a time (a test compares both), so what is learnt is what is served.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Ids = Sequence[int]


def group_scores(model: Any, groups: Sequence[tuple[Ids, Sequence[Ids]]]) -> Tensor:
    """Float32 scores (N,) of a Qwen2 sequence classifier, for all completions of all groups in their order.

    A group is the ids of its prompt and, for every completion, the ids after the prompt's; N counts completions.
    An encoder's classifier (BERT's) reads both sides of every token: it gets every sequence whole.
    """
    if not hasattr(model, "score"):
        return classifier_scores(model, [(prompt, own) for prompt, owns in groups for own in owns])
    hidden = group_hidden(model.model, groups)  # (N, H)
    with torch.autocast("cpu", enabled=False):
        return functional.linear(hidden.float(), model.score.weight)[:, 0]  # (N,)


def classifier_scores(model: Any, pairs: Sequence[tuple[Ids, Ids]]) -> Tensor:
    """Float32 scores (N,) of an encoder's classifier, for pairs of a prompt's ids and a completion's, as served."""
    lengths = torch.tensor([len(prompt) + len(own) for prompt, own in pairs])
    columns = torch.arange(int(lengths.max()))  # (L,)
    ids = torch.zeros(len(pairs), len(columns), dtype=torch.long)  # (N, L)
    for row, (prompt, own) in enumerate(pairs):
        ids[row, : lengths[row]] = torch.tensor([*prompt, *own])
    sides = columns >= torch.tensor([len(prompt) for prompt, _ in pairs])[:, None]  # (N, L)
    seen = columns < lengths[:, None]  # (N, L)
    typed = {"token_type_ids": (sides & seen).long()} if getattr(model.config, "type_vocab_size", 1) > 1 else {}
    logits: Tensor = model(input_ids=ids, attention_mask=seen.long(), **typed).logits  # (N, 1)
    return logits[:, 0].float()


def group_hidden(backbone: Any, groups: Sequence[tuple[Ids, Sequence[Ids]]]) -> Tensor:
    """The last hidden state of every completion's last token, (N, H)."""
    prompts = [prompt for prompt, _ in groups]
    owns = [completion for _, completions in groups for completion in completions]
    of_prompts, of_owns = Rectangle([len(ids) for ids in prompts]), Rectangle([len(ids) for ids in owns])
    group = torch.repeat_interleave(torch.tensor([len(completions) for _, completions in groups]))  # (N,): of G
    start = torch.tensor([len(prompt) for prompt in prompts])[group]  # (N,): tokens before the completion's own
    ids = torch.tensor([token for part in (*prompts, *owns) for token in part])  # (T,)
    positions = torch.cat([of_prompts.columns, of_owns.columns + start[of_owns.rows]])  # (T,)
    shared = len(of_prompts.rows)
    last = shared + torch.cumsum(torch.tensor([len(own) for own in owns]), 0) - 1  # (N,)
    to_prompt = torch.arange(of_prompts.width) < start[:, None, None]  # (N, 1, P)
    causal = torch.ones(of_owns.width, of_owns.width, dtype=torch.bool).tril()
    seen = [part.expand(len(owns), of_owns.width, -1) for part in (to_prompt, causal)]
    mask = torch.cat(seen, dim=2)[:, None]  # (N, 1, R, P + R)

    x = backbone.embed_tokens(ids)  # (T, H)
    cos, sin = backbone.rotary_emb(x[None], positions[None])  # (1, T, D)
    for layer in backbone.layers:
        residual, x = x, layer.input_layernorm(x)
        query, key, value = _projected(layer.self_attn, x, cos, sin)
        q, k, v = (of_prompts.filled(part[:shared]) for part in (query, key, value))  # (G, heads, P, D)
        own_k, own_v = (
            torch.cat([prompt[group], of_owns.filled(part[shared:])], dim=2) for prompt, part in ((k, key), (v, value))
        )  # (N, heads, P + R, D)
        attended = torch.cat(
            [
                of_prompts.packed(functional.scaled_dot_product_attention(q, k, v, is_causal=True)),
                of_owns.packed(
                    functional.scaled_dot_product_attention(
                        of_owns.filled(query[shared:]), own_k, own_v, attn_mask=mask
                    )
                ),
            ]
        ).flatten(1)  # (T, heads · D)
        if layer is backbone.layers[-1]:  # only the last tokens are read after this
            residual, attended = residual[last], attended[last]
        x = residual + layer.self_attn.o_proj(attended)
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    return backbone.norm(x)  # type: ignore[no-any-return]


class Rectangle:
    """Sequences of these lengths that stand one after the other in a pack, as rows of a padded rectangle."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self.count, self.width = len(lengths), max(lengths)
        self.rows = torch.repeat_interleave(torch.tensor(lengths))  # (T,): whose token it is
        self.columns = torch.cat([torch.arange(length) for length in lengths])  # (T,): which of its tokens it is

    def filled(self, part: Tensor) -> Tensor:
        """(T, heads, D) → (count, heads, width, D), zeros on the right of what is shorter."""
        rectangle = part.new_zeros(self.count, self.width, *part.shape[1:])
        return rectangle.index_put((self.rows, self.columns), part).transpose(1, 2)

    def packed(self, part: Tensor) -> Tensor:
        """(count, heads, width, D) → (T, heads, D)."""
        return part.transpose(1, 2)[self.rows, self.columns]


def _projected(attention: Any, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value (T, heads, D), rotated, as many heads each."""
    size = attention.head_dim
    query = _rotated(attention.q_proj(x).view(len(x), -1, size), cos, sin)
    key = _rotated(attention.k_proj(x).view(len(x), -1, size), cos, sin)
    value = attention.v_proj(x).view(len(x), -1, size)
    groups = query.shape[1] // key.shape[1]
    return query, key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)


def _rotated(part: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions on (T, heads, D)."""
    cos, sin = cos[0, :, None], sin[0, :, None]  # (T, 1, D)
    first, second = part.chunk(2, dim=-1)
    return (part * cos + torch.cat([-second, first], dim=-1) * sin).to(part.dtype)
