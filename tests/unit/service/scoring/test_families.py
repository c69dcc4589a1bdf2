"""Checkpoints of others, as a folder or a hub id: what their own files say is enough, is told, and scores right."""

from __future__ import annotations

import json
import logging
import math
import re
import shutil
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast

from plaudit.errors import HostLacks, UsageError
from service.scoring.derive_spec import _positions, derive
from service.scoring.reward_model import RewardModel, RewardModelSpec
from service.scoring.tokenizer import load_tokenizer
from support.checkpoints import SPECIAL, TEMPLATE, checkpoint, write_family, write_model
from support.decoders import FAMILIES, UNSHARED, classifier

PROMPT = "def add(a, b):\n"
COMPLETIONS = ["    return a + b\n", "    return a - b\n", "", "    pass\n\n"]


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("family", [*FAMILIES, *UNSHARED])
def test_a_classifier_of_every_family_scores_as_hugging_face_does(tmp_path: Path, family: str, sharded: bool) -> None:
    folder = write_family(tmp_path, family, **({"max_shard_size": "30KB"} if sharded else {}))
    assert len(list(folder.glob("*.safetensors"))) > 1 or not sharded
    plain = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)

    model = RewardModel.load(folder)
    scores = model.score([model.encode(PROMPT, completion) for completion in COMPLETIONS])

    for completion, score in zip(COMPLETIONS, scores, strict=True):
        messages = [{"role": "user", "content": PROMPT}, {"role": "assistant", "content": completion}]
        ids = tokenizer.apply_chat_template(messages, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            assert score == pytest.approx(plain(input_ids=ids).logits.item(), abs=1e-4)
    if family in UNSHARED:
        assert "softcap" in str(model.prefix_sharing_disabled_reason)
        assert model.num_shared == 0
    else:
        assert model.prefix_sharing_disabled_reason is None
        assert model.num_shared > 0


def test_what_is_derived_is_printed_as_the_file_that_would_say_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_family(tmp_path, "qwen2")
    derived = RewardModel.load(folder)

    (line,) = [one.getMessage() for one in caplog.records if "has no reward_model.json" in one.getMessage()]
    assert "'<s><|user|>\\nPROMPT<|end|>\\n<|assistant|>\\nCOMPLETION<|end|>\\n'" in line
    assert "['Ċ'] is pooled" in line  # the line's end behind the closing token, as LLaMA-Factory's models have it
    found = re.search(r"files: (\{.*\}); an", line)
    assert found
    (folder / "reward_model.json").write_text(found[1])
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert RewardModel.load(folder).spec == derived.spec
    assert "reward_model.json" not in caplog.text


@pytest.mark.parametrize(("positions", "named", "want"), [(256, 64, 64), (128, None, 128), (None, 64, 64)])
def test_the_limit_is_the_smaller_one_of_what_is_said(tmp_path: Path, positions: Any, named: Any, want: int) -> None:
    assert derived(tmp_path, positions, named).max_length == want


def test_where_nothing_says_how_long_a_text_may_be_nothing_is_guessed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the longest text is unknown"):
        derived(tmp_path, None, None)


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        ({"model_type": "gpt2", "n_positions": 256}, 256),
        ({"model_type": "mpt", "max_seq_len": 128}, 128),
        ({"model_type": "gemma3", "text_config": {"model_type": "gemma3_text", "max_position_embeddings": 64}}, 64),
        ({"model_type": "roberta", "max_position_embeddings": 258, "pad_token_id": 1}, 256),
        ({"model_type": "esm", "max_position_embeddings": 258, "pad_token_id": 1}, 256),
        ({"model_type": "mpnet", "max_position_embeddings": 258, "pad_token_id": 0}, 256),
        ({"model_type": "t5"}, None),
    ],
)
def test_a_limit_is_read_by_the_name_that_its_class_gives_it(config: dict[str, Any], limit: int | None) -> None:
    assert _positions(config) == limit


def derived(folder: Path, positions: int | None, limit: int | None) -> RewardModelSpec:
    """A tokenizer that names no limit says 10**30."""
    edit(write_family(folder, "qwen2") / "tokenizer_config.json", model_max_length=limit or int(1e30))
    tokenizer = load_tokenizer(folder)
    config = json.loads((folder / "config.json").read_text()) | {"max_position_embeddings": positions}
    (folder / "config.json").write_text(json.dumps({name: one for name, one in config.items() if one is not None}))
    return derive(folder, tokenizer)


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# --- traps of tokenizers ---------------------------------------------------------------------------------------------


