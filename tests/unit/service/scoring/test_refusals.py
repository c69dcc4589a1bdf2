"""What cannot be loaded is refused by name, on one line: never a traceback, whatever other people's code raises."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from plaudit.errors import EXIT_USAGE, HostLacks, UsageError
from service.scoring import checkpoint as checkpoints
from service.scoring import quantized
from service.scoring.factory import open_engine
from service.settings import Settings
from support.checkpoints import checkpoint, write_family
from support.kind_makers import change, write_pair_tokenizer

BITS = {"quant_method": "bitsandbytes", "load_in_4bit": True, "_load_in_4bit": True}
QUANTISED: dict[str, Any] = {
    "bitsandbytes": BITS,
    "bitsandbytes, as older releases wrote it": {"load_in_8bit": True},
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 128, "dataset": None},
    "awq": {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm"},
    "compressed-tensors": {"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": {}},
    "fp8": {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"},
    "torchao": {"quant_method": "torchao", "quant_type": {"default": {}}},
    "mxfp4": {"quant_method": "mxfp4"},
    "hqq": {"quant_method": "hqq"},
    "a method of tomorrow": {"quant_method": "tomorrow"},
    "no method": {"bits": 4},
    "nonsense": {"quant_method": ["fp8"]},
}


def opened(folder: Path) -> Any:
    return open_engine("default", str(folder), Settings())[0]


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with none of the packages that quantised checkpoints need."""
    packages = {package for needs, _ in quantized.METHODS.values() for package in needs}
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name in packages else find(name, *more)
    )


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("name", QUANTISED)
@pytest.mark.parametrize("derived", [False, True])
def test_a_quantised_checkpoint_is_refused_by_name(tmp_path: Path, name: str, derived: bool) -> None:
    folder = write_family(tmp_path, "llama") if derived else checkpoint(tmp_path)
    change(folder, "config.json", quantization_config=QUANTISED[name])
    method = str(
        QUANTISED[name].get("quant_method", "bitsandbytes" if "load_in_8bit" in QUANTISED[name] else "unknown")
    )
    with pytest.raises(UsageError, match="quantised with") as told:
        opened(folder)
    assert method in told.value.detail
    assert "\n" not in told.value.detail
    if method in quantized.METHODS:
        assert "pip install" in told.value.detail


@pytest.mark.parametrize(
    ("file", "words"),
    [("quantize_config.json", "AutoGPTQ"), ("quant_config.json", "AutoAWQ"), ("hf_quant_config.json", "ModelOpt")],
)
def test_files_of_quantising_tools_are_recognised(tmp_path: Path, file: str, words: str) -> None:
    (checkpoint(tmp_path) / file).write_text("{}")
    with pytest.raises(UsageError, match=f"quantised by .*{words}"):
        opened(tmp_path)


def test_mlx_and_gguf_are_recognised(tmp_path: Path) -> None:
    change(checkpoint(tmp_path / "mlx"), "config.json", quantization={"bits": 4, "group_size": 64})
    with pytest.raises(UsageError, match="by MLX"):
        opened(tmp_path / "mlx")
    (checkpoint(tmp_path / "gguf") / "model.safetensors").rename(tmp_path / "gguf" / "model-Q4_K_M.gguf")
    with pytest.raises(UsageError, match="GGUF weights are quantised"):
        opened(tmp_path / "gguf")


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_a_quantised_head_is_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    file = checkpoint(tmp_path) / "model.safetensors"
    weights = load_file(file)
    save_file(weights | {"score.weight": weights["score.weight"].to(dtype)}, file, {"format": "pt"})
    with pytest.raises(UsageError, match=r"score\.weight, of the head, is quantised"):
        opened(tmp_path)


def test_a_padding_token_outside_of_the_embeddings_is_refused(tmp_path: Path) -> None:
    change(checkpoint(tmp_path), "config.json", pad_token_id=400)
    with pytest.raises(UsageError, match="Padding_idx must be within num_embeddings"):
        opened(tmp_path)


def remote(folder: Path) -> None:
    change(folder, "config.json", model_type="internlm2", auto_map={"AutoModel": "modeling.Model"})


