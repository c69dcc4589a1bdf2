"""Every stage on toy data in seconds: problems in, a checkpoint out that the service's own class loads and scores."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen2ForSequenceClassification

from service.scoring.reward_model import RewardModel
from training.data.judge_task import JudgeTask
from training.pipeline.cli import main
from training.pipeline.config import read_recipe
from training.pipeline.files import read_jsonl, write_jsonl
from training.pipeline.records import read_problems, read_programs
from training.reward_model.packed_forward import group_scores
from training.reward_model.template import load_encoder

RECIPE = """
name = "toy"
seed = 3
[split]
test = 3
validation = 3
validation_other = 0
near_duplicate = 0.95
[tokenize]
vocab_size = 300
[pretrain]
hidden_size = 32
intermediate_size = 48
num_layers = 2
num_heads = 2
max_tokens = 6000
batch_tokens = 512
[mutate]
per_problem = 2
[verify]
check = 5
[pair]
rejected_above_zero = false
[fit]
epochs = 3
group_size = 6
groups_per_step = 4
lr = 3e-3
margin = 0.5
centre = 0.01
[evaluate]
num_candidates = [1, 2, 4]
resamples = 50
draws = 5
generated_tests = 2
evidence_inputs = 4
"""
NOUNS = "apple river stone cloud lemon tiger piano candle garden window forest bridge".split()  # noqa: SIM905
RIGHT = ["    return {k} * x\n", "    y = x * {k}\n    return y\n"]
WRONG = ["    return {k}\n", "    return x\n    pass\n", "    return None\n", "    raise ValueError(x)\n"]


def write_gz(path: Path, rows: list[dict[str, Any]]) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as out:
        out.writelines(json.dumps(r) + "\n" for r in rows)


def toy_data(folder: Path) -> Path:
    folder.mkdir()
    problems, samples, labels, generated = [], [], [], []
    for at, noun in enumerate(NOUNS):
        k, task = at + 2, f"HumanEval/{at}"
        prompt = f'def {noun}(x):\n    """Multiply the {noun} number by {k}."""\n'
        tests = [f"assert {noun}({n}) == {n * k}" for n in (1, 5, 7)]
        problems.append(
            {
                "task_id": task,
                "base_id": task,
                "prompt": prompt,
                "entry_point": noun,
                "test_setup": "",
                "tests": tests,
                "canonical_solution": prompt + f"    return x * {k}\n",
                "source": "own/toy",
                "license": "Apache-2.0",
            }
        )
        generated.append({"task_id": task, "tests": tests[:2]})
        for number, body in enumerate([*RIGHT, *WRONG]):
            sample, text = f"codet/toy/{at}/{number}", body.format(k=k)
            samples.append(
                {
                    "task_id": task,
                    "sample_id": sample,
                    "completion": text,
                    "solution": prompt + text,
                    "source": "own/toy",
                    "license": "Apache-2.0",
                }
            )
            labels.append({"sample_id": sample, "gt_rate": float(body in RIGHT)})
    corpus = [
        {
            "path": f"{n}.py",
            "source": "own/toy",
            "license": "Apache-2.0",
            "text": f"def helper_{n}(a, b):\n    '''Add {n} to a and b.'''\n    return a + b + {n}\n",
        }
        for n in range(60)
    ]
    write_gz(folder / "problems.python.jsonl.gz", problems)
    write_gz(folder / "samples.python.jsonl.gz", samples)
    write_gz(folder / "labels.jsonl.gz", labels)
    write_gz(folder / "generated_tests.jsonl.gz", generated)
    write_gz(folder / "corpus.python.jsonl.gz", corpus)
    return folder


def judge_toys(tasks: Sequence[JudgeTask]) -> Iterator[dict[str, Any]]:
    """A stand-in for the sandbox that runs these toys, which are our own text, in this process."""
    for task in tasks:
        verdicts = []
        for test in task.tests:
            space: dict[str, Any] = {}
            try:
                exec(task.solution, space)
                exec(test, space)
            except (AssertionError, ArithmeticError, LookupError, NameError, TypeError, ValueError, RecursionError):
                verdicts.append("wrong_answer")
            else:
                verdicts.append("passed")
        yield {
            "key": task.key,
            "program_id": task.program_id,
            "status": "ok",
            "verdict": "",
            "verdicts": verdicts,
            "pass_rate": verdicts.count("passed") / len(verdicts),
            "detail": "",
        }


def test_all_stages_from_data_to_a_served_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("training.data.judge_local.judge_shard", judge_toys)
    monkeypatch.setenv("PLAUDIT_DATA", str(toy_data(tmp_path / "data")))
    recipe = tmp_path / "toy.toml"
    pairs = [{"prompt": "def f(x):\n", "chosen": "```python\n    return 2 * x\n```", "rejected": "Nothing."}]
    write_jsonl(tmp_path / "answers.jsonl", pairs)
    recipe.write_text(f"{RECIPE}pairs = ['pairs={tmp_path / 'answers.jsonl'}']\n")
    run, served = tmp_path / "run", tmp_path / "served"
    arguments = ["all", str(recipe), "--run", str(run), "--publish", str(served)]

    assert main(arguments) == 0

    out = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["stage"] for line in out] == [
        "collect",
        "tokenize",
        "pretrain",
        "mutate",
        "verify",
        "pair",
        "fit",
        "evaluate",
        "publish",
    ]
    held = {r["task_id"] for r in read_jsonl(run / "problems.jsonl") if r["fold"] != "train"}
    test_fold = {r["task_id"] for r in read_jsonl(run / "problems.jsonl") if r["fold"] == "test"}
    assert {r["task_id"] for r in read_jsonl(run / "mutants.jsonl")}.isdisjoint(held)
    assert {r["task_id"] for r in read_jsonl(run / "pairs.jsonl")}.isdisjoint(test_fold)

    model = RewardModel.load(served)
    assert model.check_golden().ok
    assert model.check_golden().n == 14
    assert model.pass_probability(0.0) is not None
    report = json.loads((served / "report.json").read_text())
    assert report["discrimination"]["auc"]["value"] > 0.6  # toys: `return None` is never right
    rankers = {row["ranker"]: row["points"] for row in report["best_of_n"]}
    assert rankers["mean (no choice)"][0]["value"] == pytest.approx(2 / 6)
    assert rankers["oracle (pass@N)"][1]["value"] == pytest.approx(1 - 6 / 15)
    assert rankers["agreement on raw generated tests"][2]["value"] > rankers["mean (no choice)"][2]["value"]
    assert "for a group of 32 different programs" in (served / "report.md").read_text()
    code, whole = report["pair_sets"]
    assert (code["set"], code["slices"][0]["pairs"]) == ("pairs=answers.jsonl", 1)
    assert "answers.jsonl | all |" in (served / "report.md").read_text()
    assert {part["value"] for one in (code, whole) for part in one["slices"]} <= {0.0, 0.5, 1.0}
    assert str(tmp_path) not in (served / "report.json").read_text()
    assert model.revision in (served / "README.md").read_text()
    assert str(tmp_path) not in (served / "README.md").read_text() + (served / "report.md").read_text()

    as_fitted = load_encoder(read_recipe(recipe), run / "tokenizer")
    weights = Qwen2ForSequenceClassification.from_pretrained(run / "checkpoint").eval()
    prompts = {name: problem.prompt for name, problem in read_problems(run / "problems.jsonl").items()}
    for program in read_programs(run / "verified.jsonl"):
        learnt = as_fitted.encode(prompts[program.task_id], program.completion)
        asked = model.encode(prompts[program.task_id], program.completion)
        assert (asked.ids, asked.prompt_tokens) == (learnt.ids, learnt.prompt_tokens)
        cut = learnt.prompt_tokens
        with torch.no_grad():
            trained = group_scores(weights, [(learnt.ids[:cut], [learnt.ids[cut:]])])
        assert model.score([asked]) == pytest.approx(trained.tolist(), abs=1e-5)

    before = (run / "fit.jsonl").stat().st_mtime_ns
    assert main(arguments) == 0
    assert all(json.loads(line)["done_before"] for line in capsys.readouterr().out.splitlines())
    assert (run / "fit.jsonl").stat().st_mtime_ns == before


def test_a_fit_killed_in_the_middle_ends_like_one_that_was_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from safetensors.torch import load_file

    monkeypatch.setattr("training.data.judge_local.judge_shard", judge_toys)
    monkeypatch.setenv("PLAUDIT_DATA", str(toy_data(tmp_path / "data")))
    recipe = tmp_path / "toy.toml"
    recipe.write_text(RECIPE)
    for stage in ("collect", "tokenize", "pretrain", "mutate", "verify", "pair", "fit"):
        assert main([stage, str(recipe), "--run", str(tmp_path / "run")]) == 0
    whole = load_file(tmp_path / "run" / "checkpoint" / "model.safetensors")

    import training.reward_model.trainer

    (tmp_path / "run" / "stages" / "fit.json").unlink()
    (tmp_path / "run" / "stages" / "fit.begun").unlink()
    monkeypatch.setattr("training.reward_model.checkpointing.SAVE_EVERY_S", 0.0)
    step, calls = training.reward_model.trainer.train_step, []

    def killed(*arguments: Any) -> float:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr("training.reward_model.trainer.train_step", killed)
    with pytest.raises(KeyboardInterrupt):
        main(["fit", str(recipe), "--run", str(tmp_path / "run")])
    assert main(["fit", str(recipe), "--run", str(tmp_path / "run")]) == 0
    resumed = load_file(tmp_path / "run" / "checkpoint" / "model.safetensors")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
