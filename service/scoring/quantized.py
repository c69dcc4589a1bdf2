"""Quantised checkpoints: which ones load here, with which packages, and which are refused by name.

transformers loads them through packages of their own (the extra `quantized`), and the layers stay as those packages
make them. Scores are then those of the checkpoint's own class on this host, to rounding; between hosts and kernels they
differ as bfloat16 does, and the golden set is checked within that tolerance.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch

from plaudit.errors import HostLacks, UsageError
from service.scoring.foreign_errors import one_line

EXTRA = "pip install 'plaudit-server[quantized]'"
# Of each method the packages that transformers needs, and what installs them.
METHODS: dict[str, tuple[tuple[str, ...], str]] = {
    "bitsandbytes": (("bitsandbytes", "accelerate"), EXTRA),
    "compressed-tensors": (("compressed_tensors",), EXTRA),
    "fp8": (("accelerate",), EXTRA),
    "torchao": (("torchao",), "pip install torchao"),
    "gptq": (("gptqmodel", "optimum", "accelerate"), "pip install gptqmodel optimum accelerate"),
    "awq": (("gptqmodel", "accelerate"), "pip install gptqmodel accelerate"),
}
PLAIN = (torch.float32, torch.bfloat16, torch.float16)
# Files that quantising tools write beside a config which says nothing.
FILES = {
    "quantize_config.json": "AutoGPTQ",
    "quant_config.json": "AutoAWQ",
    "hf_quant_config.json": "NVIDIA ModelOpt",
}


def method(folder: Path, config: dict[str, Any]) -> str | None:
    """How a checkpoint is quantised, after checking that it can be loaded here; None: it is not.

    Raises:
        UsageError: by a method that is not supported, or one whose packages are missing.
    """
    given = config.get("quantization_config") or config.get("compression_config")
    if not isinstance(given, dict):
        if other := next((tool for file, tool in FILES.items() if (folder / file).is_file()), None):
            raise _refused(folder, f"by {other}, in a format that transformers does not read")
        if "quantization" in config:  # MLX
            raise _refused(folder, "by MLX, in a format that transformers does not read")
        return None
    name = str(given.get("quant_method") or ("bitsandbytes" if _is_bitsandbytes(given) else "an unknown method"))
    if name not in METHODS:
        raise _refused(folder, f"with {name}, which is not supported")
    packages, install = METHODS[name]
    if missing := [package for package in packages if importlib.util.find_spec(package) is None]:
        raise _refused(folder, f"with {name}, which needs {' and '.join(missing)} ({install})")
    return name


def _is_bitsandbytes(given: dict[str, Any]) -> bool:
    return bool(given.get("load_in_8bit") or given.get("load_in_4bit"))


def _refused(folder: Path, how: str) -> UsageError:
    return UsageError(
        f"{folder}: quantised {how}; supported are {', '.join(METHODS)}, and checkpoints that are not quantised"
    )


@torch.no_grad()
def finish(model: Any, name: str, dtype: torch.dtype, folder: Path) -> Any:
    """The loaded model, after what its package leaves for the first forward, which must not be in inference mode.

    Without a GPU for it, transformers turns float8 weights into plain ones of the dtype of their scales; they get the
    model's own here. What is quantised by another method keeps its types: GPTQ's layers refuse a cast.

    Raises:
        UsageError: its layers do not compute in this dtype.
        HostLacks: its memory is full.
    """
    if name == "fp8" and all(weight.dtype in PLAIN for weight in model.parameters()):
        model = model.to(dtype)
    try:
        model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device))
    except torch.OutOfMemoryError as error:
        raise HostLacks(f"{folder}: does not fit into memory: {error}") from error
    except RuntimeError as error:  # NotImplementedError is one, too
        raise UsageError(
            f"{folder}: layers quantised with {name} do not compute here in {dtype}, choose another --dtype: "
            f"{one_line(error)}"
        ) from error
    return model
