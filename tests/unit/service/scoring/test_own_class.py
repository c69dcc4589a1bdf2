"""What is pooled is what the checkpoint's own class pools; where the two differ, that is said or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast

from plaudit.errors import UsageError
from service.scoring import checkpoint as checkpoints
from service.scoring import derive_spec, heads, own_class
from service.scoring.reward_model import RewardModel
from support.checkpoints import SPECIAL, write_family, write_tokenizer
from support.kind_makers import CLOSED, change, chat_ids, encoder, own_logits, write_spec

PROMPT = "def add(a, b):\n"
END = SPECIAL.index("<|end|>")
TEXTS = ["    return a + b\n", "", "x<|end|>", "<|end|><|end|>", "x <|pad|>", "<|pad|>"]


def closing(folder: Path, family: str, pad: Any, *, ends: str = "<|end|>") -> Path:
    """A classifier whose template ends in these tokens."""
    write_family(folder, family)
    (folder / "chat_template.jinja").write_text(CLOSED.replace("<|end|>{% endfor", f"{ends}{{% endfor"))
    change(folder, "config.json", pad_token_id=pad)
    return folder


@pytest.mark.parametrize("family", ["llama", "qwen2", "mistral", "gemma2", "phi3"])
@pytest.mark.parametrize(
    ("pad", "ends"),
    [
        (END, "<|end|>"),
        (END, "<|end|><|end|>"),
        (END, "<|end|>\n"),
        (0, "<|end|><|pad|>"),
        (None, "<|end|>"),
        (399, "<|end|>"),
    ],
)
def test_the_token_that_hugging_face_pools_is_pooled(tmp_path: Path, family: str, pad: Any, ends: str) -> None:
    folder = closing(tmp_path, family, pad, ends=ends)
    own, ids = AutoModelForSequenceClassification.from_pretrained(folder).eval(), chat_ids(folder)
    model = RewardModel.load(folder)

    scores = model.score([model.encode(PROMPT, text) for text in TEXTS])

    for text, score in zip(TEXTS, scores, strict=True):
        with torch.no_grad():
            assert score == pytest.approx(own(input_ids=ids(PROMPT, text)).logits.item(), abs=1e-4), text
    assert model.own_class_error is not None
    assert model.own_class_error < 1e-4


def test_what_is_not_pooled_counts_against_the_limit(tmp_path: Path) -> None:
    """The text is as long as the tokenizer says, and truncation leaves the token that is pooled."""
    model = RewardModel.load(closing(tmp_path, "llama", END))
    cut = model.encode("word " * 400, "x", "truncate_left")
    assert (len(cut.ids), cut.truncated) == (255, True)
    assert cut.ids[-1] != END


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_derived_spec_that_scores_otherwise_is_refused(
    tmp_path: Path, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    closing(tmp_path, "llama", END)
    monkeypatch.setattr(derive_spec, "_pooling_pad", lambda *_: None)
    with pytest.raises(
        UsageError, match=r"LlamaForSequenceClassification, its own class, scores an example .*pooled 'last'"
    ):
        RewardModel.load(tmp_path, dtype=dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_another_head_than_the_own_class_has_is_refused(
    tmp_path: Path, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_family(tmp_path, "qwen3")
    read = heads.read

    def shifted(*given: Any, **named: Any) -> Any:
        head = read(*given, **named)
        return heads.RewardHead(head.name, tuple((weight * 1.5, bias) for weight, bias in head.layers))

    monkeypatch.setattr(heads, "read", shifted)
    with pytest.raises(UsageError, match="its own class, scores an example"):
        RewardModel.load(tmp_path, dtype=dtype)


def test_a_written_spec_wins_over_the_own_class_and_that_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = closing(tmp_path, "llama", END)
    write_spec(folder, template="chat_template")
    model = RewardModel.load(folder)
    assert "LlamaForSequenceClassification, its own class, scores an example" in caplog.text
    assert "reward_model.json decides" in caplog.text
    assert model.own_class_error is not None
    assert model.own_class_error > 0.1
    assert model.encode(PROMPT, "x").ids[-1] == END

    caplog.clear()
    write_spec(folder, template="chat_template", pooled="last_non_pad", pad="<|end|>")
    assert RewardModel.load(folder).own_class_error == pytest.approx(0, abs=1e-4)
    assert "scores an example" not in caplog.text


def test_the_weights_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_family(tmp_path, "qwen2")
    loaded: list[Any] = []
    load = checkpoints.load

    def counted(*given: Any, **named: Any) -> Any:
        loaded.append(load(*given, **named))
        return loaded[-1]

    monkeypatch.setattr(checkpoints, "load", counted)
    model = RewardModel.load(tmp_path)
    (whole,) = loaded
    assert model._backbone is whole.model


def test_a_language_models_vocabulary_is_not_kept(tmp_path: Path) -> None:
    from support.kind_makers import language_model

    language_model("llama", ["a", "b"])(tmp_path)
    model = RewardModel.load(tmp_path)
    assert model.own_class_error is not None
    assert not [name for name, _ in model._backbone.named_parameters() if "lm_head" in name]


def test_without_a_class_in_transformers_there_is_nothing_to_compare_with(tmp_path: Path) -> None:
    from support.kind_makers import value_head

    value_head("v_head.summary")(tmp_path)
    assert RewardModel.load(tmp_path).own_class_error is None


def test_token_types_are_the_tokenizers(tmp_path: Path) -> None:
    """A model with types under a tokenizer that gives none: transformers takes zeros."""
    for types in (True, False):
        folder = tmp_path / str(types)
        encoder("Bert", types=types)(folder)
        model = RewardModel.load(folder)
        encoded = model.encode("a", "b")
        assert model.encoder.token_types(encoded) == ([0, 0, 0, 1, 1] if types else None)


def test_token_types_that_are_not_first_and_second_are_refused(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, processors

    encoder("Bert", types=True)(tmp_path)
    path = tmp_path / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A <|end|>", pair="<s> $A <|end|>:1 $B:1 <|end|>:0", special_tokens=[("<s>", 1), ("<|end|>", 2)]
    )
    tokenizer.save(str(path))
    with pytest.raises(UsageError, match="token types"):
        RewardModel.load(tmp_path)


@pytest.mark.parametrize("names", [["cat", "dog"], ["LABEL_0", "LABEL_1", "LABEL_2"]])
def test_labels_of_which_none_is_known_to_be_good_are_refused_by_name(tmp_path: Path, names: list[str]) -> None:
    from support.kind_makers import decoder

    decoder("llama", num_labels=len(names), id2label=dict(enumerate(names)))(tmp_path)
    with pytest.raises(UsageError, match=rf"{len(names)} labels \({names[0]}, .* write `weights`"):
        RewardModel.load(tmp_path)


def test_every_tolerance_is_of_a_dtype() -> None:
    from service.scoring.reward_model import DTYPES

    assert own_class.TOLERANCE.keys() == DTYPES.keys()


def test_tokens_that_a_tokenizer_does_not_have_pad_nothing(tmp_path: Path) -> None:
    folder = closing(tmp_path, "llama", 399)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    spec = RewardModel.load(folder).spec
    known = tokenizer.convert_ids_to_tokens(399)
    assert (spec.pooled, spec.pad) == (("last", None) if known is None else ("last_non_pad", known))
    assert json.loads(spec.as_json())["pad"] == spec.pad


@pytest.mark.parametrize("text", ["hello there", "a"])
def test_one_whole_text_of_a_cross_encoder_is_what_its_tokenizer_makes_of_it(tmp_path: Path, text: str) -> None:
    from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast

    encoder("Bert", types=True)(tmp_path)
    model, tokenizer = RewardModel.load(tmp_path), PreTrainedTokenizerFast.from_pretrained(tmp_path)
    own = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        (right,) = own(**tokenizer(text, return_tensors="pt")).logits[0].tolist()
    for given in (text, tokenizer.decode(tokenizer(text)["input_ids"])):  # as it is, or with its special tokens
        assert model.score(model.encode_group(None, [given])) == pytest.approx([right], abs=1e-5)


def test_a_head_that_is_a_module_of_its_class_runs_with_it(tmp_path: Path) -> None:
    from transformers import T5GemmaConfig, T5GemmaForSequenceClassification
    from transformers.models.t5gemma.configuration_t5gemma import T5GemmaModuleConfig

    shape = {"vocab_size": 400, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8}
    shape |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "pad_token_id": 0}
    parts = [T5GemmaModuleConfig(**shape, bos_token_id=1, eos_token_id=2, initializer_range=0.3) for _ in range(2)]
    torch.manual_seed(1)
    config = T5GemmaConfig(encoder=parts[0], decoder=parts[1], vocab_size=400, pad_token_id=0, num_labels=1)
    T5GemmaForSequenceClassification(config).save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    model, right = RewardModel.load(tmp_path), own_logits(tmp_path)
    assert model.spec.head == "classifier"
    texts = ["return a + b", "pass", ""]
    scores = model.score(model.encode_group(PROMPT, texts))
    assert scores == pytest.approx([right(PROMPT, text) for text in texts], abs=1e-5)
