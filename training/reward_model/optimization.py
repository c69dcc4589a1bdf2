"""What the training loops on a CPU share: the learning-rate schedule, and memory that is kept between batches."""

from __future__ import annotations

import ctypes
import math
from typing import Any


def cosine_schedule(progress: float, warmup: float) -> float:
    """Share of the peak learning rate: linear warm-up, then a cosine down to a twentieth.

    Args:
        progress: steps done over all steps, 0 to 1.
        warmup: share of the steps that warms up, below 1.
    """
    if progress < warmup:
        return (progress + 1e-3) / (warmup + 1e-3)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def set_learning_rate(optimiser: Any, lr: float) -> None:
    """Set the learning rate of every parameter group."""
    for group in optimiser.param_groups:
        group["lr"] = lr


def keep_freed_memory() -> None:
    """Make glibc keep large blocks. Batches of varying shapes otherwise spend a tenth of the time on fresh pages."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
