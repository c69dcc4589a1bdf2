"""Attention over a packed row: a common prefix is computed once, and everything behind it attends to it.

It is plugged into unmodified Hugging Face decoders through `AttentionInterface`. The row's layout (`packing.py`) comes
by a context variable, because a model may drop keyword arguments that it does not know. Per layer:

    own    every segment attends causally to itself
    above  all descendants of a segment, which are one stretch of the row, attend to all of that segment
    known  tokens behind a cached prompt (`prefix_cache.py`) attend to all of its keys, too

On a CPU each is a kernel call of its own; in half precision on a GPU a few calls do all (`varlen.py`). All are flash
kernels that also return the log-sum-exp of their logits, and two partial softmaxes over disjoint keys are joined
exactly: with w = sigmoid(lse_b - lse_a), out = (1 - w) · out_a + w · out_b and lse = logaddexp(lse_a, lse_b) (Dao et
al., FlashAttention, 2022, section 3.1). No mask is built and no key or value is copied. The exception is float32 on a
GPU, whose kernel needs as many key heads as query heads.

Special cases:
- A sliding window that is shorter than a sequence cuts through the segments above. There each segment attends, under an
  explicit mask, to the keys of its own path only: slower, still exact.
- Only pooled tokens are read behind the last layer. So only they attend there (`_at_places`), and the feed-forward
  block, three quarters of a layer, runs on them alone (`_pooled_only`); every other row of the last hidden state is
  unfinished.
- In the other layers the feed-forward block runs in pieces, because its inside is several times as wide as the residual
  stream: the peak of memory is lower, and the pieces are small enough to be reused. `decoder.py` does both by itself.
- A model whose attention has more to it (soft caps, sinks, position biases, no causality) raises `Unsharable`. A probe
  at load finds that out (`prefix_sharing.py`), and the model is served without sharing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from transformers import AttentionInterface

from service.scoring import varlen
from service.scoring.device import to_device
from service.scoring.packing import Packing

NAME = "plaudit_packed"
PIECE = 1024  # tokens
KNOWN = frozenset(
    {
        "dropout",
        "position_ids",
        "cache_position",
        "use_cache",
        "output_attentions",
        "past_key_values",
        "position_embeddings",
        "output_hidden_states",
        "return_dict",
    }
)


class Unsharable(Exception):
    """This model's attention is not plain causal softmax attention; the message says what it is."""


Layers = list[tuple[torch.Tensor, torch.Tensor]]  # keys and values of some tokens in each layer, (1, Hkv, K, D) each


