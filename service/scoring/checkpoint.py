"""A checkpoint folder: where it is, which bytes decide a score, and its tensors by name, with every fault named.

Only safetensors are read as weights, in one file or in the shards that an index names, as transformers reads them:
what else lies in the folder is no part of the model. `value_head.bin`, which LLaMA-Factory may leave beside them, is a
pickle and is read by torch's restricted loader, which builds tensors and nothing else.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import math
import pickle
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open

from plaudit.errors import HostLacks, UsageError
from service.scoring.device import CPU
from service.scoring.spec import SPEC_FILE

# What decides a score. Reports, golden sets and plots may change without making another model.
IDENTITY = (
    "*.safetensors",
    "*.safetensors.index.json",
    "value_head.bin",
    "config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "chat_template*",
    SPEC_FILE,
)
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
VALUE_HEAD, VALUE_HEAD_BIN = "value_head.safetensors", "value_head.bin"
# Tensors that a reward checkpoint may hold and that no score needs: the vocabulary's logits, OpenRLHF's statistics,
# rotary frequencies of old exports.
UNUSED = ("lm_head.", "mean", "std", "rotary_emb.inv_freq")


def locate(path: str | Path) -> Path:
    """A local folder as it is; a hub id as the snapshot that the hub's client downloads or has cached."""
    folder = Path(path)
    if folder.is_dir():
        return folder
    if isinstance(path, Path) or path.startswith((".", "/", "~")) or path.count("/") != 1:
        raise HostLacks(f"no checkpoint folder at {path}")
    from huggingface_hub import snapshot_download

    try:
        # Not the weights in subfolders: other formats, or the same model once more.
        return Path(
            snapshot_download(path, allow_patterns=[*IDENTITY, "golden*.jsonl"], ignore_patterns=["*/*.safetensors"])
        )
    except (OSError, ValueError) as error:
        raise HostLacks(f"{path} is neither a folder here nor a checkpoint that the hub gives: {error}") from error


def revision_of(folder: Path) -> str:
    """`sha256:` over names and contents of every file that decides a score."""
    digest = hashlib.sha256()
    for file in sorted({file for pattern in IDENTITY for file in folder.glob(pattern) if file.is_file()}):
        stat = file.stat()
        content = _digest(file.resolve(), stat.st_ino, stat.st_size, stat.st_mtime_ns)
        digest.update(f"{file.name} {content}\n".encode())
    return f"sha256:{digest.hexdigest()}"


@functools.lru_cache(maxsize=256)
def _digest(file: Path, *_: int) -> str:
    """SHA-256 of a file that looks the same as when it was last read: many gigabytes are asked for more than once."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json`. Raises `UsageError` where there is none."""
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder}: no readable config.json: {error}") from error
    return config


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the model's weights, and a value head's own. Raises `UsageError` where that is not clear."""
    single, index = folder / WEIGHTS, folder / INDEX
    if (folder / "adapter_config.json").is_file():
        raise UsageError(f"{folder}: an adapter; merge it into its base model (peft's `merge_and_unload`)")
    files = {single} if single.is_file() else set()
    if index.is_file():
        try:
            shards = {folder / name for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise UsageError(f"{index}: no index of weights: {error}") from error
        if lost := sorted(file.name for file in shards if not file.is_file()):
            raise UsageError(f"{folder}: weights are missing: {_some(lost)}")
        if files and files != shards:
            raise UsageError(f"{folder}: {WEIGHTS} and the shards of {INDEX}: two sets of weights")
        files = shards
    if not files:
        pickles = any(folder.glob("*.bin")) or any(folder.glob("*.pt*"))
        raise UsageError(
            f"{folder}: no weights in {WEIGHTS}, nor an index of shards"
            + ("; pickles are not read: write them as safetensors" if pickles else "")
        )
    return sorted(files) + [head for head in (folder / VALUE_HEAD,) if head.is_file()]


class Tensors:
    """The tensors of a checkpoint by name, read one at a time; opening reads the headers only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, Path] = {}
        for file in weight_files(folder):
            with readable(file), safe_open(file, framework="pt") as stored:
                self._add(stored.keys(), file)
        self._pickled: dict[str, torch.Tensor] = {}
        if (file := folder / VALUE_HEAD_BIN).is_file():
            try:
                found = torch.load(file, map_location="cpu", weights_only=True)
            except (pickle.UnpicklingError, EOFError, RuntimeError, LookupError, ValueError, TypeError) as error:
                raise UsageError(f"{file}: not tensors alone: {error}") from error
            if not isinstance(found, dict) or not all(isinstance(one, torch.Tensor) for one in found.values()):
                raise UsageError(f"{file}: not tensors by name")
            self._add(found, file)
            self._pickled = found

    def _add(self, names: Iterable[str], file: Path) -> None:
        for name in names:
            if name in self._files:
                raise UsageError(f"{self.folder}: {name} is in {self._files[name].name} and in {file.name}")
            self._files[name] = file

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def __iter__(self) -> Iterator[str]:
        yield from self._files

    @property
    def num_parameters(self) -> int:
        """Numbers in all tensors together, from the headers."""
        count = sum(tensor.numel() for tensor in self._pickled.values())
        for file in set(self._files.values()) - {self.folder / VALUE_HEAD_BIN}:
            with readable(file), safe_open(file, framework="pt") as stored:
                count += sum(math.prod(stored.get_slice(name).get_shape()) for name in stored.keys())  # noqa: SIM118 - no mapping
        return count

    def row(self, name: str, at: int) -> torch.Tensor:
        """One row of a matrix, in float32, the others left on disk; not a view of the file."""
        if name in self._pickled:
            return self._pickled[name][at].float()
        file = self._files[name]
        with readable(file), safe_open(file, framework="pt") as stored:
            row: torch.Tensor = stored.get_slice(name)[at]
            return row.to(torch.float32, copy=True)

    def read(self, name: str) -> torch.Tensor:
        """In float32, and not a view of the file."""
        if name in self._pickled:
            return self._pickled[name].float()
        file = self._files[name]
        with readable(file), safe_open(file, framework="pt") as stored:
            tensor: torch.Tensor = stored.get_tensor(name)
            return tensor.to(torch.float32, copy=True)


