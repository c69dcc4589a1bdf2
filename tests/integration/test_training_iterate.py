"""The loop end to end in a world of a few tasks, with real execution: what a kill, a mode and a mistake do to it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from plaudit.errors import UsageError
from training.pipeline.cli import main
from training.pipeline.config import (
    FitConfig,
    IterateConfig,
    PairConfig,
    PPOConfig,
    PretrainConfig,
    Recipe,
    TokenizeConfig,
    WorldConfig,
)
from training.pipeline.files import read_jsonl
from training.pipeline.run import Run
from training.reward_model import checkpointing
from training.rewardranker.cost import Cost, computed
from training.rewardranker.iterate import iterate
from training.rewardranker.ppo import PPOTrainer

TINY = Recipe(
    name="tiny",
    world=WorldConfig(problems=60, programs=2, tests=2, test=0.2, validation=0.2),
    tokenize=TokenizeConfig(vocab_size=320),
    pretrain=PretrainConfig(
        hidden_size=32,
        intermediate_size=48,
        num_layers=1,
        num_heads=2,
        max_tokens=12_000,
        sequence_tokens=200,
        batch_tokens=1024,
    ),
    pair=PairConfig(min_chosen=0.5, min_gap=0.1, rejected_above_zero=False),
    fit=FitConfig(epochs=1, group_size=4, presentation=0.0, max_length=256),
    ppo=PPOConfig(iterations=2, prompts=4, samples=2, epochs=1),
    iterate=IterateConfig(
        rounds=2,
        sft_epochs=1,
        problems=12,
        samples=2,
        mined_problems=4,
        mined_samples=2,
        held_out=4,
        candidates=3,
        max_new_tokens=40,
    ),
)
LATE = (
    "iterate/seed-1/self_training/report.json",
    "iterate/seed-1/self_training/round-2/verified.jsonl",
    "iterate/seed-1/self_training/round-2/ppo.jsonl",
    "iterate/seed-1/round-1/mined.self_training.jsonl",
    "iterate/seed-1/round-1/ppo/model.safetensors",
)


COPY, WRONG = "    xs = list(xs)\n", "    return 12345\n"


class Killed(BaseException):
    """Stands for a kill: nothing in the loop may catch it."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(tmp_path_factory.mktemp("whole"), quiet=True)
    # A generator this small passes nothing: completions of record give it something to be ranked.
    iterate(recipe_with_records(run), run)
    return run


def recipe_with_records(run: Run, **changes: Any) -> Recipe:
    """Completions on record: a program that passes and one that fails for every training task."""
    from training.rewardranker.microworld import draw_tasks, microworld_problem

    path = run.folder / "recorded.jsonl"
    rows = []
    for task in draw_tasks(TINY.world, TINY.seed):
        problem = microworld_problem(task, TINY.world, TINY.seed)
        if problem.fold == "train":
            good = (problem.canonical or "").removeprefix(problem.prompt)
            rows += [{"task_id": problem.task_id, "completion": text} for text in (COPY + good, WRONG)]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return dataclasses.replace(TINY, iterate=dataclasses.replace(TINY.iterate, recorded=str(path), **changes))


def test_the_report_has_a_row_for_every_round_and_every_share(whole: Run) -> None:
    report = json.loads(whole.path(LATE[0]).read_text())
    assert [r["row"] for r in report["rows"] if "RewardRanker" in r["row"]] == [
        "RewardRanker: SFT candidates",
        "RewardRanker: PPO candidates",
        "RewardRanker 2 iter. self training: SFT candidates",
        "RewardRanker 2 iter. self training: PPO candidates",
    ]
    assert [m["round"] for m in report["mined"]] == [1, 2]
    assert all(0 <= m["high_scoring_failures"] <= m["failures"] <= m["completions"] for m in report["mined"])


def test_what_is_on_record_is_executed_and_joins_the_next_round(whole: Run) -> None:
    rates = {r["completion"]: r["pass_rate"] for r in read_jsonl(whole.path(LATE[1])) if r["label"] == "sandbox"}
    assert {rate for text, rate in rates.items() if text.startswith(COPY)} == {1.0}
    assert rates.get(WRONG, 0.0) == 0.0
    hard = list(read_jsonl(whole.path("iterate/seed-1/round-1/mined.hard_negatives.jsonl")))
    both = list(read_jsonl(whole.path(LATE[3])))
    assert all(r["pass_rate"] < 1.0 for r in hard)
    assert {r["program_id"] for r in hard} < {r["program_id"] for r in both}
    assert any(r["completion"].startswith(COPY) for r in both)