def spoilt(file: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_text(text) and None


BROKEN: dict[str, Callable[[Path], Any]] = {
    "remote code": remote,
    "an unknown model type": lambda folder: change(folder, "config.json", model_type="nothing"),
    "a negative size": lambda folder: change(folder, "config.json", num_hidden_layers=-1),
    "a size that is a word": lambda folder: change(folder, "config.json", hidden_size="wide"),
    "an activation that does not exist": lambda folder: change(folder, "config.json", hidden_act="nothing"),
    "heads that do not divide": lambda folder: change(folder, "config.json", num_attention_heads=3),
    "rotary positions that do not exist": lambda folder: change(
        folder, "config.json", rope_parameters={"rope_type": "nothing", "rope_theta": 1.0}
    ),
    "a config that is a list": spoilt("config.json", "[]"),
    "a config that is a number": spoilt("config.json", "3"),
    "an empty tokenizer": spoilt("tokenizer.json", "{}"),
    "a tokenizer that is a list": spoilt("tokenizer.json", "[1]"),
    "tokenizer settings that are a list": spoilt("tokenizer_config.json", "[1]"),
    "a tokenizer class that does not exist": lambda folder: change(
        folder, "tokenizer_config.json", tokenizer_class="NothingTokenizer"
    ),
    "a template that is not Jinja": spoilt("chat_template.jinja", "{% if %}"),
    "a template that calls what is not there": spoilt("chat_template.jinja", "{{ nothing() }}"),
    "a template that divides by zero": spoilt("chat_template.jinja", "{{ 1 / 0 }}"),
    "a template with an endless text": spoilt("chat_template.jinja", "{{ messages[0].nothing.more }}"),
    "labels that are a list": lambda folder: change(folder, "config.json", id2label=["a"]),
    "an index that is empty": lambda folder: (
        (folder / "model.safetensors").unlink(),
        (folder / "model.safetensors.index.json").write_text("{}"),
    ),
}


LOADS = {"a tokenizer class that does not exist"}  # nothing is read from it
# Templates that raise for a conversation, and may take others: each request is told.
LOADS_WITH_SPEC = {"a template that calls what is not there", "a template with an endless text"}


@pytest.mark.parametrize("derived", [False, True])
@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_checkpoint_is_a_usage_error_on_one_line(tmp_path: Path, kind: str, derived: bool) -> None:
    folder = (
        write_family(tmp_path, "llama") if derived else checkpoint(tmp_path, kind="llama", template="chat_template")
    )
    BROKEN[kind](folder)
    if kind in LOADS or (not derived and kind in LOADS_WITH_SPEC):
        assert opened(folder).revision
        return
    with pytest.raises(UsageError) as told:
        opened(folder)
    assert len(told.value.detail.splitlines()) == 1
    assert any(words in told.value.detail for words in (str(folder), "reward_model.json", "template"))


@pytest.mark.parametrize(
    "error", [KeyError("x"), AttributeError("y"), ZeroDivisionError("z"), AssertionError("a"), ImportError("b")]
)
@pytest.mark.parametrize("where", ["load", "check_length"])
def test_whatever_is_raised_while_loading_is_a_usage_error(
    tmp_path: Path, error: Exception, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint(tmp_path)

    def broken(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(checkpoints, where, broken)
    with pytest.raises(UsageError, match=f"{type(error).__name__}: .*{error.args[0]}"):
        opened(tmp_path)


def test_too_little_memory_is_the_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint(tmp_path)

    def full(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(checkpoints, "load", full)
    with pytest.raises(HostLacks, match="does not fit into memory"):
        opened(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hqq", pytest.param("mxfp4", marks=pytest.mark.extended)])
def test_plaudit_up_ends_with_one_line_and_no_restarts(tmp_path: Path, kind: str) -> None:
    change(checkpoint(tmp_path), "config.json", quantization_config=QUANTISED[kind])
    command = [sys.executable, "-m", "service.cli", "up", "--port", "0", "--executors", "0"]
    done = subprocess.run(
        [*command, "--model", f"default={tmp_path}"],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == EXIT_USAGE, done.stderr
    assert done.stderr.count(f"quantised with {kind}") == 1
    assert "Traceback" not in done.stderr
    assert "restarting" not in done.stderr


# --- tokenizer files -------------------------------------------------------------------------------------------------

SENTENCEPIECE = ["spm.model", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model"]


@pytest.mark.parametrize("file", [*SENTENCEPIECE, "qwen.tiktoken", "source.spm"])
def test_the_files_of_every_tokenizer_are_part_of_the_revision(tmp_path: Path, file: str) -> None:
    before = checkpoints.revision_of(checkpoint(tmp_path))
    (tmp_path / file).write_bytes(b"a")
    with_file = checkpoints.revision_of(tmp_path)
    (tmp_path / file).write_bytes(b"b")
    assert len({before, with_file, checkpoints.revision_of(tmp_path)}) == 3


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("DebertaV2Tokenizer", "spm.model"),
        ("XLMRobertaTokenizer", "sentencepiece.bpe.model"),
        ("AlbertTokenizer", "spiece.model"),
        ("T5Tokenizer", "spiece.model"),
        ("LlamaTokenizer", "tokenizer.model"),
    ],
)
def test_without_sentencepiece_the_package_is_named(
    tmp_path: Path, file: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pair_tokenizer(tmp_path, types=False)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}))
    (tmp_path / file).write_bytes(b"\x0a\x0b")
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "sentencepiece" else find(name, *more)
    )
    from service.scoring.tokenizer import load_tokenizer

    with pytest.raises(UsageError, match=r"SentencePiece model; pip install 'plaudit-server\[sentencepiece\]'"):
        load_tokenizer(tmp_path)
