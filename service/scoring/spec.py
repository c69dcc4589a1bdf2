"""`reward_model.json`: what Hugging Face's own files do not say about a checkpoint."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from plaudit.errors import UsageError
from service.scoring.process_rewards import Steps

SPEC_FILE = "reward_model.json"
SPEC_FORMAT = 1
CHAT_TEMPLATE = "chat_template"


@dataclass(frozen=True, slots=True)
class Calibration:
    """Platt scaling: P(all tests pass) = sigmoid(a · score + b)."""

    a: float
    b: float

    def probability(self, score: float) -> float:
        logit = self.a * score + self.b
        return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))


@dataclass(frozen=True, slots=True)
class RewardModelSpec:
    """`reward_model.json`, the contract between training and serving.

    Attributes:
        template: text with `{prompt}` and `{completion}` once each, in this order, special tokens included; or
            "chat_template" for the tokenizer's own.
        max_length: longest text, in tokens.
        system: put before a conversation that has no system message.
        pooled: "last" token, or "steps", which `steps` describes.
        head: its name (`heads.py`).
        labels: the tokens for a good and for a bad step, if the head is the language model's own.
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
    labels: tuple[str, str] | None = None
    format: int = SPEC_FORMAT

    def __post_init__(self) -> None:
        if self.format != SPEC_FORMAT:
            raise UsageError(f"{SPEC_FILE}: format {self.format} is not supported; this version reads {SPEC_FORMAT}")
        if self.pooled not in ("last", "steps"):
            raise UsageError(f"{SPEC_FILE}: pooled {self.pooled!r}; known are 'last' and 'steps'")
        if (self.pooled == "steps") != (self.steps is not None):
            raise UsageError(f"{SPEC_FILE}: `steps` needs pooled 'steps', and pooled 'steps' needs `steps`")
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
            if values.get("labels") is not None:
                good, bad = values["labels"]
                values["labels"] = (str(good), str(bad))
            return cls(**values)
        except (TypeError, ValueError, AttributeError) as error:  # a value of another type
            raise UsageError(f"{path.name}: {error}") from error

    def write(self, path: Path) -> None:
        path.write_text(self.as_json(indent=2) + "\n", encoding="utf-8")

    def as_json(self, indent: int | None = None) -> str:
        return json.dumps(asdict(self), indent=indent, ensure_ascii=False)
