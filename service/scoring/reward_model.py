"""The reward model: a checkpoint folder in, one raw score a completion out.

The checkpoint folder is the treaty between training and serving. Beside the weights and the tokenizer it holds
`reward_model.json` (`RewardModelSpec`): the one template, the length limit, which token is pooled, the calibration and
a golden set. Training encodes through the same `Encoder`, so the text that was learnt is the text that is served.

What is promised:
- one template; it owns every special token, so nothing is added twice (the tokenizer's own additions are off);
- the pooled token is the last of the unpadded sequence: padding never exists here, so `pad == eos` cannot matter;
- never a silent cut: `TooLong` by default, `truncate_left` on request and marked in the result;
- a score is a float32 logit that depends on its own tokens only. Sequences run one at a time through the backbone:
  on a CPU a padded rectangle is slower than that, and nothing else in the batch can leak into the sum.

What is not promised: equal bits across machines or torch versions (the golden set measures that difference), and text
that contains the template's own special tokens is taken at its word, as Hugging Face does.

This module imports torch; only the scoring worker and training import it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypedDict

import torch

from service.errors import HostLacks, Invalid, TooLong, UsageError

log = logging.getLogger(__name__)

SPEC_FILE = "reward_model.json"
SPEC_FORMAT = 1
CHAT_TEMPLATE = "chat_template"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# Largest golden difference that is still the same model: fp32 kernels differ by about 1e-5 between machines; bf16
# moved scores by up to 0.26 at a score spread of 4 when it was measured.
GOLDEN_TOLERANCE = {"float32": 1e-4, "bfloat16": 0.5}
# What decides a score. Reports, golden sets and plots may change without making another model.
IDENTITY = ("*.safetensors", "*.safetensors.index.json", "config.json", "tokenizer*", "special_tokens_map.json",
            "added_tokens.json", "vocab.*", "merges.txt", "chat_template*", SPEC_FILE)  # fmt: skip

Overflow = Literal["error", "truncate_left"]


class Message(TypedDict):
    role: str
    content: str


Prompt = str | list[Message]


@dataclass(frozen=True, slots=True)
class Encoded:
    """A prompt with its completion as token ids; the pooled position is the last.

    `prompt_tokens`: how many leading ids depend on the prompt alone, so that group mates share them.
    """

    ids: tuple[int, ...]
    prompt_tokens: int
    truncated: bool


@dataclass(frozen=True, slots=True)
class Parity:
    """How far this process is from the scores that the checkpoint was shipped with."""

    max_abs_error: float
    n: int
    tolerance: float
    ok: bool


@dataclass(frozen=True, slots=True)
class Calibration:
    """Platt scaling: P(all tests pass) = sigmoid(a · score + b)."""

    a: float
    b: float


@dataclass(frozen=True, slots=True)
class RewardModelSpec:
    """`reward_model.json`, the part of a checkpoint that Hugging Face's own files do not say.

    `template`: text with `{prompt}` and `{completion}` once each, in this order, special tokens included; or the word
    "chat_template" for the tokenizer's own. `system` is put before a conversation that has no system message.
    """

    template: str
    max_length: int
    architecture: str
    system: str | None = None
    pooled: str = "last"
    head: str = "score"
    calibration: Calibration | None = None
    golden: str | None = None
    license: str | None = None
    provenance: str | None = None
    format: int = SPEC_FORMAT

    def __post_init__(self) -> None:
        if self.format != SPEC_FORMAT:
            raise UsageError(f"{SPEC_FILE}: format {self.format}, and this version reads {SPEC_FORMAT}")
        if self.pooled != "last":
            raise UsageError(f"{SPEC_FILE}: pooled {self.pooled!r}; only 'last' is known")
        if self.max_length < 1:
            raise UsageError(f"{SPEC_FILE}: max_length must be positive")
        if self.template != CHAT_TEMPLATE:
            if self.template.count("{prompt}") != 1 or self.template.count("{completion}") != 1:
                raise UsageError(f"{SPEC_FILE}: the template needs {{prompt}} and {{completion}} exactly once each")
            if self.template.index("{prompt}") > self.template.index("{completion}"):
                raise UsageError(f"{SPEC_FILE}: {{prompt}} comes before {{completion}}")
            if self.system is not None:
                raise UsageError(f"{SPEC_FILE}: a text template holds its own system text")

    @classmethod
    def read(cls, path: Path) -> RewardModelSpec:
        """The spec in this file; unknown and missing keys fail with their name."""
        values: Any = json.loads(path.read_text(encoding="utf-8"))
        if unknown := sorted(set(values) - {field.name for field in fields(cls)}):
            raise UsageError(f"{path.name}: unknown keys {', '.join(unknown)}")
        try:
            if values.get("calibration") is not None:
                values["calibration"] = Calibration(**values["calibration"])
            return cls(**values)
        except TypeError as error:
            raise UsageError(f"{path.name}: {error}") from error

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


class Encoder:
    """Text to ids under one spec. Training and serving both come through here."""

    def __init__(self, tokenizer: Any, spec: RewardModelSpec) -> None:
        self.spec = spec
        self._tokenizer = tokenizer
        self._seams = _seams(tokenizer)
        if spec.template == CHAT_TEMPLATE:
            if not getattr(tokenizer, "chat_template", None):
                raise UsageError("the tokenizer ships no chat template, and reward_model.json asks for it")
            self._before, self._between, self._after = "", "", ""
        else:
            self._before, rest = spec.template.split("{prompt}")
            self._between, self._after = rest.split("{completion}")

    @classmethod
    def load(cls, folder: Path, spec: RewardModelSpec | None = None) -> Encoder:
        """The encoder of a checkpoint folder, without its weights."""
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        return cls(tokenizer, spec or _read_or_derive_spec(folder, tokenizer))

    def encode(self, prompt: Prompt, completion: str, on_overflow: Overflow = "error") -> Encoded:
        """`encode_group` of one; raises `TooLong` instead of returning it."""
        encoded = self.encode_group(prompt, [completion], on_overflow)[0]
        if isinstance(encoded, TooLong):
            raise encoded
        return encoded

    def encode_group(
        self, prompt: Prompt | None, completions: Sequence[str], on_overflow: Overflow = "error"
    ) -> list[Encoded | TooLong]:
        """Each completion under this prompt; a completion that is too long gets its error as a value.

        Without a prompt the completions are whole texts, closing included, and the template adds nothing.

        The prompt is tokenised once where a special token separates it from what follows (see `_seams`); otherwise
        every full text is tokenised on its own, because merges may cross the seam. Both give the same ids.
        """
        if prompt is None:
            return [self._fit(self._ids(self._opened(text)), 0, on_overflow) for text in completions]
        head = self.head_text(prompt)
        at = {token: head.rfind(token) + len(token) for token in self._seams if token in head}
        seam_token = max(at, key=lambda token: at[token], default=None)
        seam = at[seam_token] if seam_token is not None else len(head)
        head_ids = self._ids(head[:seam])
        # An added token that begins earlier may have eaten the start of the seam; then it is none.
        proven = seam_token is not None and head_ids[-1:] == [self._tokenizer.convert_tokens_to_ids(seam_token)]
        group: list[Encoded | TooLong] = []
        for completion in completions:
            text = self.full_text(prompt, completion)
            if proven and text.startswith(head[:seam]):
                ids, prompt_tokens = head_ids + self._ids(text[seam:]), len(head_ids)
            else:
                ids = self._ids(text)
                prompt_tokens = _num_shared(head_ids, ids)
            group.append(self._fit(ids, prompt_tokens, on_overflow))
        return group

    def full_text(self, prompt: Prompt, completion: str) -> str:
        """The whole text that is tokenised, closing included."""
        if self.spec.template == CHAT_TEMPLATE:
            return self._chat([*self._messages(prompt), {"role": "assistant", "content": completion}])
        return f"{self.head_text(prompt)}{completion}{self._after}"

    def head_text(self, prompt: Prompt) -> str:
        """The text before the completion. A text template joins the messages of a conversation by blank lines."""
        if self.spec.template == CHAT_TEMPLATE:
            return self._chat(self._messages(prompt), opens_answer=True)
        text = prompt if isinstance(prompt, str) else "\n\n".join(message["content"] for message in prompt)
        return f"{self._before}{text}{self._between}"

    def _messages(self, prompt: Prompt) -> list[Message]:
        messages = [Message(role="user", content=prompt)] if isinstance(prompt, str) else list(prompt)
        if self.spec.system is not None and not (messages and messages[0]["role"] == "system"):
            messages.insert(0, Message(role="system", content=self.spec.system))
        return messages

    def _chat(self, messages: list[Message], *, opens_answer: bool = False) -> str:
        from jinja2 import TemplateError

        try:
            return str(
                self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=opens_answer)
            )
        except TemplateError as error:
            raise Invalid(f"the model's chat template refuses this conversation: {error}") from error

    def _opened(self, text: str) -> str:
        """A whole text with the BOS that clients take off it for inference servers, where our template begins so."""
        bos = getattr(self._tokenizer, "bos_token", None)
        if not (bos and text) or text.startswith(bos) or not self.head_text("x").startswith(bos):
            return text
        return f"{bos}{text}"

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False, verbose=False))

    def _fit(self, ids: list[int], prompt_tokens: int, on_overflow: Overflow) -> Encoded | TooLong:
        limit = self.spec.max_length
        if not ids:
            raise Invalid("nothing to score: prompt and completion are empty, and the template adds no token")
        if len(ids) <= limit:
            return Encoded(tuple(ids), prompt_tokens, truncated=False)
        if on_overflow == "error":
            return TooLong(tokens=len(ids), limit=limit)
        # The leading BOS (where there is one) and everything from the right stay: the prompt loses its left first, and
        # the closing token, which is the one that is pooled, is always there.
        bos = getattr(self._tokenizer, "bos_token_id", None)
        kept = 1 if limit > 1 and bos is not None and ids[0] == bos else 0
        cut = len(ids) - limit
        return Encoded((*ids[:kept], *ids[kept + cut :]), max(kept, prompt_tokens - cut), truncated=True)


class RewardModel:
    """A Hugging Face sequence classifier with one label, loaded once and scoring for as long as the process lives."""

    def __init__(self, model: Any, encoder: Encoder, folder: Path, revision: str, dtype: str) -> None:
        self.encoder = encoder
        self.spec = encoder.spec
        self.revision = revision
        self.dtype = dtype
        self.max_length = encoder.spec.max_length
        self.architecture: str = type(model).__name__
        self.parameters: int = sum(parameter.numel() for parameter in model.parameters())
        self._folder = folder
        self._backbone = model.base_model
        self._head: torch.Tensor = getattr(model, self.spec.head).weight.detach().float()  # (1, H)
        bias = getattr(getattr(model, self.spec.head), "bias", None)
        self._bias: torch.Tensor | None = None if bias is None else bias.detach().float()

    @classmethod
    def load(cls, path: str | Path, *, dtype: str = "float32", threads: int = 1) -> RewardModel:
        """The checkpoint at this folder or hub id: safetensors only, no remote code, every weight accounted for.

        Raises `UsageError` for a checkpoint that cannot be what it is used for, `HostLacks` for one that is not there.
        """
        from transformers import AutoModelForSequenceClassification
        from transformers.utils import logging as transformers_logging

        if dtype not in DTYPES:
            raise UsageError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
        transformers_logging.disable_progress_bar()
        torch.set_num_threads(threads)
        folder = _folder(path)
        encoder = Encoder.load(folder)
        try:
            model, loading = AutoModelForSequenceClassification.from_pretrained(
                folder, dtype=DTYPES[dtype], use_safetensors=True, trust_remote_code=False, local_files_only=True,
                attn_implementation="sdpa", output_loading_info=True,
            )  # fmt: skip
        except (OSError, ValueError) as error:
            raise UsageError(f"{path}: not a loadable sequence classifier: {error}") from error
        if model.config.num_labels != 1:
            raise UsageError(f"{path}: {model.config.num_labels} labels; a reward model has one")
        if loading["missing_keys"]:  # Hugging Face would fill them with random numbers
            raise UsageError(f"{path}: weights are missing: {', '.join(sorted(loading['missing_keys'])[:5])}")
        if not isinstance(getattr(model, encoder.spec.head, None), torch.nn.Linear):
            raise UsageError(f"{path}: no linear head named {encoder.spec.head!r} on {type(model).__name__}")
        model.eval().requires_grad_(False)
        return cls(model, encoder, folder, _revision(folder), dtype)

    def encode(self, prompt: Prompt, completion: str, on_overflow: Overflow = "error") -> Encoded:
        """Ids of one prompt and completion; raises `TooLong`. See `Encoder.encode`."""
        return self.encoder.encode(prompt, completion, on_overflow)

    def encode_group(
        self, prompt: Prompt | None, completions: Sequence[str], on_overflow: Overflow = "error"
    ) -> list[Encoded | TooLong]:
        """Ids of every completion of one prompt. See `Encoder.encode_group`."""
        return self.encoder.encode_group(prompt, completions, on_overflow)

    @torch.inference_mode()
    def score(self, batch: Sequence[Encoded]) -> list[float]:
        """Raw logits, in the order of `batch`; equal ids give equal scores whatever else is in the batch."""
        return [self._score_one(encoded.ids) for encoded in batch]

    def _score_one(self, ids: tuple[int, ...]) -> float:
        # No mask: a lone causal sequence needs none, and its last position is the pooled one by construction.
        tokens = torch.tensor([ids], dtype=torch.long)  # (1, T)
        hidden = self._backbone(input_ids=tokens, use_cache=False).last_hidden_state  # (1, T, H)
        pooled = hidden[:, -1].float()  # (1, H): only this token meets the head
        return float(torch.nn.functional.linear(pooled, self._head, self._bias).item())

    def check_golden(self) -> Parity:
        """Scores the golden set shipped in the checkpoint and compares; a checkpoint without one has nothing to fail.

        A row whose token count differs counts as infinitely wrong: the tokenizer or the template is another one.
        Raises `UsageError` where the spec names a golden set that is not in the folder.
        """
        tolerance = GOLDEN_TOLERANCE[self.dtype]
        if self.spec.golden is None:
            return Parity(0.0, 0, tolerance, ok=True)
        path = self._folder / self.spec.golden
        if not path.is_file():
            raise UsageError(f"{SPEC_FILE} names a golden set that is not there: {path}")
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
        errors = []
        for row in rows:
            encoded = self.encode(row["prompt"], row["completion"])
            same_text = len(encoded.ids) == row["tokens"]
            errors.append(abs(self.score([encoded])[0] - row["score"]) if same_text else math.inf)
        worst = max(errors, default=0.0)
        return Parity(worst, len(rows), tolerance, ok=worst <= tolerance)

    def pass_probability(self, score: float) -> float | None:
        """The shipped calibration's P(the program passes all its tests), or None where none is shipped."""
        calibration = self.spec.calibration
        if calibration is None:
            return None
        logit = calibration.a * score + calibration.b
        return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))


