"""A language model of the hub's form fitted on pairs: what is trained, what is served, and what a kill leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from plaudit.errors import UsageError
from service.scoring.reward_model import RewardModel
from service.scoring.tokenizer import load_tokenizer
from support.pretrained import write_base, write_run
from training.pipeline.cli import main
from training.pipeline.config import read_recipe
from training.pipeline.files import read_jsonl
from training.pipeline.records import read_problems, read_programs

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # of transformers and TRL about each other's names
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "training" / "recipes"
CASES = {
    "llama, whose padding is the token that ends a text": ("llama", {"pad": "<|end|>", "chat": False}, ()),
    "llama, in bfloat16": ("llama", {}, ("--fit.precision", "bfloat16")),
    "qwen2, saved in bfloat16": ("qwen2", {}, ("--fit.save_dtype", "bfloat16")),
    "qwen2, by LoRA": ("qwen2", {}, ("--fit.lora_rank", "4", "--fit.gradient_checkpointing", "true")),
    "gemma, with margin and centring": (
        "gemma",
        {},
        ("--fit.margin", "1", "--fit.centre", "0.01", "--fit.system", "Be strict."),
    ),
}


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trained_scores(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[int, ...], tuple[float, int]]:
    """ids → (score, pooled token id) by the model that was trained, in right-padded batches as it was trained."""
    from training.reward_model.trainer_hf import PairTrainer

    found: dict[tuple[int, ...], tuple[float, int]] = {}
    save = PairTrainer.save_model

    def spy(self: Any, output_dir: str | None = None, _internal_call: bool = False) -> None:
        save(self, output_dir, _internal_call)
        if not _internal_call:
            rows = list(self.train_dataset)
            batch = self.data_collator(rows)
            ids, mask = batch["input_ids"], batch["attention_mask"]  # (B, T)
            bfloat16 = torch.autocast("cpu", torch.bfloat16, enabled=self.args.bf16)
            with torch.no_grad(), bfloat16:
                scores = self.model.eval()(input_ids=ids, attention_mask=mask).logits[:, 0]  # (B)
            for row, on, score in zip(ids.tolist(), mask.tolist(), scores.tolist(), strict=True):
                length = sum(on)
                assert on == [1] * length + [0] * (len(on) - length)
                found[tuple(row[:length])] = score, row[length - 1]

    monkeypatch.setattr(PairTrainer, "save_model", spy)
    return found


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("case", CASES)
def test_what_was_trained_is_what_is_served(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family, form, flags = CASES[case]
    recipe, folder = write_run(tmp_path, write_base(tmp_path / "base", family, **form))
    trained = trained_scores(monkeypatch)
    assert main(["fit", str(recipe), "--run", str(folder), *flags]) == 0

    served = RewardModel.load(folder / "checkpoint")
    problems = read_problems(folder / "problems.jsonl")
    tolerance = 0.05 if "bfloat16" in case else 1e-5
    closing = set()
    for program in read_programs(folder / "verified.jsonl"):
        problem = problems[program.task_id]
        if problem.fold != "train":
            continue
        shown = [(problem.prompt, program.completion)]
        encoded = served.encode(*shown[0])
        if encoded.ids not in trained:  # shown as a whole function, for which see test_template
            continue
        score, pooled = trained[encoded.ids]
        closing.add(pooled)
        assert pooled == encoded.ids[-1]
        assert served.score([encoded])[0] == pytest.approx(score, abs=tolerance)
    assert len(closing) == 1
    assert served.check_golden().ok
    assert served.spec.calibration is not None
    with safe_open(folder / "checkpoint" / "model.safetensors", framework="pt") as weights:
        types = {str(weights.get_tensor(name).dtype) for name in weights.keys()}  # noqa: SIM118  # it is no mapping
    assert types == {"torch.bfloat16" if "saved" in case else "torch.float32"}
    if "bfloat16" not in case:
        rows = list(read_jsonl(folder / "fit.jsonl"))
        assert rows[0]["loss"] > rows[-2]["loss"]
        assert "validation_accuracy" in rows[-1]


@pytest.mark.usefixtures("threads")
def test_transformers_own_classifier_pools_the_same_token(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", pad="<|end|>", chat=False)
    recipe, folder = write_run(tmp_path, base)
    assert main(["fit", str(recipe), "--run", str(folder)]) == 0
    served, checkpoint = RewardModel.load(folder / "checkpoint"), folder / "checkpoint"
    assert load_tokenizer(base).pad_token == "<|end|>"
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    texts = [served.encoder.full_text("def f(x):\n", body) for body in ("    return x\n", "    return 2 * x + 17\n")]
    batch = tokenizer(texts, padding=True, add_special_tokens=False, return_tensors="pt")
    with torch.no_grad():
        theirs = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, 0].tolist()
    ours = served.score([encoded for encoded in served.encode_group(None, texts) if not isinstance(encoded, Exception)])
    assert theirs == pytest.approx(ours, abs=1e-5)
    assert (checkpoint / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(folder / "checkpoint" / "model.safetensors"))


@pytest.mark.usefixtures("threads")
def test_a_fit_that_was_killed_ends_like_one_that_was_not(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    recipe, whole = write_run(tmp_path / "whole", base, epochs=8)
    assert main(["fit", str(recipe), "--run", str(whole)]) == 0

    recipe, killed = write_run(tmp_path / "killed", base, epochs=8)
    command = [sys.executable, "-m", "training.pipeline.cli", "fit", str(recipe), "--run", str(killed)]
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}) as process:
        while not (killed / "fit.trainer" / "checkpoint-8" / "whole").exists():
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert not (killed / "checkpoint").exists()
    (killed / "fit.trainer" / "checkpoint-900").mkdir()  # as a kill leaves one: begun, and not whole
    assert main(["fit", str(recipe), "--run", str(killed)]) == 0

    expected, found = weights(whole), weights(killed)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert list(read_jsonl(killed / "fit.jsonl")) == list(read_jsonl(whole / "fit.jsonl"))
    for name in ("reward_model.json", "golden.jsonl"):
        assert (killed / "checkpoint" / name).read_bytes() == (whole / "checkpoint" / name).read_bytes()


LAUNCHES = {
    "data parallel": ["--cpu", "--num_machines", "1", "--mixed_precision", "no", "-m", "training.pipeline.cli"],
    "sharded, by the recipe's own file": [
        "--config_file",
        str(RECIPES / "accelerate" / "fsdp.yaml"),
        str(ROOT / "tests" / "support" / "fsdp_on_cpu.py"),
    ],
}


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    "kind", ["data parallel", pytest.param("sharded, by the recipe's own file", marks=pytest.mark.extended)]
)
def test_two_processes_make_the_checkpoint_that_one_makes(kind: str, tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    recipe, alone = write_run(tmp_path / "alone", base)
    assert main(["fit", str(recipe), "--run", str(alone)]) == 0

    recipe, together = write_run(tmp_path / "together", base)
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2", "--main_process_port", "0"]
    command = [*launch, *LAUNCHES[kind], "fit", str(recipe), "--run", str(together), "--fit.precision", "float32"]
    environ = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.count('{"stage": "fit"') == 1  # rank 0 alone speaks
    assert done.stdout.count("sharded by FSDP 2") == (2 if "sharded" in kind else 0)

    one, two = RewardModel.load(alone / "checkpoint"), RewardModel.load(together / "checkpoint")
    assert two.check_golden().ok
    problems = read_problems(alone / "problems.jsonl")
    for program in read_programs(alone / "verified.jsonl"):
        text = problems[program.task_id].prompt, program.completion
        encoded = two.encode(*text)
        assert encoded.ids == one.encode(*text).ids
        assert two.score([encoded])[0] == pytest.approx(one.score([encoded])[0], abs=1e-5)


@pytest.mark.usefixtures("threads")
def test_published_pairs_without_pass_rates_are_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_base(tmp_path / "base", "qwen2")
    rows = [
        {
            "id": at,
            "instruction": f"Task {at // 2}: add {at // 2}.",
            "input": "",
            "chosen": f"```python\nx += {at // 2}\n```",
            "rejected": f"```python\nx -= {at}\n```" + "\n# so long" * 200 * (at == 1),
        }
        for at in range(40)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = (RECIPES / "acecode-rm-7b.toml").read_text().replace("validation_share = 0.005", "validation_share = 0.2")
    (tmp_path / "rm.toml").write_text(text)
    flags = [
        "--fit.base",
        str(tmp_path / "base"),
        "--hub.path",
        str(tmp_path / "pairs.jsonl"),
        "--hub.evaluation",
        "",  # the recipe's are on the hub
        "--fit.batch",
        "4",
        "--fit.max_length",
        "256",
    ]
    arguments = [str(tmp_path / "rm.toml"), "--run", str(tmp_path / "run"), *flags]
    assert main(["all", *arguments]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    folds = [row["fold"] for row in read_jsonl(tmp_path / "run" / "pairs.jsonl")]
    assert folds.count("validation") == 8
    assert len(read_problems(tmp_path / "run" / "problems.jsonl")) == 20  # ids name rows here: texts name questions
    assert summary["too_long"] == 1
    assert summary["pairs"] == folds.count("train") - summary["too_long"]
    assert 0 <= summary["validation_accuracy"] <= 1
    served = RewardModel.load(tmp_path / "run" / "checkpoint")
    assert served.spec.calibration is None
    assert served.spec.system == "You are a helpful assistant."
    assert served.check_golden().ok

    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "model-00002-of-00002.safetensors").write_bytes(b"of a model that was here before")
    assert main(["publish", *arguments, "--publish", str(folder)]) == 0
    published = RewardModel.load(folder)
    assert published.revision == served.revision
    assert published.check_golden().ok
    card = (folder / "README.md").read_text()
    assert "fitted from base, whose licence holds here, too. It was not evaluated here." in card
    assert "TIGER-Lab/AceCodePair-300K" in card
    assert str(tmp_path) not in card

    assert main(["fit", *arguments, "--fit.margin", "1"]) == 2
    assert "fit.margin and fit.scale need pass rates" in capsys.readouterr().err


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--fit.batch", "6"), "fit.batch 6 is not a multiple of 1 processes × fit.micro_batch 4"),
        (("--fit.precision", "float16"), "fit.precision is 'float16'; it must be bfloat16 or float32"),
        (("--fit.max_length", "20"), "no training pair is within fit.max_length, 20 tokens"),
        (
            ("--fit.template", "{prompt} {completion}", "--fit.system", "x"),
            "a text template contains its own system text",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(
    flags: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, folder = write_run(tmp_path, write_base(tmp_path / "base"))
    assert main(["fit", str(recipe), "--run", str(folder), *flags]) == 2
    assert message in capsys.readouterr().err


def test_several_processes_run_nothing_but_a_fit_of_a_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, folder = write_run(tmp_path, tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["pair", str(recipe), "--run", str(folder)]) == 2
    assert main(["fit", str(recipe), "--run", str(folder), "--fit.base", ""]) == 2
    assert main(["fit", str(recipe), "--run", str(folder), "--fit.loop", "groups"]) == 2
    complaint = "only `fit` with fit.base and fit.loop = pairs runs as several processes"
    assert capsys.readouterr().err.count(complaint) == 3


def test_a_padding_that_closes_a_text_is_not_taken(tmp_path: Path) -> None:
    from training.reward_model.base_model import pad_token

    tokenizer = load_tokenizer(write_base(tmp_path / "base"))
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    assert pad_token(tokenizer, {end}) == "<|pad|>"
    assert pad_token(tokenizer, {end, tokenizer.pad_token_id}) == "<s>"
    with pytest.raises(UsageError, match=r"end fit\.template in another token"):
        pad_token(tokenizer, set(tokenizer.all_special_ids))


def test_the_launch_files_say_what_accelerate_understands() -> None:
    from accelerate.commands.config.config_args import ClusterConfig
    from accelerate.commands.launch import launch_command_parser

    known = {action.dest for action in launch_command_parser()._actions}
    found = {path.name: ClusterConfig.from_yaml_file(str(path)) for path in (RECIPES / "accelerate").iterdir()}
    assert sorted(found) == ["fsdp-offload.yaml", "fsdp.yaml"]
    for config in found.values():
        assert set(config.fsdp_config) | set(config.deepspeed_config) <= known
        assert config.num_processes == 8
    offload = {name: config.fsdp_config.get("fsdp_offload_params") for name, config in found.items()}
    assert offload == {"fsdp-offload.yaml": True, "fsdp.yaml": False}


@pytest.mark.parametrize(("name", "length", "accumulated", "every"), [("7b", 2048, 4, 200), ("32b", 1024, 16, 50)])
def test_the_recipes_at_scale_have_the_papers_numbers(name: str, length: int, accumulated: int, every: int) -> None:
    recipe = read_recipe(RECIPES / f"acecode-rm-{name}.toml")
    fit = recipe.fit
    assert (fit.epochs, fit.lr, fit.warmup, fit.batch, fit.max_length) == (1, 1e-5, 0.1, 128, length)
    assert fit.batch // (fit.micro_batch * 8) == accumulated
    assert (fit.margin, fit.centre, fit.lora_rank, fit.precision) == (0.0, 0.0, 0, "bfloat16")
    assert (fit.eval_steps, recipe.split.validation_share, recipe.pair.weighted) == (every, 0.005, False)