def test_a_familys_special_tokens_are_none_where_tokenizer_json_has_them_not() -> None:
    """Programs of models that were not stopped are full of them; the shipped model has no embedding for this one."""
    model = RewardModel.load(Path(__file__).parents[4] / "models" / "plaudit-mini")
    plain, odd = (model.encode("Add.", f"return a + b\n{more}") for more in ("", "<|endoftext|>"))
    assert len(odd.ids) > len(plain.ids) + 1
    assert model.encoder.tokenizer.decode(odd.ids).count("<|endoftext|>") == 1
    assert all(map(math.isfinite, model.score([plain, odd])))


def test_padding_and_truncation_that_a_tokenizer_was_saved_with_are_off(tmp_path: Path) -> None:
    """Exports of sentence-transformers carry both."""
    checkpoint(tmp_path)
    plain = RewardModel.load(tmp_path)
    edit(
        tmp_path / "tokenizer.json",
        truncation={"direction": "Right", "max_length": 6, "strategy": "LongestFirst", "stride": 0},
        padding={
            "strategy": {"Fixed": 200},
            "direction": "Left",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "<|pad|>",
        },
    )
    model = RewardModel.load(tmp_path)
    for completion in COMPLETIONS:
        assert model.encode(PROMPT, completion) == plain.encode(PROMPT, completion)
        assert len(plain.encode(PROMPT, completion).ids) > 6


@pytest.mark.parametrize("pad", [None, 2, 0])
def test_a_model_without_a_pad_token_or_with_eos_for_one_scores_groups(tmp_path: Path, pad: int | None) -> None:
    """2 is the closing token: Hugging Face would look for the last token that is another one."""
    checkpoint(tmp_path)
    want = RewardModel.load(tmp_path)
    batch = [want.encode(PROMPT, completion) for completion in COMPLETIONS]
    edit(tmp_path / "config.json", pad_token_id=pad, eos_token_id=2)
    model = RewardModel.load(tmp_path)
    assert all(one.ids[-1] == 2 for one in batch)
    assert model.score(batch) == want.score(batch)


def test_truncation_under_a_chat_template_keeps_what_closes_it(tmp_path: Path) -> None:
    model = RewardModel.load(write_family(tmp_path, "qwen2"))
    whole, cut = model.encode("word", "x"), model.encode("word " * 400, "x", "truncate_left")
    tail = len(whole.ids) - whole.prompt_tokens
    assert (len(cut.ids), cut.truncated) == (256, True)
    assert cut.ids[-tail:] == whole.ids[-tail:]
    assert SPECIAL.index("<|end|>") in cut.ids[-2:]


# --- encoders --------------------------------------------------------------------------------------------------------