def _folder(path: str | Path) -> Path:
    """A local folder as it is; a hub id as the snapshot that the hub's client downloads or has cached."""
    folder = Path(path)
    if folder.is_dir():
        return folder
    if isinstance(path, Path) or path.startswith((".", "/", "~")) or path.count("/") != 1:
        raise HostLacks(f"no checkpoint folder at {path}")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(path, allow_patterns=[*IDENTITY, "golden*.jsonl"]))
    except (OSError, ValueError) as error:
        raise HostLacks(f"{path} is neither a folder here nor a checkpoint that the hub gives: {error}") from error


def _revision(folder: Path) -> str:
    """`sha256:` over names and contents of every file that decides a score."""
    digest = hashlib.sha256()
    for file in sorted({file for pattern in IDENTITY for file in folder.glob(pattern) if file.is_file()}):
        with file.open("rb") as stream:
            digest.update(f"{file.name} {hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return f"sha256:{digest.hexdigest()}"


def _read_or_derive_spec(folder: Path, tokenizer: Any) -> RewardModelSpec:
    """`reward_model.json`, or for a checkpoint of others what its own files say, with a line in the log."""
    path = folder / SPEC_FILE
    if path.is_file():
        return RewardModelSpec.read(path)
    if not getattr(tokenizer, "chat_template", None):
        raise UsageError(f"{folder}: neither {SPEC_FILE} nor a chat template: nothing says how to write the text")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    limits = [config.get("max_position_embeddings"), getattr(tokenizer, "model_max_length", None)]
    max_length = min((int(limit) for limit in limits if limit), default=0)
    architecture = str((config.get("architectures") or ["unknown"])[0])
    log.warning(
        "%s has no %s: using the tokenizer's chat template, at most %d tokens, the last token pooled, no calibration",
        folder, SPEC_FILE, max_length,
    )  # fmt: skip
    return RewardModelSpec(template=CHAT_TEMPLATE, max_length=max_length, architecture=architecture)


def _num_shared(left: Sequence[int], right: Sequence[int]) -> int:
    """Length of the common beginning."""
    pairs = zip(left, right, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))


