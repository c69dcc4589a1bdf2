"""Checkpoints of Qwen2's shape with random weights, by layers and width; their text is numbers, one token each."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from service.scoring.reward_model import RewardModelSpec

VOCABULARY = 8192
# layers, width: 17 million parameters with their embeddings, and 42 million
SHAPES = {"17M": (8, 384), "42M": (12, 512)}


def write_random(folder: Path, layers: int, width: int, limit: int = 2048) -> Path:
    """A checkpoint folder that takes `limit` tokens; answers it."""
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 128,
        max_position_embeddings=limit,
        num_labels=1,
        pad_token_id=0,
    )
    model = transformers.Qwen2ForSequenceClassification(config)
    torch.nn.init.normal_(model.score.weight, std=0.05)
    model.save_pretrained(folder)
    write_tokenizer(folder)
    spec = RewardModelSpec("{prompt}{completion}", limit, "Qwen2ForSequenceClassification")
    spec.write(folder / "reward_model.json")
    return folder


def write_tokenizer(folder: Path) -> None:
    """A number is a token; blanks stand between them."""
    vocabulary = {str(at) if at else "<pad>": at for at in range(VOCABULARY)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>").save_pretrained(folder)
