"""A base and an adapter are one checkpoint with a revision of its own; what does not fit is refused by name."""

from __future__ import annotations

import gc
import importlib.util
import json
import shutil
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast

from plaudit.errors import HostLacks, UsageError
from service.scoring import adapters
from service.scoring.factory import open_engine
from service.scoring.reward_model import RewardModel
from service.settings import Settings
from support.checkpoints import write_tokenizer
from support.decoders import causal
from support.kind_makers import CLOSED, COMPLETIONS, PROMPT, SHAPE, adapter, change, chat_ids, encoder, write_spec

peft = pytest.importorskip("peft")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`base`, and `adapter` of it."""
    adapter("SEQ_CLS")(tmp_path)
    return tmp_path


def load(folder: Path, name: str = "adapter") -> RewardModel:
    return RewardModel.load(f"{folder}/base+{folder}/{name}")


def scores(model: RewardModel) -> list[float]:
    return model.score([model.encode(PROMPT, completion) for completion in COMPLETIONS])


def another(folder: Path, name: str, factor: float) -> Path:
    """The same adapter with other numbers."""
    shutil.copytree(folder / "adapter", folder / name)
    file = folder / name / "adapter_model.safetensors"
    save_file({key: weight * factor for key, weight in load_file(file).items()}, file, {"format": "pt"})
    return folder / name


def test_several_adapters_of_one_base_are_models_of_their_own(folder: Path) -> None:
    another(folder, "other", -0.5)
    first, second = load(folder), load(folder, "other")
    assert first.revision != second.revision
    assert scores(first) != scores(second)
    assert first.own_class_error is not None
    assert first.architecture == "LlamaForSequenceClassification"
    assert scores(load(folder)) == scores(first)


@pytest.mark.parametrize("part", ["base/model.safetensors", "adapter/adapter_model.safetensors"])
def test_the_revision_covers_the_base_and_the_adapter(folder: Path, part: str) -> None:
    before = load(folder).revision
    assert load(folder).revision == before
    file = folder / part
    save_file({name: weight * 1.01 for name, weight in load_file(file).items()}, file, {"format": "pt"})
    assert load(folder).revision != before


def test_what_an_adapter_brings_stands_before_what_the_base_has(folder: Path) -> None:
    write_spec(folder / "base", max_length=100)
    assert load(folder).spec.max_length == 100
    write_spec(folder / "adapter", max_length=50)
    assert load(folder).spec.max_length == 50
    (folder / "adapter" / "reward_model.json").unlink()
    assert load(folder).spec.max_length == 100
    (folder / "base" / "reward_model.json").unlink()
    (folder / "adapter" / "chat_template.jinja").write_text(CLOSED)
    assert load(folder).encoder.full_text("a", "b").endswith("b<|end|>")


def test_a_golden_set_of_an_adapter_is_checked(folder: Path) -> None:
    write_spec(folder / "adapter", golden="golden.jsonl", pooled="last_non_pad", pad="<|pad|>")
    model = load(folder)
    encoded = model.encode(PROMPT, "x")
    row = {"prompt": PROMPT, "completion": "x", "tokens": len(encoded.ids), "score": model.score([encoded])[0]}
    (folder / "adapter" / "golden.jsonl").write_text(json.dumps(row))
    _, parity = open_engine("default", f"{folder}/base+{folder}/adapter", Settings())
    assert (parity.ok, parity.n) == (True, 1)
    another(folder, "other", -0.5)
    with pytest.raises(HostLacks, match="differ from its golden set"):
        open_engine("default", f"{folder}/base+{folder}/other", Settings())


def test_the_padding_token_is_that_of_the_adapters_tokenizer(tmp_path: Path) -> None:
    """Trainers set it where the base has none; transformers then pools the token before a closing one of that kind."""
    adapter("SEQ_CLS")(tmp_path)
    change(tmp_path / "base", "config.json", pad_token_id=None)
    write_tokenizer(tmp_path / "adapter", pad="<|end|>")
    (tmp_path / "adapter" / "chat_template.jinja").write_text(CLOSED)
    own = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=1, pad_token_id=2)
    adapted = peft.PeftModel.from_pretrained(own, tmp_path / "adapter").eval()
    ids = chat_ids(tmp_path / "adapter")
    with torch.inference_mode():
        right = [adapted(input_ids=ids(PROMPT, completion)).logits.item() for completion in COMPLETIONS]
    assert scores(load(tmp_path)) == pytest.approx(right, abs=1e-4)


# --- one base under several ------------------------------------------------------------------------------------------


def shared(folder: Path, name: str = "adapter", **more: Any) -> RewardModel:
    return RewardModel.load(f"{folder}/base+{folder}/{name}", share_base=True, **more)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("deterministic", [False, True])
def test_adapters_that_share_a_base_score_as_merged_ones(folder: Path, dtype: str, deterministic: bool) -> None:
    another(folder, "other", -0.5)
    names = ("adapter", "other")
    merged = {name: scores(RewardModel.load(f"{folder}/base+{folder}/{name}", dtype=dtype)) for name in names}
    models = {name: shared(folder, name, dtype=dtype, deterministic=deterministic) for name in names}

    assert models["adapter"]._backbone is models["other"]._backbone
    assert models["adapter"].revision != models["other"].revision
    for name in ("adapter", "other", "adapter", "adapter", "other"):
        bounds = {"abs": 1e-4} if dtype == "float32" else {"abs": 0.3, "rel": 0.1}
        assert scores(models[name]) == pytest.approx(merged[name], **bounds)
    for name in names:
        assert models[name].own_class_error is not None
        assert models[name].own_class_error < (1e-4 if dtype == "float32" else 0.1)
        assert models[name].parameters > load(folder).parameters
    assert models["adapter"].parameters == models["other"].parameters
    if not deterministic:
        assert models["other"].prefix_sharing_disabled_reason is None


def test_prompts_cached_under_one_adapter_are_not_anothers(folder: Path) -> None:
    another(folder, "other", -0.5)
    models = [shared(folder, name, max_prompt_bytes=2**20) for name in ("adapter", "other")]
    rounds = [[scores(model) for model in models] for _ in range(3)]
    for later in rounds[1:]:
        for first, again in zip(rounds[0], later, strict=True):
            assert again == pytest.approx(first, abs=1e-5)
    assert models[0].prompts.hits > 0


def test_a_released_adapter_leaves_the_others_and_the_last_one_the_base(folder: Path) -> None:
    another(folder, "other", -0.5)
    first, second = shared(folder), shared(folder, "other")
    before = scores(second)
    base = weakref.ref(second._backbone)
    names = {name for name, _ in second._backbone.named_parameters()}
    first.close()
    assert scores(second) == before
    assert {name for name, _ in second._backbone.named_parameters()} < names
    third = shared(folder)
    assert third._backbone is second._backbone
    second.close()
    third.close()
    del first, second, third
    gc.collect()
    assert base() is None


def test_the_same_adapter_twice_is_released_once_each(folder: Path) -> None:
    first, second = shared(folder), shared(folder)
    before = scores(second)
    first.close()
    assert scores(second) == before


def test_a_broken_adapter_leaves_the_shared_base_as_it_was(folder: Path) -> None:
    model = shared(folder)
    before = scores(model)
    another(folder, "other", float("nan"))
    with pytest.raises(UsageError, match="not finite"):
        shared(folder, "other")
    assert scores(model) == before
    change(folder / "base", "config.json", rms_norm_eps=0.5)  # another model, though its weights are the same
    assert shared(folder)._backbone is not model._backbone


def test_a_base_is_scored_by_one_adapter_at_a_time(folder: Path) -> None:
    another(folder, "other", -0.5)
    models = [shared(folder, name) for name in ("adapter", "other")]
    right = [scores(model) for model in models]
    with ThreadPoolExecutor(4) as pool:
        answers = [(at, pool.submit(scores, models[at])) for at in [0, 1] * 20]
        more = pool.submit(shared, folder, "adapter")
        for at, answer in answers:
            assert answer.result() == pytest.approx(right[at], abs=1e-5)
        assert scores(more.result()) == pytest.approx(right[0], abs=1e-5)


def test_cross_encoders_share_a_base_with_a_head_each(tmp_path: Path) -> None:
    encoder("Bert", types=True)(tmp_path / "base")
    config = peft.LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["query"], init_lora_weights=False)
    for seed, name in enumerate(("adapter", "other")):
        torch.manual_seed(seed)
        base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base")
        torch.nn.init.normal_(base.classifier.weight)
        peft.get_peft_model(base, config).save_pretrained(tmp_path / name)
    merged = [scores(load(tmp_path, name)) for name in ("adapter", "other")]
    models = [shared(tmp_path, name) for name in ("adapter", "other")]
    assert models[0]._backbone is models[1]._backbone
    for model, right in zip(models, merged, strict=True):
        assert scores(model) == pytest.approx(right, abs=1e-4)


def test_an_adapter_of_a_cross_encoder(tmp_path: Path) -> None:
    encoder("Bert", types=True)(tmp_path / "base")
    base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base")
    config = peft.LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["query", "value"], init_lora_weights=False)
    adapted = peft.get_peft_model(base, config).eval()
    adapted.save_pretrained(tmp_path / "adapter")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path / "base")
    with torch.inference_mode():
        right = [adapted(**tokenizer([PROMPT], [text], return_tensors="pt")).logits.item() for text in COMPLETIONS]
    assert scores(load(tmp_path)) == pytest.approx(right, abs=1e-4)


# --- refused by name -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_config", [False, True])
def test_an_adapter_alone_is_recognised_and_the_remedy_is_said(folder: Path, with_config: bool) -> None:
    """A folder that PEFT writes has no config.json."""
    if with_config:
        shutil.copy(folder / "base" / "config.json", folder / "adapter")
    words = rf"is an adapter of {folder}/base \(PEFT\); serve both as --model NAME={folder}/base\+{folder}/adapter"
    with pytest.raises(UsageError, match=words):
        RewardModel.load(folder / "adapter")
    with pytest.raises(UsageError, match=words):
        open_engine("default", str(folder / "adapter"), Settings())


def test_a_base_that_is_an_adapter_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="is an adapter of"):
        RewardModel.load(f"{folder}/adapter+{folder}/adapter")


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ({"num_hidden_layers": 1}, r"is not an adapter of this base: .*layers\.1"),
        ({"num_hidden_layers": 3}, r"is not an adapter of this base: .*layers\.2"),
        ({"intermediate_size": 64}, r"cannot be merged: .*size mismatch"),
    ],
)
def test_an_adapter_of_another_base_is_refused(tmp_path: Path, shape: dict[str, Any], words: str) -> None:
    adapter("SEQ_CLS", target_modules=["q_proj", "up_proj"])(tmp_path)
    causal("llama", **SHAPE | shape).save_pretrained(tmp_path / "base")
    with pytest.raises(UsageError, match=words):
        load(tmp_path)


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda own: (own / "adapter_config.json").unlink(), "no readable adapter_config.json"),
        (lambda own: (own / "adapter_config.json").write_text("{"), "no readable adapter_config.json"),
        (lambda own: (own / "adapter_model.safetensors").unlink(), "has no adapter_model.safetensors"),
        (lambda own: (own / "adapter_model.safetensors").write_bytes(b"x" * 99), "damaged safetensors"),
        (lambda own: change(own, "adapter_config.json", task_type="SEQ_2_SEQ_LM"), "task_type 'SEQ_2_SEQ_LM'"),
        (lambda own: change(own, "adapter_config.json", peft_type="ODD"), "the adapter cannot be merged"),
        (lambda own: change(own, "adapter_config.json", target_modules=["nothing"]), "cannot be merged|not an adapter"),
        (lambda own: change(own, "adapter_config.json", r=0), "cannot be merged|not an adapter"),
    ],
)
def test_a_broken_adapter_is_refused_by_name(folder: Path, break_it: Any, words: str) -> None:
    break_it(folder / "adapter")
    with pytest.raises(UsageError, match=words):
        load(folder)


def test_an_adapter_that_adds_no_weights_to_layers_is_refused(folder: Path) -> None:
    base = AutoModelForSequenceClassification.from_pretrained(folder / "base", num_labels=1, pad_token_id=0)
    shutil.rmtree(folder / "adapter")
    peft.get_peft_model(base, peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=4)).save_pretrained(
        folder / "adapter"
    )
    with pytest.raises(UsageError, match=r"weights are missing|cannot be merged"):
        load(folder)


def test_weights_that_are_not_finite_are_refused(folder: Path) -> None:
    another(folder, "other", float("nan"))
    with pytest.raises(UsageError, match=r"NaN|not finite"):
        load(folder, "other")


def test_a_folder_that_does_not_exist_is_named(folder: Path) -> None:
    with pytest.raises(HostLacks, match=r"no checkpoint folder at .*/nowhere"):
        RewardModel.load(f"{folder}/base+{folder}/nowhere")
    with pytest.raises(HostLacks, match=r"no checkpoint folder at .*/nowhere"):
        RewardModel.load(f"{folder}/nowhere+{folder}/adapter")


def test_a_folder_with_a_plus_in_its_name_is_a_folder(folder: Path) -> None:
    from support.checkpoints import write_family

    write_family(folder / "a+b", "llama")
    assert RewardModel.load(f"{folder}/a+b").own_class_error is not None


def test_without_peft_the_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "peft" else find(name, *more))
    with pytest.raises(UsageError, match=r"needs peft \(pip install 'plaudit-server\[adapters\]'\)"):
        load(folder)


def test_vllm_is_not_given_a_base_without_its_adapter(folder: Path) -> None:
    with pytest.raises(UsageError, match="needs --engine transformers"):
        open_engine(
            "default", f"{folder}/base+{folder}/adapter", Settings(engine="vllm", vllm_url={"default": "http://x"})
        )


def test_links_to_files_that_are_gone_are_not_left(folder: Path) -> None:
    (folder / "adapter" / "chat_template.jinja").write_text(CLOSED)
    joined = adapters.locate(f"{folder}/base+{folder}/adapter")
    assert (joined / "chat_template.jinja").read_text() == CLOSED
    (folder / "adapter" / "chat_template.jinja").unlink()
    assert adapters.locate(f"{folder}/base+{folder}/adapter") == joined
    assert (joined / "chat_template.jinja").read_text() == (folder / "base" / "chat_template.jinja").read_text()
    assert json.loads((joined / "config.json").read_text())["architectures"] == ["LlamaForSequenceClassification"]
