"""GRPO through TRL, with each of the three rewards asked of the running service."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from support.stack import Stack
from training.pipeline.config import PretrainConfig, Recipe, TokenizeConfig, WorldConfig
from training.pipeline.records import Problem, read_problems
from training.pipeline.run import Run
from training.reward_model.pretrain import new_model
from training.reward_model.template import load_encoder
from training.rewardranker.microworld import microworld
from training.rl import grpo

WORLD = dataclasses.replace(
    Recipe(),
    world=WorldConfig(problems=12, programs=1, tests=2),
    tokenize=TokenizeConfig(vocab_size=300),
    pretrain=PretrainConfig(hidden_size=16, intermediate_size=16, num_layers=1, num_heads=2),
)
WRONG = "    return 12345\n"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Problem]]:
    """A generator that knows nothing, and the problems it is asked."""
    run = Run(tmp_path_factory.mktemp("world"), quiet=True)
    microworld(WORLD, run)
    tokenizer = load_encoder(WORLD, run.path("tokenizer")).tokenizer
    folder = run.path("generator/config.json").parent
    new_model(WORLD, len(tokenizer), tokenizer.pad_token_id, tokenizer.eos_token_id).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder, [p for p in read_problems(run.path("problems.jsonl")).values() if p.fold == "train"]


@pytest.mark.parametrize("kind", grpo.REWARDS)
def test_a_reward_pays_what_its_name_says(stack: Stack, world: tuple[Path, list[Problem]], kind: str) -> None:
    problem = world[1][0]
    (row,) = grpo.dataset_rows([problem], "<{}>".format)
    assert row["prompt"] == f"<{problem.prompt}>"
    good = (problem.canonical or "").removeprefix(problem.prompt)
    right, wrong = grpo.reward_of(kind, stack.url)(
        prompts=[row["prompt"]] * 2, completions=[good, WRONG], asked=[row["asked"]] * 2, tests=[row["tests"]] * 2
    )
    assert right is not None
    assert wrong is not None
    match kind:
        case "rule":
            assert (right, wrong) == (1.0, 0.0)
        case "rm":
            assert 0 < right < 1
            assert right != wrong
        case "combined":
            assert 1 < right < 1.2
            assert 0 < wrong < 0.2


@pytest.mark.filterwarnings("ignore")  # TRL's and its libraries' own
def test_a_step_of_grpo_goes_over_http_and_saves_the_generator(
    stack: Stack, world: tuple[Path, list[Problem]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("trl")
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    folder, problems = world
    log = grpo.train(
        folder,
        problems,
        grpo.reward_of("combined", stack.url),
        tmp_path / "out",
        steps=1,
        prompts=2,
        samples=2,
        max_new_tokens=6,
        use_cpu=True,
    )
    assert [entry["plaudit/reward_ok"] for entry in log] == [1.0]
    assert 0 < log[0]["reward"] < 1.2
    assert (tmp_path / "out" / "model.safetensors").is_file()
