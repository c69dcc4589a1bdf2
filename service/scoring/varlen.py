"""Attention over a packed row on a GPU: a handful of variable-length flash kernels a layer, however many segments.

What `attention.py` asks of a segment at a time is asked here of all of them at once:

    own     one causal call; the segments are its sequences
    above   one call for each depth of the tree. Segments of one depth have descendants that do not overlap, so each is
            a sequence: its descendants' queries against its own keys
    known   one call for each prompt that an earlier row computed

Keys and values are read where they lie. In a call for a depth they are the whole row's: the stretches that nobody asks
about there are sequences without a query, which a kernel passes over. Only queries of descendants are gathered, and
only where they are not one stretch. The parts are joined by their log-sum-exp, as on a CPU.

The kernels are `torch.nn.attention.varlen` (flash attention, half precision). Where they are missing or differ, the
probe at load says so (`sharing.py`), and the model is served unshared.
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
    """One kernel call: the i-th sequence of queries reads the i-th of keys.

    `queries`: where they are in the row; a tensor where they are no one stretch. `query_ends`, `key_ends`: cumulative
    lengths from 0, int32.
    """

    queries: slice | torch.Tensor
    query_ends: torch.Tensor
    key_ends: torch.Tensor
    most_queries: int
    most_keys: int
    causal: bool


@dataclass(frozen=True, slots=True)
class VarlenPlan:
    """The calls of a row, the same in every layer."""

    own: VarlenCall
    above: tuple[VarlenCall, ...]
    known: tuple[VarlenCall, ...]


def plan(packing: Packing, device: torch.device) -> VarlenPlan:
    """What `joined` does with a row, its tensors on this device."""
    segments = packing.segments
    own = [0, *(segment.stop for segment in segments)]
    above = []
    depths: list[int] = []
    for segment in segments:  # a parent comes before its children
        depths.append(0 if segment.parent is None else depths[segment.parent] + 1)
    for depth in range(max(depths, default=0)):
        at_depth = [one for one, own_depth in zip(segments, depths, strict=True) if own_depth == depth]
        query_ends, key_ends, stretches = [0], [0], []
        for one in at_depth:
            if one.reach == one.stop:
                continue
            if one.start > key_ends[-1]:  # keys that nobody asks about here
                query_ends.append(query_ends[-1])
                key_ends.append(one.start)
            query_ends.append(query_ends[-1] + one.reach - one.stop)
            key_ends.append(one.stop)
            stretches.append(range(one.stop, one.reach))
        above.append(_call(_places(stretches, device), query_ends, key_ends, device, causal=False))
    return VarlenPlan(
        _call(slice(0, len(packing.ids)), own, own, device, causal=True),
        tuple(above),
        tuple(
            _call(slice(one.start, one.stop), [0, one.stop - one.start], [0, len(one.known)], device, causal=False)
            for one in packing.continued
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
    """(1, Hq, T, D), (1, Hkv, T, D) twice → (1, T, Hq, D). `known`: keys and values of what the row continues, in the
    plan's order, (1, Hkv, K, D) each."""
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
    """torch's own kernel. Raises `RuntimeError` for a log-sum-exp of another shape than the one that is joined here."""
    from torch.nn.attention.varlen import AuxRequest, varlen_attn

    out, lse = varlen_attn(
        query,
        key,
        value,
        call.query_ends,
        call.key_ends,
        call.most_queries,
        call.most_keys,
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
    mine, theirs = lse[at], part_lse.T
    out[at] = out[at].lerp(part.float(), torch.sigmoid(theirs - mine)[..., None])
    lse[at] = torch.logaddexp(mine, theirs)


def _call(
    queries: slice | torch.Tensor, query_ends: list[int], key_ends: list[int], device: torch.device, *, causal: bool
) -> VarlenCall:
    most_queries, most_keys = (max(b - a for a, b in pairwise(ends)) for ends in (query_ends, key_ends))
    return VarlenCall(
        queries,
        to_device(query_ends, device, torch.int32),
        to_device(key_ends, device, torch.int32),
        most_queries,
        most_keys,
        causal,
    )


def _places(stretches: list[range], device: torch.device) -> slice | torch.Tensor:
    """These stretches of the row, one behind the other."""
    if all(one.stop == other.start for one, other in pairwise(stretches)):
        return slice(stretches[0].start, stretches[-1].stop)
    return to_device([at for one in stretches for at in one], device)
