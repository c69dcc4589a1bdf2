"""`reward_model.json`: what Hugging Face's own files do not say about a checkpoint."""

from __future__ import annotations

import datetime
import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from plaudit.errors import UsageError
from service.scoring.process_rewards import Steps
from service.scoring.surface import SurfaceWeight

SPEC_FILE = "reward_model.json"
SPEC_FORMAT = 1
CHAT_TEMPLATE = "chat_template"
NEWER = frozenset({"pad", "weights", "gating", "normalize", "date", "surface"})
LAST_NON_PAD = "last_non_pad"
POOLED = ("last", LAST_NON_PAD, "steps")


@dataclass(frozen=True, slots=True)
class Calibration:
    """Platt scaling: P(all tests pass) = sigmoid(a · score + b)."""

    a: float
    b: float

    def probability(self, score: float) -> float:
        logit = self.a * score + self.b
        return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))


@dataclass(frozen=True, slots=True)
class Gating:
    """A network that weighs the outputs of a head by the prompt (ArmoRM: Wang et al. 2024, arXiv 2406.12845).

        score = scale · softmax(network(h_at) / temperature) · (transform^T · outputs(h_last))

    Attributes:
        at: text between prompt and completion; the network reads the first token of its last occurrence.
        network: prefix of its linear layers, which have a ReLU between them.
        temperature: of the softmax.
        scale: name of a tensor of one number.
        transform: name of a square matrix.
    """

    at: str
    network: str = "gating.layers"
    temperature: float = 10.0
    scale: str | None = "gating.logit_scale"
    transform: str | None = "reward_transform_matrix"

    def __post_init__(self) -> None:
        if not self.at:
            raise UsageError(f"{SPEC_FILE}: gating.at is empty; it is the text between prompt and completion")
        if not self.temperature > 0:
            raise UsageError(f"{SPEC_FILE}: gating.temperature {self.temperature:g} must be greater than 0")


