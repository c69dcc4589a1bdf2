"""Quantised checkpoints, made by the packages that users have, score as their own class does on this host."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from plaudit.errors import HostLacks, UsageError
from service.scoring.factory import open_engine
from service.scoring.reward_model import RewardModel
from service.settings import Settings
from service.worker.model_manager import _describe
from support.checkpoints import write_family, write_tokenizer
from support.kind_makers import COMPLETIONS, PROMPT, change, chat_ids, write_spec

SHAPE = {"hidden_size": 64, "intermediate_size": 128}

# bitsandbytes asks for kernels from the hub, and torch's own deprecations are not ours.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def bitsandbytes(**how: Any) -> Callable[[Path, Path], None]:
    def make(source: Path, folder: Path) -> None:
        pytest.importorskip("bitsandbytes")
        config = __import__("transformers").BitsAndBytesConfig(**how)
        model = AutoModelForSequenceClassification.from_pretrained(
            source, quantization_config=config, device_map="cpu", dtype=torch.float32
        )
        model.save_pretrained(folder)

    return make


def compressed(preset: str) -> Callable[[Path, Path], None]:
    """As llm-compressor writes it: the weights' scales are their largest numbers."""

    def make(source: Path, folder: Path) -> None:
        pytest.importorskip("compressed_tensors")
        from compressed_tensors.compressors import ModelCompressor
        from compressed_tensors.quantization import (
            QuantizationConfig,
            apply_quantization_config,
            preset_name_to_scheme,
        )

        model = AutoModelForSequenceClassification.from_pretrained(source).eval()
        scheme = preset_name_to_scheme(preset, ["Linear"])
        config = QuantizationConfig(config_groups={"group_0": scheme}, ignore=["score"], quantization_status="frozen")
        apply_quantization_config(model, config)
        for module in model.modules():
            if not hasattr(module, "weight_scale"):
                continue
            arguments, weight = module.quantization_scheme.weights, module.weight.data
            largest = {"float": 448.0, "int": 2.0 ** (arguments.num_bits - 1) - 1}[arguments.type]
            size = arguments.group_size if arguments.strategy == "group" else weight.shape[1]
            scale = weight.view(weight.shape[0], -1, size).abs().amax(-1) / largest
            if arguments.strategy == "tensor":
                scale = scale.max()
            module.weight_scale.data.copy_(scale.view(module.weight_scale.shape))
            if hasattr(module, "weight_zero_point"):
                module.weight_zero_point.data.zero_()
            if getattr(module, "input_scale", None) is not None:
                module.input_scale.data.fill_(0.02)
        compressor = ModelCompressor.from_pretrained_model(model)
        compressor.compress_model(model)
        model.save_pretrained(folder)
        compressor.update_config(folder)

    return make


