"""A checkpoint folder: where it is, which files decide a score, its tensors by name, and its checks.

Only safetensors are read as weights, in one file or in the shards that an index names, as transformers does. Other
files in the folder are not part of the model. `value_head.bin`, which LLaMA-Factory may write, is a pickle and is read
by torch's restricted loader, which builds tensors only.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import math
import pickle
import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from plaudit.errors import HostLacks, UsageError
from service.scoring.device import CPU
from service.scoring.foreign_errors import one_line
from service.scoring.spec import SPEC_FILE

ADAPTED = "base_model.model."  # before every name in an adapter
ADDED = re.compile(r"\.(lora_|hada_|lokr_|oft_|ia3_|vera_|boft_|randlora_|fourierft_|hra_|bone_)")  # of peft's methods
ADAPTER = "plaudit_adapter"  # a folder in the folder of a base and its adapter (`adapters.py`)
# The files that decide a score. Reports, golden sets and plots may change without changing the revision.
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
    "*.model",  # SentencePiece: spm.model, spiece.model, sentencepiece.bpe.model, tokenizer.model
    "*.spm",
    "*.tiktoken",
    f"{ADAPTER}/adapter_config.json",
    f"{ADAPTER}/adapter_model.safetensors",
    "chat_template*",
    SPEC_FILE,
)
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
ADAPTER_CONFIG = "adapter_config.json"
VALUE_HEAD, VALUE_HEAD_BIN = "value_head.safetensors", "value_head.bin"
FLOATS = (torch.float32, torch.float16, torch.bfloat16)
# Tensors that a reward checkpoint may contain and that no score needs: the vocabulary's logits, OpenRLHF's statistics,
# rotary frequencies of old exports.
UNUSED = ("lm_head.", "mean", "std", "rotary_emb.inv_freq")


def locate(path: str | Path) -> Path:
    """The folder of one checkpoint (`adapters.locate` also takes a base with its adapter). For a hub id, the snapshot
    that the hub's client downloads or has cached.

    Raises `HostLacks` if there is neither.
    """
    folder = Path(path)
    if folder.is_dir():
        return folder
    if isinstance(path, Path) or path.startswith((".", "/", "~")) or path.count("/") != 1:
        raise HostLacks(f"no checkpoint folder at {path}")
    from huggingface_hub import snapshot_download

    try:
        # Without the weights in subfolders, which are other formats or copies.
        return Path(
            snapshot_download(
                path, allow_patterns=[*IDENTITY, ADAPTER_CONFIG, "golden*.jsonl"], ignore_patterns=["*/*.safetensors"]
            )
        )
    except (OSError, ValueError) as error:
        raise HostLacks(f"{path} is neither a folder on this host nor a checkpoint on the hub: {error}") from error


def revision_of(folder: Path) -> str:
    """`sha256:` over names and contents of every file that decides a score."""
    digest = hashlib.sha256()
    for file in sorted({file for pattern in IDENTITY for file in folder.glob(pattern) if file.is_file()}):
        stat = file.stat()
        content = _digest(file.resolve(), stat.st_ino, stat.st_size, stat.st_mtime_ns)
        digest.update(f"{file.name} {content}\n".encode())
    return f"sha256:{digest.hexdigest()}"


def weights_digest(folder: Path) -> str:
    """SHA-256 over the config and the weights alone, without those of an adapter or a head in a file of its own."""
    files = [folder / "config.json", *(file for file in weight_files(folder) if file.name != VALUE_HEAD)]
    digest = hashlib.sha256()
    for file in files:
        stat = file.stat()
        digest.update(_digest(file.resolve(), stat.st_ino, stat.st_size, stat.st_mtime_ns).encode())
    return digest.hexdigest()


@functools.lru_cache(maxsize=256)
def _digest(file: Path, *_: int) -> str:
    """SHA-256 of a file that looks the same as when it was last read: many gigabytes are asked for more than once."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json`. Raises `UsageError` if it is missing or is not JSON."""
    check_is_whole(folder)
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder}: no readable config.json: {error}") from error
    return config


def check_is_whole(folder: Path) -> None:
    """Raises `UsageError` for the folder of an adapter, which holds only its own weights and the name of its base."""
    file = folder / ADAPTER_CONFIG
    if not file.is_file():
        return
    try:
        base = json.loads(file.read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError):
        base = None
    raise UsageError(
        f"{folder}: is an adapter of {base or 'a base model'} (PEFT); serve both as --model "
        f"NAME={base or 'BASE'}+{folder}, or merge it (`merge_and_unload`)"
    )