@dataclass(frozen=True, slots=True)
class RewardModelSpec:
    """`reward_model.json`, the contract between training and serving.

    Attributes:
        template: text with `{prompt}` and `{completion}` once each, in this order, special tokens included; or
            "chat_template" for the tokenizer's own.
        max_length: longest text, in tokens.
        system: put before a conversation that has no system message.
        pooled: the "last" token; the last that is not `pad`, "last_non_pad"; or "steps", which `steps` describes.
        pad: the token that "last_non_pad" passes over.
        head: its name (`heads.py`).
        labels: the tokens for good and for bad, or for good alone, if the head is the language model's own.
        weights: how much each output of the head counts; None: it has one. [-1, 1] is the log-odds of two labels.
        gating: weighs the outputs by the prompt, in place of `weights`.
        normalize: whether the checkpoint's `mean` and `std` are applied; None: if `normalize_reward` in its config says
            so (OpenRLHF).
        date: the date that the chat template prints as today's, YYYY-MM-DD or with a time.
        surface: what numbers of the text's surface add to the score (`surface.py`).
        golden: file name of the golden set.
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
    steps: Steps | None = None
    labels: tuple[str, ...] | None = None
    pad: str | None = None
    weights: tuple[float, ...] | None = None
    gating: Gating | None = None
    normalize: bool | None = None
    date: str | None = None
    surface: tuple[SurfaceWeight, ...] | None = None
    format: int = SPEC_FORMAT

    def __post_init__(self) -> None:
        if self.format != SPEC_FORMAT:
            raise UsageError(f"{SPEC_FILE}: format {self.format} is not supported; this version reads {SPEC_FORMAT}")
        if self.pooled not in POOLED:
            raise UsageError(f"{SPEC_FILE}: pooled {self.pooled!r}; known are {', '.join(map(repr, POOLED))}")
        for pooled, field, given in (("steps", "steps", self.steps), (LAST_NON_PAD, "pad", self.pad)):
            if (self.pooled == pooled) != (given is not None):
                raise UsageError(
                    f"{SPEC_FILE}: `{field}` needs pooled {pooled!r}, and pooled {pooled!r} needs `{field}`"
                )
        if self.labels is not None and self.head != "lm_head":
            raise UsageError(f"{SPEC_FILE}: labels names tokens of the head 'lm_head', and the head is {self.head!r}")
        if self.labels is not None and len(self.labels) not in (1, 2):
            raise UsageError(
                f"{SPEC_FILE}: labels names {len(self.labels)} tokens; it takes good and bad, or good alone"
            )
        if self.weights is not None and not (self.weights and all(map(math.isfinite, self.weights))):
            raise UsageError(f"{SPEC_FILE}: weights is empty or has a number that is not finite; one per output")
        if self.gating is not None and (self.weights is not None or self.steps is not None):
            raise UsageError(f"{SPEC_FILE}: gating stands for `weights` and takes no `steps`")
        if self.surface is not None and (self.steps is not None or self.template == CHAT_TEMPLATE):
            raise UsageError(f"{SPEC_FILE}: surface needs a text template, and takes no `steps`")
        if self.normalize not in (None, True, False):
            raise UsageError(f"{SPEC_FILE}: normalize {self.normalize!r} is not true or false")
        if self.date is not None:
            self.clock()
        if self.max_length < 1:
            raise UsageError(f"{SPEC_FILE}: max_length must be positive")
        if self.template != CHAT_TEMPLATE:
            if self.template.count("{prompt}") != 1 or self.template.count("{completion}") != 1:
                raise UsageError(f"{SPEC_FILE}: the template needs {{prompt}} and {{completion}} exactly once each")
            if self.template.index("{prompt}") > self.template.index("{completion}"):
                raise UsageError(f"{SPEC_FILE}: {{prompt}} comes before {{completion}}")
            if self.system is not None:
                raise UsageError(
                    f"{SPEC_FILE}: `system` is for the chat template; a text template contains its own system text"
                )

    def clock(self) -> datetime.datetime | None:
        """The pinned date. Raises `UsageError` if it is not one."""
        try:
            return None if self.date is None else datetime.datetime.fromisoformat(self.date)
        except (TypeError, ValueError) as error:
            raise UsageError(f"{SPEC_FILE}: date {self.date!r} is not YYYY-MM-DD: {error}") from error

    @classmethod
    def read(cls, path: Path) -> RewardModelSpec:
        """The spec in this file. Raises `UsageError` for a file that is not a spec; unknown keys are named."""
        try:
            values: Any = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UsageError(f"{path}: not JSON: {error}") from error
        if not isinstance(values, dict):
            raise UsageError(f"{path}: not a JSON object")
        if unknown := sorted(set(values) - {field.name for field in fields(cls)}):
            raise UsageError(f"{path.name}: unknown keys {', '.join(unknown)}")
        try:
            if values.get("calibration") is not None:
                values["calibration"] = Calibration(**values["calibration"])
            if values.get("steps") is not None:
                values["steps"] = Steps(**values["steps"])
            if values.get("gating") is not None:
                values["gating"] = Gating(**values["gating"])
            if values.get("surface") is not None:
                values["surface"] = tuple(SurfaceWeight(**weight) for weight in values["surface"])
            if values.get("labels") is not None:
                values["labels"] = tuple(map(str, values["labels"]))
            if values.get("weights") is not None:
                values["weights"] = tuple(map(float, values["weights"]))
            return cls(**values)
        except (TypeError, ValueError, AttributeError) as error:  # a value of another type
            raise UsageError(f"{path.name}: {error}") from error

    def write(self, path: Path) -> None:
        path.write_text(self.as_json(indent=2) + "\n", encoding="utf-8")

    def as_json(self, indent: int | None = None) -> str:
        """The file's text. Keys that are newer than the first version, which refuses what it does not know, stand there
        only if they say something: a checkpoint that does not use them is served by every version, under one digest.
        """
        values = asdict(self)
        if values["steps"] is not None and values["steps"].get("separator") is None:
            values["steps"].pop("separator", None)
        kept = {name: value for name, value in values.items() if value is not None or name not in NEWER}
        return json.dumps(kept, indent=indent, ensure_ascii=False)
