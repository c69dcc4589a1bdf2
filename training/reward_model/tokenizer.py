"""`tokenize`: the checkpoint's own byte-level BPE, trained on training text only, and the language-model text as ids.

The vocabulary is small on purpose: in a model of this size the embedding is a large share of the parameters, and the
language-model head a third of the pretraining's compute.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from service.scoring.reward_model import Encoder
from training.pipeline.config import Recipe
from training.pipeline.files import write_jsonl
from training.pipeline.records import read_problems, read_programs
from training.pipeline.run import Run
from training.reward_model.documents import documents_of, rows_of
from training.reward_model.template import CHAT_TEMPLATE, COMPLETION, END, PAD, PROMPT, spec


def tokenize(recipe: Recipe, run: Run) -> dict[str, object]:
    """Write `tokenizer/` and `text.jsonl`, the rows of `documents.rows_of`."""
    problems = read_problems(run.path("problems.jsonl"))
    documents, dropped = documents_of(recipe, problems, read_programs(run.path("programs.jsonl")))
    kinds = Counter(document.kind for document in documents)
    run.say(f"tokenize: {kinds['corpus']} functions ({dropped} dropped), {kinds['solution']} passing programs")
    tokenizer = train_tokenizer([document.prompt + document.completion for document in documents], recipe)
    tokenizer.save_pretrained(run.path("tokenizer"))
    num_tokens = 0

    def counted(rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        nonlocal num_tokens
        for row in rows:
            num_tokens += len(row["ids"])
            yield row

    rows = write_jsonl(run.path("text.jsonl"), counted(rows_of(documents, Encoder(tokenizer, spec(recipe)), recipe)))
    return {
        "functions": kinds["corpus"],
        "dropped_for_held_out": dropped,
        "solutions": kinds["solution"],
        "generated": kinds["generated"],
        "rows": rows,
        "tokens": num_tokens,
        "characters": sum(len(document.prompt) + len(document.completion) for document in documents),
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
