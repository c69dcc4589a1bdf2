"""What `plaudit-train export` writes is read by the trainers' own loaders, and its labels by our plug-ins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset

from plaudit import labels
from plaudit.integrations import openrlhf, verl
from support.stack import Stack
from training.data.export import hard_problems
from training.pipeline.cli import main
from training.pipeline.files import write_jsonl
from training.pipeline.records import Problem, ProgramRecord, as_row

pytestmark = pytest.mark.usefixtures("nothing_left_open")
QUESTION = "Write twice(x), which doubles."
TESTS = ("assert twice(2) == 4", "assert twice('ab') == 'abab'")
RIGHT, WRONG = "```python\ndef twice(x):\n    return 2 * x\n```", "```python\ndef twice(x):\n    return 4\n```"


def problem(name: str, fold: str = "train") -> Problem:
    return Problem(name, name, QUESTION, "twice", None, "", TESTS, "own", "MIT", fold)  # type: ignore[arg-type]


def sample(name: str, rate: float, at: int, copies: int = 1) -> ProgramRecord:
    text = RIGHT if rate == 1.0 else WRONG
    return ProgramRecord(f"{name}-{at}", name, "sample", text, "s", "m", "MIT", copies=copies, pass_rate=rate)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    write_jsonl(folder / "problems.jsonl", map(as_row, [problem("a"), problem("b"), problem("v", "validation")]))
    programs = [sample(name, rate, at) for name in "abv" for at, rate in enumerate((1.0, 0.5))]
    write_jsonl(folder / "verified.jsonl", map(as_row, programs))
    pairs = [
        {"fold": fold, "task_id": name, "chosen": f"{name}-0", "rejected": f"{name}-1", "weight": 1.0}
        for name, fold in (("a", "train"), ("b", "train"), ("v", "validation"))
    ]
    write_jsonl(folder / "pairs.jsonl", pairs)
    return folder


def exported(run: Path, kind: str, name: str, *flags: str) -> Path:
    out = run.parent / name
    assert main(["export", str(run), kind, "--out", str(out), *flags]) == 0
    return out


def rows_of(path: Path) -> list[dict[str, Any]]:
    kind = "parquet" if path.suffix == ".parquet" else "json"
    return list(load_dataset(kind, data_files=str(path), split="train"))


def test_pairs_of_each_trainer(run: Path) -> None:
    rows = rows_of(exported(run, "trl", "trl.jsonl"))
    assert [row["prompt"] for row in rows] == [[{"role": "user", "content": QUESTION}]] * 2
    assert rows[0]["chosen"] == [{"role": "assistant", "content": RIGHT}]
    assert rows[0]["rejected"] == [{"role": "assistant", "content": WRONG}]
    (row, _) = json.loads(exported(run, "llama-factory", "lf.json").read_text())
    assert row == {"instruction": QUESTION, "input": "", "chosen": RIGHT, "rejected": WRONG}
    (row,) = rows_of(exported(run, "openrlhf-pairs", "pairs.jsonl", "--fold", "validation", "--system", "Be brief."))
    assert row["prompt"][0] == {"role": "system", "content": "Be brief."}
    assert (row["chosen"], row["rejected"]) == (RIGHT, WRONG)


def test_problems_carry_labels_that_the_plug_ins_pay_by(run: Path, stack: Stack) -> None:
    (row, _) = rows_of(exported(run, "openrlhf", "problems.jsonl"))
    assert QUESTION in row["prompt"]
    reward = openrlhf.reward_func(stack.url, reward="tests")
    answer = reward([row["prompt"] + RIGHT, row["prompt"] + WRONG], [row["prompt"]] * 2, [row["tests"]] * 2)
    assert answer["rewards"] == [1.0, 0.5]
    (row, _) = rows_of(exported(run, "verl", "problems.parquet", "--system", "r1"))
    assert row["ability"] == "code"
    assert "<think>" in row["prompt"][0]["content"]
    label = row["reward_model"]["ground_truth"]
    assert labels.tests_of(label) is not None
    score = verl.compute_score_blocking(stack.url, reward="tests")
    found = [score(row["data_source"], text, label, extra_info=row["extra_info"]) for text in (RIGHT, WRONG)]
    assert [one["score"] for one in found] == [1.0, 0.5]


def test_hard_problems_are_the_papers() -> None:
    rates = {
        "easy": [1.0] * 4,
        "middle": [1.0, 1.0, 0.0, 1.0],
        "hard": [1.0, 0.0, 0.0, 0.0],
        "even": [0.25] * 4,
        "hopeless": [0.0] * 4,
    }
    programs = [sample(name, rate, at) for name, values in rates.items() for at, rate in enumerate(values)]
    # means 1, .75, .25, .25, 0: up to the median .25 are hard, even, hopeless; their spreads .43, 0, 0; median 0
    assert hard_problems(programs) == {"hard", "even", "hopeless"}
    assert hard_problems([*programs, sample("even", 1.0, 9)]) == {"hard", "even"}
    assert hard_problems([]) == set()


def test_what_is_missing_is_said(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "pairs.jsonl").unlink()
    assert main(["export", str(run), "trl", "--out", str(run / "x.jsonl")]) == 2
    assert "run plaudit-train pair first" in capsys.readouterr().err
    assert main(["export", str(run), "openrlhf", "--out", str(run / "x.jsonl"), "--fold", "test"]) == 2
    assert "nothing to export" in capsys.readouterr().err