def fp8(source: Path, folder: Path) -> None:
    """DeepSeek's and Qwen's format: blocks of float8 with the inverse of their scale beside them."""
    pytest.importorskip("accelerate")
    block, weights = 16, {}
    for name, weight in load_file(source / "model.safetensors").items():
        if "proj.weight" not in name:
            weights[name] = weight
            continue
        rows, columns = weight.shape
        blocks = weight.view(rows // block, block, columns // block, block)
        scale = blocks.abs().amax((1, 3), keepdim=True) / 448.0
        weights[name] = (blocks / scale).to(torch.float8_e4m3fn).view(rows, columns)
        weights[f"{name}_scale_inv"] = scale.view(rows // block, columns // block)
    folder.mkdir(exist_ok=True)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text((source / "config.json").read_text())
    how = {"quant_method": "fp8", "weight_block_size": [block, block], "activation_scheme": "dynamic"}
    change(folder, "config.json", quantization_config=how)


def torchao(name: str) -> Callable[[Path, Path], None]:
    def make(source: Path, folder: Path) -> None:
        pytest.importorskip("torchao", reason="needs torchao: make .make/extended")
        from torchao import quantization
        from transformers import TorchAoConfig

        config = TorchAoConfig(getattr(quantization, name)())
        model = AutoModelForSequenceClassification.from_pretrained(
            source, quantization_config=config, dtype=torch.float32
        )
        model.save_pretrained(folder)

    return make


def packed(method: str) -> Callable[[Path, Path], None]:
    """As AutoGPTQ and AutoAWQ write them: eight numbers of four bits in an int32, with scales and zeros by group."""
    group = 32

    def eight(codes: torch.Tensor, order: tuple[int, ...] = tuple(range(8))) -> torch.Tensor:
        """Numbers (A, B) of 0 to 15 as int32 (A, B / 8)."""
        numbers = codes.long().unflatten(1, (-1, 8))
        word = sum(numbers[:, :, place] << (4 * at) for at, place in enumerate(order))
        return torch.where(word >= 2**31, word - 2**32, word).int().contiguous()  # type: ignore[operator, arg-type]

    def make(source: Path, folder: Path) -> None:
        pytest.importorskip("gptqmodel", reason="needs gptqmodel: make .make/extended")
        weights = {}
        for name, weight in load_file(source / "model.safetensors").items():
            if "proj.weight" not in name:
                weights[name] = weight
                continue
            groups = weight.unflatten(1, (-1, group))  # (out, groups, members)
            low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
            scale = (high - low) / 15
            zero = (-low / scale).round().clamp(1, 15)
            codes = (groups / scale + zero).round().clamp(0, 15).flatten(1)
            zeros = zero.squeeze(-1).t()
            base = name.removesuffix(".weight")
            weights[f"{base}.scales"] = scale.squeeze(-1).t().half().contiguous()
            if method == "gptq":
                weights[f"{base}.qweight"] = eight(codes).t().contiguous()
                weights[f"{base}.qzeros"] = eight(zeros - 1)
                weights[f"{base}.g_idx"] = torch.arange(weight.shape[1], dtype=torch.int32) // group
            else:
                order = (0, 2, 4, 6, 1, 3, 5, 7)
                weights[f"{base}.qweight"] = eight(codes.t(), order)
                weights[f"{base}.qzeros"] = eight(zeros, order)
        folder.mkdir(exist_ok=True)
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        (folder / "config.json").write_text((source / "config.json").read_text())
        how = {"quant_method": method, "bits": 4, "group_size": group}
        if method == "gptq":
            how |= {"desc_act": False, "sym": False, "checkpoint_format": "gptq"}
        else:
            how |= {"version": "gemm", "zero_point": True, "modules_to_not_convert": ["score"]}
        change(folder, "config.json", quantization_config=how)

    return make


MAKERS = {
    "bitsandbytes-nf4": bitsandbytes(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
    "bitsandbytes-fp4-double": bitsandbytes(load_in_4bit=True, bnb_4bit_use_double_quant=True),
    "bitsandbytes-int8": bitsandbytes(load_in_8bit=True),
    "compressed-tensors-W8A16": compressed("W8A16"),
    "compressed-tensors-W4A16": compressed("W4A16"),
    "compressed-tensors-W8A8": compressed("W8A8"),
    "compressed-tensors-FP8": compressed("FP8"),
    "compressed-tensors-FP8_DYNAMIC": compressed("FP8_DYNAMIC"),
    "fp8": fp8,
    "torchao-int8": torchao("Int8WeightOnlyConfig"),
    "torchao-int8-dynamic": torchao("Int8DynamicActivationInt8WeightConfig"),
    "gptq": packed("gptq"),
    "awq": packed("awq"),
}
BY_GPTQMODEL = ("gptq", "awq")  # its first use compiles for a minute or two
EXTENDED = ("torchao-int8", "torchao-int8-dynamic", *BY_GPTQMODEL)  # by packages that no extra installs


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.extended if name in EXTENDED else ()) for name in MAKERS])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    wide = 128 if "A16" in request.param or request.param in BY_GPTQMODEL else None
    source = write_family(tmp_path / "source", "llama", shape=SHAPE | ({} if wide is None else {"hidden_size": wide}))
    folder = tmp_path / "quantised"
    MAKERS[request.param](source, folder)
    write_tokenizer(folder)
    return folder, request.param


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_quantised_checkpoint_scores_as_its_own_class(made: tuple[Path, str], dtype: str) -> None:
    folder, name = made
    own = AutoModelForSequenceClassification.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    if name == "fp8":
        own = own.to(
            getattr(torch, dtype)
        )  # without a GPU transformers makes it float32, under activations in bfloat16
    ids = chat_ids(folder)
    with torch.no_grad():
        own(input_ids=torch.tensor([[0]]))  # compressed-tensors cannot unpack weights in inference mode
    with torch.inference_mode():
        right = [own(input_ids=ids(PROMPT, completion)).logits.item() for completion in COMPLETIONS]

    model = RewardModel.load(folder, dtype=dtype)
    batch = [model.encode(PROMPT, completion) for completion in COMPLETIONS]

    alone = [model.score([encoded])[0] for encoded in batch]
    assert alone == pytest.approx(right, abs=1e-4 if dtype == "float32" else 0.3)
    assert model.score(batch) == pytest.approx(alone, abs=0.5, rel=0.1)
    assert model.quantization is not None
    assert name.startswith(model.quantization)
    assert model.own_class_error is not None


