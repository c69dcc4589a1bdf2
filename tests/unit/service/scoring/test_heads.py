"""Every spelling of a head scores as the code that wrote it does; what cannot be a reward model is refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from plaudit.errors import Invalid, UsageError
from service.scoring import heads
from service.scoring.checkpoint import Tensors
from service.scoring.encoder import Encoded
from service.scoring.reward_model import RewardModel
from support.checkpoints import checkpoint, write_tokenizer
from support.kind_makers import text_ids, write_spec
from support.rerankers import cross_encoder

PROMPT, COMPLETIONS = "def add(a, b):\n", ["    return a + b\n", "    pass\n"]
HIDDEN = 32

Weights = dict[str, torch.Tensor]


def rewrite(folder: Path, change: Callable[[Weights], Weights]) -> Path:
    path = folder / "model.safetensors"
    weights = change(load_file(path))
    save_file({name: weight.contiguous() for name, weight in weights.items()}, path, metadata={"format": "pt"})
    return folder


def shard(folder: Path) -> Path:
    """The same weights in three files and an index, as large checkpoints come."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = [f"model-{at:05}-of-00003.safetensors" for at in (1, 2, 3)]
    held = {name: names[at % 3] for at, name in enumerate(sorted(weights))}
    for file in names:
        part = {name: weight for name, weight in weights.items() if held[name] == file}
        save_file(part, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": held}))
    return folder


def without_head(weights: Weights) -> Weights:
    return {name: weight for name, weight in weights.items() if not name.startswith("score")}


def configure(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def v_head(bias: float = 0.25) -> Weights:
    generator = torch.Generator().manual_seed(3)
    return {
        "v_head.summary.weight": torch.randn(1, HIDDEN, generator=generator),
        "v_head.summary.bias": torch.tensor([bias]),
    }


def expected(folder: Path, head: Callable[[torch.Tensor], torch.Tensor]) -> list[float]:
    """The causal language model's last hidden state at the last token, through this head."""
    from transformers import AutoModel

    model = RewardModel.load(folder)
    backbone = AutoModel.from_pretrained(folder).eval()
    scores = []
    for completion in COMPLETIONS:
        ids = torch.tensor([model.encode(PROMPT, completion).ids])
        with torch.no_grad():
            scores.append(head(backbone(input_ids=ids).last_hidden_state[0, -1]).item())
    return scores


def scores(folder: Path) -> list[float]:
    model = RewardModel.load(folder)
    return model.score([model.encode(PROMPT, completion) for completion in COMPLETIONS])


def linear(weights: Weights) -> Callable[[torch.Tensor], torch.Tensor]:
    weight, bias = (next(w for name, w in weights.items() if name.endswith(end)) for end in ("weight", "bias"))
    return lambda hidden: torch.nn.functional.linear(hidden, weight, bias)


@pytest.mark.parametrize("sharded", [False, True])
def test_acecoderm_a_causal_model_with_trls_value_head(tmp_path: Path, sharded: bool) -> None:
    lm_head = {"lm_head.weight": torch.randn(400, HIDDEN)}
    folder = rewrite(checkpoint(tmp_path, head="v_head.summary"), lambda w: without_head(w) | v_head() | lm_head)
    configure(folder, architectures=["Qwen2ForCausalRM"])
    if sharded:
        shard(folder)

    assert scores(folder) == pytest.approx(expected(folder, linear(v_head())), abs=1e-5)
    model = RewardModel.load(folder)
    assert model.architecture == "Qwen2ForCausalRM"
    assert model.prefix_sharing_disabled_reason is None
    assert not any("lm_head" in name for name, _ in model._backbone.named_parameters())


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("file", ["value_head.safetensors", "value_head.bin"])
def test_llama_factory_a_value_head_in_a_file_of_its_own(tmp_path: Path, file: str, sharded: bool) -> None:
    folder = rewrite(checkpoint(tmp_path, kind="llama", head="v_head.summary"), without_head)
    if sharded:
        shard(folder)
    if file.endswith(".bin"):
        torch.save(v_head(), folder / file)
    else:
        save_file(v_head(), folder / file)

    assert scores(folder) == pytest.approx(expected(folder, linear(v_head())), abs=1e-5)
    before = RewardModel.load(folder).revision
    if file.endswith(".bin"):
        torch.save(v_head(0.5), folder / file)
        assert RewardModel.load(folder).revision != before
    (folder / "reward_model.json").unlink()
    assert RewardModel.load(folder).spec.head == "v_head.summary"


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("name", ["score", "value_head"])
def test_openrlhf_a_bare_linear_head_and_its_statistics(tmp_path: Path, name: str, sharded: bool) -> None:
    weight = torch.randn(1, HIDDEN)
    statistics = {"mean": torch.zeros(1), "std": torch.ones(1)}
    folder = rewrite(
        checkpoint(tmp_path, head=name), lambda w: without_head(w) | {f"{name}.weight": weight} | statistics
    )
    if sharded:
        shard(folder)

    assert scores(folder) == pytest.approx(expected(folder, lambda h: h @ weight[0]), abs=1e-5)


def test_two_linear_layers_with_a_relu_between(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(5)
    parts = {
        "score.0.weight": (HIDDEN, HIDDEN),
        "score.0.bias": (HIDDEN,),
        "score.2.weight": (1, HIDDEN),
        "score.2.bias": (1,),
    }
    head = {name: torch.randn(shape, generator=generator) for name, shape in parts.items()}
    folder = rewrite(checkpoint(tmp_path), lambda w: without_head(w) | head)

    def apply(hidden: torch.Tensor) -> torch.Tensor:
        inner = torch.relu(head["score.0.weight"] @ hidden + head["score.0.bias"])
        return head["score.2.weight"] @ inner + head["score.2.bias"]

    assert scores(folder) == pytest.approx(expected(folder, apply), abs=1e-5)


@pytest.mark.parametrize("content", [[1, 2], {"v_head.summary.weight": 3}])
def test_a_value_head_that_is_no_tensors_by_name_is_refused(tmp_path: Path, content: Any) -> None:
    folder = rewrite(checkpoint(tmp_path, head="v_head.summary"), without_head)
    torch.save(content, folder / "value_head.bin")
    with pytest.raises(UsageError, match="not a dict of tensors by name"):
        RewardModel.load(folder)


@pytest.mark.parametrize("derived", [False, True])
def test_an_encoder_scores_pairs_with_their_sides_and_shares_nothing(
    tmp_path: Path, derived: bool, caplog: pytest.LogCaptureFixture
) -> None:
    from transformers import AutoTokenizer

    plain = cross_encoder(tmp_path)
    if derived:
        (tmp_path / "reward_model.json").unlink()
    model = RewardModel.load(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    batch = [model.encode("sum of a", completion) for completion in ("add b", "c")]

    for encoded, completion, score in zip(batch, ("add b", "c"), model.score(batch), strict=True):
        pair = tokenizer("sum of a", completion, return_tensors="pt")
        assert encoded.ids == tuple(pair["input_ids"][0].tolist())
        with torch.no_grad():
            assert score == pytest.approx(plain(**pair).logits.item(), abs=1e-5)
    assert model.num_shared == 0
    assert "prompts are not shared: its own class runs whole" in caplog.text
    if derived:
        assert model.spec.template == "[CLS]{prompt}[SEP]{completion}[SEP]"
        assert model.spec.max_length == 64


def test_a_head_is_found_where_no_file_of_ours_names_it(tmp_path: Path) -> None:
    folder = rewrite(checkpoint(tmp_path), lambda w: without_head(w) | v_head())
    (folder / "reward_model.json").unlink()
    assert RewardModel.load(folder).spec.head == "v_head.summary"


def test_two_heads_or_none_are_a_question_and_not_a_guess(tmp_path: Path) -> None:
    both = rewrite(checkpoint(tmp_path), lambda w: w | v_head())
    with pytest.raises(UsageError, match=r"score and v_head\.summary found"):
        heads.find(Tensors(both))
    rewrite(both, lambda w: without_head({name: x for name, x in w.items() if "v_head" not in name}))
    with pytest.raises(UsageError, match="no tensor of a known head"):
        heads.find(Tensors(both))


def test_more_than_one_label_is_refused(tmp_path: Path) -> None:
    folder = rewrite(checkpoint(tmp_path), lambda w: w | {"score.weight": torch.zeros(2, HIDDEN)})
    with pytest.raises(UsageError, match="2 labels"):
        RewardModel.load(folder)


@pytest.mark.parametrize("name", ["model.layers.1.mlp.up_proj.weight", "score.weight"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number_is_refused_by_name(tmp_path: Path, name: str, value: float) -> None:
    def spoil(weights: Weights) -> Weights:
        weights[name].view(-1)[3] = value
        return weights

    with pytest.raises(UsageError, match=rf"not finite: {name.removesuffix('.weight')}"):
        RewardModel.load(rewrite(checkpoint(tmp_path), spoil))


@pytest.mark.parametrize("keep", [4, 100, -1000])
def test_damaged_safetensors_are_refused_by_name(tmp_path: Path, keep: int) -> None:
    path = checkpoint(tmp_path) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UsageError, match=r"model\.safetensors: damaged"):
        RewardModel.load(tmp_path)


def test_a_value_head_that_holds_code_is_not_run(tmp_path: Path) -> None:
    folder = rewrite(checkpoint(tmp_path, head="v_head.summary"), without_head)
    torch.save({"v_head.summary.weight": Path("x")}, folder / "value_head.bin")
    with pytest.raises(UsageError, match="contains more than tensors"):
        RewardModel.load(folder)


def test_a_tokenizer_of_a_larger_model_is_refused(tmp_path: Path) -> None:
    folder = rewrite(
        checkpoint(tmp_path), lambda w: w | {"model.embed_tokens.weight": w["model.embed_tokens.weight"][:300]}
    )
    configure(folder, vocab_size=300)
    with pytest.raises(UsageError, match="another model's tokenizer"):
        RewardModel.load(folder)


def write_golden_row(folder: Path, model: RewardModel) -> Encoded:
    """A golden set of one row: what the model itself answers."""
    encoded = model.encode(PROMPT, COMPLETIONS[0])
    row = {
        "prompt": PROMPT,
        "completion": COMPLETIONS[0],
        "tokens": len(encoded.ids),
        "score": model.score([encoded])[0],
    }
    (folder / "golden.jsonl").write_text(json.dumps(row) + "\n")
    return encoded


def test_a_tokenizer_of_another_model_of_that_size_fails_the_golden_set(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "a", golden="golden.jsonl")
    model = RewardModel.load(folder)
    encoded = write_golden_row(folder, model)
    assert RewardModel.load(folder).check_golden().ok

    vocabulary = json.loads((folder / "tokenizer.json").read_text())
    words = vocabulary["model"]["vocab"]
    used = sorted(set(encoded.ids) - set(model.encoder.tokenizer.all_special_ids))
    one, other = (model.encoder.tokenizer.convert_ids_to_tokens(at) for at in used[-2:])
    words[one], words[other] = words[other], words[one]
    (folder / "tokenizer.json").write_text(json.dumps(vocabulary))
    assert not RewardModel.load(folder).check_golden().ok


def test_a_template_that_is_not_the_trained_one_fails_the_golden_set(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "a", golden="golden.jsonl")
    model = RewardModel.load(folder)
    write_golden_row(folder, model)
    spec = json.loads((folder / "reward_model.json").read_text())
    spec["template"] = "<|user|>{prompt}<|completion|>{completion}<|end|>"
    (folder / "reward_model.json").write_text(json.dumps(spec))
    assert not RewardModel.load(folder).check_golden().ok


def test_weights_that_nothing_would_use_are_refused(tmp_path: Path) -> None:
    """An adapter that was not merged: scored without it, every number would be the base model's."""
    folder = rewrite(checkpoint(tmp_path), lambda w: w | {"model.layers.0.mlp.up_proj.lora_A.weight": torch.ones(2, 2)})
    with pytest.raises(UsageError, match="would not be used"):
        RewardModel.load(folder)


def test_a_weight_of_another_shape_is_refused(tmp_path: Path) -> None:
    folder = rewrite(checkpoint(tmp_path), lambda w: w | {"model.norm.weight": torch.ones(7)})
    with pytest.raises(UsageError, match="not a loadable checkpoint"):
        RewardModel.load(folder)


def test_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path)
    (folder / "reward_model.json").unlink()
    shutil.move(folder / "config.json", folder / "elsewhere")
    with pytest.raises(UsageError, match="config"):
        RewardModel.load(folder)


def gated(weights: Weights, **parts: torch.Tensor | None) -> Weights:
    """ArmoRM's parts, some of them others or missing."""
    made: dict[str, torch.Tensor | None] = {
        "regression_layer.weight": torch.ones(3, HIDDEN),
        "gating.layers.0.weight": torch.ones(3, HIDDEN),
        "gating.logit_scale": torch.ones(1),
        "reward_transform_matrix": torch.eye(3),
    }
    kept = {name: weight for name, weight in (made | parts).items() if weight is not None}
    return without_head(weights) | kept


@pytest.mark.parametrize(
    ("spec", "change", "words"),
    [
        ({"head": "regression_head"}, lambda w: w, r"weights are missing: regression_head\.weight"),
        ({"head": "model.norm"}, lambda w: w, r"model\.norm, the head, is not made of linear layers"),
        ({"weights": [0.5, 0.5]}, lambda w: w, "weights has 2 numbers and the head score 1 outputs"),
        ({"normalize": True}, lambda w: w, "weights are missing: mean"),
        (
            {"normalize": True},
            lambda w: w | {"mean": torch.zeros(1), "std": torch.zeros(1)},
            "mean 0 and std 0 cannot normalise",
        ),
        (
            {"head": "lm_head", "labels": ["a"]},
            lambda w: {name: weight for name, weight in w.items() if "embed" not in name},
            r"missing: lm_head\.weight",
        ),
        ({"gating": {"at": "x"}, "head": "regression_layer"}, without_head, r"missing: regression_layer\.weight"),
        (
            {"gating": {"at": "x"}, "head": "regression_layer"},
            lambda w: gated(w, **{"gating.layers.0.weight": torch.ones(4, HIDDEN)}),
            "weighs 4 outputs and regression_layer has 3",
        ),
        (
            {"gating": {"at": "x"}, "head": "regression_layer"},
            lambda w: gated(w, reward_transform_matrix=torch.eye(4)),
            "is not a matrix of 3 by 3",
        ),
        (
            {"gating": {"at": "x"}, "head": "regression_layer"},
            lambda w: gated(w, **{"gating.logit_scale": None}),
            r"missing: gating\.logit_scale",
        ),
    ],
)
def test_a_head_that_does_not_fit_its_spec_is_refused(
    tmp_path: Path, spec: dict[str, Any], change: Callable[[Weights], Weights], words: str
) -> None:
    folder = rewrite(checkpoint(tmp_path), change)
    path = folder / "reward_model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | spec))
    with pytest.raises(UsageError, match=words):
        RewardModel.load(folder)


def test_a_gated_text_without_its_mark_is_invalid(tmp_path: Path) -> None:
    folder = rewrite(checkpoint(tmp_path), gated)
    configure(folder, architectures=["LlamaForRewardModelWithGating"])
    path = folder / "reward_model.json"
    gating = {"at": "<|completion|>"}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"head": "regression_layer", "gating": gating}))
    model = RewardModel.load(folder)
    assert len(model.encode(PROMPT, "x").steps) == 2
    encoded = model.encoder.encode_group(None, ["<|prompt|>a<|completion|>b"])[0]
    assert isinstance(encoded, Encoded)
    with pytest.raises(Invalid, match=r"the text has no '<\|completion\|>'"):
        model.encoder.encode_group(None, ["no mark"])


# --- the logit of a token --------------------------------------------------------------------------------------------

SCALED: dict[str, tuple[str, dict[str, Any], str]] = {  # class, what its config is, a key that its file does not have
    "a scale that is the class's default": ("Cohere", {}, "logit_scale"),
    "a cap that is the class's default": ("Gemma2", {"head_dim": 8}, "final_logit_softcapping"),
    "a multiplier of the head": (
        "FalconH1",
        {"lm_head_multiplier": 0.3, "mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8},
        "",
    ),
}


@pytest.mark.parametrize("name", SCALED)
def test_a_tokens_logit_is_scaled_as_its_class_scales_it(tmp_path: Path, name: str) -> None:
    import transformers

    kind, changes, absent = SCALED[name]
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=400,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        pad_token_id=0,
        **changes,
    )
    torch.manual_seed(7)
    own = transformers.AutoModelForCausalLM.from_config(config).eval()
    torch.nn.init.normal_(own.get_output_embeddings().weight, std=2.0)
    own.save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    write_spec(tmp_path, head="lm_head", labels=["a"])
    path = tmp_path / "config.json"
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != absent}))
    good = RewardModel.load(tmp_path).encoder.tokenizer.convert_tokens_to_ids("a")
    ids = text_ids(tmp_path)
    with torch.no_grad():
        right = [own(ids(PROMPT, text)).logits[0, -1, good].item() for text in COMPLETIONS]
    assert min(map(abs, right)) > 0.01
    assert scores(tmp_path) == pytest.approx(right, abs=1e-5)


