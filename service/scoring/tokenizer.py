"""Loads the tokenizer of a checkpoint, and knows where its texts may be cut. No torch is imported here."""

from __future__ import annotations

import importlib.util
import json
import logging
from pathlib import Path
from typing import Any

from plaudit.errors import UsageError
from service.scoring.foreign_errors import one_line

log = logging.getLogger("plaudit.score")

# The models of tokenizers without a tokenizer.json; all of them need the package sentencepiece.
SENTENCEPIECE = ("spm.model", "spiece.model", "sentencepiece*.model", "tokenizer.model")


def token_id(tokenizer: Any, token: str) -> int:
    """The id of a vocabulary entry. Raises `UsageError` if there is no such entry."""
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    if token not in vocabulary:
        raise UsageError(f"{token!r} is not a token of this tokenizer")
    return vocabulary[token]


def longest_token(tokenizer: Any) -> int | None:
    """How many bytes of a text one token can stand for at most; None if that is not known for this tokenizer.

    It is known if every byte of the text, or of its NFC form, ends up in a token: byte-level tokens, and nothing before
    them that removes characters.
    """
    from tokenizers.pre_tokenizers import ByteLevel

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    pipeline = json.loads(backend.to_str())
    steps = pipeline["pre_tokenizer"] or {}
    kinds = [step["type"] for step in steps.get("pretokenizers") or [steps] if step]
    added = pipeline["added_tokens"]
    normalizer, model = pipeline["normalizer"], pipeline["model"]
    if normalizer is not None and normalizer["type"] != "NFC":
        return None
    if "ByteLevel" not in kinds or not set(kinds) <= {"ByteLevel", "Split", "Digits"}:
        return None
    if any(step.get("behavior") == "Removed" for step in steps.get("pretokenizers") or [steps]):
        return None
    if any(token["lstrip"] or token["rstrip"] for token in added):
        return None
    if model["type"] != "BPE" or not set(ByteLevel.alphabet()) <= model["vocab"].keys():
        return None
    # A character of the vocabulary stands for one byte.
    return max(*map(len, model["vocab"]), *(len(token["content"].encode()) for token in added))


def seams(tokenizer: Any) -> tuple[str, ...]:
    """Special tokens at which a text may be cut so that ids(left) + ids(right) == ids(left + right), for any right.

    True for a token that the tokenizer splits off the raw text first (not normalised, without neighbouring blanks, not
    part of another added token), if every later step treats the pieces on their own: no step may add a prefix to the
    first piece of a text. Tokens for which that is not known are not used.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return ()
    pipeline = json.loads(backend.to_str())
    if not (_piecewise(pipeline["normalizer"]) and _piecewise(pipeline["pre_tokenizer"])):
        return ()
    added = pipeline["added_tokens"]
    plain = [
        token["content"]
        for token in added
        if token["special"] and not (token["normalized"] or token["lstrip"] or token["rstrip"] or token["single_word"])
    ]
    return tuple(token for token in plain if sum(token in other["content"] for other in added) == 1)


def _piecewise(step: dict[str, Any] | None) -> bool:
    if step is None:
        return True
    if step["type"] == "Sequence":
        return all(_piecewise(part) for part in step.get("normalizers") or step.get("pretokenizers") or [])
    if step["type"] == "ByteLevel":
        return not step.get("add_prefix_space")
    return step["type"] in {"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Split", "Digits", "Punctuation"}


def load_tokenizer(folder: Path, **settings: Any) -> Any:
    """The tokenizer in this folder, by its `tokenizer.json` if it has one. Training and serving both load it here.

    For some model types (Qwen2 is one) transformers 5 takes only the vocabulary from that file, puts the family's own
    normaliser and pre-tokenizer around it, and adds the family's special tokens. A checkpoint whose tokenizer was made
    otherwise then silently gets other ids than it was trained on, or ids beyond its embeddings. If the two differ, the
    file is used.

    Args:
        folder: of the checkpoint.
        settings: passed to transformers.

    Raises:
        UsageError: the tokenizer cannot be read, or its vocabulary is empty.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    settings |= {"trust_remote_code": False, "local_files_only": True}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **settings)
    except Exception as error:  # whatever the package of a tokenizer raises
        raise UsageError(f"{folder}: no loadable tokenizer: {_what_is_missing(folder) or one_line(error)}") from error
    if not set(tokenizer.get_vocab()) - set(tokenizer.get_added_vocab()):
        raise UsageError(f"{folder}: no loadable tokenizer: its vocabulary is empty")
    path = folder / "tokenizer.json"
    backend = getattr(tokenizer, "backend_tokenizer", None)  # a tokenizer in Python has none
    if backend is None or not path.is_file() or _shape(backend) == _shape(_without_vocabulary(path)):
        return tokenizer
    log.info("%s: the pipeline of tokenizer.json, not that of %s", folder.name, type(tokenizer).__name__)
    return PreTrainedTokenizerFast.from_pretrained(folder, **settings)


def _what_is_missing(folder: Path) -> str | None:
    """The package without which this folder's tokenizer cannot be read; transformers may name another one."""
    models = sorted(file.name for pattern in SENTENCEPIECE for file in folder.glob(pattern))
    if not models or (folder / "tokenizer.json").is_file() or importlib.util.find_spec("sentencepiece") is not None:
        return None
    return f"{models[0]} is a SentencePiece model; pip install 'plaudit-server[sentencepiece]'"


def _shape(backend: Any) -> tuple[Any, ...]:
    """What decides ids beside the vocabulary: the steps before it, and the tokens that are split off before them."""
    steps = (backend.normalizer, backend.pre_tokenizer)
    added = {token.content for token in backend.get_added_tokens_decoder().values()}
    return (*(b"" if step is None else step.__getstate__() for step in steps), added)


def _without_vocabulary(path: Path) -> Any:
    """A `tokenizer.json` with a minimal vocabulary: building the whole one takes long."""
    from tokenizers import Tokenizer

    whole: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    rest = dict.fromkeys(("truncation", "padding", "post_processor", "decoder"))
    added = [token | {"id": index} for index, token in enumerate(whole.get("added_tokens") or [])]
    minimal = {"type": "WordLevel", "vocab": {token["content"]: token["id"] for token in added}, "unk_token": ""}
    kept = {name: whole.get(name) for name in ("version", "normalizer", "pre_tokenizer")}
    return Tokenizer.from_str(json.dumps(kept | rest | {"added_tokens": added, "model": minimal}))