@pytest.mark.extended
def test_a_run_that_was_killed_ends_like_one_that_was_not(
    whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, learned, calls = Run(tmp_path, quiet=True), PPOTrainer.step, []

    def killed(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) in (2, 4):  # in the middle of the first PPO; at the second's beginning, a run later
            raise Killed
        return learned(*arguments)

    recipe = recipe_with_records(run)
    with monkeypatch.context() as patch:
        patch.setattr(checkpointing, "SAVE_EVERY_S", 0.0)
        patch.setattr(PPOTrainer, "step", killed)
        for _ in range(2):
            with pytest.raises(Killed):
                iterate(recipe, run)
    assert run.path("iterate/seed-1/round-1/stages/ppo.json").is_file()  # it went on with the second iteration
    iterate(recipe, run)
    for name in LATE:
        assert run.path(name).read_bytes() == whole.path(name).read_bytes(), name


def test_its_generators_make_a_table_of_best_of_n(
    whole: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = json.loads(whole.path(LATE[0]).read_text())
    by_row = {row["row"]: row for row in report["rows"]}
    assert main(["table", str(whole.folder), "--out", str(tmp_path / "table")]) == 0
    text = capsys.readouterr().out
    assert "## generator (SFT)" in text
    assert "## PPO generator of round 2" in text
    best = next(line for line in text.splitlines() if line.startswith("| reranker of round 1, best of 3 |"))
    columns = [name for name in report["rows"][0] if name not in ("row", "all", "low", "high")]
    cells = [float(cell) for cell in best.split("|")[2 : 2 + len(columns)]]
    assert cells == [pytest.approx(by_row["RewardRanker: SFT candidates"][name], abs=0.06) for name in columns]


def test_what_a_solved_problem_costs(whole: Run, capsys: pytest.CaptureFixture[str]) -> None:
    (whole.folder / "recipe.json").write_text(json.dumps(dataclasses.asdict(TINY)))
    assert main(["cost", str(whole.folder), "--problems", "2"]) == 0
    text = capsys.readouterr().out
    folder = whole.path(LATE[0]).parent
    assert (folder / "cost.md").read_text() == text
    costs = [Cost(**row) for row in json.loads((folder / "cost.json").read_text())]
    assert [cost.way for cost in costs] == ["greedy", "one sample", "best of 2", "best of 3"]
    assert all(cost.generating_cpu_s > 0 for cost in costs)
    assert [cost.scoring_cpu_s > 0 for cost in costs] == [False, False, True, True]
    assert costs[3].written_tokens > costs[1].written_tokens
    assert main(["cost", str(whole.folder / "iterate")]) == 2
    assert "run plaudit-train iterate first" in capsys.readouterr().err


def test_computed_costs_are_those_of_a_hand_calculation() -> None:
    alone = Cost("greedy", 1, 0.5, 100.0, 50.0, 1.0, 0.0)
    four = Cost("best of 4", 4, 0.8, 100.0, 200.0, 3.0, 1.0)
    assert computed(alone, 33.0, 0.0) == (2 * 33.0 * 150.0, 33.0 * 50.0)
    assert computed(four, 6.7, 6.7) == (pytest.approx(2 * 13.4 * 300.0), pytest.approx(6.7 * 50.0 + 6.7))
    assert four.per_solved(four.cpu_s) == pytest.approx(5.0)
    assert Cost("none", 1, 0.0, 1.0, 1.0, 1.0, 0.0).per_solved(1.0) is None


def test_a_mode_that_does_not_exist_is_said_at_once(tmp_path: Path) -> None:
    recipe = dataclasses.replace(TINY, iterate=dataclasses.replace(TINY.iterate, mode="everything"))
    with pytest.raises(UsageError, match="self_training, hard_negatives"):
        iterate(recipe, Run(tmp_path, quiet=True))
