"""Process reward models: each step's score is what the model's own class says at the token that ends it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForTokenClassification,
)

from plaudit.errors import UsageError
from service.scoring.process_rewards import Aggregate, Steps, StepScores
from service.scoring.reward_model import RewardModel, RewardModelSpec
from support.checkpoints import SPECIAL, write_model, write_tokenizer

STEP = "<|system|>"
TEMPLATE = "<|prompt|>{prompt}<|completion|>{completion}"
PROMPT = "Add two numbers, and say how.\n"
COMPLETIONS = ["Take a.\n\nTake b.\n\nreturn a + b", "Take a.\n\nTake b.\n\nreturn a - b\n\n", "pass"]
MARKED = [
    f"Take a.{STEP}Take b.{STEP}return a + b{STEP}",
    f"Take a.{STEP}Take b.{STEP}return a - b{STEP}",
    f"pass{STEP}",
]
SHAPE: dict[str, Any] = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "initializer_range": 0.3,
}


def spec(folder: Path, head: str, labels: tuple[str, str] | None = None, aggregate: Aggregate = "min") -> None:
    RewardModelSpec(
        TEMPLATE, 256, "tiny", head=head, pooled="steps", labels=labels, steps=Steps(STEP, "\n\n", None, aggregate)
    ).write(folder / "reward_model.json")


def token_classifier(folder: Path) -> Any:
    torch.manual_seed(5)
    model = Qwen2ForTokenClassification(Qwen2Config(**SHAPE, num_labels=2)).eval()
    model.save_pretrained(folder)
    spec(folder, "score")
    return lambda ids: model(ids).logits[0].diff()[:, 0]


def math_shepherd(folder: Path) -> Any:
    """A language model that says "+" or "-" where a step ends."""
    torch.manual_seed(5)
    model = LlamaForCausalLM(LlamaConfig(**SHAPE)).eval()
    model.save_pretrained(folder)
    spec(folder, "lm_head", ("+", "-"))
    vocabulary = PreTrainedTokenizerFast.from_pretrained(folder).get_vocab()
    return lambda ids: model(ids).logits[0][:, [vocabulary["-"], vocabulary["+"]]].diff()[:, 0]


def two_layers(folder: Path) -> Any:
    """Two linear layers with a ReLU between and two labels, as Qwen2.5-Math-PRM has them."""
    from safetensors.torch import load_file, save_file

    write_model(folder)
    torch.manual_seed(5)
    first, second = torch.nn.Linear(32, 32), torch.nn.Linear(32, 2)
    weights = {name: one for name, one in load_file(folder / "model.safetensors").items() if "score" not in name}
    weights |= {
        "score.0.weight": first.weight.data,
        "score.0.bias": first.bias.data,
        "score.2.weight": second.weight.data,
        "score.2.bias": second.bias.data,
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    spec(folder, "score")
    backbone = AutoModel.from_pretrained(folder).eval()

    def log_odds(ids: torch.Tensor) -> torch.Tensor:
        probabilities = second(torch.relu(first(backbone(ids).last_hidden_state[0]))).softmax(-1)
        return torch.logit(probabilities[:, 1])

    return log_odds


@pytest.mark.parametrize("make", [token_classifier, math_shepherd, two_layers])
@pytest.mark.parametrize("deterministic", [False, True])
@torch.no_grad()
def test_steps_score_as_the_models_own_forward_says(tmp_path: Path, make: Any, deterministic: bool) -> None:
    write_tokenizer(tmp_path)
    plain = make(tmp_path)
    model = RewardModel.load(tmp_path, deterministic=deterministic)
    batch: Any = model.encode_group(PROMPT, COMPLETIONS)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path)

    for encoded, score, text in zip(batch, model.score(batch), MARKED, strict=True):
        ids = tokenizer(TEMPLATE.format(prompt=PROMPT, completion=text), add_special_tokens=False)["input_ids"]
        assert list(encoded.ids) == ids
        at = [place for place, one in enumerate(ids) if one == SPECIAL.index(STEP)]
        assert isinstance(score, StepScores)
        assert list(score.steps) == pytest.approx(plain(torch.tensor([ids]))[at].tolist(), abs=1e-4)
        assert score == min(score.steps)
    if not deterministic:
        assert model.prefix_sharing_disabled_reason is None
        assert model.num_shared > len(batch[0].ids)


def test_a_step_that_completions_share_has_the_same_bits_in_each(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    token_classifier(tmp_path)
    model = RewardModel.load(tmp_path)
    batch: Any = model.encode_group(PROMPT, COMPLETIONS)
    first, second, _ = model.score(batch)

    assert isinstance(first, StepScores)
    assert isinstance(second, StepScores)
    assert first.steps[:2] == second.steps[:2]
    assert first.steps[2] != second.steps[2]


@pytest.mark.parametrize(("make", "place"), [(token_classifier, 1), (math_shepherd, 0), (two_layers, 1)])
def test_a_model_of_two_labels_says_which_one_is_good(tmp_path: Path, make: Any, place: int) -> None:
    write_tokenizer(tmp_path)
    make(tmp_path)
    assert RewardModel.load(tmp_path).good_label == place


@pytest.mark.parametrize(
    ("aggregate", "want"),
    [
        ("min", -1.0),
        ("last", 0.5),
        ("mean", 0.5),
        ("product", sum(math.log(1 / (1 + math.exp(-logit))) for logit in (2.0, -1.0, 0.5))),
    ],
)
def test_the_whole_is_made_of_the_steps(aggregate: Aggregate, want: float) -> None:
    whole = Steps(STEP, aggregate=aggregate).aggregated([2.0, -1.0, 0.5])
    assert whole == pytest.approx(want)
    assert whole.steps == (2.0, -1.0, 0.5)
    assert math.isnan(Steps(STEP, aggregate=aggregate).aggregated([2.0, math.nan, 0.5]))
    assert math.isnan(Steps(STEP, aggregate=aggregate).aggregated([math.inf, 1.0]))


@pytest.mark.parametrize(
    ("steps", "completion", "want"),
    [
        (Steps("#", "\n\n"), "one\n\ntwo", "one#two#"),
        (Steps("#", "\n\n"), "one\n\n", "one#"),
        (Steps("#", "\n\n"), "one", "one#"),
        (Steps("#", "\n\n"), "", "#"),
        (Steps("#", "\n\n"), "one#\n\ntwo", "one#\n\ntwo#"),
        (Steps("#"), "one\n\ntwo", "one\n\ntwo#"),
        (Steps("#"), "one#two#\n", "one#two#\n"),
        (Steps("ки", "\n", " ки\n"), "one\ntwo", "one ки\ntwo ки\n"),
    ],
)
def test_every_step_gets_its_mark_once(steps: Steps, completion: str, want: str) -> None:
    assert steps.marked(completion) == want


def test_truncation_keeps_the_last_steps(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    token_classifier(tmp_path)
    model = RewardModel.load(tmp_path)
    encoded = model.encode(PROMPT, "\n\n".join(["x y z " * 20] * 12), "truncate_left")

    assert encoded.truncated
    assert encoded.steps[-1] == len(encoded.ids) - 1
    assert 1 < len(encoded.steps) < 12


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": None}, "`steps` needs pooled 'steps'"),
        ({"pooled": "last"}, "`steps` needs pooled 'steps'"),
        ({"steps": {"token": "<|nothing|>"}}, "not a token of this tokenizer"),
        ({"steps": {"token": STEP, "aggregate": "max"}}, "aggregate 'max'"),
        ({"steps": {"token": STEP, "mark": "#"}}, "does not contain the token"),
        ({"steps": {"tokens": STEP}}, "tokens"),
        ({"head": "lm_head"}, "needs `labels`"),
        ({"labels": ["+"]}, "the head is 'score'"),
        ({"head": "lm_head", "labels": ["+", "-", "a"]}, "labels names 3 tokens"),
    ],
)
def test_a_spec_that_cannot_be_is_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    write_tokenizer(tmp_path)
    token_classifier(tmp_path)
    path = tmp_path / "reward_model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    with pytest.raises(UsageError, match=words):
        RewardModel.load(tmp_path)


def test_without_a_spec_a_token_classifier_is_refused_and_qwens_layout_is_known(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    token_classifier(tmp_path)
    (tmp_path / "reward_model.json").unlink()
    with pytest.raises(UsageError, match="do not say which"):
        RewardModel.load(tmp_path)

    two_layers(tmp_path)
    (tmp_path / "reward_model.json").unlink()
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": ["Qwen2ForProcessRewardModel"]}))
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<extra_0>"]})
    tokenizer.save_pretrained(tmp_path)
    spec = RewardModel.load(tmp_path).spec
    assert (spec.pooled, spec.steps) == ("steps", Steps("<extra_0>", "\n\n"))
