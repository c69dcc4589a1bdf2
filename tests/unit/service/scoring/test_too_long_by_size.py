"""A text that is too long by its size alone is not tokenised, and nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from plaudit.errors import TooLong
from service.scoring.encoder import Encoder
from service.scoring.tokenizer import longest_token
from service.settings import bundled_checkpoint
from support.checkpoints import checkpoint

TEXTS = ("a", "the quick brown fox ", "é", "e\u0301", "\u1112\u1161\u11ab", "😀", " ", "\n", "0", "<|end|>", "日本語")


@pytest.fixture(scope="module", params=["tiny", "bundled"])
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    folder: Path = checkpoint(tmp_path_factory.mktemp("tiny")) if request.param == "tiny" else bundled_checkpoint()
    return Encoder.load(folder)


def test_no_text_has_fewer_tokens_than_its_size_says(encoder: Encoder) -> None:
    longest = longest_token(encoder.tokenizer)
    assert longest is not None
    for text in TEXTS:
        whole = text * 500
        assert len(encoder._ids(whole)) * longest >= encoder._num_bytes(whole)


@pytest.mark.parametrize("text", TEXTS)
def test_the_same_texts_are_too_long_with_and_without_the_bound(encoder: Encoder, text: str) -> None:
    exact = Encoder(encoder.tokenizer, encoder.spec)
    exact._max_bytes = None
    for size in (1, 300, 4000):
        completions = [text * size, "x"]
        for prompt in ("p", text * size, None):
            groups = [one.encode_group(prompt, completions) for one in (encoder, exact)]
            kinds = [[TooLong if isinstance(entry, TooLong) else entry for entry in group] for group in groups]
            assert kinds[0] == kinds[1]


def test_a_text_that_is_too_long_by_its_size_is_not_tokenised(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ids(text: str) -> Any:
        assert len(text) < 100_000
        return encoder.tokenizer.encode(text, add_special_tokens=False)

    monkeypatch.setattr(encoder, "_ids", ids)
    for prompt, completion in (("p", "word " * 400_000), ("word " * 400_000, "c")):
        (entry,) = encoder.encode_group(prompt, [completion])
        assert isinstance(entry, TooLong)
        assert entry.detail.startswith("at least ")
        assert entry.tokens > entry.limit
