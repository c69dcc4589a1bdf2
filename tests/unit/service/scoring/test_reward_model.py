"""Scores are exact, scores are alone, and no text is cut or completed behind the caller's back."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast

from plaudit.errors import HostLacks, Invalid, TooLong, UsageError
from service.scoring import checkpoint as checkpoint_files
from service.scoring.reward_model import Calibration, Encoded, Encoder, RewardModel, RewardModelSpec
from support.checkpoints import SPECIAL, TEMPLATE, checkpoint, write_golden, write_model, write_tokenizer

PROMPT = "def add(a, b):\n    '''The sum of {a} and {b}.'''\n"
COMPLETIONS = [
    "    return a + b\n",
    "    return {a: b}\n\n\n",
    "",
    "  \n    x = [a,b]\n    return sum(x)",
    "é 漢字 \t\n",
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> RewardModel:
    return RewardModel.load(checkpoint(tmp_path_factory.mktemp("served")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("encoder"))


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_scores_are_those_of_a_plain_hugging_face_forward(tmp_path: Path, kind: str, side: str) -> None:
    model = RewardModel.load(checkpoint(tmp_path, kind=kind, side=side))
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    batch = [model.encode(PROMPT, completion) for completion in COMPLETIONS]

    for encoded, completion, score in zip(batch, COMPLETIONS, model.score(batch), strict=True):
        text = TEMPLATE.replace("{completion}", completion).replace("{prompt}", PROMPT)
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        assert encoded.ids == tuple(ids[0].tolist())
        with torch.no_grad():
            assert score == pytest.approx(plain(input_ids=ids).logits.item(), abs=1e-5)


def test_pad_equal_to_the_closing_token_does_not_move_the_pooled_position(tmp_path: Path) -> None:
    checkpoint(tmp_path / "apart", pad="<|pad|>")
    checkpoint(tmp_path / "alike", pad="<|end|>")
    shutil.copy(tmp_path / "apart" / "model.safetensors", tmp_path / "alike")
    apart, alike = RewardModel.load(tmp_path / "apart"), RewardModel.load(tmp_path / "alike")

    encoded = [apart.encode(PROMPT, completion) for completion in COMPLETIONS]

    assert [alike.encode(PROMPT, completion) for completion in COMPLETIONS] == encoded
    assert alike.score(encoded) == apart.score(encoded)


def test_a_score_depends_on_no_batch_mate_and_no_order(served: RewardModel) -> None:
    batch = [served.encode(PROMPT, completion) for completion in COMPLETIONS]

    together = served.score(batch)

    assert served.score(batch[::-1])[::-1] == together
    assert [served.score([encoded])[0] for encoded in batch] == pytest.approx(together, abs=1e-5)
    assert served.score([]) == []
    assert len(set(together)) == len(together)


def test_deterministic_gives_the_same_bits_in_any_company(tmp_path: Path) -> None:
    model = RewardModel.load(checkpoint(tmp_path), deterministic=True)
    batch = [model.encode(PROMPT, completion) for completion in COMPLETIONS]

    together = model.score(batch)

    assert model.score(batch[::-1])[::-1] == together
    assert [model.score([encoded])[0] for encoded in batch] == together
    assert model.num_shared == 0


def test_a_prompt_is_computed_once(tmp_path: Path) -> None:
    model = RewardModel.load(checkpoint(tmp_path))
    batch = [model.encode(PROMPT, completion) for completion in COMPLETIONS]
    shared = batch[0].prompt_tokens

    model.score(batch)

    assert model.prefix_sharing_disabled_reason is None
    assert model.num_computed + model.num_shared == sum(len(encoded.ids) for encoded in batch)
    assert model.num_shared >= shared * (len(batch) - 1)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    prompt=st.text(max_size=30) | st.sampled_from(["<|completion|", "<|end|>x", " ", "\n\n"]),
    completions=st.lists(st.text(max_size=20) | st.sampled_from(["\n", "|>", "<|completion|>", " a"]), max_size=3),
    template=st.sampled_from(["chat_template", TEMPLATE, "{prompt}\n{completion}<|end|>", "{prompt}<s>{completion}"]),
)
def test_a_group_is_encoded_exactly_like_its_members(
    folder: Path, prompt: str, completions: list[str], template: str
) -> None:
    encoder = Encoder.load(folder, RewardModelSpec(template=template, max_length=256, architecture="tiny"))
    completions = [completion + "!" for completion in completions]

    group = encoder.encode_group(prompt, completions)

    assert group == [encoder.encode(prompt, completion) for completion in completions]
    for encoded, completion in zip(group, completions, strict=True):
        assert not isinstance(encoded, TooLong)
        assert list(encoded.ids) == encoder._ids(encoder.full_text(prompt, completion))


def test_the_prompt_is_shared_up_to_the_token_before_the_completion(served: RewardModel) -> None:
    one, two = served.encode_group(PROMPT, COMPLETIONS[:2])

    assert not isinstance(one, TooLong)
    assert not isinstance(two, TooLong)
    assert one.prompt_tokens == two.prompt_tokens
    assert one.ids[: one.prompt_tokens] == two.ids[: two.prompt_tokens]
    assert one.ids[one.prompt_tokens - 1] == SPECIAL.index("<|completion|>")


def test_a_chat_template_is_the_only_owner_of_bos(tmp_path: Path) -> None:
    model = RewardModel.load(checkpoint(tmp_path, template="chat_template", system="Judge the code."))

    encoded = model.encode([{"role": "user", "content": "Sum."}], "a + b")

    text = "<s><|system|>\nJudge the code.<|end|>\n<|user|>\nSum.<|end|>\n<|assistant|>\na + b<|end|>\n"
    assert model.encoder.full_text([{"role": "user", "content": "Sum."}], "a + b") == text
    assert encoded.ids.count(SPECIAL.index("<s>")) == 1
    assert encoded == model.encode("Sum.", "a + b")


def test_a_text_template_joins_a_conversation_by_blank_lines(served: RewardModel) -> None:
    conversation = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Sum."}]
    assert served.encode(conversation, "x") == served.encode("Be brief.\n\nSum.", "x")  # type: ignore[arg-type]


def test_a_whole_text_is_encoded_as_it_is(tmp_path: Path, served: RewardModel) -> None:
    whole = served.encoder.full_text(PROMPT, COMPLETIONS[0])
    (encoded,) = served.encode_group(None, [whole])
    assert encoded == replace(served.encode(PROMPT, COMPLETIONS[0]), prompt_tokens=0)
    assert [type(one) for one in served.encode_group(None, ["short", whole * 50])] == [Encoded, TooLong]

    chat = Encoder.load(checkpoint(tmp_path, template="chat_template"))
    whole = chat.full_text("q", "a")
    assert whole.startswith("<s>")
    for text in (whole, whole.removeprefix("<s>")):  # clients take the BOS off, servers of others put it back
        assert chat.encode_group(None, [text]) == [replace(chat.encode("q", "a"), prompt_tokens=0)]


def test_too_long_is_said_and_never_cut(served: RewardModel) -> None:
    with pytest.raises(TooLong) as raised:
        served.encode(PROMPT, "x = 1\n" * 300)

    assert raised.value.limit == 256
    assert raised.value.tokens > 256
    fits, too_long = served.encode_group(PROMPT, ["    return 1\n", "x = 1\n" * 300])
    assert not isinstance(fits, TooLong)
    assert isinstance(too_long, TooLong)


def test_truncation_on_request_cuts_the_prompts_left_and_keeps_the_closing_token(served: RewardModel) -> None:
    encoded = served.encode("word " * 400, COMPLETIONS[0], "truncate_left")
    whole = served.encode("word", COMPLETIONS[0])

    tail = len(whole.ids) - whole.prompt_tokens
    assert encoded.truncated
    assert len(encoded.ids) == 256
    assert encoded.ids[-tail:] == whole.ids[-tail:]
    assert encoded.ids[-1] == SPECIAL.index("<|end|>")
    assert encoded.prompt_tokens == 256 - tail


def test_truncation_keeps_the_leading_bos(tmp_path: Path) -> None:
    model = RewardModel.load(checkpoint(tmp_path, template="chat_template"))
    encoded = model.encode("word " * 400, "x", "truncate_left")
    assert encoded.ids[0] == SPECIAL.index("<s>")
    assert len(encoded.ids) == 256


def test_nothing_to_score_is_invalid(folder: Path) -> None:
    encoder = Encoder.load(folder, RewardModelSpec(template="{prompt}{completion}", max_length=8, architecture="tiny"))
    with pytest.raises(Invalid):
        encoder.encode("", "")


def test_a_checkpoint_without_our_file_uses_its_chat_template_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (checkpoint(tmp_path) / "reward_model.json").unlink()

    model = RewardModel.load(tmp_path)

    assert "no reward_model.json" in caplog.text
    assert model.spec == RewardModelSpec(
        "chat_template", 256, "Qwen2ForSequenceClassification", pooled="last_non_pad", pad="<|pad|>"
    )
    assert model.pass_probability(0.3) is None


def test_a_checkpoint_that_says_nothing_about_its_text_is_refused(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, chat=False)
    write_model(tmp_path)
    with pytest.raises(UsageError, match="the template of the text is unknown"):
        RewardModel.load(tmp_path)


def test_missing_weights_are_refused_and_not_drawn_at_random(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(checkpoint(tmp_path) / "model.safetensors")
    del weights["score.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UsageError, match=r"score\.weight"):
        RewardModel.load(tmp_path)


def test_a_folder_that_is_not_there_is_named() -> None:
    with pytest.raises(HostLacks, match="nowhere"):
        RewardModel.load("./nowhere/at-all")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"colour": 1}, "unknown keys colour"),
        ({"format": 2}, "format 2"),
        ({"template": "{prompt}"}, "exactly once"),
        ({"template": "{completion}{prompt}"}, "comes before"),
        ({"pooled": "mean"}, "known are 'last'"),
        ({"pooled": "last_non_pad"}, "needs `pad`"),
        ({"pad": "<|end|>"}, "`pad` needs pooled 'last_non_pad'"),
        ({"weights": []}, "weights is empty"),
        ({"weights": [1, float("nan")]}, "weights is empty or has a number that is not finite"),
        ({"weights": ["a"]}, "could not convert"),
        ({"normalize": "yes"}, "normalize 'yes' is not true or false"),
        ({"gating": {"at": ""}}, "gating.at is empty"),
        ({"gating": {"at": "x", "temperature": 0}}, "temperature 0 must be greater than 0"),
        ({"gating": {"at": "x"}, "weights": [1]}, "gating stands for `weights`"),
        ({"gating": 3}, "gating|mapping"),
        ({"labels": ["a"]}, "the head is 'score'"),
        ({"system": "Be good."}, "its own system text"),
        ({"calibration": {"a": 1, "c": 2}}, "c"),
    ],
)
def test_a_wrong_spec_is_refused_by_name(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    path = tmp_path / "reward_model.json"
    path.write_text(json.dumps({"template": TEMPLATE, "max_length": 8, "architecture": "tiny", **change}))
    with pytest.raises(UsageError, match=words):
        RewardModelSpec.read(path)


def test_the_revision_follows_what_decides_a_score_and_nothing_else(tmp_path: Path) -> None:
    first = RewardModel.load(checkpoint(tmp_path / "a")).revision
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b" / "report.md").write_text("A report.")
    assert RewardModel.load(tmp_path / "b").revision == first
    checkpoint(tmp_path / "b", max_length=128)
    assert RewardModel.load(tmp_path / "b").revision != first
    assert first.startswith("sha256:")


def test_the_golden_set_tells_the_same_model_from_another(tmp_path: Path) -> None:
    model = RewardModel.load(checkpoint(tmp_path, golden="golden.jsonl"))
    encoded = model.encode(PROMPT, COMPLETIONS[0])
    row = {
        "prompt": PROMPT,
        "completion": COMPLETIONS[0],
        "tokens": len(encoded.ids),
        "score": model.score([encoded])[0],
    }

    (tmp_path / "golden.jsonl").write_text(json.dumps(row) + "\n")
    assert model.check_golden().ok
    assert model.check_golden().n == 1
    (tmp_path / "golden.jsonl").write_text(json.dumps(row | {"score": row["score"] + 0.01}) + "\n")
    assert not model.check_golden().ok
    model._score_row = lambda sequences, *_: [row["score"] + 0.01 * (len(sequences) > 1)] * len(sequences)  # type: ignore[method-assign]
    (tmp_path / "golden.jsonl").write_text((json.dumps(row) + "\n") * 2)
    assert not model.check_golden().ok, "right alone and wrong in company is wrong"
    del model._score_row
    (tmp_path / "golden.jsonl").write_text(json.dumps(row | {"tokens": 1}) + "\n")
    assert not model.check_golden().ok
    (tmp_path / "golden.jsonl").unlink()
    with pytest.raises(UsageError, match="golden"):
        model.check_golden()


def test_pass_probability_is_platt_scaling(tmp_path: Path) -> None:
    model = RewardModel.load(checkpoint(tmp_path, calibration=Calibration(a=2.0, b=-1.0)))
    assert model.pass_probability(0.5) == 0.5
    assert model.pass_probability(1000.0) == 1.0
    assert model.pass_probability(-1000.0) == 0.0


def test_bfloat16_answers_float32_numbers_near_the_float32_ones(tmp_path: Path) -> None:
    exact = RewardModel.load(checkpoint(tmp_path))
    rough = RewardModel.load(tmp_path, dtype="bfloat16")
    encoded = exact.encode(PROMPT, COMPLETIONS[0])
    assert rough.score([encoded])[0] == pytest.approx(exact.score([encoded])[0], abs=0.3)
    with pytest.raises(UsageError, match="int8"):
        RewardModel.load(tmp_path, dtype="int8")


@pytest.mark.parametrize(
    ("options", "bound"),
    [
        ({}, 1e-4),
        ({"dtype": "bfloat16"}, 0.5),
        ({"deterministic": True}, 0.0),
        ({"max_prompt_bytes": 2**20}, 1e-4),
        ({"dtype": "bfloat16", "deterministic": True}, 0.0),
    ],
)
def test_what_company_does_to_a_score_is_measured_when_it_is_loaded(
    tmp_path: Path, options: dict[str, Any], bound: float
) -> None:
    """With a golden set and without one; where each is scored alone it is exactly nothing."""
    bare, golden = tmp_path / "bare", tmp_path / "golden"
    write_golden(checkpoint(golden, golden="golden.jsonl"))
    for folder, rows in ((checkpoint(bare), 0), (golden, 3)):
        model = RewardModel.load(folder, **options)
        parity = model.check_golden()
        assert (parity.n, parity.ok) == (rows, True)
        assert model.prompts.nbytes == 0
        assert parity.max_batch_error <= bound
        assert (parity.max_batch_error > 0) is (bound > 0), "what is alone in any case does not move, all others do"


@pytest.mark.parametrize("usable", [True, False], ids=["linear layers of ours", "linear layers of torch"])
@pytest.mark.parametrize("way", ["overwritten", "truncated"])
def test_a_file_that_changes_under_a_served_model_changes_no_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, usable: bool, way: str
) -> None:
    """As a trainer does that saves to the same path: weights are copied, not mapped."""
    if not usable:
        monkeypatch.setattr("service.scoring.linear.usable", lambda: False)
    model = RewardModel.load(checkpoint(tmp_path))
    batch = [model.encode(PROMPT, completion) for completion in COMPLETIONS]
    before = model.score(batch)

    with (tmp_path / "model.safetensors").open("r+b") as file:
        if way == "truncated":
            file.truncate(8)
        else:
            size = file.seek(0, 2)
            file.seek(size // 8)
            file.write(b"\1" * (size - size // 8))

    assert str(tmp_path) not in Path("/proc/self/maps").read_text()
    assert model.score(batch) == before


def test_a_checkpoint_that_is_written_to_while_it_is_loaded_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its revision would be of other bytes than its weights."""
    checkpoint(tmp_path)
    load = checkpoint_files.load

    def slow(*arguments: Any, **options: Any) -> Any:
        model = load(*arguments, **options)
        write_model(tmp_path, seed=8)
        return model

    monkeypatch.setattr(checkpoint_files, "load", slow)
    with pytest.raises(UsageError, match="was written to while it was loaded"):
        RewardModel.load(tmp_path)
