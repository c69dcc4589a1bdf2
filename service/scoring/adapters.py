"""A base model and an adapter of it (PEFT: LoRA and its kin), served as one checkpoint: `--model NAME=BASE+ADAPTER`.

- Both folders are joined to one of links, so whatever reads a checkpoint reads it: the base's weights and config, and
  the adapter's tokenizer, template, spec, golden set and value head where it has them. Its digest covers all of it, so
  every adapter on a base is a revision of its own.
- The class that the adapter was trained on is named in the config, with the padding token of the adapter's tokenizer
  where the base has none, as trainers set it.
- The adapter is merged into the weights when they are loaded (the package peft), so scoring costs what the base costs;
  or it stays beside them, and several share one base (`shared_base.py`).
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import json
import shutil
import tempfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from plaudit.errors import UsageError
from service.scoring import checkpoint, own_class
from service.scoring.checkpoint import ADAPTER, ADAPTER_CONFIG
from service.scoring.foreign_errors import one_line
from service.scoring.spec import SPEC_FILE

WEIGHTS = "adapter_model.safetensors"
TOKENIZER = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model")
TEMPLATE = ("chat_template*",)
FROM_ADAPTER = (SPEC_FILE, "golden*.jsonl", checkpoint.VALUE_HEAD, checkpoint.VALUE_HEAD_BIN)
# By `task_type` in an adapter's config: the class that it was trained on, and the names of that class by model type.
CLASSES: dict[str | None, tuple[Any, Any]] = {
    "SEQ_CLS": (AutoModelForSequenceClassification, own_class.SEQUENCES),
    "TOKEN_CLS": (AutoModelForTokenClassification, own_class.TOKENS),
    "CAUSAL_LM": (AutoModelForCausalLM, own_class.LANGUAGE),
    "FEATURE_EXTRACTION": (AutoModel, {}),
}

_lock = threading.Lock()
_folders: dict[tuple[Path, Path], Path] = {}


def locate(path: str | Path) -> Path:
    """The folder of a checkpoint: a folder, a hub id's snapshot, or for BASE+ADAPTER the folder of links to both.

    Raises:
        HostLacks: there is no such folder, and no such checkpoint on the hub.
        UsageError: what stands behind the + is not an adapter.
    """
    if isinstance(path, Path) or "+" not in path or Path(path).is_dir():
        return checkpoint.locate(path)
    base, _, adapter = path.rpartition("+")
    return joined(checkpoint.locate(base), checkpoint.locate(adapter))


def joined(base: Path, adapter: Path) -> Path:
    """A folder of links to a base and to an adapter of it; the same one for the same two, until the process ends.

    Raises:
        UsageError: there is no adapter, or one that cannot be loaded here.
    """
    config = read_config(adapter)
    if importlib.util.find_spec("peft") is None:
        raise UsageError(f"{adapter}: is an adapter, which needs peft (pip install 'plaudit-server[adapters]')")
    with _lock:
        folder = _folder_of(base, adapter)
        (folder / ADAPTER).mkdir(exist_ok=True)
        own_tokenizer = (adapter / "tokenizer_config.json").is_file()
        own_template = any(file for pattern in TEMPLATE for file in adapter.glob(pattern))
        wanted = {file.name: file for pattern in checkpoint.IDENTITY for file in base.glob(pattern)}
        wanted |= {file.name: file for file in base.glob("golden*.jsonl")}
        for patterns, taken in (
            (TOKENIZER, own_tokenizer),
            (TEMPLATE, own_tokenizer or own_template),
            (FROM_ADAPTER[:2], (adapter / SPEC_FILE).is_file()),
            (FROM_ADAPTER[2:], any((adapter / name).is_file() for name in FROM_ADAPTER[2:])),
        ):
            if taken:
                for file in [file for pattern in patterns for file in base.glob(pattern)]:
                    wanted.pop(file.name, None)
                wanted |= {file.name: file for pattern in patterns for file in adapter.glob(pattern)}
        wanted |= {f"{ADAPTER}/{file.name}": file for file in (adapter / ADAPTER_CONFIG, adapter / WEIGHTS)}
        base_config = checkpoint.read_config(base)
        wanted.pop("config.json", None)
        for stale in [*folder.iterdir(), *(folder / ADAPTER).iterdir()]:
            if stale.is_symlink() and wanted.get(str(stale.relative_to(folder))) != stale.readlink():
                stale.unlink()
        for name, file in wanted.items():
            with contextlib.suppress(FileExistsError):
                (folder / name).symlink_to(file.resolve())
        (folder / "config.json").write_text(json.dumps(_config(base_config, config, adapter, folder), sort_keys=True))
    return folder


def _folder_of(base: Path, adapter: Path) -> Path:
    """The folder for these two, which is removed when the process ends."""
    if (base, adapter) not in _folders:
        folder = Path(tempfile.mkdtemp(prefix=f"{base.name}+{adapter.name}-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        _folders[base, adapter] = folder
    return _folders[base, adapter]


def read_config(adapter: Path) -> dict[str, Any]:
    """`adapter_config.json`. Raises `UsageError` if this is not the folder of an adapter."""
    try:
        config: dict[str, Any] = json.loads((adapter / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{adapter}: no readable {ADAPTER_CONFIG}, so it is not an adapter: {error}") from error
    if not (adapter / WEIGHTS).is_file():
        raise UsageError(f"{adapter}: has no {WEIGHTS}; pickled adapters are not read")
    if config.get("task_type") not in CLASSES:
        known = ", ".join(str(name) for name in CLASSES)
        raise UsageError(f"{adapter}: task_type {config.get('task_type')!r} in {ADAPTER_CONFIG} is not one of {known}")
    return config


def _config(base: dict[str, Any], adapter_config: dict[str, Any], adapter: Path, folder: Path) -> dict[str, Any]:
    """The base's config with the class that the adapter was trained on, its labels and its padding token."""
    _, names = CLASSES[adapter_config["task_type"]]
    config = dict(base)
    if own := names.get(base.get("model_type")):
        config["architectures"] = [own]
    with checkpoint.readable(adapter / WEIGHTS), safe_open(adapter / WEIGHTS, framework="pt") as stored:
        shapes = {name: stored.get_slice(name).get_shape() for name in stored.keys()}  # noqa: SIM118 - no mapping
    heads = ("score", "classifier")
    rows = [
        shape[0]
        for name, shape in shapes.items()
        if name.endswith(".weight") and len(shape) == 2 and not checkpoint.ADDED.search(name)
        if name.removeprefix(checkpoint.ADAPTED).split(".")[0] in heads
    ]
    if (
        adapter_config["task_type"] in ("SEQ_CLS", "TOKEN_CLS")
        and rows
        and len(config.get("id2label") or "ab") != rows[-1]
    ):
        config["id2label"] = {str(at): f"LABEL_{at}" for at in range(rows[-1])}
        config["label2id"] = {name: int(at) for at, name in config["id2label"].items()}
    if config.get("pad_token_id") is None:
        from service.scoring.tokenizer import load_tokenizer

        config["pad_token_id"] = load_tokenizer(folder).pad_token_id
    return config


