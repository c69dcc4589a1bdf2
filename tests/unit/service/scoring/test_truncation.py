"""Texts cut as other servers cut them, against Hugging Face's own tokenizers and forward."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from plaudit.errors import Invalid, TooLong
from service.jobs import TokenIds, Truncation
from service.scoring.encoder import Encoded
from service.scoring.reward_model import RewardModel
from support.checkpoints import TEMPLATE, checkpoint, write_family
from support.rerankers import cross_encoder

LONG = " ".join(["filler about nothing in particular"] * 40)
SIDES = ["right", "left"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> tuple[RewardModel, Any, Any]:
    """The model, Hugging Face's tokenizer, and its forward."""
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("bert")
    plain = cross_encoder(folder)
    return RewardModel.load(folder), AutoTokenizer.from_pretrained(folder), plain


@pytest.fixture(scope="module", params=["text", "chat"])
def decoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RewardModel:
    folder = tmp_path_factory.mktemp("decoder")
    return RewardModel.load(checkpoint(folder) if request.param == "text" else write_family(folder, "qwen2"))


def encode(model: RewardModel, prompt: Any, completion: Any, truncation: Truncation) -> Encoded | TooLong:
    return model.encode_group(prompt, [completion], truncation)[0]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("query", ["what is two", "how to boil an egg", ""])
@pytest.mark.parametrize("limit", [None, 40, 20])
def test_a_pair_is_cut_as_only_second_cuts_it(bert: Any, side: Any, query: str, limit: int | None) -> None:
    model, tokenizer, plain = bert
    encoded = encode(model, query, LONG, Truncation("completion", side, limit))
    assert isinstance(encoded, Encoded)
    tokenizer.truncation_side = side
    pair = tokenizer(query, LONG, truncation="only_second", max_length=limit or 64, return_tensors="pt")
    assert encoded.ids == tuple(pair["input_ids"][0].tolist())
    assert encoded.truncated
    with torch.no_grad():
        assert model.score([encoded])[0] == pytest.approx(plain(**pair).logits.item(), abs=1e-4)


def test_the_query_decides_however_long_the_document_is(bert: Any) -> None:
    model, _, _ = bert
    cut = Truncation("completion")
    scores = [model.score([encode(model, query, LONG, cut)])[0] for query in ("what is two", "boil an egg")]
    assert abs(scores[0] - scores[1]) > 1e-3


def test_what_fits_is_not_touched(bert: Any, decoder: RewardModel) -> None:
    for model in (bert[0], decoder):
        for truncation in (Truncation("completion"), Truncation("text"), Truncation("nothing")):
            assert encode(model, "ab", "cd", truncation) == model.encode("ab", "cd")


@pytest.mark.parametrize("count", [1, 7, 30])
def test_a_document_of_so_many_tokens_is_its_first_ones(bert: Any, count: int) -> None:
    model, tokenizer, _ = bert
    encoded = encode(model, "a b", LONG, Truncation("nothing", max_completion_tokens=count))
    query = tokenizer("a b", add_special_tokens=False)["input_ids"]
    tokenizer.truncation_side = "right"
    pair = tokenizer("a b", LONG, truncation="only_second", max_length=len(query) + count + 3)
    assert isinstance(encoded, Encoded)
    assert (encoded.ids, encoded.truncated) == (tuple(pair["input_ids"]), True)


def test_a_query_of_so_many_tokens_is_its_first_ones(bert: Any) -> None:
    model, tokenizer, _ = bert
    encoded = encode(model, "a b c d e", "x", Truncation("nothing", max_prompt_tokens=2))
    assert isinstance(encoded, Encoded)
    assert (encoded.ids, encoded.truncated) == (tuple(tokenizer("a b", "x")["input_ids"]), True)
    assert encode(model, "a b", "x", Truncation("nothing", max_prompt_tokens=2)) == model.encode("a b", "x")


