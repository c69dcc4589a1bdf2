"""The checkpoint that is shipped is the one its report speaks of."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest

from service.scoring.reward_model import RewardModel
from training.data.collect import collect_problems
from training.data.public_data import data_file
from training.evaluation.diagnostics import discrimination
from training.evaluation.evaluate import samples_by_problem
from training.pipeline.config import read_recipe
from training.pipeline.records import read_problems, read_programs
from training.pipeline.run import Run
from training.reward_model.finalize import score_programs

ROOT = Path(__file__).parents[2]
MINI = ROOT / "models" / "plaudit-mini"
MAX_BYTES = 25_000_000


@pytest.fixture(scope="module")
def mini() -> RewardModel:
    return RewardModel.load(MINI)


def test_it_scores_here_as_it_did_where_it_was_made(mini: RewardModel) -> None:
    parity = mini.check_golden()
    assert parity.ok
    assert parity.n >= 10


def test_it_is_small_enough_to_ship_and_its_report_names_it(mini: RewardModel) -> None:
    assert sum(file.stat().st_size for file in MINI.iterdir()) <= MAX_BYTES
    assert json.loads((MINI / "report.json").read_text())["revision"] == mini.revision
    assert mini.revision in (MINI / "README.md").read_text()
    assert mini.spec.calibration is not None


def test_it_tells_right_from_wrong_better_than_chance_by_its_own_report() -> None:
    found = json.loads((MINI / "report.json").read_text())["discrimination"]
    assert found["pair_accuracy"]["problems"] >= 30
    assert found["pair_accuracy"]["low"] > 0.5
    assert found["auc"]["low"] > 0.5


@pytest.mark.data
def test_the_reported_pair_accuracy_holds_on_a_slice_of_the_unseen_problems(mini: RewardModel, tmp_path: Path) -> None:
    recipe = read_recipe(ROOT / "training" / "recipes" / "mini.toml", environ=os.environ)
    if "PLAUDIT_DATA" not in os.environ:
        recipe = dataclasses.replace(recipe, data=str(ROOT / recipe.data))
    data_file(recipe.data, "samples.python.jsonl.gz")
    run = Run(tmp_path, quiet=True)
    collect_problems(recipe, run)
    problems = read_problems(run.path("problems.jsonl"))
    reported = json.loads((MINI / "report.json").read_text())["discrimination"]["by_problem"]
    slice_ = sorted(task_id for task_id, one in reported.items() if one["auc"] is not None)[:3]
    assert all(problems[task_id].fold == "test" for task_id in reported)

    programs = [p for p in read_programs(run.path("programs.jsonl")) if p.task_id in slice_ and p.iid_copies]
    scores = dict(zip([p.program_id for p in programs], score_programs(mini, problems, programs), strict=True))
    found = discrimination(samples_by_problem(programs, scores), recipe.evaluate, recipe.pair, 1)["by_problem"]

    for task_id in slice_:
        assert found[task_id] == pytest.approx(reported[task_id], abs=2e-3)