def test_the_golden_set_proves_a_quantised_checkpoint(made: tuple[Path, str]) -> None:
    folder, name = made
    write_spec(folder, template="chat_template", golden="golden.jsonl", pooled="last_non_pad", pad="<|pad|>")
    model = RewardModel.load(folder)
    encoded = model.encode(PROMPT, "x")
    row = {"prompt": PROMPT, "completion": "x", "tokens": len(encoded.ids), "score": model.score([encoded])[0]}
    (folder / "golden.jsonl").write_text(json.dumps(row))
    engine, parity = open_engine("default", str(folder), Settings())
    assert (parity.ok, parity.tolerance) == (True, 0.5)
    assert name.startswith(_describe("default", engine, parity)["quantization"])
    (folder / "golden.jsonl").write_text(json.dumps(row | {"score": row["score"] + 2}))
    with pytest.raises(HostLacks, match="differ from its golden set"):
        open_engine("default", str(folder), Settings())


@pytest.mark.extended
def test_layers_that_do_not_compute_in_the_dtype_are_refused(tmp_path: Path) -> None:
    torchao("Float8WeightOnlyConfig")(write_family(tmp_path / "source", "llama", shape=SHAPE), tmp_path / "float8")
    write_tokenizer(tmp_path / "float8")
    assert RewardModel.load(tmp_path / "float8").quantization == "torchao"
    with pytest.raises(
        UsageError, match=r"layers quantised with torchao do not compute here in torch\.bfloat16, choose"
    ):
        RewardModel.load(tmp_path / "float8", dtype="bfloat16")


def test_an_adapter_on_quantised_weights_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    from support.kind_makers import adapter

    adapter("SEQ_CLS")(tmp_path)
    source = (tmp_path / "base").rename(tmp_path / "source")
    fp8(source, tmp_path / "base")
    write_tokenizer(tmp_path / "base")
    with pytest.raises(UsageError, match="an adapter on quantised weights is not supported"):
        RewardModel.load(f"{tmp_path}/base+{tmp_path}/adapter")


def test_what_the_extra_installs_is_what_the_messages_name() -> None:
    from service.scoring import quantized

    for packages, install in quantized.METHODS.values():
        if install == quantized.EXTRA and all(importlib.util.find_spec(package) for package in packages):
            return
    pytest.skip("none of the packages of the extra `quantized` is installed")