def test_a_query_that_leaves_no_room_is_an_error_that_says_so(bert: Any, decoder: RewardModel) -> None:
    for model in (bert[0], decoder):
        answer = encode(model, LONG, "x", Truncation("completion", max_tokens=20))
        assert isinstance(answer, TooLong)
        assert "the prompt (or query) alone has" in answer.detail
    answer = encode(decoder, "a", LONG * 9, Truncation("nothing", max_completion_tokens=400))
    assert isinstance(answer, TooLong), "a limit for documents alone cuts nothing else"


@pytest.mark.parametrize("side", SIDES)
def test_a_decoder_keeps_query_and_closing(decoder: RewardModel, side: Any) -> None:
    text = decoder.encoder.full_text("What is it?", "COMPLETION")
    before, behind = (decoder.encoder._ids(part) for part in text.split("COMPLETION"))
    encoded = encode(decoder, "What is it?", LONG, Truncation("completion", side, 60))
    assert isinstance(encoded, Encoded)
    assert len(encoded.ids) == 60
    assert encoded.ids[: len(before)] == tuple(before)
    assert encoded.ids[-len(behind) :] == tuple(behind)
    kept = encoded.ids[len(before) : -len(behind)]
    whole = decoder.encoder._ids(LONG)
    assert kept == tuple(whole[: len(kept)] if side == "right" else whole[-len(kept) :])


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("limit", [3, 10, None])
def test_a_whole_text_keeps_its_last_or_first_tokens(decoder: RewardModel, side: Any, limit: int | None) -> None:
    text = TEMPLATE.format(prompt=LONG, completion=LONG)
    ids = decoder.encoder._ids(decoder.encoder._opened(text))
    count = limit or decoder.max_length
    encoded = encode(decoder, None, text, Truncation("text", side, limit))
    assert isinstance(encoded, Encoded)
    assert encoded.ids == tuple(ids[-count:] if side == "left" else ids[:count])
    assert encoded.prompt_tokens <= len(encoded.ids)


@pytest.mark.parametrize("as_ids", [False, True])
@pytest.mark.parametrize(
    "truncation", [Truncation("nothing"), Truncation("text", "left", 9), Truncation("text", "right", 9)]
)
def test_one_text_is_one_part_to_a_cross_encoder(bert: Any, as_ids: bool, truncation: Truncation) -> None:
    model, tokenizer, plain = bert
    text = "[CLS]what is two[SEP]an egg[SEP]"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    encoded = encode(model, None, TokenIds(tuple(ids)) if as_ids else text, truncation)
    assert isinstance(encoded, Encoded)
    cut = torch.tensor([encoded.ids])
    with torch.no_grad():
        expected = plain(input_ids=cut, token_type_ids=torch.zeros_like(cut)).logits.item()
    assert model.score([encoded])[0] == pytest.approx(expected, abs=1e-4)


def test_token_ids_are_scored_as_they_are(decoder: RewardModel) -> None:
    text = decoder.encode("What is it?", "That.")
    encoded = decoder.encode_group(None, [TokenIds(text.ids)])[0]
    assert isinstance(encoded, Encoded)
    assert encoded.ids == text.ids
    assert decoder.score([encoded]) == pytest.approx(decoder.score([text]), abs=1e-5)
    cut = encode(decoder, None, TokenIds(text.ids), Truncation("text", "left", 4))
    assert isinstance(cut, Encoded)
    assert (cut.ids, cut.truncated) == (text.ids[-4:], True)


@pytest.mark.parametrize("wrong", [400, 10**6])
def test_an_id_outside_the_vocabulary_is_named(decoder: RewardModel, wrong: int) -> None:
    with pytest.raises(Invalid, match=f"token id {wrong} is not in the model's vocabulary"):
        decoder.encode_group(None, [TokenIds((1, wrong))])


def test_the_digest_is_that_of_the_vocabulary(decoder: RewardModel) -> None:
    import hashlib
    import json

    pairs = json.dumps(sorted(decoder.encoder.tokenizer.get_vocab().items()), separators=(",", ":"))
    assert decoder.tokenizer_digest == "sha256:" + hashlib.sha256(pairs.encode()).hexdigest()
