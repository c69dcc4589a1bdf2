"""Where scores are computed, and how token ids get there."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

import torch

from plaudit.errors import HostLacks

CPU = torch.device("cpu")


def device_of(name: str) -> torch.device | None:
    """The device that a setting names.

    Args:
        name: cpu, cuda or cuda:N; `auto`: the first GPU, or the CPU if there is none; `split`: all GPUs.

    Returns:
        The device; None for `split`, which puts the layers on all GPUs.

    Raises:
        HostLacks: the GPU does not exist.
    """
    if name == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    if name == "split":
        if not torch.cuda.is_available() or importlib.util.find_spec("accelerate") is None:
            raise HostLacks("device split: torch sees no GPU, or the package accelerate is not installed")
        return None
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise HostLacks(f"device {name}: torch sees {torch.cuda.device_count()} GPUs")
    return device


def to_device(
    values: Sequence[int] | Sequence[Sequence[int]], device: torch.device, dtype: torch.dtype = torch.long
) -> torch.Tensor:
    """These numbers as a tensor on a device; to a GPU by a pinned, asynchronous copy."""
    tensor = torch.tensor(values, dtype=dtype)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
