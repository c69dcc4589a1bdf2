"""A pretrained checkpoint to fit (`fit.base`): its encoder, its weights under a new head, its checks, and its files."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

from plaudit.errors import UsageError
from service.scoring.checkpoint import check_length, check_vocabulary, quiet, read_config
from service.scoring.derive_spec import pair_template
from service.scoring.encoder import Encoder
from service.scoring.heads import CLASSIFIER
from service.scoring.spec import CHAT_TEMPLATE, RewardModelSpec
from service.scoring.tokenizer import load_tokenizer
from training.pipeline.config import Recipe
from training.pipeline.files import write_text
from training.pipeline.run import Run

OPTIONAL_WEIGHTS = ("score.", "classifier.", "pooler.")  # the head, which a base may lack
TOKENIZER_FILES = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "*.spm",
    "*.tiktoken",
    "chat_template*",
)


def encoder_of(recipe: Recipe, base: Path) -> Encoder:
    """The encoder of the checkpoint that is fitted from this base. Raises `UsageError` for an unusable template."""
    settings = recipe.fit
    tokenizer = load_tokenizer(base)
    is_encoder = None not in (tokenizer.cls_token_id, tokenizer.sep_token_id)  # BERT's two texts
    template = settings.template
    if not template and is_encoder:
        template = pair_template(base, tokenizer)
    elif not template:
        template = CHAT_TEMPLATE if tokenizer.chat_template else _plain(tokenizer)
    origin = Path(settings.base).name if Path(settings.base).is_dir() else settings.base  # no path of this machine
    family = str((read_config(base).get("architectures") or ["unknown"])[0])
    try:
        spec = RewardModelSpec(
            template=template,
            max_length=settings.max_length,
            architecture=family,
            system=settings.system or None,
            date=settings.date or None,
            golden="golden.jsonl",
            provenance=f"fitted from {origin}",
            head=CLASSIFIER if is_encoder else "score",
        )
        return Encoder(tokenizer, spec)
    except UsageError as error:
        raise UsageError(f"fit.template, fit.system and fit.date: {error}") from error


def _plain(tokenizer: Any) -> str:
    """Prompt and completion as they are, between the tokens with which the tokenizer opens and closes a text."""
    opens = tokenizer.bos_token_id is not None and tokenizer.encode("a")[0] == tokenizer.bos_token_id
    return f"{tokenizer.bos_token if opens else ''}{{prompt}}{{completion}}{tokenizer.eos_token or ''}"


def load_base(base: Path) -> Any:
    """The base in float32 under a head of one number, drawn by torch's generator where the base has none.

    Raises `UsageError` if any other weight is missing: transformers would fill it with random numbers.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    with quiet():
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            base, num_labels=1, dtype=torch.float32, output_loading_info=True
        )
    if missing := sorted(
        name for name in loading["missing_keys"] if not any(part in name for part in OPTIONAL_WEIGHTS)
    ):
        raise UsageError(f"{base}: weights are missing from the checkpoint: {', '.join(missing[:5])}")
    model.config.use_cache = False
    return model


def check_base(base: Path, model: Any, encoder: Encoder) -> None:
    """Check before the fit what the service would reject after it. Raises `UsageError`."""
    check_vocabulary(base, encoder.tokenizer, model.get_input_embeddings().num_embeddings)
    try:
        check_length(base, model, encoder.spec.max_length)
    except UsageError as error:
        raise UsageError(f"fit.max_length: {error}") from error


def pad_token(tokenizer: Any, last_ids: set[int]) -> str:
    """The tokenizer's own padding, or the first of its special tokens that closes no text.

    Transformers' classifiers pool the last token that is not padding: a text that ends in the padding token would be
    pooled one token early.

    Args:
        tokenizer: of the base.
        last_ids: the last token ids of all texts.

    Raises:
        UsageError: every special token closes a text.
    """
    for token in (tokenizer.pad_token, tokenizer.unk_token, tokenizer.bos_token, *tokenizer.all_special_tokens):
        if token is not None and tokenizer.convert_tokens_to_ids(token) not in last_ids:
            return str(token)
    raise UsageError(
        "every special token of the base closes a text, so none can pad: end fit.template in another token"
    )


def write_checkpoint(run: Run, base: Path, model: Any, encoder: Encoder, pad: str, dtype: str = "float32") -> None:
    """Write `checkpoint/`: this model, the base's own tokenizer files with `pad` in them, and the encoder's spec.

    Args:
        run: the run folder.
        base: whose tokenizer files are copied.
        model: its weights are cast to `dtype` in place.
        encoder: its spec is written.
        pad: the padding token.
        dtype: of the weights in the file: float32 or bfloat16.
    """
    import torch

    model.to(getattr(torch, dtype))
    folder = run.path("checkpoint/config.json").parent
    shutil.rmtree(folder)
    folder.mkdir()
    model.config.pad_token_id = encoder.tokenizer.convert_tokens_to_ids(pad)
    model.save_pretrained(folder)
    for file in {file for pattern in TOKENIZER_FILES for file in base.glob(pattern)}:
        shutil.copyfile(file, folder / file.name)
    path = folder / "tokenizer_config.json"
    values = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if values.get("pad_token") != pad:
        write_text(path, json.dumps({**values, "pad_token": pad}, indent=2, ensure_ascii=False) + "\n")
    dataclasses.replace(encoder.spec, architecture=type(model).__name__).write(folder / "reward_model.json")
