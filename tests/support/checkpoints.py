"""A tiny random reward model as a checkpoint folder, made in a moment: the text is real, the weights mean nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForSequenceClassification,
)

from service.scoring.reward_model import RewardModelSpec
from support.decoders import classifier

TEMPLATE = "<|prompt|>{prompt}<|completion|>{completion}<|end|>"
CHAT = (
    "{{ '<s>' }}{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
SPECIAL = ["<|pad|>", "<s>", "<|end|>", "<|prompt|>", "<|completion|>", "<|system|>", "<|user|>", "<|assistant|>"]


def write_tokenizer(
    folder: Path, *, pad: str = "<|pad|>", side: str = "right", chat: bool = True, limit: int = 256
) -> None:
    """A byte-level BPE tokenizer that, asked for special tokens, adds a BOS of its own: the double-BOS trap."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([Path(__file__).read_text(encoding="utf-8")], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="<|end|>",
        pad_token=pad,
        padding_side=side,
        model_max_length=limit,
    )
    if chat:
        fast.chat_template = CHAT
    fast.save_pretrained(folder)


def write_model(folder: Path, kind: str = "qwen2", pad_token_id: int | None = 0, *, seed: int = 7) -> None:
    """Random weights from a fixed seed, with a head large enough that scores differ."""
    torch.manual_seed(seed)
    shape = {
        "vocab_size": 400,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "num_labels": 1,
        "pad_token_id": pad_token_id,
    }
    model: Any
    if kind == "llama":
        model = LlamaForSequenceClassification(LlamaConfig(**shape))
    else:
        model = Qwen2ForSequenceClassification(Qwen2Config(**shape))
    torch.nn.init.normal_(model.score.weight)
    model.save_pretrained(folder)


def write_family(
    folder: Path, family: str, *, positions: int = 256, shape: dict[str, Any] | None = None, **save: Any
) -> Path:
    """Weights of one of the families of `decoders`, config and tokenizer as the hub has them: nothing of ours."""
    write_tokenizer(folder, limit=positions)
    model = classifier(family, vocab_size=400, max_position_embeddings=positions, **shape or {})
    model.save_pretrained(folder, **save)
    return folder


def checkpoint(
    folder: Path, *, kind: str = "qwen2", pad: str = "<|pad|>", side: str = "right", seed: int = 7, **spec: Any
) -> Path:
    """Write a checkpoint; `spec` changes its `reward_model.json`. Answers the folder."""
    write_tokenizer(folder, pad=pad, side=side)
    write_model(folder, kind, pad_token_id=SPECIAL.index(pad), seed=seed)
    values = {"template": TEMPLATE, "max_length": 256, "architecture": "tiny", **spec}
    RewardModelSpec(**values).write(folder / "reward_model.json")
    return folder


def write_golden(folder: Path) -> Path:
    """The golden set that the checkpoint's spec names, with the scores that its weights have here; the folder."""
    from service.scoring.reward_model import RewardModel

    model = RewardModel.load(folder, deterministic=True)
    assert model.spec.golden is not None
    rows = []
    for prompt, completion in (("add", "a + b"), ("subtract one number from another", "a - b"), ("", "pass")):
        encoded = model.encode(prompt, completion)
        (score,) = model.score([encoded])
        rows.append({"prompt": prompt, "completion": completion, "tokens": len(encoded.ids), "score": score})
    (folder / model.spec.golden).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
