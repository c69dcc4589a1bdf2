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
BLOCK = 8  # completions whose attention is one product
UNSEEN = -1e9  # added to the logit of a key that a query must not see


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
    given = [(number, completion) for number, (_, completions) in enumerate(groups) for completion in completions]
    order = sorted(range(len(given)), key=lambda at: len(given[at][1]))  # short ones together: little is padded
    owns = [given[at][1] for at in order]
    group = torch.tensor([given[at][0] for at in order])  # (N,): of G
    of_prompts = Rectangle([len(ids) for ids in prompts])
    shared = len(of_prompts.rows)
    blocks = [
        OwnTokens(owns[at : at + BLOCK], group[at : at + BLOCK], prompts, sum(map(len, owns[:at])))
        for at in range(0, len(owns), BLOCK)
    ]
    ids = torch.tensor([token for part in (*prompts, *owns) for token in part])  # (T,)
    positions = torch.cat([of_prompts.columns, *(block.positions for block in blocks)])  # (T,)
    last = shared + torch.cumsum(torch.tensor([len(own) for own in owns]), 0) - 1  # (N,)

    x = backbone.embed_tokens(ids)  # (T, H)
    cos, sin = backbone.rotary_emb(x[None], positions[None])  # (1, T, D)
    for layer in backbone.layers:
        residual, x = x, layer.input_layernorm(x)
        query, key, value = _projected(layer.self_attn, x, cos, sin)
        q, k, v = (of_prompts.filled(part[:shared]) for part in (query, key, value))  # (G, heads, P, D)
        attended = [of_prompts.packed(functional.scaled_dot_product_attention(q, k, v, is_causal=True))]
        for block in blocks:
            own_q, own_k, own_v = (block.rectangle.filled(part[shared:][block.span]) for part in (query, key, value))
            keys, values = (
                torch.cat([prompt.index_select(0, block.group), own], dim=2) for prompt, own in ((k, own_k), (v, own_v))
            )  # (B, heads, P + R, D)
            attended.append(block.rectangle.packed(_attended(own_q, keys, values, block.bias)))
        joined = torch.cat(attended).flatten(1)  # (T, heads · D)
        if layer is backbone.layers[-1]:  # only the last tokens are read after this
            residual, joined = residual[last], joined[last]
        x = residual + layer.self_attn.o_proj(joined)
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    back = torch.tensor(sorted(range(len(order)), key=order.__getitem__))
    return backbone.norm(x)[back]  # type: ignore[no-any-return]


class OwnTokens:
    """The tokens of some completions, which attend to their groups' prompts and to their own past.

    Args:
        owns: ids of the completions.
        group: which prompt each belongs to, (B,).
        prompts: ids of all prompts.
        start: number of completion tokens in the pack before these.
    """

    def __init__(self, owns: Sequence[Ids], group: Tensor, prompts: Sequence[Ids], start: int) -> None:
        self.rectangle, self.group = Rectangle([len(ids) for ids in owns]), group
        self.span = slice(start, start + len(self.rectangle.rows))
        before = torch.tensor([len(prompt) for prompt in prompts])[group]  # (B,): tokens of the prompt
        self.positions = self.rectangle.columns + before[self.rectangle.rows]  # (T',)
        width, longest = self.rectangle.width, max(map(len, prompts))
        to_prompt = torch.arange(longest) < before[:, None, None]  # (B, 1, P)
        causal = torch.ones(width, width, dtype=torch.bool).tril()
        seen = torch.cat([part.expand(len(owns), width, -1) for part in (to_prompt, causal)], dim=2)
        self.bias = torch.zeros(seen.shape).masked_fill_(~seen, UNSEEN)[:, None]  # (B, 1, R, P + R)


def _attended(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Attention (N, heads, R, D) by plain products, in the type of its arguments.

    On a CPU forward and backward take half the time of torch's fused kernel, whose backward under a mask is slow.
    """
    with torch.autocast("cpu", enabled=False):
        logits = torch.matmul(query, key.transpose(2, 3)) * query.shape[-1] ** -0.5  # (N, heads, R, L)
        return torch.matmul(torch.softmax(logits + bias.to(logits.dtype), dim=-1), value)


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
