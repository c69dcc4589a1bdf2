"""GRPO through TRL, with each of the three rewards asked of the running service."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from plaudit.errors import UsageError
from support.stack import Stack
from training.pipeline.config import PretrainConfig, Recipe, TokenizeConfig, WorldConfig
from training.pipeline.files import read_jsonl
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
    asked = world[1][0]
    (row,) = grpo.dataset_rows([asked], "<{}>".format)
    assert row["prompt"] == f"<{asked.prompt}>"
    good = (asked.canonical or "").removeprefix(asked.prompt)
    right, wrong = grpo.reward_of(kind, stack.url, continues=grpo.continue_code([asked]))(
        prompts=[row["prompt"]] * 2, completions=[good, WRONG], asked=[row["asked"]] * 2, tests=[row["tests"]] * 2
    )
    assert right is not None
    assert wrong is not None
    match kind:
        case "rule" | "pass_rate":
            assert (right, wrong) == (1.0, 0.0)
        case "bonus":
            assert (right, wrong) == (1.5, 0.0)
        case "plus_minus_one":
            assert (right, wrong) == (1.0, -1.0)
        case "rm":
            assert 0 < right < 1
            assert right != wrong
        case "combined":
            assert 1 < right < 1.2
            assert 0 < wrong < 0.2


def problem(
    kind: str, prompt: str, tests: tuple[str, ...], *, entry_point: str = "", setup: str = "", language: str = "python"
) -> Problem:
    return Problem(
        f"t/{kind}", f"t/{kind}", prompt, entry_point, None, setup, tests, "own", "MIT", "train", language, kind
    )  # type: ignore[arg-type]


HEAD = 'def greet(name):\n    """Say hello."""\n'
FORMS = {
    "assert": (
        problem(
            "assert",
            HEAD,
            ('assert greet("Al") == """Hi,\n  Al"""', "assert greet(BO) == 'Hi,\\n  Bo'"),
            entry_point="greet",
            setup="BO = 'Bo'",
        ),
        '    return f"Hi,\\n  {name}"\n<|im_end|>',
        "    return name\n",
    ),
    "check": (
        problem("check", HEAD, ("def check(candidate):\n    assert candidate('Al') == 'Al!'\n",), entry_point="greet"),
        "    return name + '!'\n<|im_end|>",
        "    return -12345\n",
    ),
    "function": (
        problem(
            "function",
            "Write twice(x), which doubles.",
            ('{"args": [2], "expected": 4}', '{"args": ["a"], "expected": "aa"}'),
            entry_point="twice",
        ),
        "def twice(x):\n    return 2 * x\n",
        "def twice(x):\n    return 4\n",
    ),
    "stdio": (
        problem("stdio", "Read two numbers and print their sum.", ('{"stdin": "1 2\\n", "stdout": "3\\n"}',)),
        "print(sum(map(int, input().split())))\n",
        "print(-12345)\n",
    ),
    "script": (
        problem(
            "script",
            "function twice(x) {\n",
            ("\nif (twice(2) !== 4) { process.exit(1) }\n",),
            language="javascript",
        ),
        "  return 2 * x\n}\n",
        "  return 5\n}\n",
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_tests_of_every_kind_pay_right_programs_and_no_others(stack: Stack, form: str) -> None:
    asked, right, wrong = FORMS[form]
    (row,) = grpo.dataset_rows([asked], str)
    reward = grpo.reward_of("rule", stack.url, continues=grpo.continue_code([asked]))
    columns = {"asked": [row["asked"]] * 2, "tests": [row["tests"]] * 2}
    assert reward(prompts=[""] * 2, completions=[right, wrong], **columns) == [1.0, 0.0]


def test_problems_of_both_forms_are_refused_by_name() -> None:
    with pytest.raises(UsageError, match="t/stdio"):
        grpo.continue_code([FORMS["check"][0], FORMS["stdio"][0]])


@pytest.mark.filterwarnings("ignore")  # TRL's and its libraries' own
def test_steps_of_grpo_go_over_http_and_go_on_after_a_kill(
    stack: Stack, world: tuple[Path, list[Problem]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("trl")
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    folder, problems = world
    paid, calls = grpo.reward_of("combined", stack.url), []

    def reward(*arguments: Any, **columns: Any) -> list[float | None]:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt  # as a kill: after the first step's state
        return paid(*arguments, **columns)

    reward.__name__ = "combined"

    def trained() -> list[dict[str, Any]]:
        return grpo.train(
            folder,
            problems,
            reward,
            tmp_path / "out",
            steps=2,
            prompts=2,
            samples=2,
            max_new_tokens=6,
            use_cpu=True,
            trackers=("tensorboard",),
            save_steps=1,
            quiet=True,
        )

    with pytest.raises(KeyboardInterrupt):
        trained()
    log = trained()
    assert len(calls) == 3  # the first step was not taken again
    assert [row["step"] for row in log] == [1, 2]
    assert [row["plaudit/reward_ok"] for row in log] == [1.0, 1.0]
    assert all(0 < row["reward"] < 1.2 for row in log)
    assert list(read_jsonl(tmp_path / "out" / "grpo.jsonl")) == log
    assert list((tmp_path / "out" / "tensorboard" / "grpo").iterdir())
    assert (tmp_path / "out" / "model.safetensors").is_file()
    assert not (tmp_path / "out" / "states").exists()