def auto_class(folder: Path) -> Any:
    """The Auto class that an adapter in this folder was trained on; None: there is no adapter."""
    if not (folder / ADAPTER).is_dir():
        return None
    return CLASSES[read_config(folder / ADAPTER)["task_type"]][0]


def merge(model: Any, folder: Path) -> Any:
    """The model with the adapter in this folder merged into its weights.

    Raises:
        UsageError: peft cannot load or merge it, or it is not an adapter of this model.
    """
    adapted = attach(model, folder, "default")
    with _told(folder):
        return adapted.merge_and_unload(safe_merge=True)


def attach(model: Any, folder: Path, name: str) -> Any:
    """peft's model with the adapter in this folder beside the weights, under a name; it becomes the active one.

    Args:
        model: the class that the adapter was trained on, or peft's model of it with other adapters.
        folder: of the base and the adapter.
        name: of the adapter.

    Raises:
        UsageError: peft cannot load it, or it is not an adapter of this model.
    """
    from peft import PeftConfig, PeftModel, get_peft_model, load_peft_weights, set_peft_model_state_dict

    if checkpoint.read_config(folder).get("quantization_config"):
        raise UsageError(f"{folder}: an adapter on quantised weights is not supported; take the base in bfloat16")
    with _told(folder):
        config = PeftConfig.from_pretrained(str(folder / ADAPTER))
        config.inference_mode = True
        if isinstance(model, PeftModel):
            adapted = model
            config.base_model_name_or_path = adapted.get_base_model().name_or_path
            adapted.add_adapter(name, config, autocast_adapter_dtype=False)
        else:
            config.base_model_name_or_path = model.name_or_path
            adapted = get_peft_model(model, config, adapter_name=name, autocast_adapter_dtype=False)
        try:
            weights = load_peft_weights(str(folder / ADAPTER), device=str(adapted.device))
            result = set_peft_model_state_dict(adapted, weights, adapter_name=name)
            missing = [
                key
                for key in result.missing_keys
                if name in key.split(".") and ("lora_" in key or "modules_to_save" in key)
            ]
            if result.unexpected_keys or missing:
                raise UsageError(
                    f"{_named(folder)}: is not an adapter of this base: it has weights for other layers, or lacks "
                    f"some: {', '.join([*result.unexpected_keys, *missing][:3])}"
                )
            _check_finite(adapted, name, folder)
            adapted.set_adapter(name, inference_mode=True)
        except BaseException:
            detach(adapted, name)
            raise
    return adapted


def detach(adapted: Any, name: str) -> None:
    """Remove an adapter from peft's model."""
    with warnings.catch_warnings():  # peft tells which of the others is active now
        warnings.simplefilter("ignore", UserWarning)
        adapted.delete_adapter(name)


def _check_finite(adapted: Any, name: str, folder: Path) -> None:
    for key, weight in adapted.named_parameters():
        if name in key.split(".") and not bool(torch.isfinite(weight).all()):
            raise UsageError(f"{_named(folder)}: weights that are not finite: {key}")


def _named(folder: Path) -> Path:
    """The adapter's own folder, for messages."""
    return (folder / ADAPTER / ADAPTER_CONFIG).resolve().parent


@contextlib.contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Whatever peft raises for a method or a layer names the adapter."""
    try:
        yield
    except (UsageError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise UsageError(f"{_named(folder)}: the adapter cannot be merged: {one_line(error)}") from error
