"""Linear layers in float32 through oneDNN, with weights laid out for it once: the same sums, about twice as fast.

torch multiplies float32 matrices on a CPU with MKL, which keeps to AVX2 on processors that are not Intel's; oneDNN,
which torch ships for its compiler, uses AVX-512 wherever it is. Here a layer's weight is put into oneDNN's layout when
the model is loaded (the plain one is let go), and its forward is that compiler's operator. Scores move by rounding.

oneDNN keeps a kernel with its scratch memory for every number of rows that it has seen, 1,024 of them: gigabytes, since
a packed row can have any length. The caches are made small before its first use: a forward's layers still share them.

Where the operator or AVX-512 is missing, or the arithmetic is not float32 on a CPU, models stay as they are.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from transformers.activations import SiLUActivation

GATED = ("gate_proj", "up_proj", "down_proj")
ROWS = 1024
FLOAT32_CPU = (torch.float32, "cpu")
CACHED_KERNELS = "16"
for _name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):  # oneDNN's, and that of torch's layer above it
    os.environ.setdefault(_name, CACHED_KERNELS)


class OneDNNLinear(torch.nn.Module):
    """A linear layer's forward, without its gradient. `weight` is in a layout that only oneDNN reads."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self._packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), None)
        self._bias = None if layer.bias is None else layer.bias.detach().clone()

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """(..., in) → (..., out)"""
        out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(given, self._packed, self._bias, "none", [], "")
        return out


class GatedMLP(torch.nn.Module):
    """down(silu(gate(x)) · up(x)) of Llama-like decoders, in place and `ROWS` tokens at a time, so that what lies
    between stays in the processor's cache and never grows with the batch."""

    def __init__(self, block: torch.nn.Module) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = (OneDNNLinear(block.get_submodule(name)) for name in GATED)

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """(B, T, H) → (B, T, H)"""
        parts = []
        for part in torch.split(given, ROWS, dim=1):
            inner = torch.nn.functional.silu(self.gate_proj(part), inplace=True).mul_(self.up_proj(part))
            parts.append(self.down_proj(inner))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def is_gated(block: torch.nn.Module) -> bool:
    """Whether a block is that and nothing else: its three layers, and silu, under the names that all of them use."""
    children = dict(block.named_children())
    return (
        type(block).__name__.endswith("MLP")
        and children.keys() == {*GATED, "act_fn"}
        and all(is_plain(children[name]) for name in GATED)
        and isinstance(children["act_fn"], torch.nn.SiLU | SiLUActivation)
    )


def is_plain(layer: torch.nn.Module) -> bool:
    """Whether it is a float32 linear layer on a CPU and no subclass of one."""
    return type(layer) is torch.nn.Linear and (layer.weight.dtype, layer.weight.device.type) == FLOAT32_CPU


def usable() -> bool:
    """Whether this torch on this processor gains from it."""
    return (
        torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and all(hasattr(torch.ops.mkldnn, name) for name in ("_reorder_linear_weight", "_linear_pointwise"))
    )


def speed_up(model: torch.nn.Module) -> int:
    """Replace a float32 model's linear layers, one after the other; answers how many. Subclasses are left alone."""
    if not usable():
        return 0
    count = 0
    for name, part in list(model.named_children()):
        if is_gated(part):
            setattr(model, name, GatedMLP(part))
            count += len(GATED)
        elif is_plain(part):
            setattr(model, name, OneDNNLinear(part))
            count += 1
        else:
            count += speed_up(part)
    return count
