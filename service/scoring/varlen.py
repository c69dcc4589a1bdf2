"""Attention over a packed row on a GPU: a few variable-length flash kernels per layer, however many segments it has.

What `attention.py` computes one segment at a time is computed here for all of them at once:

    own     one causal call; the segments are its sequences
    above   one call for each depth of the tree. Segments of one depth have descendants that do not overlap, so each is
            a sequence: its descendants' queries against its own keys
    known   one call for each cached prompt

Keys and values are read in place. In a call for a depth they are the whole row's: stretches without descendants at that
depth are sequences without a query, which the kernel skips. Only queries of descendants are gathered, and only if they
are not one stretch. The parts are joined by their log-sum-exp, as on a CPU.

The kernels are `torch.nn.attention.varlen` (flash attention, half precision). If they are missing or give other numbers
the probe at load fails (`prefix_sharing.py`), and the model is served without sharing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from service.scoring.device import to_device
from service.scoring.packing import Packing

# (T, Hq, D), (K, Hkv, D) twice, the call, the scale → (T, Hq, D) and the log-sum-exp (Hq, T)
Kernel = Callable[
    [torch.Tensor, torch.Tensor, torch.Tensor, "VarlenCall", float | None], tuple[torch.Tensor, torch.Tensor]
]


@dataclass(frozen=True, slots=True)
class VarlenCall:
    """One kernel call: the i-th sequence of queries reads the i-th sequence of keys.

    Attributes:
        queries: where they are in the row; a tensor if they are not one stretch.
        query_ends, key_ends: cumulative lengths from 0, int32.
        max_queries, max_keys: length of the longest sequence.
    """

    queries: slice | torch.Tensor
    query_ends: torch.Tensor
    key_ends: torch.Tensor
    max_queries: int
    max_keys: int
    causal: bool


@dataclass(frozen=True, slots=True)
class VarlenPlan:
    """The calls of a row, the same in every layer."""

    own: VarlenCall
    above: tuple[VarlenCall, ...]
    known: tuple[VarlenCall, ...]


def plan(packing: Packing, device: torch.device) -> VarlenPlan:
    """The kernel calls of a row, their tensors on this device."""
    segments = packing.segments
    own = [0, *(segment.stop for segment in segments)]
    above = []
    depths: list[int] = []
    for segment in segments:  # a parent comes before its children
        depths.append(0 if segment.parent is None else depths[segment.parent] + 1)
    for depth in range(max(depths, default=0)):
        at_depth = [segment for segment, own_depth in zip(segments, depths, strict=True) if own_depth == depth]
        query_ends, key_ends, stretches = [0], [0], []
        for segment in at_depth:
            if segment.reach == segment.stop:
                continue
            if segment.start > key_ends[-1]:  # keys without a query at this depth
                query_ends.append(query_ends[-1])
                key_ends.append(segment.start)
            query_ends.append(query_ends[-1] + segment.reach - segment.stop)
            key_ends.append(segment.stop)
            stretches.append(range(segment.stop, segment.reach))
        above.append(_call(_places(stretches, device), query_ends, key_ends, device, causal=False))
    return VarlenPlan(
        _call(slice(0, len(packing.ids)), own, own, device, causal=True),
        tuple(above),
        tuple(
            _call(slice(tail.start, tail.stop), [0, tail.stop - tail.start], [0, len(tail.known)], device, causal=False)
            for tail in packing.continued
        ),
    )


def joined(
    plan: VarlenPlan,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float | None,
    known: Sequence[Sequence[torch.Tensor]] = (),
    kernel: Kernel | None = None,
) -> torch.Tensor:
    """(1, Hq, T, D), (1, Hkv, T, D) twice → (1, T, Hq, D).

    `known`: keys and values of the cached prompts, in the plan's order, (1, Hkv, K, D) each.
    """
    attend = kernel or flash
    rows, keys, values = (part[0].transpose(0, 1) for part in (query, key, value))  # (T, heads, D)
    part, part_lse = attend(rows, keys, values, plan.own, scaling)
    out, lse = part.float(), part_lse.T.contiguous()  # (T, Hq, D), (T, Hq)
    for call in plan.above:
        _join(out, lse, call.queries, *attend(rows[call.queries], keys, values, call, scaling))
    for call, pair in zip(plan.known, known, strict=True):
        keys, values = (part[0].transpose(0, 1) for part in pair)  # (K, Hkv, D)
        _join(out, lse, call.queries, *attend(rows[call.queries], keys, values, call, scaling))
    return out.to(query.dtype)[None]


def flash(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, call: VarlenCall, scaling: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """torch's own kernel. Raises `RuntimeError` if its log-sum-exp has an unexpected shape."""
    from torch.nn.attention.varlen import AuxRequest, varlen_attn

    out, lse = varlen_attn(
        query,
        key,
        value,
        call.query_ends,
        call.key_ends,
        call.max_queries,
        call.max_keys,
        return_aux=AuxRequest(lse=True),
        scale=scaling,
        window_size=(-1, 0) if call.causal else (-1, -1),
        enable_gqa=key.shape[1] != query.shape[1],
    )
    if lse.shape != (query.shape[1], query.shape[0]):
        raise RuntimeError(f"varlen_attn: log-sum-exp of shape {tuple(lse.shape)}, not (heads, tokens)")
    return out, lse


def _join(
    out: torch.Tensor, lse: torch.Tensor, at: slice | torch.Tensor, part: torch.Tensor, part_lse: torch.Tensor
) -> None:
    """Add attention over further keys to these rows: (Q, Hq, D) and (Hq, Q)."""
    old, new = lse[at], part_lse.T
    out[at] = out[at].lerp(part.float(), torch.sigmoid(new - old)[..., None])
    lse[at] = torch.logaddexp(old, new)


def _call(
    queries: slice | torch.Tensor, query_ends: list[int], key_ends: list[int], device: torch.device, *, causal: bool
) -> VarlenCall:
    max_queries, max_keys = (max(b - a for a, b in pairwise(ends)) for ends in (query_ends, key_ends))
    return VarlenCall(
        queries,
        to_device(query_ends, device, torch.int32),
        to_device(key_ends, device, torch.int32),
        max_queries,
        max_keys,
        causal,
    )


def _places(stretches: list[range], device: torch.device) -> slice | torch.Tensor:
    """The places of these stretches of the row."""
    if all(left.stop == right.start for left, right in pairwise(stretches)):
        return slice(stretches[0].start, stretches[-1].stop)
    return to_device([place for stretch in stretches for place in stretch], device)