def roberta(folder: Path, *, unigram: bool, separated: bool = True) -> Any:
    """RoBERTa's byte pairs or XLM-R's unigrams, with positions that begin behind the pad; answers the plain model."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import (
        RobertaConfig,
        RobertaForSequenceClassification,
        XLMRobertaConfig,
        XLMRobertaForSequenceClassification,
    )

    special = ["<s>", "<pad>", "</s>", "<unk>"]
    corpus = [Path(__file__).read_text(encoding="utf-8"), "Ünï 漢 É"]
    trainer: Any
    if unigram:
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.normalizer = normalizers.NFKC()
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
        )
        trainer = trainers.UnigramTrainer(
            vocab_size=300, special_tokens=special, unk_token="<unk>", show_progress=False
        )
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=special,
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>" if separated else "<s> $A $B </s>",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>")],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
    ).save_pretrained(folder)
    torch.manual_seed(7)
    config, kind = (
        (XLMRobertaConfig, XLMRobertaForSequenceClassification)
        if unigram
        else (RobertaConfig, RobertaForSequenceClassification)
    )
    model = kind(
        config(
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=32,
            intermediate_size=48,
            num_labels=1,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=66,
            pad_token_id=1,
            bos_token_id=0,
            eos_token_id=2,
            type_vocab_size=1,
            initializer_range=0.3,
        )
    ).eval()
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("unigram", [True, False])
def test_cross_encoders_of_robertas_kind_are_derived_and_score_pairs(tmp_path: Path, unigram: bool) -> None:
    plain = roberta(tmp_path, unigram=unigram)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    model = RewardModel.load(tmp_path)

    assert model.spec.template == "<s>{prompt}</s></s>{completion}</s>"
    assert model.spec.max_length == 64, "of 66 positions two stand before the first token"
    for completion in ["add b", " c\n", "\tx = f(1)"]:
        encoded, pair = model.encode("sum of a", completion), tokenizer("sum of a", completion, return_tensors="pt")
        assert encoded.ids == tuple(pair["input_ids"][0].tolist())
        with torch.no_grad():
            assert model.score([encoded])[0] == pytest.approx(plain(**pair).logits.item(), abs=1e-5)


@pytest.mark.parametrize("unigram", [True, False])
def test_an_encoders_longest_text_is_scored_and_its_truncation_keeps_both_ends(tmp_path: Path, unigram: bool) -> None:
    roberta(tmp_path, unigram=unigram)
    model = RewardModel.load(tmp_path)
    first, last = model.encoder.tokenizer.convert_tokens_to_ids(["<s>", "</s>"])
    cut = model.encode("sum of all numbers " * 40, "add b", "truncate_left")
    assert (len(cut.ids), cut.ids[0], cut.ids[-1], cut.truncated) == (64, first, last, True)
    assert isinstance(model.score([cut])[0], float)


def test_the_first_token_of_a_bert_is_not_cut(tmp_path: Path) -> None:
    """Its classifier reads [CLS], which is no BOS."""
    from transformers import BertTokenizerFast

    from service.scoring.encoder import Encoder

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"]
    spec = RewardModelSpec("[CLS]{prompt}[SEP]{completion}[SEP]", 8, "Bert", head="classifier")
    encoder = Encoder(BertTokenizerFast(vocab={word: at for at, word in enumerate(words)}), spec)
    assert encoder.encode("a " * 20, "b b", "truncate_left").ids == (2, 5, 5, 5, 3, 6, 6, 3)


def test_a_pair_that_a_template_cannot_write_is_refused(tmp_path: Path) -> None:
    """With nothing between them two texts written as one are other tokens than two texts."""
    roberta(tmp_path, unigram=False, separated=False)
    with pytest.raises(UsageError, match="cannot be derived"):
        RewardModel.load(tmp_path)


@pytest.mark.parametrize(("family", "limit"), [("bert", 65), ("llama", 257)])
def test_more_tokens_than_a_model_has_positions_for_are_refused(tmp_path: Path, family: str, limit: int) -> None:
    if family == "bert":
        roberta(tmp_path, unigram=False)
        spec = RewardModelSpec("<s>{prompt}</s></s>{completion}</s>", limit, "x", head="classifier")
    else:
        write_family(tmp_path, family)
        spec = RewardModelSpec(TEMPLATE, limit, "x")
    spec.write(tmp_path / "reward_model.json")
    with pytest.raises(UsageError, match=f"max_length {limit} is more than the {limit - 1} positions"):
        RewardModel.load(tmp_path)


# --- the hub ---------------------------------------------------------------------------------------------------------


class Hub:
    """One repository over the hub's own protocol. `asked`: the files that were downloaded."""

    COMMIT = "a" * 40

    def __init__(self, name: str, folder: Path) -> None:
        self.asked: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self._answer(body=False)

            def do_GET(self) -> None:
                self._answer(body=True)

            def _answer(self, *, body: bool) -> None:
                path = self.path.split("?")[0]
                if path.startswith(f"/api/models/{name}"):
                    names = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
                    files = [{"rfilename": one} for one in names]
                    found = json.dumps({"id": name, "sha": hub.COMMIT, "siblings": files}).encode()
                    if "/tree/" in path:
                        found = json.dumps(
                            [
                                {"type": "file", "path": one, "size": (folder / one).stat().st_size, "oid": "0" * 40}
                                for one in names
                            ]
                        ).encode()
                elif path.startswith(f"/{name}/resolve/") and (file := folder / path.split("/", 5)[5]).is_file():
                    found = file.read_bytes()
                    if body:
                        hub.asked.append(str(file.relative_to(folder)))
                else:
                    self.send_response(404)
                    self.send_header("X-Error-Code", "RepoNotFound")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(200)
                self.send_header("X-Repo-Commit", hub.COMMIT)
                self.send_header("ETag", f'"{abs(hash(path)):040x}"')
                self.send_header("Content-Length", str(len(found)))
                self.end_headers()
                if body:
                    self.wfile.write(found)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants

    folder = checkpoint(tmp_path / "origin")
    (folder / "onnx").mkdir()
    for extra in ("onnx/model.safetensors", "pytorch_model.bin", "README.md", "modeling_evil.py"):
        (folder / extra).write_bytes(b"nothing that a score needs")
    hub = Hub("acme/judge", folder)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield hub
    hub.close()


