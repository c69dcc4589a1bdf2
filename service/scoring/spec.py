"""`reward_model.json`: the part of a checkpoint that Hugging Face's own files do not say."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from plaudit.errors import UsageError
from service.scoring.process_rewards import Steps

SPEC_FILE = "reward_model.json"
SPEC_FORMAT = 1
CHAT_TEMPLATE = "chat_template"
PAIRS = (("a", "b"), ("two words", "x = f(1)\n    return x\n"), (" blanks around ", "\ttab \n\n"), ("Ünï 漢", "É"))
UNLIMITED = 10**9  # transformers' word for a tokenizer that names no limit is larger
OFFSET_POSITIONS = frozenset({"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet"})  # begin behind the pad


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
    """`reward_model.json`, the part of a checkpoint that Hugging Face's own files do not say.

    `template`: text with `{prompt}` and `{completion}` once each, in this order, special tokens included; or the word
    "chat_template" for the tokenizer's own. `system` is put before a conversation that has no system message.
    `pooled`: "last" token, or "steps", which `steps` describes. `labels`: where the head is the language model's own,
    the tokens for a good step and for a bad one.
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
            raise UsageError(f"{SPEC_FILE}: format {self.format}, and this version reads {SPEC_FORMAT}")
        if self.pooled not in ("last", "steps"):
            raise UsageError(f"{SPEC_FILE}: pooled {self.pooled!r}; known are 'last' and 'steps'")
        if (self.pooled == "steps") != (self.steps is not None):
            raise UsageError(f"{SPEC_FILE}: `steps` goes with pooled 'steps', and with nothing else")
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
        try:
            values: Any = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UsageError(f"{path}: no JSON: {error}") from error
        if not isinstance(values, dict):
            raise UsageError(f"{path}: no JSON object")
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
        except (TypeError, ValueError, AttributeError) as error:  # a number where there should be a text, and the like
            raise UsageError(f"{path.name}: {error}") from error

    def write(self, path: Path) -> None:
        path.write_text(self.as_json(indent=2) + "\n", encoding="utf-8")

    def as_json(self, indent: int | None = None) -> str:
        return json.dumps(asdict(self), indent=indent, ensure_ascii=False)


def derive(folder: Path, tokenizer: Any) -> RewardModelSpec:
    """What the files of a checkpoint of others say. Raises `UsageError` where that is too little."""
    from service.scoring import heads
    from service.scoring.checkpoint import Tensors, read_config

    config = read_config(folder)
    head = heads.find(Tensors(folder))
    if head == heads.CLASSIFIER:
        template = pair_template(folder, tokenizer)
    elif getattr(tokenizer, "chat_template", None):
        template = CHAT_TEMPLATE
    else:
        raise UsageError(f"{folder}: neither {SPEC_FILE} nor a chat template: nothing says how to write the text")
    steps = _derived_steps(folder, config, tokenizer)
    positions = config.get("max_position_embeddings")
    if positions and config.get("model_type") in OFFSET_POSITIONS:
        positions -= config.get("pad_token_id", 1) + 1
    limits = [positions, getattr(tokenizer, "model_max_length", None)]
    max_length = min((int(limit) for limit in limits if limit and limit < UNLIMITED), default=None)
    if max_length is None:
        raise UsageError(f"{folder}: no {SPEC_FILE}, and nothing says how long a text may be")
    architecture = str((config.get("architectures") or ["unknown"])[0])
    return RewardModelSpec(
        template=template,
        max_length=max_length,
        architecture=architecture,
        head=head,
        pooled="steps" if steps else "last",
        steps=steps,
    )


def _derived_steps(folder: Path, config: dict[str, Any], tokenizer: Any) -> Steps | None:
    """What a process reward model's own files say of its steps. Raises `UsageError` where they say too little."""
    architecture = str((config.get("architectures") or [""])[0])
    if architecture == "Qwen2ForProcessRewardModel" and "<extra_0>" in tokenizer.get_vocab():
        return Steps(token="<extra_0>", split="\n\n")  # as its model card puts them together
    if "ProcessRewardModel" in architecture or "TokenClassification" in architecture:
        raise UsageError(f"{folder}: scores tokens, and nothing says which; write `steps` into {SPEC_FILE}")
    return None


def pair_template(folder: Path, tokenizer: Any) -> str:
    """How an encoder's tokenizer joins two texts, as a template: "[CLS]{prompt}[SEP]{completion}[SEP]".

    Raises `UsageError` where a text of that template is not what the tokenizer makes of a pair.
    """
    left, right = "a", "b"
    pair = tokenizer(left, right)["input_ids"]
    alone = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (left, right)]
    special = set(tokenizer.all_special_ids)
    unclear = UsageError(f"{folder}: how its tokenizer joins two texts cannot be read off; write {SPEC_FILE}")
    if [at for at in pair if at not in special] != alone[0] + alone[1]:
        raise unclear
    sides = iter(["{prompt}"] * len(alone[0]) + ["{completion}"] * len(alone[1]))
    parts = [tokenizer.convert_ids_to_tokens(at) if at in special else next(sides) for at in pair]
    template = re.sub(r"({\w+})\1+", r"\1", "".join(parts))  # a letter may be two tokens
    if "{prompt}{completion}" in template:  # tokens of one text where there were two
        raise unclear
    for prompt, completion in PAIRS:
        text = template.replace("{completion}", completion).replace("{prompt}", prompt)
        if tokenizer(text, add_special_tokens=False)["input_ids"] != tokenizer(prompt, completion)["input_ids"]:
            raise unclear
    return template