@contextmanager
def readable(what: Path) -> Iterator[None]:
    """A file or folder whose safetensors are damaged raises `UsageError` with its name."""
    try:
        yield
    except SafetensorError as error:
        raise UsageError(f"{what}: damaged safetensors: {error}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bars and its report of unexpected tensors: the caller judges those itself."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    reports = logging.getLogger("transformers")
    before = reports.level
    reports.setLevel(logging.ERROR)
    try:
        yield
    finally:
        reports.setLevel(before)


def load(
    kind: Any, folder: Path, dtype: torch.dtype, used: tuple[str, ...] = (), device: torch.device | None = CPU
) -> Any:
    """A model by one of transformers' Auto classes, in eval mode, every weight there, finite, and accounted for.

    `used`: names or prefixes of tensors that somebody else reads. `device`: None splits it over all GPUs.
    Raises `UsageError` for a checkpoint that cannot be, `HostLacks` for one that is too large for the device.
    """
    weight_files(folder)
    try:
        with quiet(), readable(folder):
            model, loading = kind.from_pretrained(
                folder,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
                **({"device_map": "auto"} if device is None else {}),
            )
    except (OSError, ValueError, RuntimeError, StrictDataclassError) as error:
        raise UsageError(f"{folder}: not a loadable checkpoint: {error}") from error
    if missing := sorted(loading["missing_keys"]):  # Hugging Face would fill them with random numbers
        raise UsageError(f"{folder}: weights are missing: {_some(missing)}")
    strange = sorted(name for name in loading["unexpected_keys"] if not _expected(name, used))
    if strange:
        raise UsageError(f"{folder}: weights that nothing would use: {_some(strange)}")
    if {"cpu", "disk"} & {str(where) for where in getattr(model, "hf_device_map", {}).values()}:
        raise HostLacks(f"device split: {folder} is larger than all GPUs together")
    broken = [name for name, weight in model.named_parameters() if not bool(torch.isfinite(weight).all())]
    if broken:
        raise UsageError(f"{folder}: weights that are not finite: {_some(broken)}")
    model = model.eval().requires_grad_(False)
    try:
        return model if device is None else model.to(device)
    except torch.OutOfMemoryError as error:
        raise HostLacks(f"device {device}: {folder} does not fit into its memory") from error


def copy_mapped_weights(model: Any) -> None:
    """Copy what still lies in the checkpoint's files: they are mapped, and whoever wrote over one in place would change
    the scores of a model that is being served, under the revision of the old one."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.device.type == "cpu":
            tensor.data = tensor.data.clone()


def _expected(name: str, used: tuple[str, ...]) -> bool:
    return name.startswith((*used, *UNUSED[:1])) or name.endswith(UNUSED[-1]) or name in UNUSED


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def check_length(folder: Path, model: Any, max_length: int) -> None:
    """Raises `UsageError` for a limit beyond the positions that a model has: past them a score would be a number, and
    nothing else. Rotary positions may be scaled beyond; that is the model's to know."""
    config = model.config.get_text_config()
    scaled = rope_types(getattr(config, "rope_parameters", None)) - {"default"}
    limits = [None if scaled else getattr(config, "max_position_embeddings", None)]
    tables = [getattr(part, "position_embeddings", None) for part in model.modules()]
    limits += [rows_of(one) for one in tables if isinstance(one, torch.nn.Embedding)]
    limit = min((one for one in limits if one is not None), default=None)
    if limit is not None and max_length > limit:
        raise UsageError(f"{folder}: max_length {max_length} is more than the {limit} positions of the model")


def rows_of(positions: torch.nn.Embedding) -> int:
    """How many tokens a table of positions is for: RoBERTa's kin count from behind the padding token's id."""
    return positions.num_embeddings - (0 if positions.padding_idx is None else positions.padding_idx + 1)


def rope_types(parameters: Any) -> set[str]:
    """Every `rope_type` in a model's rotary parameters, which may be one set for each type of layer."""
    if not isinstance(parameters, dict):
        return set()
    inner = set().union(*(rope_types(value) for value in parameters.values()))
    return inner | ({str(parameters["rope_type"])} if parameters.get("rope_type") else set())


def check_vocabulary(folder: Path, tokenizer: Any, num_embeddings: int) -> None:
    """A tokenizer whose own vocabulary does not fit the embeddings is another model's; raises `UsageError`.

    Tokens added to it (a pad token that was never trained) may lie outside: no template uses them.
    """
    added = set(tokenizer.added_tokens_decoder)
    largest = max((at for at in tokenizer.get_vocab().values() if at not in added), default=-1)
    if largest >= num_embeddings:
        raise UsageError(
            f"{folder}: the tokenizer has ids up to {largest} and the model {num_embeddings} embeddings: "
            "it is another model's tokenizer"
        )