def test_a_class_that_does_something_else_to_its_logits_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from support.decoders import causal

    causal("gemma2", final_logit_softcapping=0.5, vocab_size=400, max_position_embeddings=256).save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    write_spec(tmp_path, head="lm_head", labels=["a"])
    read = heads.read_labels
    monkeypatch.setattr(heads, "read_labels", lambda tensors, ids, config: read(tensors, ids, None))
    with pytest.raises(UsageError, match="what this class does to its logits is not supported"):
        RewardModel.load(tmp_path)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["GPT2", "GPTNeoX", "OPT", "Bloom", "Mamba", "BioGpt"])
def test_a_head_and_its_tied_embeddings_are_found_by_their_class_s_names(tmp_path: Path, kind: str, tied: bool) -> None:
    import transformers

    shape = {"vocab_size": 400, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": tied}
    if kind == "GPT2":
        shape |= {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}
    else:
        shape |= {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 256}
        shape |= {"word_embed_proj_dim": 32, "ffn_dim": 48} if kind == "OPT" else {"intermediate_size": 48}
    torch.manual_seed(7)
    config = getattr(transformers, f"{kind}Config")(**shape)
    own = transformers.AutoModelForCausalLM.from_config(config).eval()
    torch.nn.init.normal_(own.get_output_embeddings().weight, std=0.3)
    own.save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    write_spec(tmp_path, head="lm_head", labels=["a", "b"])
    ids, vocabulary = text_ids(tmp_path), RewardModel.load(tmp_path).encoder.tokenizer.get_vocab()
    with torch.no_grad():
        logits = [own(ids(PROMPT, text)).logits[0, -1] for text in COMPLETIONS]
    right = [(row[vocabulary["a"]] - row[vocabulary["b"]]).item() for row in logits]
    assert scores(tmp_path) == pytest.approx(right, abs=1e-5)
