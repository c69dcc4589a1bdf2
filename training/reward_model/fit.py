"""`fit`: the reward model, by a Bradley-Terry loss over pairs of completions of one prompt.

- `head` (`fit.loop = "head"`): the head alone, over states that are computed once; minutes on a CPU.
- `trainer` (`fit.loop = "groups"`, or no `fit.base`): one process on a CPU, every prompt computed once per group.
- `trainer_hf` (`fit.base` with `fit.loop = "pairs"`): TRL's RewardTrainer, on one process or under `accelerate launch`.

All write `checkpoint/` and `fit.jsonl`, resume after a kill, and read no test problem. This stage then calibrates the
checkpoint and writes its golden set.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from plaudit.errors import UsageError
from training.pipeline.config import Recipe
from training.pipeline.records import read_problems, read_programs
from training.pipeline.run import Run
from training.reward_model.finalize import FittedModel, finish_checkpoint
from training.reward_model.template import FORMS

LOOPS = ("pairs", "groups", "head")
SAVED = ("float32", "bfloat16")


def fit(recipe: Recipe, run: Run) -> dict[str, object]:
    """Write `checkpoint/`, a folder that the service serves, and `fit.jsonl`.

    Returns the stage's summary; of several processes, ranks other than 0 return nothing.
    Raises `UsageError` for settings that do not go together, `HostLacks` for a base that is not there.
    """
    trained = trainer_of(recipe)(recipe, run)
    if trained is None:
        return {}
    problems, programs = read_problems(run.path("problems.jsonl")), read_programs(run.path("verified.jsonl"))
    calibration = finish_checkpoint(
        run, problems, programs, recipe=recipe, scores=trained.calibration_scores, threads=torch.get_num_threads()
    )
    trained.remove_state()
    return {**trained.summary, **calibration}


def trainer_of(recipe: Recipe) -> Callable[[Recipe, Run], FittedModel | None]:
    """The trainer that the recipe names, without calibration. Raises `UsageError` for an unknown loop."""
    if unknown := set(recipe.fit.forms) - set(FORMS):
        raise UsageError(f"fit.forms: {', '.join(sorted(unknown))} unknown; use {', '.join(FORMS)}")
    if recipe.fit.loop not in LOOPS:
        raise UsageError(f"fit.loop is {recipe.fit.loop!r}; it must be one of {', '.join(LOOPS)}")
    if recipe.fit.save_dtype not in SAVED:
        raise UsageError(f"fit.save_dtype is {recipe.fit.save_dtype!r}; it must be one of {', '.join(SAVED)}")
    if recipe.fit.base and recipe.fit.loop == "pairs":
        from training.reward_model import trainer_hf

        return trainer_hf.fit
    if recipe.fit.loop == "head":
        from training.reward_model import head

        return head.fit
    from training.reward_model import trainer

    return trainer.fit