class PackedRow:
    """The state of one forward over a packing.

    Attributes:
        places: rows of the last hidden state that are read.
        depth: number of layers.
        known: keys and values of the cached prompts that the packing continues, in its order.
        kept: where in the row the tokens are whose keys and values are wanted, and the list for them, layer by layer.
        windows: sliding windows that the layers asked for.
        layers: how many layers have begun.
    """

    def __init__(
        self,
        packing: Packing,
        places: Sequence[int],
        depth: int,
        known: Sequence[Layers] = (),
        kept: Sequence[tuple[list[slice], Layers]] = (),
    ) -> None:
        self.packing = packing
        self.places = sorted(set(places))
        self.depth = depth
        self.known = known
        self.kept = kept
        self.windows: set[int] = set()
        self.layers = 0
        self._masks: dict[tuple[int, int, torch.device], torch.Tensor] = {}
        self._plans: dict[torch.device, varlen.VarlenPlan] = {}
        self._places: dict[torch.device, torch.Tensor] = {}

    def slides(self, window: int | None) -> bool:
        """Whether a sliding window hides a part of a sequence."""
        return window is not None and window < self.packing.longest

    def prunes(self, layer: int, window: int | None) -> bool:
        """Whether the n-th layer needs to attend at `places` only."""
        return layer == self.depth and not self.slides(window)

    def enter(self, key: torch.Tensor, value: torch.Tensor) -> None:
        """The next layer begins, with (1, Hkv, T, D) twice."""
        self.layers += 1
        for places, layers in self.kept:
            key_, value_ = (torch.cat([part[:, :, at] for at in places], dim=2) for part in (key, value))
            layers.append((key_, value_))

    def continued(self) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
        """Stretches of the row, with keys and values of this layer that come before all of each."""
        for stretch, layers in zip(self.packing.continued, self.known, strict=True):
            yield slice(stretch.start, stretch.stop), *layers[self.layers - 1]

    def mask(self, index: int, window: int, device: torch.device) -> torch.Tensor:
        """Which tokens of its path a segment's tokens may attend to: (S, path), True where they may."""
        key = index, window, device
        if key not in self._masks:
            segment = self.packing.segments[index]
            end = segment.offset + segment.stop - segment.start
            rows = torch.arange(segment.offset, end, device=device)[:, None]  # (S, 1)
            columns = torch.arange(end, device=device)[None, :]  # (1, path)
            self._masks[key] = (columns <= rows) & (columns > rows - window)
        return self._masks[key]

    def places_on(self, device: torch.device) -> torch.Tensor:
        """`places` as an index on a device: (P)."""
        if device not in self._places:
            self._places[device] = to_device(self.places, device)
        return self._places[device]

    def plan_on(self, device: torch.device) -> varlen.VarlenPlan:
        """The kernel calls of a layer, for a device."""
        if device not in self._plans:
            self._plans[device] = varlen.plan(self.packing, device)
        return self._plans[device]


_row: ContextVar[PackedRow | None] = ContextVar("plaudit_row", default=None)


def places_in_last_layer(window: int | None) -> list[int] | None:
    """The only places whose queries are needed, if the next layer is the last; else None."""
    row = _row.get()
    return row.places if row is not None and row.prunes(row.layers + 1, window) else None


@contextmanager
def packed(
    backbone: Any,
    packing: Packing,
    places: Sequence[int] | None = None,
    known: Sequence[Layers] = (),
    kept: Sequence[tuple[list[slice], Layers]] = (),
) -> Iterator[PackedRow]:
    """Inside, the backbone's attention is that of this row, and its last hidden state is valid at these places only.

    `places`: the last token of every sequence, by default. `known`, `kept`: see `PackedRow`.
    """
    before = backbone.config._attn_implementation
    depth = backbone.config.get_text_config().num_hidden_layers
    row = PackedRow(packing, packing.pooled if places is None else places, depth, known, kept)
    token = _row.set(row)
    backbone.config._attn_implementation = NAME
    blocks = _feed_forward(backbone)
    hooks = _pooled_only(blocks[-1], row) if blocks else []
    if len(packing.ids) > PIECE and backbone.device.type == "cpu":  # a GPU is faster on all of it at once
        for block in blocks:
            block.forward = _in_pieces(block.forward)
    try:
        yield row
    finally:
        for hook in hooks:
            hook.remove()
        for block in blocks:
            block.__dict__.pop("forward", None)
        backbone.config._attn_implementation = before
        _row.reset(token)


def _feed_forward(backbone: Any) -> list[Any]:
    """Each layer's feed-forward block; none if they are not plain blocks under the usual name.

    A mixture of experts, or another layout, runs as it is: the two functions below need a block that computes every
    token on its own.
    """
    layers = list(getattr(backbone, "layers", None) or ())[: backbone.config.get_text_config().num_hidden_layers]
    blocks = [getattr(layer, "mlp", None) for layer in layers]
    plain = all(type(block).__name__.endswith("MLP") and "forward" not in vars(block) for block in blocks)
    return blocks if plain else []


