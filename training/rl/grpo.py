"""GRPO of a generator on one machine, by TRL, with rewards from a running service: `python -m training.rl.grpo --help`.

    python -m training.rl.grpo --model runs/micro/iterate/sft --problems runs/micro/problems.jsonl \\
        --url http://127.0.0.1:8000 --reward combined --output runs/grpo

The problems are the rows of `collect` or `microworld` (training fold). Where prompts are code that has begun, a prompt
and a completion together are the program that runs; if they are questions in words, the completion is. The rewards:

  rule            1 if every test passes, else 0
  pass_rate       the share of the tests that pass
  bonus           the same, and 0.5 more if every test passes
  plus_minus_one  1 if every test passes, else -1
  rm              the reward model's score, as a sigmoid
  combined        the service's `tests_first`: the model breaks ties among programs that pass the same tests

The output folder has the rows of every step in `grpo.jsonl`, the trackers that `--trackers` names, and states every
`--save-steps` steps, from which the same command goes on after a kill.

TRL subtracts the group's mean and divides by its standard deviation, so the scale of a reward does not matter. A
completion that the service could not judge gets `None`, which TRL masks.
"""

from __future__ import annotations

import argparse
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from plaudit.errors import UsageError
from plaudit.integrations import trl
from plaudit.schemas import RewardExtract
from service.scoring.tokenizer import load_tokenizer
from training.data.programs import opens_program
from training.data.test_formats import label_of
from training.pipeline.digests import content_key
from training.pipeline.progress import StageProgress
from training.pipeline.records import Problem, read_problems
from training.pipeline.run import Run
from training.pipeline.trackers import PACKAGES, missing_packages

REWARDS: dict[str, dict[str, Any]] = {
    "rule": {"terms": [{"name": "tests", "type": "execute", "policy": "all_or_nothing"}]},
    "pass_rate": {"terms": [{"name": "tests", "type": "execute"}]},
    "bonus": {
        "terms": [
            {"name": "tests", "type": "execute"},
            {"name": "all", "type": "execute", "policy": "all_or_nothing", "weight": 0.5},
        ]
    },
    "plus_minus_one": {"terms": [{"name": "tests", "type": "execute", "policy": "plus_minus_one"}]},
    "rm": {"terms": [{"name": "rm", "type": "score", "transform": "sigmoid", "on_overflow": "truncate_left"}]},
    "combined": {
        "terms": [
            {"name": "tests", "type": "execute", "policy": "all_or_nothing"},
            {"name": "rm", "type": "score", "on_overflow": "truncate_left"},
        ],
        "combine": "tests_first",
    },
}


def dataset_rows(problems: Sequence[Problem], head: Callable[[str], str]) -> list[dict[str, Any]]:
    """Rows of TRL's data set: `prompt` as the model reads it, and what the reward function needs beside it.

    Args:
        problems: to train on.
        head: makes the model's prompt from a problem's prompt.
    """
    return [
        {
            "prompt": head(problem.prompt),
            "asked": problem.prompt,
            "tests": label_of(problem),
        }
        for problem in problems
    ]


