"""Every kind of checkpoint that loads, as a tiny folder (`kind_makers.py`). docs/scoring.md shows this table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from support.kind_makers import (
    HIDDEN,
    Scores,
    adapter,
    attributes,
    decoder,
    encoder,
    gated,
    language_model,
    named_head,
    normalised,
    own_head,
    separated,
    shepherd,
    token_classifier,
    two_labels,
    two_labels_by_name,
    two_layers,
    value_head,
    value_head_file,
)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of checkpoint.

    Attributes:
        name: what it is.
        known: where it is known from.
        own: the class that scores it in the test.
        make: writes a folder, and returns how its own class scores.
        spec: what `reward_model.json` says beside the template and the limit; None: the file is not needed.
        path: what `--model` names.
    """

    name: str
    known: str
    own: str
    make: Callable[[Path], Scores]
    spec: str | None = None
    path: str = "{folder}"


JOINED = "{folder}/base+{folder}/adapter"
GENERIC = "the family's `…ForSequenceClassification`"
KINDS = [
    Kind("classifier of a decoder, one label", "TRL, Skywork-Reward, most of RewardBench", GENERIC, decoder("qwen2")),
    Kind(
        "the same, where the padding token closes the text",
        "Llama and Mistral models that have no padding token of their own",
        GENERIC,
        decoder("llama", closed=True, pad_token_id=2),
    ),
    Kind("the same, without a padding token", "GPT-2's family", GENERIC, decoder("mistral", pad_token_id=None)),
    Kind("classifier of a decoder, two labels: log-odds", "rerankers, verifiers", GENERIC, two_labels),
    Kind("the same, the good label first by its name", "verifiers", GENERIC, two_labels_by_name),
    Kind("classifier of a decoder, several labels", "SteerLM", GENERIC, attributes, "`weights`"),
    Kind(
        "decoder with a head of its own",
        "ModernBERT decoders",
        "`ModernBertDecoderForSequenceClassification`",
        own_head,
    ),
    Kind(
        "cross-encoder with token types",
        "ms-marco-MiniLM",
        "`BertForSequenceClassification`",
        encoder("Bert", types=True),
    ),
    Kind(
        "cross-encoder without token types",
        "tokenizers that give none",
        "`BertForSequenceClassification`",
        encoder("Bert"),
    ),
    Kind(
        "cross-encoder, two labels: log-odds",
        "monoBERT",
        "`BertForSequenceClassification`",
        encoder("Bert", types=True, num_labels=2),
    ),
    Kind(
        "cross-encoder of RoBERTa's kind",
        "bge-reranker",
        "`RobertaForSequenceClassification`",
        encoder("Roberta", type_vocab_size=1),
    ),
    Kind(
        "cross-encoder, first token pooled",
        "gte-reranker-modernbert",
        "`ModernBertForSequenceClassification`",
        encoder("ModernBert", classifier_pooling="cls"),
    ),
    Kind(
        "cross-encoder, mean of all tokens pooled",
        "ModernBERT",
        "`ModernBertForSequenceClassification`",
        encoder("ModernBert", classifier_pooling="mean"),
    ),
    Kind(
        "cross-encoder with relative positions",
        "mxbai-rerank",
        "`DebertaV2ForSequenceClassification`",
        encoder(
            "DebertaV2", type_vocab_size=0, relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=16
        ),
    ),
    Kind(
        "encoder and decoder, pooled at the closing token",
        "BART",
        "`BartForSequenceClassification`",
        encoder(
            "Bart",
            d_model=HIDDEN,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=48,
            decoder_ffn_dim=48,
            init_std=0.3,
            eos_token_id=2,
            bos_token_id=1,
            decoder_start_token_id=2,
        ),
    ),
    Kind(
        "the same with relative positions",
        "T5",
        "`MT5ForSequenceClassification`",
        encoder(
            "MT5",
            d_model=HIDDEN,
            d_kv=8,
            d_ff=48,
            num_layers=2,
            num_heads=4,
            eos_token_id=2,
            decoder_start_token_id=0,
        ),
    ),
    Kind("TRL's value head", "AceCodeRM", "the same sums in torch", value_head("v_head.summary")),
    Kind("the same in `value_head.safetensors` or `.bin`", "LLaMA-Factory", "the same sums in torch", value_head_file),
    Kind(
        "`v_head` or `value_head`",
        "OpenRLHF before its head was `score`",
        "the same sums in torch",
        value_head("value_head"),
    ),
    Kind(
        "the same with `mean` and `std`, if the config says `normalize_reward`",
        "OpenRLHF",
        "the same sums in torch",
        normalised,
    ),
    Kind("a head of any name", "`regression_head`", "the same sums in torch", named_head, "`head`"),
    Kind("two linear layers with a ReLU", "Qwen2.5-Math-RM", "the same sums in torch", two_layers),
    Kind("several outputs under a gating network", "ArmoRM", "its own forward, written out", gated),
    Kind(
        "logit of one token",
        "Nemotron-Reward, bge-reranker-v2-gemma",
        "`GemmaForCausalLM`",
        language_model("gemma", ["a"]),
        "`head`, `labels`",
    ),
    Kind(
        "the same under a soft cap",
        "Gemma 2",
        "`Gemma2ForCausalLM`",
        language_model("gemma2", ["a"], final_logit_softcapping=1.5),
        "`head`, `labels`",
    ),
    Kind(
        "log-odds of two tokens",
        "Qwen3-Reranker",
        "`Qwen3ForCausalLM`",
        language_model("qwen3", ["a", "b"], tie_word_embeddings=True),
        "`head`, `labels`",
    ),
    Kind(
        "steps at a token, two labels",
        "Qwen2.5-Math-PRM, TRL",
        "`Qwen2ForTokenClassification`",
        token_classifier,
        "`pooled`, `steps`",
    ),
    Kind(
        "steps at the end of a text",
        "TRL's `PRMTrainer`, Skywork-o1-PRM",
        "`Qwen2ForTokenClassification`",
        separated,
        "`pooled`, `steps`",
    ),
    Kind(
        "steps, log-odds of two tokens",
        "Math-Shepherd",
        "`LlamaForCausalLM`",
        shepherd,
        "`head`, `labels`, `pooled`, `steps`",
    ),
    Kind("LoRA adapter with a head, on its base", "TRL, PEFT", "peft's, unmerged", adapter("SEQ_CLS"), path=JOINED),
    Kind(
        "the same with a value head in a file", "LLaMA-Factory", "peft's, unmerged", adapter("CAUSAL_LM"), path=JOINED
    ),
    Kind(
        "the same as DoRA, rank-stabilised",
        "PEFT",
        "peft's, unmerged",
        adapter("SEQ_CLS", use_dora=True, use_rslora=True),
        path=JOINED,
    ),
]
