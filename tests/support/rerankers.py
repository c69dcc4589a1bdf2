"""A tiny cross-encoder of random weights, as a checkpoint folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from support.checkpoints import checkpoint


def cross_encoder(folder: Path, **spec: Any) -> Any:
    """A BERT cross-encoder with the WordPiece tokenizer that comes with it; answers the plain model."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    words = [*special, *"abcdefghijklmnopqrstuvwxyz", *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz")]
    tokenizer = Tokenizer(models.WordPiece({word: at for at, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    usual = {"head": "classifier", "template": "[CLS]{prompt}[SEP]{completion}[SEP]", "max_length": 64}
    checkpoint(folder, **usual | spec)
    for file in (*folder.glob("tokenizer*"), *folder.glob("chat_template*")):
        file.unlink()
    BertTokenizerFast(tokenizer_object=tokenizer, model_max_length=64).save_pretrained(folder)
    torch.manual_seed(7)
    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=len(words),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_labels=1,
            max_position_embeddings=64,
            initializer_range=0.3,
        )
    ).eval()
    model.save_pretrained(folder)
    return model
