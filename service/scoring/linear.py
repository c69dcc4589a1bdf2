"""Float32 linear layers through oneDNN, with weights in its layout: the same sums, about twice as fast.

torch multiplies float32 matrices on a CPU with MKL, which uses only AVX2 on processors that are not Intel's. oneDNN,
which torch ships for its compiler, uses AVX-512 wherever it exists. So a layer's weight is converted to oneDNN's layout
at load (the original is freed), and its forward is the compiler's operator. Scores change by rounding.

oneDNN caches a kernel with its scratch memory for every number of rows, 1,024 of them: gigabytes, since a packed row
can have any length. The caches are made small before the first use; the layers of one forward still share them.

If the operator or AVX-512 is missing, or the arithmetic is not float32 on a CPU, models stay as they are.
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
for _name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):  # oneDNN's, and torch's above it
    os.environ.setdefault(_name, CACHED_KERNELS)


class OneDNNLinear(torch.nn.Module):
    """A linear layer's forward, without its gradient. The weight is in a layout that only oneDNN reads."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self._packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), None)
        self.bias = None if layer.bias is None else layer.bias.detach().clone()

    @property
    def weight(self) -> torch.Tensor:
        """The weight in torch's layout, made anew: for models that look at it beside calling the layer (T5)."""
        dense: torch.Tensor = self._packed.to_dense()
        return dense

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """(..., in) → (..., out)"""
        out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(given, self._packed, self.bias, "none", [], "")
        return out


class GatedMLP(torch.nn.Module):
    """down(silu(gate(x)) · up(x)) of Llama-like decoders, in place and `ROWS` tokens at a time, so that intermediate
    values stay in the processor's cache and do not grow with the batch."""

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
    """Whether a block is a plain gated MLP: three linear layers and silu, under their usual names."""
    children = dict(block.named_children())
    return (
        type(block).__name__.endswith("MLP")
        and children.keys() == {*GATED, "act_fn"}
        and all(is_plain(children[name]) for name in GATED)
        and isinstance(children["act_fn"], torch.nn.SiLU | SiLUActivation)
    )


def is_plain(layer: torch.nn.Module) -> bool:
    """Whether a layer is a float32 `torch.nn.Linear` on a CPU, and not a subclass."""
    return type(layer) is torch.nn.Linear and (layer.weight.dtype, layer.weight.device.type) == FLOAT32_CPU


def usable() -> bool:
    """Whether this torch has the operator and this processor AVX-512."""
    return (
        torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and all(hasattr(torch.ops.mkldnn, name) for name in ("_reorder_linear_weight", "_linear_pointwise"))
    )


def speed_up(model: torch.nn.Module) -> int:
    """Replace a float32 model's linear layers, but not subclasses; returns how many were replaced."""
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