def reward_of(
    kind: str, url: str, api_key: str | None = None, *, continues: bool = True
) -> Callable[..., list[float | None]]:
    """A TRL reward function that asks the service under the plain prompt, without the generator's special tokens.

    Args:
        kind: one of `REWARDS`.
        url: where the service listens.
        api_key: key of the service, where it asks for one.
        continues: whether the prompt and a completion together are the program; otherwise the completion is.
    """
    extract: RewardExtract = "continuation" if continues else "none"
    score = trl.reward_function(url, api_key, column="tests", name=kind, spec=REWARDS[kind], extract=extract)

    def reward(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        return score(prompts=columns.pop("asked"), completions=completions, **columns)

    reward.__name__ = kind
    return reward


def continue_code(problems: Sequence[Problem]) -> bool:
    """Whether these prompts are code that completions go on with. Raises `UsageError` if only some are."""
    if not problems:
        raise UsageError("--problems: no problem of the training fold")
    asked = [problem for problem in problems if not opens_program(problem)]
    if asked and len(asked) < len(problems):
        raise UsageError(
            f"--problems: {len(asked)} prompts are questions in words (the first: {asked[0].task_id}), the others are "
            "code to go on with; train on files of one kind"
        )
    return not asked


def train(
    model: Path,
    problems: Sequence[Problem],
    reward: Callable[..., list[float | None]],
    output: Path,
    *,
    steps: int,
    prompts: int = 8,
    samples: int = 4,
    lr: float = 5e-5,
    beta: float = 0.02,
    max_new_tokens: int = 72,
    seed: int = 1,
    use_cpu: bool | None = None,
    trackers: Sequence[str] = (),
    save_steps: int = 0,
    quiet: bool = False,
) -> list[dict[str, Any]]:
    """Train by GRPO and write `output/`.

    Args:
        model: folder of the generator to start from.
        problems: their prompts are continued.
        reward: see `reward_of`.
        output: folder of the trained generator.
        steps: optimiser steps.
        prompts: per step.
        samples: completions per prompt, the group.
        lr: constant learning rate.
        beta: weight of the KL penalty against the start.
        max_new_tokens: longest completion.
        seed: of the order and of TRL.
        use_cpu: None: where there is no GPU.
        trackers: names of `training.pipeline.trackers`, which show the rows as curves.
        save_steps: steps between two states to go on from; 0: none.
        quiet: tell no progress.

    Returns:
        TRL's log, one entry per step.
    """
    import torch
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    from training.reward_model.metrics_log import MetricsLog
    from training.reward_model.template import TEMPLATE

    run = Run(output, quiet=quiet)
    states = output / "states"
    settings = {"model": model.name, "steps": steps, "prompts": prompts, "samples": samples, "lr": lr, "beta": beta}
    key = content_key(settings, seed, max_new_tokens, [problem.task_id for problem in problems])
    if not run.resumable_key("grpo", key):
        shutil.rmtree(states, ignore_errors=True)
    state = max(states.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), default=None)
    first = int(state.name.rpartition("-")[2]) if state is not None else 0
    cpu = not torch.cuda.is_available() if use_cpu is None else use_cpu
    tokenizer = load_tokenizer(model, padding_side="left")
    opening = TEMPLATE.split("{completion}")[0]
    shuffled = list(problems)
    random.Random(seed).shuffle(shuffled)
    trainer = GRPOTrainer(
        model=str(model),
        reward_funcs=[reward],
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(dataset_rows(shuffled, lambda prompt: opening.format(prompt=prompt))),
        args=GRPOConfig(
            output_dir=str(states),
            max_steps=steps,
            per_device_train_batch_size=prompts * samples,
            num_generations=samples,
            max_completion_length=max_new_tokens,
            temperature=1.0,
            top_k=0,
            beta=beta,
            learning_rate=lr,
            lr_scheduler_type="constant",
            logging_steps=1,
            save_strategy="steps" if save_steps else "no",
            save_steps=save_steps or steps,
            save_total_limit=1,
            report_to=[],
            seed=seed,
            use_cpu=cpu,
            bf16=not cpu,
            gradient_checkpointing=False,
            disable_tqdm=True,
        ),
    )
    with MetricsLog(run, "grpo", first, trackers, settings) as log:
        trainer.add_callback(_rows(log, StageProgress(run, "grpo", steps)))
        trainer.train(resume_from_checkpoint=str(state) if state is not None else None)
    trainer.save_model(str(output))
    shutil.rmtree(states, ignore_errors=True)
    return log.rows


def _rows(log: Any, progress: StageProgress) -> Any:
    """A callback that keeps the rows of TRL's log that have a reward, and tells the progress."""
    from transformers import TrainerCallback

    class Rows(TrainerCallback):  # type: ignore[misc]
        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
            row = {name: value for name, value in (logs or {}).items() if isinstance(value, int | float)}
            if "reward" in row:
                log.add({"step": state.global_step, **row})
                progress.at(state.global_step, f"reward {row['reward']:.3f}")

    return Rows()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m training.rl.grpo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="folder of the generator to start from")
    parser.add_argument("--problems", type=Path, required=True, help="problems.jsonl; its training fold is used")
    parser.add_argument("--url", required=True, help="the running service")
    parser.add_argument("--api-key")
    parser.add_argument("--reward", choices=sorted(REWARDS), default="combined")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--prompts", type=int, default=8, help="prompts of a step")
    parser.add_argument("--samples", type=int, default=4, help="completions of each: the group")
    parser.add_argument("--lr", type=float, default=5e-5)
    parser.add_argument("--beta", type=float, default=0.02, help="weight of the KL to the start")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--trackers", default="", help=f"curves, too, by {', '.join(PACKAGES)}; several with commas")
    parser.add_argument("--save-steps", type=int, default=20, help="steps between two states to go on from; 0: none")
    options = parser.parse_args()
    trackers = [name for name in options.trackers.split(",") if name]
    if lacks := list(missing_packages("--trackers", trackers)):
        parser.error("; ".join(lacks))
    problems = [problem for problem in read_problems(options.problems).values() if problem.fold == "train"]
    train(
        options.model,
        problems,
        reward_of(options.reward, options.url, options.api_key, continues=continue_code(problems)),
        options.output,
        steps=options.steps,
        prompts=options.prompts,
        samples=options.samples,
        lr=options.lr,
        beta=options.beta,
        seed=options.seed,
        trackers=trackers,
        save_steps=options.save_steps,
    )


if __name__ == "__main__":
    main()
