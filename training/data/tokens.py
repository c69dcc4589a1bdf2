"""Words and code tokens of a text, as folds and contamination compare them."""

from __future__ import annotations

import re

WORD = re.compile(r"[A-Za-z]+|\d+")
CODE = re.compile(r"[^\W\d]\w*|\d+|[^\w\s]")


def words_of(text: str) -> tuple[str, ...]:
    """The words and numbers of a text, lower case."""
    return tuple(WORD.findall(text.lower()))


def ngrams(text: str, n: int) -> set[tuple[str, ...]]:
    """Every run of `n` code tokens in the text."""
    tokens = CODE.findall(text)
    return {tuple(tokens[at : at + n]) for at in range(len(tokens) - n + 1)}
