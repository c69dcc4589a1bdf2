"""A language model of the hub's form fitted on pairs: what is trained, what is served, and what a kill leaves."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from service.errors import UsageError
from service.scoring.encoder import load_tokenizer
from service.scoring.reward_model import RewardModel
from support.pretrained import write_base, write_run
from training.cli import main
from training.records import read_problems, read_programs
from training.run import read_jsonl

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # of transformers and TRL about each other's names
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
ROOT = Path(__file__).resolve().parents[2]
CASES = {
    "llama, whose padding is the token that ends a text": ("llama", {"pad": "<|end|>", "chat": False}, ()),
    "llama, in bfloat16": ("llama", {}, ("--fit.precision", "bfloat16")),
    "qwen2, by LoRA": ("qwen2", {}, ("--fit.lora_rank", "4", "--fit.gradient_checkpointing", "true")),
    "gemma, with margin and centring": ("gemma", {}, ("--fit.margin", "1", "--fit.centre", "0.01", "--fit.system", "Be strict.")),
}


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trained_scores(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[int, ...], tuple[float, int]]:
    """ids → (score, pooled token id) by the model that was trained, in right-padded batches as it was trained."""
    from training.fit_pretrained import PairTrainer

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
        if encoded.ids not in trained:  # shown as a whole function, for which see test_training_fit
            continue
        score, pooled = trained[encoded.ids]
        closing.add(pooled)
        assert pooled == encoded.ids[-1]
        assert served.score([encoded])[0] == pytest.approx(score, abs=tolerance)
    assert len(closing) == 1
    assert served.check_golden().ok
    assert served.spec.calibration is not None
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
