"""Derives the spec of a checkpoint without `reward_model.json` from its other files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from plaudit.errors import UsageError
from service.scoring import heads
from service.scoring.checkpoint import Tensors, read_config
from service.scoring.process_rewards import Steps
from service.scoring.spec import CHAT_TEMPLATE, SPEC_FILE, RewardModelSpec

PAIRS = (("a", "b"), ("two words", "x = f(1)\n    return x\n"), (" blanks around ", "\ttab \n\n"), ("Ünï 漢", "É"))
UNLIMITED = 10**9  # transformers' value for a tokenizer without a limit is larger
OFFSET_POSITIONS = frozenset({"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet"})  # begin behind the pad


def derive(folder: Path, tokenizer: Any) -> RewardModelSpec:
    """The spec that a checkpoint's own files give. Raises `UsageError` if they do not say enough."""
    config = read_config(folder)
    head = heads.find(Tensors(folder))
    if head == heads.CLASSIFIER:
        template = pair_template(folder, tokenizer)
    elif getattr(tokenizer, "chat_template", None):
        template = CHAT_TEMPLATE
    else:
        raise UsageError(f"{folder}: neither {SPEC_FILE} nor a chat template, so the template of the text is unknown")
    steps = _derived_steps(folder, config, tokenizer)
    positions = config.get("max_position_embeddings")
    if positions and config.get("model_type") in OFFSET_POSITIONS:
        positions -= config.get("pad_token_id", 1) + 1
    limits = [positions, getattr(tokenizer, "model_max_length", None)]
    max_length = min((int(limit) for limit in limits if limit and limit < UNLIMITED), default=None)
    if max_length is None:
        raise UsageError(f"{folder}: no {SPEC_FILE} and no limit in the other files, so the longest text is unknown")
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
    """The steps of a process reward model, by its own files. Raises `UsageError` if they do not say enough."""
    architecture = str((config.get("architectures") or [""])[0])
    if architecture == "Qwen2ForProcessRewardModel" and "<extra_0>" in tokenizer.get_vocab():
        return Steps(token="<extra_0>", split="\n\n")  # as its model card puts them together
    if "ProcessRewardModel" in architecture or "TokenClassification" in architecture:
        raise UsageError(f"{folder}: scores tokens, and its files do not say which; write `steps` into {SPEC_FILE}")
    return None


def pair_template(folder: Path, tokenizer: Any) -> str:
    """How an encoder's tokenizer joins two texts, as a template: "[CLS]{prompt}[SEP]{completion}[SEP]".

    Raises `UsageError` if the tokenizer encodes a pair in another way than that template.
    """
    left, right = "a", "b"
    pair = tokenizer(left, right)["input_ids"]
    alone = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (left, right)]
    special = set(tokenizer.all_special_ids)
    unclear = UsageError(f"{folder}: how its tokenizer joins two texts cannot be derived; write {SPEC_FILE}")
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