def _in_pieces(forward: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    """The same block over `PIECE` tokens at a time, so that its wide tensors are never as long as the row."""

    def pieces(hidden: torch.Tensor) -> torch.Tensor:
        return torch.cat([forward(piece) for piece in torch.split(hidden, PIECE, dim=1)], dim=1)  # (1, T, H)

    return pieces


def _pooled_only(block: Any, row: PackedRow) -> list[Any]:
    """Let the last layer's feed-forward block compute pooled tokens only; the others get zeros from it."""

    def gather(_: Any, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        return (given[0][:, row.places_on(given[0].device)],)  # (1, T, H) → (1, P, H)

    def scatter(_: Any, given: tuple[torch.Tensor, ...], out: torch.Tensor) -> torch.Tensor:
        whole = out.new_zeros((1, len(row.packing.ids), out.shape[-1]))  # (1, T, H)
        whole[:, row.places_on(out.device)] = out
        return whole

    return [block.register_forward_pre_hook(gather), block.register_forward_hook(scatter)]


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,  # (1, Hq, T, D)
    key: torch.Tensor,  # (1, Hkv, T, D)
    value: torch.Tensor,  # (1, Hkv, T, D)
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    is_causal: bool | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """The attention function `NAME`: (1, T, Hq, D), as transformers needs it.

    If the last layer gives queries at the row's places only: (1, P, Hq, D).
    """
    row = _row.get()
    assert row is not None
    if unknown := sorted(name for name, given in others.items() if given is not None and name not in KNOWN):
        raise Unsharable(f"attention with {', '.join(unknown)}")
    if attention_mask is not None:
        raise Unsharable("attention with a mask of its own")
    if not (getattr(module, "is_causal", True) if is_causal is None else is_causal):
        raise Unsharable("attention that is not causal")
    tokens = len(row.packing.ids)
    if key.shape[2] != tokens or value.shape[3] != query.shape[3]:
        raise Unsharable("attention over other tokens than those of the row")
    if sliding_window is not None:
        row.windows.add(sliding_window)
    row.enter(key, value)
    places = row.places if row.prunes(row.layers, sliding_window) else None
    if query.shape[2] != tokens and (places is None or query.shape[2] != len(places)):
        raise Unsharable("attention of other tokens than those of the row")
    if row.slides(sliding_window):
        assert sliding_window is not None
        if row.packing.continued:
            raise Unsharable("a sliding window over tokens that are not in the row")
        return _windowed(row, query, key, value, sliding_window, scaling), None
    if query.device.type != "cpu" and query.dtype != torch.float32:
        known = [pair for _, *pair in row.continued()]
        return varlen.joined(row.plan_on(query.device), query, key, value, scaling, known), None
    if places is None:
        return _joined(row, query, key, value, scaling), None
    if query.shape[2] == len(places):
        return _at_places(row, query, key, value, scaling), None
    whole = query.new_zeros((1, tokens, query.shape[1], query.shape[3]))
    whole[:, places] = _at_places(row, query[:, :, places], key, value, scaling)
    return whole, None


def _at_places(
    row: PackedRow, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None
) -> torch.Tensor:
    """`_joined` at the row's places, from their queries alone: (1, Hq, P, D) → (1, P, Hq, D)."""
    _, heads, count, size = query.shape
    out = query.new_empty((1, count, heads, size), dtype=torch.float32)
    lse = query.new_empty((1, count, heads), dtype=torch.float32)
    for segment in row.packing.segments:
        first, behind = (bisect_left(row.places, at) for at in (segment.start, segment.stop))
        for at in range(first, behind):
            own = slice(segment.start, row.places[at] + 1)
            part, part_lse = _flash(
                query[:, :, at : at + 1], key[:, :, own], value[:, :, own], causal=False, scaling=scaling
            )
            out[:, at : at + 1], lse[:, at : at + 1] = part, part_lse
    for segment in row.packing.segments:
        behind, last = (bisect_left(row.places, at) for at in (segment.stop, segment.reach))
        if behind < last:
            above = slice(segment.start, segment.stop)
            part, part_lse = _flash(
                query[:, :, behind:last], key[:, :, above], value[:, :, above], causal=False, scaling=scaling
            )
            _join(out[:, behind:last], lse[:, behind:last], part, part_lse)
    for stretch, key, value in row.continued():
        first, behind = (bisect_left(row.places, end) for end in (stretch.start, stretch.stop))
        if first < behind:
            part, part_lse = _flash(query[:, :, first:behind], key, value, causal=False, scaling=scaling)
            _join(out[:, first:behind], lse[:, first:behind], part, part_lse)
    return out.to(query.dtype)


def _joined(
    row: PackedRow, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None
) -> torch.Tensor:
    """`own`, `above` and `known`, joined: (1, T, Hq, D)."""
    segments = row.packing.segments
    _, heads, tokens, size = query.shape
    out = query.new_empty((1, tokens, heads, size), dtype=torch.float32)
    lse = query.new_empty((1, tokens, heads), dtype=torch.float32)
    for own in segments:
        at = slice(own.start, own.stop)
        part, part_lse = _flash(query[:, :, at], key[:, :, at], value[:, :, at], causal=True, scaling=scaling)
        out[:, at], lse[:, at] = part, part_lse
    for above in segments:
        if above.reach == above.stop:
            continue
        below, at = slice(above.stop, above.reach), slice(above.start, above.stop)
        part, part_lse = _flash(query[:, :, below], key[:, :, at], value[:, :, at], causal=False, scaling=scaling)
        _join(out[:, below], lse[:, below], part, part_lse)
    for stretch, key, value in row.continued():
        part, part_lse = _flash(query[:, :, stretch], key, value, causal=False, scaling=scaling)
        _join(out[:, stretch], lse[:, stretch], part, part_lse)
    return out.to(query.dtype)


def _join(out: torch.Tensor, lse: torch.Tensor, part: torch.Tensor, part_lse: torch.Tensor) -> None:
    """Add attention over further keys, in place: (1, Q, Hq, D) and (1, Q, Hq), twice."""
    weight = torch.sigmoid(part_lse - lse)
    out.lerp_(part.float(), weight[..., None])
    torch.logaddexp(lse, part_lse, out=lse)


def _flash(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, causal: bool, scaling: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """(1, Hq, Q, D), (1, Hkv, K, D) twice → (1, Q, Hq, D) and the log-sum-exp (1, Q, Hq). Heads may be grouped."""
    if query.device.type != "cpu":  # flash kernels are for half precision only; this one needs equal heads
        groups = query.shape[1] // key.shape[1]
        out, lse, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(
            query,
            key.repeat_interleave(groups, 1),
            value.repeat_interleave(groups, 1),
            None,
            compute_log_sumexp=True,
            is_causal=causal,
            scale=scaling,
        )
        return out.transpose(1, 2), lse[:, :, : query.shape[2]].transpose(1, 2)  # its rows are padded
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, 0.0, causal, attn_mask=None, scale=scaling
    )
    return out.transpose(1, 2), lse.transpose(1, 2)


def _windowed(
    row: PackedRow, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, window: int, scaling: float | None
) -> torch.Tensor:
    """Each segment with the keys of its path, under a mask: (1, T, Hq, D)."""
    _, heads, tokens, size = query.shape
    groups = heads // key.shape[1]
    out = query.new_empty((1, tokens, heads, size))
    for index, own in enumerate(row.packing.segments):
        path = [slice(segment.start, segment.stop) for segment in row.packing.path(index)]
        keys = torch.cat([key[:, :, at] for at in path], dim=2).repeat_interleave(groups, dim=1)  # (1, Hq, path, D)
        values = torch.cat([value[:, :, at] for at in path], dim=2).repeat_interleave(groups, dim=1)
        part = torch.nn.functional.scaled_dot_product_attention(
            query[:, :, own.start : own.stop],
            keys,
            values,
            scale=scaling,
            attn_mask=row.mask(index, window, query.device),
        )
        out[:, own.start : own.stop] = part.transpose(1, 2)
    return out


AttentionInterface.register(NAME, attend)