def _seams(tokenizer: Any) -> tuple[str, ...]:
    """Special tokens at which a text may be cut so that ids(left) + ids(right) == ids(left + right), for any right.

    True for a token that the tokenizer takes out of the raw text before anything else looks at it (not normalised,
    swallowing no neighbouring blanks, part of no other added token), if every step after that treats the pieces alone:
    no step may add a prefix to the first piece of a text. Whatever is not known to be so is not used.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return ()
    pipeline = json.loads(backend.to_str())
    if not (_piecewise(pipeline["normalizer"]) and _piecewise(pipeline["pre_tokenizer"])):
        return ()
    added = pipeline["added_tokens"]
    plain = [
        token["content"] for token in added
        if token["special"] and not (token["normalized"] or token["lstrip"] or token["rstrip"] or token["single_word"])
    ]  # fmt: skip
    return tuple(token for token in plain if sum(token in other["content"] for other in added) == 1)


def _piecewise(step: dict[str, Any] | None) -> bool:
    if step is None:
        return True
    if step["type"] == "Sequence":
        return all(_piecewise(part) for part in step.get("normalizers") or step.get("pretokenizers") or [])
    if step["type"] == "ByteLevel":
        return not step.get("add_prefix_space")
    return step["type"] in {"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Split", "Digits", "Punctuation"}
