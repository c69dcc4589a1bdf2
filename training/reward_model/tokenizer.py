"""`tokenize`: the checkpoint's own byte-level BPE, trained on training text only, and the language-model text as ids.

The vocabulary is small on purpose: in a model of this size the embedding is a large share of the parameters, and the
language-model head a third of the pretraining's compute.
"""

from __future__ import annotations

import random
from typing import Any

from service.scoring.reward_model import Encoder
from training.data.corpus import corpus_functions
from training.data.decontaminate import HeldOut
from training.pipeline.config import Recipe
from training.pipeline.files import write_jsonl
from training.pipeline.records import read_problems, read_programs
from training.pipeline.run import Run
from training.reward_model.template import CHAT_TEMPLATE, COMPLETION, END, PAD, PROMPT, spec


def tokenize(recipe: Recipe, run: Run) -> dict[str, object]:
    """Write `tokenizer/` and `text.jsonl` (ids of every language-model document, prompt and completion apart)."""
    problems = read_problems(run.path("problems.jsonl"))
    held_out = HeldOut(problems.values(), recipe.split.ngram)
    functions, dropped = corpus_functions(recipe.data, held_out)
    train = [p for p in read_programs(run.path("programs.jsonl")) if problems[p.task_id].fold == "train"]
    passing = [p for p in train if p.pass_rate == 1.0]
    run.say(f"tokenize: {len(functions)} functions ({dropped} dropped), {len(passing)} passing programs")

    documents = [(f.prompt, f.completion, "corpus") for f in functions]
    documents += [(problems[p.task_id].prompt, p.completion, "solution") for p in passing]
    random.Random(recipe.seed).shuffle(documents)
    tokenizer = train_tokenizer([prompt + completion for prompt, completion, _ in documents], recipe)
    tokenizer.save_pretrained(run.path("tokenizer"))
    encoder = Encoder(tokenizer, spec(recipe))
    rows: list[dict[str, Any]] = []
    for prompt, completion, kind in documents:
        ids = encoder.encode(prompt, completion, "truncate_left").ids
        rows.append({"kind": kind, "ids": list(ids)})
    write_jsonl(run.path("text.jsonl"), rows)
    characters = sum(len(prompt) + len(completion) for prompt, completion, _ in documents)
    return {
        "functions": len(functions),
        "dropped_for_held_out": dropped,
        "solutions": len(passing),
        "tokens": sum(len(r["ids"]) for r in rows),
        "characters": characters,
    }


def train_tokenizer(texts: list[str], recipe: Recipe) -> Any:
    """A byte-level BPE over these texts, `tokenize.vocab_size` entries, with the template's special tokens first.

    Text is normalised and split as Qwen2's own tokenizer does it, because transformers 5 reads any tokenizer beside a
    Qwen2 config that way: every loader gives the same ids.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.tokenize.vocab_size,
        special_tokens=[PAD, PROMPT, COMPLETION, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        padding_side="right",
        model_max_length=recipe.fit.max_length,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast
