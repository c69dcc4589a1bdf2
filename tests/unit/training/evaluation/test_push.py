"""`plaudit-train push`: models and pairs with cards, in a folder and at a hub, read by huggingface_hub itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import DatasetCard, ModelCard

from support.hub_server import HubServer
from training.evaluation.cards import model_data, size_category, sources_in, split_card, with_front_matter
from training.pipeline.cli import main
from training.pipeline.config import Recipe, override, read_recipe
from training.pipeline.files import write_jsonl
from training.pipeline.records import Problem, ProgramRecord, as_row

ROOT = Path(__file__).parents[4]
MINI = ROOT / "models" / "plaudit-mini"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    problems = [
        Problem(name, name, "Write twice(x).", "twice", None, "", ("assert twice(2) == 4",), "own", "MIT", fold)  # type: ignore[arg-type]
        for name, fold in (("a", "train"), ("v", "validation"))
    ]
    write_jsonl(folder / "problems.jsonl", map(as_row, problems))
    programs = [
        ProgramRecord(f"{name}-{at}", name, "sample", f"# {at}", "s", "openai/human-eval x", "MIT", pass_rate=rate)
        for name in "av"
        for at, rate in enumerate((1.0, 0.5))
    ]
    write_jsonl(folder / "verified.jsonl", map(as_row, programs))
    pairs = [
        {"fold": fold, "task_id": name, "chosen": f"{name}-0", "rejected": f"{name}-1", "weight": 1.0}
        for name, fold in (("a", "train"), ("v", "validation"))
    ]
    write_jsonl(folder / "pairs.jsonl", pairs)
    (folder / "recipe.json").write_text(json.dumps({"name": "small", "hub": {"path": "TIGER-Lab/AceCode-87K"}}))
    return folder


def pushed(*arguments: str, hub: HubServer | None = None, token: str = "secret") -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, because the hub's address is read once."""
    environ = {**os.environ, "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HOME": "/nonexistent"}
    if hub is not None:
        environ |= {"HF_ENDPOINT": hub.url, "HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-m", "training.pipeline.cli", "push", *arguments]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=150, cwd=ROOT)


def test_pairs_of_a_run_are_a_data_set_with_a_card(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["push", str(run), "--what", "pairs", "--to", str(out), "--license", "mit"]) == 0
    assert json.loads(capsys.readouterr().out) == {"pushed": "dataset", "files": 3, "to": str(out)}
    card = DatasetCard.load(out / "README.md")
    assert card.data.license == "mit"
    assert card.data.size_categories == ["n<1K"]
    assert card.data.source_datasets == ["TIGER-Lab/AceCode-87K", "openai/openai_humaneval"]
    assert "| openai/human-eval | MIT | 2 |" in card.text
    from datasets import load_dataset

    read = load_dataset(str(out), cache_dir=str(tmp_path / "cache"))  # by the card's own configuration
    assert {split: len(rows) for split, rows in read.items()} == {"train": 1, "validation": 1}
    assert read["train"][0]["chosen"] == [{"role": "assistant", "content": "# 0"}]


def test_a_checkpoint_gets_the_front_matter_that_it_lacks(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "README.md").write_text("# Mine\n\nText.\n")
    assert main(["push", str(folder), "--to", str(tmp_path / "out"), "--license", "apache-2.0"]) == 0
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert (card.data.license, card.data.pipeline_tag) == ("apache-2.0", "text-classification")
    assert card.text.strip() == "# Mine\n\nText."


def test_the_shipped_card_s_front_matter_is_by_this_code() -> None:
    card = (MINI / "README.md").read_text(encoding="utf-8")
    _, body = split_card(card)
    recipe = read_recipe(ROOT / "training" / "recipes" / "mini.toml")
    report = json.loads((MINI / "report.json").read_text(encoding="utf-8"))
    assert card == with_front_matter(model_data(recipe, report, sources_in(body)), body)
    data: Any = ModelCard(card).data
    assert {(one.metric_type, one.metric_value) for one in data.eval_results} == {
        ("accuracy", 0.7849),
        ("roc_auc", 0.776),
        ("pass@1", 0.262),
    }


def test_a_path_of_this_machine_is_in_no_card(tmp_path: Path) -> None:
    here = override(Recipe(), ["--fit.base", str(tmp_path), "--hub.path", str(tmp_path / "rows.jsonl")])
    assert str(tmp_path) not in model_data(here, None, []).to_yaml()
    there = override(Recipe(), ["--fit.base", "Qwen/Qwen2.5-Coder-0.5B", "--card.license", "mit", "--card.tags", "x"])
    data = model_data(there, None, ["google-research/mbpp"])
    assert data.base_model == "Qwen/Qwen2.5-Coder-0.5B"
    assert data.datasets == ["google-research-datasets/mbpp"]
    assert data.tags[-1] == "x"
    assert data.eval_results is None
    assert [size_category(n) for n in (999, 1_000, 307_509, 5_000_000)] == [
        "n<1K",
        "1K<n<10K",
        "100K<n<1M",
        "1M<n<10M",
    ]


def test_a_model_goes_to_the_hub_in_one_commit(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for name, text in (("config.json", "{}"), ("golden.jsonl", "{}\n"), ("README.md", "# Mine\n")):
        (model / name).write_text(text)
    with HubServer() as hub:
        done = pushed(str(model), "--to", "hub:me/mine", "--license", "mit", "--private", hub=hub)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["to"] == f"{hub.url}/me/mine"
        files = hub.repositories["models/me/mine"]
        assert files["config.json"] == b"{}"
        assert files["README.md"].startswith(b"---\n")
        assert hub.private["models/me/mine"]
        assert {card["repoType"] for card in hub.cards} == {"model"}
        denied = pushed(str(model), "--to", "hub:me/mine", hub=hub, token="wrong")
        assert denied.returncode == 3
        assert "hf auth login" in denied.stderr
        hub.rejects_cards = True
        rejected = pushed(str(model), "--to", "hub:me/other", hub=hub)
        assert rejected.returncode == 2
        assert "the hub does not take the card" in rejected.stderr
        assert list(hub.repositories) == ["models/me/mine"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{run}", "--to", "hub:mine"], "a repository is hub:ORG/NAME"),
        (["{run}", "--to", "{run}"], "is not an empty folder"),
        (["{run}", "--to", "{out}"], "run plaudit-train fit first"),
        (["{run}", "--what", "pairs", "--to", "{out}", "--license", "My Own"], "ids in lower case"),
        (["{empty}", "--to", "{out}"], "is no run folder (recipe.json), no checkpoint"),
        (["{file}", "--to", "{out}"], "no 'rejected'"),
    ],
)
def test_what_cannot_be_pushed_is_said(
    arguments: list[str], said: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "a", "chosen": "b"}\n')
    names = {"run": run, "out": tmp_path / "out", "empty": tmp_path / "empty", "file": tmp_path / "pairs.jsonl"}
    assert main(["push", *(argument.format(**names) for argument in arguments)]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