def weight_files(folder: Path) -> list[Path]:
    """The files with the weights of the model and of a value head. Raises `UsageError` if they are not unambiguous."""
    single, index = folder / WEIGHTS, folder / INDEX
    check_is_whole(folder)
    files = {single} if single.is_file() else set()
    if index.is_file():
        try:
            shards = {folder / name for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise UsageError(f"{index}: not an index of weights: {error}") from error
        if missing := sorted(file.name for file in shards if not file.is_file()):
            raise UsageError(f"{folder}: weights are missing: {_first(missing)}")
        if files and files != shards:
            raise UsageError(f"{folder}: has two sets of weights, {WEIGHTS} and the shards of {INDEX}")
        files = shards
    if not files:
        pickles = any(folder.glob("*.bin")) or any(folder.glob("*.pt*"))
        hint = "; pickled weights are not read, convert them to safetensors" if pickles else ""
        if any(folder.glob("*.gguf")):
            hint = "; GGUF weights are quantised and are not read, take the checkpoint that they were made from"
        raise UsageError(f"{folder}: neither {WEIGHTS} nor an index of shards{hint}")
    return sorted(files) + [head for head in (folder / VALUE_HEAD,) if head.is_file()]


class Tensors:
    """The tensors of a checkpoint by name, read one at a time. Opening reads the headers only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, Path] = {}
        for file in weight_files(folder):
            with readable(file), safe_open(file, framework="pt") as stored:
                self._add(stored.keys(), file)
        self.saved: dict[str, str] = {}  # what an adapter brings whole: names in the model, to names in its file
        if (file := folder / ADAPTER / "adapter_model.safetensors").is_file():
            with readable(file), safe_open(file, framework="pt") as stored:
                names = [name for name in stored.keys() if not ADDED.search(name)]  # noqa: SIM118 - no mapping
            self.saved = {name.removeprefix(ADAPTED): name for name in names}
            self._files |= dict.fromkeys(self.saved, file)
        self._pickled: dict[str, torch.Tensor] = {}
        if (file := folder / VALUE_HEAD_BIN).is_file():
            try:
                tensors = torch.load(file, map_location="cpu", weights_only=True)
            except (pickle.UnpicklingError, EOFError, RuntimeError, LookupError, ValueError, TypeError) as error:
                raise UsageError(f"{file}: contains more than tensors: {error}") from error
            if not isinstance(tensors, dict) or not all(isinstance(t, torch.Tensor) for t in tensors.values()):
                raise UsageError(f"{file}: is not a dict of tensors by name")
            self._add(tensors, file)
            self._pickled = tensors

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
        """Elements of all tensors, from the headers."""
        count = sum(tensor.numel() for tensor in self._pickled.values())
        for file in set(self._files.values()) - {self.folder / VALUE_HEAD_BIN}:
            with readable(file), safe_open(file, framework="pt") as stored:
                count += sum(math.prod(stored.get_slice(name).get_shape()) for name in stored.keys())  # noqa: SIM118 - no mapping
        return count

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor, from the header."""
        if name in self._pickled:
            return tuple(self._pickled[name].shape)
        file = self._files[name]
        with readable(file), safe_open(file, framework="pt") as stored:
            return tuple(stored.get_slice(self.saved.get(name, name)).get_shape())

    def row(self, name: str, index: int) -> torch.Tensor:
        """One row of a matrix, in float32, copied; the others are not read."""
        if name in self._pickled:
            return self._pickled[name][index].float()
        file = self._files[name]
        with readable(file), safe_open(file, framework="pt") as stored:
            return self._plain(name, stored.get_slice(self.saved.get(name, name))[index])

    def read(self, name: str) -> torch.Tensor:
        """A tensor in float32, copied."""
        if name in self._pickled:
            return self._pickled[name].float()
        file = self._files[name]
        with readable(file), safe_open(file, framework="pt") as stored:
            return self._plain(name, stored.get_tensor(self.saved.get(name, name)))

    def _plain(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_floating_point() or tensor.itemsize == 1:
            raise UsageError(
                f"{self.folder}: {name}, of the head, is quantised ({tensor.dtype}), which is not supported"
            )
        return tensor.to(torch.float32, copy=True)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Raises `UsageError` with this path if its safetensors are damaged."""
    try:
        yield
    except SafetensorError as error:
        raise UsageError(f"{path}: damaged safetensors: {error}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bars and its report of unexpected tensors, which the caller checks itself."""
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
    kind: Any,
    folder: Path,
    dtype: torch.dtype,
    used: tuple[str, ...] = (),
    device: torch.device | None = CPU,
    elsewhere: Collection[str] = (),
    **options: Any,
) -> Any:
    """A model in eval mode, with every weight present, finite and used.

    Args:
        kind: one of transformers' Auto classes.
        folder: of the checkpoint.
        dtype: of the weights in memory.
        used: names or prefixes of tensors that are read elsewhere.
        device: where it runs; None: its layers are split over all GPUs.
        elsewhere: names of weights that the caller puts in (an adapter's head).
        options: passed to `from_pretrained`.

    Raises:
        UsageError: the checkpoint is invalid.
        HostLacks: it is too large for the device.
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
                **options,
            )
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise HostLacks(f"{folder}: does not fit into memory: {error}") from error
    except UsageError:
        raise
    except Exception as error:  # whatever a model's own code or a quantiser's package raises
        raise UsageError(f"{folder}: not a loadable checkpoint: {one_line(error)}") from error
    if missing := sorted(
        set(loading["missing_keys"]) - set(elsewhere)
    ):  # Hugging Face would fill them with random numbers
        raise UsageError(f"{folder}: weights are missing: {_first(missing)}")
    unused = sorted(name for name in loading["unexpected_keys"] if not _expected(name, used))
    if unused:
        raise UsageError(f"{folder}: weights that would not be used: {_first(unused)}")
    if device is None and {"cpu", "disk"} & {str(where) for where in getattr(model, "hf_device_map", {}).values()}:
        raise HostLacks(f"device split: {folder} is larger than all GPUs together")
    broken = [name for name, weight in model.named_parameters() if not _is_finite(weight)]
    if broken:
        raise UsageError(f"{folder}: weights that are not finite: {_first(broken)}")
    model = model.eval().requires_grad_(False)
    try:
        return model if device is None else model.to(device)
    except torch.OutOfMemoryError as error:
        raise HostLacks(f"device {device}: {folder} does not fit into its memory") from error


def _is_finite(weight: torch.Tensor) -> bool:
    """Whether every number is; those of a quantised weight, of integers or a type of its own, are."""
    plain = type(weight) in (torch.Tensor, torch.nn.Parameter) and weight.dtype in FLOATS
    return not plain or bool(torch.isfinite(weight).all())


def copy_mapped_weights(model: Any) -> None:
    """Copy the weights that are mapped from the checkpoint's files: otherwise a file that is overwritten in place would
    change the scores of a served model without changing its revision."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.device.type == "cpu":
            tensor.data = tensor.data.clone()


def _expected(name: str, used: tuple[str, ...]) -> bool:
    return name.startswith((*used, *UNUSED[:1])) or name.endswith(UNUSED[-1]) or name in UNUSED


def _first(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def check_length(folder: Path, model: Any, max_length: int) -> None:
    """Raises `UsageError` for a limit beyond the positions of a model, where scores would have no meaning.

    Scaled rotary positions are not checked.
    """
    config = model.config.get_text_config()
    scaled = rope_types(getattr(config, "rope_parameters", None)) - {"default"}
    limits = [None if scaled else getattr(config, "max_position_embeddings", None)]
    tables = [getattr(part, "position_embeddings", None) for part in model.modules()]
    limits += [num_positions(table) for table in tables if isinstance(table, torch.nn.Embedding)]
    limit = min((limit for limit in limits if limit is not None), default=None)
    if limit is not None and max_length > limit:
        raise UsageError(f"{folder}: max_length {max_length} is more than the {limit} positions of the model")


def num_positions(positions: torch.nn.Embedding) -> int:
    """How many tokens a table of positions is for; models like RoBERTa count from behind the padding token's id."""
    return positions.num_embeddings - (0 if positions.padding_idx is None else positions.padding_idx + 1)


def rope_types(parameters: Any) -> set[str]:
    """Every `rope_type` in a model's rotary parameters, of which each type of layer may have its own."""
    if not isinstance(parameters, dict):
        return set()
    inner = set().union(*(rope_types(value) for value in parameters.values()))
    return inner | ({str(parameters["rope_type"])} if parameters.get("rope_type") else set())


def check_vocabulary(folder: Path, tokenizer: Any, num_embeddings: int) -> None:
    """Raises `UsageError` for a tokenizer whose vocabulary exceeds the embeddings: it belongs to another model.

    Added tokens (a pad token that was never trained) may be outside: no template uses them.
    """
    added = set(tokenizer.added_tokens_decoder)
    largest = max((at for at in tokenizer.get_vocab().values() if at not in added), default=-1)
    if largest >= num_embeddings:
        raise UsageError(
            f"{folder}: the tokenizer has ids up to {largest} and the model {num_embeddings} embeddings: "
            "it is another model's tokenizer"
        )