def test_a_hub_id_is_downloaded_once_and_scores_as_the_folder_it_was_made_of(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights, tokenizer and spec, and nothing else; then it is served without the hub."""
    from huggingface_hub import constants

    local, fetched = RewardModel.load(tmp_path / "origin"), RewardModel.load("acme/judge")
    batch = [local.encode(PROMPT, completion) for completion in COMPLETIONS]
    assert [fetched.encode(PROMPT, completion) for completion in COMPLETIONS] == batch
    assert fetched.score(batch) == local.score(batch)
    assert fetched.revision == local.revision
    assert {"model.safetensors", "config.json", "tokenizer.json", "reward_model.json"} <= set(hub.asked)
    assert not any(one.endswith((".bin", ".py", ".md")) or "/" in one for one in hub.asked)

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    count = len(hub.asked)
    assert RewardModel.load("acme/judge").score(batch) == local.score(batch)
    assert len(hub.asked) == count


def test_a_hub_id_that_the_hub_does_not_have_is_named(hub: Hub) -> None:
    with pytest.raises(HostLacks, match="acme/nothing is neither a folder on this host nor a checkpoint on the hub"):
        RewardModel.load("acme/nothing")


@pytest.mark.parametrize("file", ["spm.model", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model"])
def test_a_sentencepiece_model_is_downloaded(hub: Hub, tmp_path: Path, file: str) -> None:
    (tmp_path / "origin" / file).write_bytes(b"a")
    assert RewardModel.load("acme/judge").revision == RewardModel.load(tmp_path / "origin").revision
    assert file in hub.asked


def test_an_adapter_on_the_hub_is_served_on_a_local_base(hub: Hub, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    from support.kind_makers import adapter

    (tmp_path / "made").mkdir()
    adapter("SEQ_CLS")(tmp_path / "made")
    base, own = tmp_path / "made" / "base", tmp_path / "made" / "adapter"
    shutil.rmtree(tmp_path / "origin")
    shutil.copytree(own, tmp_path / "origin")
    with pytest.raises(UsageError, match=r"is an adapter of .*/base \(PEFT\); serve both as"):
        RewardModel.load("acme/judge")
    local, fetched = RewardModel.load(f"{base}+{own}"), RewardModel.load(f"{base}+acme/judge")
    batch = [local.encode(PROMPT, completion) for completion in COMPLETIONS]
    assert fetched.score(batch) == local.score(batch)
    assert fetched.revision == local.revision


# --- what is no checkpoint -------------------------------------------------------------------------------------------


def spoil_pickle(folder: Path) -> None:
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def spoil_shards(folder: Path) -> None:
    classifier("qwen2", vocab_size=400).save_pretrained(folder, max_shard_size="30KB")


def spoil_one_shard(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    spoil_shards(folder)
    next(folder.glob("model-00002*")).unlink()


def spoil_header(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(20)
        file.write(b"\xff")


def spoil_tail(folder: Path) -> None:
    """A download that was never finished, its end still zeros."""
    with (folder / "model.safetensors").open("r+b") as file:
        end = file.seek(0, 2)
        file.seek(end - 20000)
        file.write(bytes(20000))


def spoil_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()


def write(name: str, text: str) -> Any:
    return lambda folder: (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_pickle, "pickled weights are not read"),
        (spoil_shards, "two sets of weights"),
        (spoil_one_shard, "weights are missing: model-00002"),
        (spoil_header, "damaged safetensors"),
        (spoil_tail, "differ from its golden set"),
        (spoil_tokenizer, "its vocabulary is empty"),
        (lambda folder: write_model(folder, seed=8), "differ from its golden set"),
        (lambda folder: edit(folder / "config.json", hidden_act="relu"), "differ from its golden set"),
        (lambda folder: edit(folder / "config.json", model_type="nonsense"), "not a loadable checkpoint"),
        (lambda folder: edit(folder / "config.json", hidden_size="wide"), "Field 'hidden_size' expected int"),
        (lambda folder: edit(folder / "reward_model.json", max_length="long"), "reward_model.json"),
        (lambda folder: edit(folder / "reward_model.json", template=7), "reward_model.json"),
        (write("adapter_config.json", "{}"), "is an adapter of a base model"),
        (write("tokenizer.json", "{"), "no loadable tokenizer"),
        (write("config.json", "{"), "no readable config.json"),
        (write("reward_model.json", "{"), "not JSON"),
        (write("reward_model.json", "[]"), "not a JSON object"),
        (write("model.safetensors.index.json", "{"), "not an index of weights"),
        (write("golden.jsonl", ""), "has no rows"),
        (write("golden.jsonl", '{"prompt": "a"}'), "row 1 of the golden set: KeyError"),
        (write("golden.jsonl", '{"prompt": '), "row 1 of the golden set: JSONDecodeError"),
        (write("value_head.bin", "torch"), "contains more than tensors"),
    ],
)
def test_a_folder_that_is_no_checkpoint_any_more_is_refused_by_name_and_never_served(
    tmp_path: Path, spoil: Any, words: str
) -> None:
    from service.scoring.factory import open_engine
    from service.settings import Settings
    from support.checkpoints import write_golden

    write_golden(checkpoint(tmp_path, golden="golden.jsonl"))
    _, parity = open_engine("default", str(tmp_path), Settings())
    assert parity.ok
    spoil(tmp_path)
    with pytest.raises((UsageError, HostLacks), match=words):
        open_engine("default", str(tmp_path), Settings())
