"""Derives the spec of a checkpoint without `reward_model.json` from its other files."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING

from plaudit.errors import UsageError
from service.scoring import chat_template, heads
from service.scoring.checkpoint import Tensors, read_config
from service.scoring.own_class import is_sequence_classifier
from service.scoring.process_rewards import Steps
from service.scoring.spec import CHAT_TEMPLATE, LAST_NON_PAD, SPEC_FILE, Gating, RewardModelSpec

PAIRS = (("a", "b"), ("two words", "x = f(1)\n    return x\n"), (" blanks around ", "\ttab \n\n"), ("Ünï 漢", "É"))
PROBE = "PROMPT"
UNLIMITED = 10**9  # transformers' value for a tokenizer without a limit is larger
OFFSET_POSITIONS = frozenset(  # begin behind the pad
    (
        *("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "longformer", "data2vec-text"),
        *("roberta-prelayernorm", "esm", "ibert"),
    )
)


def derive(folder: Path, tokenizer: Any) -> RewardModelSpec:
    """The spec that a checkpoint's own files give. Raises `UsageError` if they do not say enough."""
    config = read_config(folder)
    tensors = Tensors(folder)
    has_own_class = is_sequence_classifier(config)
    head = heads.find(tensors, has_own_class=has_own_class)
    if getattr(tokenizer, "chat_template", None):
        template = CHAT_TEMPLATE
    elif head == heads.CLASSIFIER:
        template = pair_template(folder, tokenizer)
    else:
        raise UsageError(f"{folder}: neither {SPEC_FILE} nor a chat template, so the template of the text is unknown")
    steps = _derived_steps(folder, config, tokenizer)
    limits = [_positions(config), getattr(tokenizer, "model_max_length", None)]
    max_length = min((int(limit) for limit in limits if limit and limit < UNLIMITED), default=None)
    if max_length is None:
        raise UsageError(
            f"{folder}: no {SPEC_FILE} and no limit in the other files, so the longest text is unknown: "
            f"write {SPEC_FILE} with max_length"
        )
    pad = _pooling_pad(config, tokenizer) if head == "score" and has_own_class else None
    spec = RewardModelSpec(
        template=template,
        max_length=max_length,
        architecture=str((config.get("architectures") or ["unknown"])[0]),
        head=head,
        pooled="steps" if steps else "last" if pad is None else LAST_NON_PAD,
        pad=pad,
        steps=steps,
    )
    if head == heads.GATED:
        return replace(spec, gating=_derived_gating(folder, config, tokenizer, spec))
    return spec if steps else replace(spec, weights=_derived_weights(folder, config, tensors, head))


def _positions(config: dict[str, Any]) -> int | None:
    """The longest text that the model has positions for, by whichever name its class gives to that."""
    text = config.get("text_config") or config
    kind = text.get("model_type")
    named: dict[str, str] = CONFIG_MAPPING[kind].attribute_map if kind in CONFIG_MAPPING else {}
    positions = text.get(named.get("max_position_embeddings", "max_position_embeddings")) or text.get("max_seq_len")
    if not positions:
        return None
    if kind in OFFSET_POSITIONS:
        return int(positions) - int(text.get("pad_token_id", 1)) - 1
    if kind == "mpnet":  # its table begins behind id 1, whatever the pad is
        return int(positions) - 2
    return int(positions)


def _pooling_pad(config: dict[str, Any], tokenizer: Any) -> str | None:
    """The token that transformers' classifiers of sequences pass over at the end: they pool the last one that is not
    `pad_token_id` (`GenericForSequenceClassification`), which may be the token that closes every text."""
    pad_id = (config.get("text_config") or config).get("pad_token_id")
    token = None if pad_id is None or int(pad_id) < 0 else tokenizer.convert_ids_to_tokens(int(pad_id))
    return token if token in tokenizer.get_vocab() else None


def _derived_weights(folder: Path, config: dict[str, Any], tensors: Tensors, head: str) -> tuple[float, ...] | None:
    """What each output of the head counts. Raises `UsageError` if that is unknown."""
    names = config.get("id2label") or {}
    if head == heads.CLASSIFIER:
        num_labels = int(config.get("num_labels") or len(names) or 2)  # transformers' default
    else:
        outputs = [
            tensors.shape(name)[0] for name in tensors if re.fullmatch(rf"{re.escape(head)}(\.\d+)?\.weight", name)
        ]
        num_labels = outputs[-1] if len(outputs) == 1 else min(outputs, default=1)
    labels = [str(names.get(str(at), f"LABEL_{at}")) for at in range(num_labels)]
    return heads.label_weights(folder, labels)


def _derived_gating(folder: Path, config: dict[str, Any], tokenizer: Any, spec: RewardModelSpec) -> Gating:
    """ArmoRM's gating network, which reads where the prompt ends: at the text between prompt and completion."""
    head_text = str(
        tokenizer.apply_chat_template(
            [{"role": "user", "content": PROBE}],
            chat_template=chat_template.pinned(tokenizer, spec),
            tokenize=False,
            add_generation_prompt=True,
        )
    )
    between = head_text[head_text.rfind(PROBE) + len(PROBE) :] if PROBE in head_text else ""
    if not between:
        raise UsageError(f"{folder}: the chat template puts nothing between prompt and completion; write {SPEC_FILE}")
    return Gating(at=between, temperature=float(config.get("gating_temperature") or 10.0))


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
    after = template.split("{completion}")[1]
    for prompt, completion in PAIRS:
        text = template.replace("{completion}", completion).replace("{prompt}", prompt)
        joined = tokenizer(prompt, completion)
        if tokenizer(text, add_special_tokens=False)["input_ids"] != joined["input_ids"]:
            raise unclear
        first = len(tokenizer(text[: len(text) - len(after) - len(completion)], add_special_tokens=False)["input_ids"])
        types = [int(at >= first) for at in range(len(joined["input_ids"]))]
        if joined.get("token_type_ids", types) not in (types, [0] * len(types)):
            raise UsageError(
                f"{folder}: the token types that its tokenizer gives two texts are not 0 and 1; not supported"
            )
    return template
