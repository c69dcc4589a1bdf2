"""The head over frozen states: what is learnt is what a forward of the written classifier scores."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from service.scoring.reward_model import RewardModel
from training.data.preferences import build_pairs
from training.data.programs import program_of
from training.pipeline.config import FitConfig, PairConfig, PretrainConfig, Recipe, TokenizeConfig
from training.pipeline.files import write_jsonl
from training.pipeline.records import Problem, as_row, read_problems, read_programs
from training.pipeline.run import Run
from training.reward_model import head
from training.reward_model.finalize import finish_checkpoint, score_programs
from training.reward_model.pretrain import new_model
from training.reward_model.tokenizer import train_tokenizer

RECIPE = Recipe(
    tokenize=TokenizeConfig(vocab_size=300),
    pretrain=PretrainConfig(hidden_size=32, intermediate_size=48, num_layers=2, num_heads=2),
    pair=PairConfig(rejected_above_zero=False),
    fit=FitConfig(loop="head", head_steps=150, head_lr=1e-2, presentation=0.5, max_length=256),
)


def problem(number: int) -> Problem:
    return Problem(
        task_id=f"T/{number}",
        base_id=f"T/{number}",
        prompt=f'def scale{number}(x):\n    """x times {number}."""\n',
        entry_point=f"scale{number}",
        canonical=None,
        test_setup="",
        tests=("assert True",),
        source="own",
        license="Apache-2.0",
    )


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Twelve problems whose passing programs return a product, and whose failing ones stop at a stub."""
    run = Run(tmp_path / "run", quiet=True)
    problems = [problem(number) for number in range(12)]
    programs = []
    for one in problems:
        number = one.task_id.removeprefix("T/")
        bodies = {f"    return x * {number}\n": 1.0, f"    y = x * {number}\n    return y\n": 1.0}
        bodies |= {"    pass\n": 0.0, "    # TODO\n    pass\n": 0.0}
        programs += [
            program_of(one, one.prompt + body, "sample", "own", "Apache-2.0", pass_rate=rate)
            for body, rate in bodies.items()
        ]
    write_jsonl(run.path("problems.jsonl"), map(as_row, problems))
    write_jsonl(run.path("verified.jsonl"), map(as_row, programs))
    tokenizer = train_tokenizer([program.solution for program in programs], RECIPE)
    for name in ("tokenizer", "pretrained"):
        tokenizer.save_pretrained(run.path(name))
    torch.manual_seed(1)
    model = new_model(RECIPE, len(tokenizer), tokenizer.pad_token_id, tokenizer.eos_token_id)
    model.save_pretrained(run.path("pretrained"))
    build_pairs(RECIPE, run)
    return run


def served_margins(run: Run) -> list[float]:
    """Of every problem, the lowest served score of its passing programs less the highest of its failing ones."""
    problems, programs = read_problems(run.path("problems.jsonl")), read_programs(run.path("verified.jsonl"))
    model = RewardModel.load(run.path("checkpoint/config.json").parent)
    scores = dict(zip(programs, score_programs(model, problems, programs), strict=True))
    return [
        min(s for p, s in scores.items() if p.task_id == task_id and p.pass_rate)
        - max(s for p, s in scores.items() if p.task_id == task_id and not p.pass_rate)
        for task_id in problems
    ]


def test_the_written_classifier_orders_what_the_head_has_learnt(run: Run) -> None:
    fitted = head.fit(RECIPE, run)
    finish_checkpoint(run, {}, [], recipe=RECIPE)
    assert fitted.summary["problems"] == 12
    assert fitted.summary["loss"] < 0.3
    assert min(served_margins(run)) > 0


def test_states_are_computed_once_and_again_for_another_model(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[int] = []
    real = head.pooled

    def counted(backbone: Any, keys: Any, encodings: Any) -> Any:
        computed.append(len(keys))
        return real(backbone, keys, encodings)

    monkeypatch.setattr(head, "pooled", counted)
    head.fit(RECIPE, run)
    first = sum(computed)
    assert first > 48
    head.fit(dataclasses.replace(RECIPE, seed=2), run)
    assert sum(computed) == first
    shorter = dataclasses.replace(RECIPE, fit=dataclasses.replace(RECIPE.fit, max_length=255))
    head.fit(shorter, run)
    assert sum(computed) == 2 * first
    weights = run.path("pretrained/model.safetensors")
    tensors = load_file(weights)
    save_file({name: tensor + 0.01 for name, tensor in tensors.items()}, weights, {"format": "pt"})
    head.fit(shorter, run)
    assert sum(computed) == 3 * first


def test_every_problem_counts_the_same_whatever_its_number_of_pairs() -> None:
    torch.manual_seed(1)
    states = torch.randn(200, 4)
    many = [(at, at + 1) for at in range(0, 100, 2)]
    for better, worse in many:
        states[better, 0] = states[worse, 0] + 1  # the first number decides in fifty problems of one pair
    one = [(at, at + 1) for at in range(100, 200, 2)]
    for better, worse in one:
        states[better, 0] = states[worse, 0] - 1  # and is misleading in one problem of fifty pairs
    weight, _ = head.head_of(states, [[pair] for pair in many] + [one], 300, 1e-2, 1)
    assert weight[0] > 0.5
