"""The group trainer: Bradley-Terry over every pair inside a group of completions, on one CPU thread.

- The loss of a pair is -log sigmoid(score of the chosen - score of the rejected) in float32, with `loss.py`'s options.
  It is averaged over a group's pairs: every group counts once, however many pairs it holds.
- A small pass / fail cross-entropy on the same scores puts their zero near even odds. The calibration then fits it
  exactly on validation problems.
- A group is one prompt with up to a dozen of its programs; `packed_forward.group_scores` computes the prompt once.
- Each epoch ends with a row about the validation fold.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from service.scoring.encoder import Encoder
from training.pipeline.config import Recipe, result_fields
from training.pipeline.digests import content_key, file_digest
from training.pipeline.metrics import auc, mean
from training.pipeline.progress import StageProgress
from training.pipeline.records import Problem, ProgramRecord, read_problems, read_programs
from training.pipeline.run import Run
from training.reward_model.checkpointing import TrainingState
from training.reward_model.finalize import FittedModel, golden_examples
from training.reward_model.initial_model import initial_model
from training.reward_model.loss import bradley_terry, gaps_of, pointwise
from training.reward_model.metrics_log import MetricsLog
from training.reward_model.optimization import cosine_schedule, keep_freed_memory, set_learning_rate
from training.reward_model.packed_forward import group_scores
from training.reward_model.pair_groups import (
    Encodings,
    Ids,
    PairGroup,
    Preferences,
    epoch_groups,
    ids_of,
    packs,
    read_preferences,
)

EVALUATION_BATCH = 16  # completions of one prompt in a forward


def fit(recipe: Recipe, run: Run) -> FittedModel:
    """Train by groups of completions; writes `checkpoint/` and `fit.jsonl`, a row per epoch."""
    torch.set_num_threads(1)
    keep_freed_memory()
    settings = recipe.fit
    problems = read_problems(run.path("problems.jsonl"))
    programs = {program.program_id: program for program in read_programs(run.path("verified.jsonl"))}
    preferences, validation_tasks = read_preferences(run)
    start = initial_model(recipe, run)
    encodings = Encodings(start.encoder, problems, programs, settings.longest)
    plan = [group for epoch in range(settings.epochs) for group in epoch_groups(preferences, encodings, recipe, epoch)]
    steps = [plan[at : at + settings.groups_per_step] for at in range(0, len(plan), settings.groups_per_step)]

    torch.manual_seed(recipe.seed)
    golden_examples(start.encoder)  # rejects a length limit that no example fits into, before the training
    model = start.load()
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=settings.lr, betas=(0.9, 0.98), weight_decay=settings.weight_decay, fused=True
    )
    state = TrainingState(run.path("fit.state.pt"), model, optimiser)
    key = content_key(settings, recipe.seed, file_digest(run.path("pairs.jsonl")), *start.identity)
    first = state.load() if run.resumable_key("fit", key) else 0
    if not first:
        run.path("fit.jsonl").unlink(missing_ok=True)  # rows of another fit
    progress, steps_per_epoch = StageProgress(run, "fit", len(steps)), max(1, len(steps) // settings.epochs)
    with MetricsLog(run, "fit", first, settings.trackers, result_fields(settings)) as metrics:
        for step, groups in enumerate(steps[first:], start=first + 1):
            set_learning_rate(optimiser, settings.lr * cosine_schedule((step - 1) / len(steps), settings.warmup))
            loss = train_step(model, optimiser, groups, encodings, programs, preferences, recipe)
            progress.at(step, f"loss {loss:.3f}")
            if step % steps_per_epoch == 0 or step == len(steps):
                areas = validation_auc(model, start.encoder, problems, programs.values(), validation_tasks)
                metrics.add({"step": step, "loss": round(loss, 4), **areas})
                run.say(f"fit: {metrics.rows[-1]}")
            state.save_if_due(step)
    start.write(model, encodings.last_ids())
    shown = {name for group in plan for name in group.programs}
    summary = {"groups": len(plan), "steps": len(steps), "programs": len(shown), **metrics.rows[-1]}
    return FittedModel(summary, state.remove)


def train_step(
    model: Any,
    optimiser: Any,
    groups: Sequence[PairGroup],
    encodings: Encodings,
    programs: dict[str, ProgramRecord],
    preferences: Preferences,
    recipe: Recipe,
) -> float:
    """One optimiser step over these groups. Returns their mean loss."""
    total = 0.0
    for pack in packs(groups, encodings):
        with torch.autocast("cpu", torch.bfloat16):
            scores = group_scores(model, [ids_of(group, encodings) for group in pack])  # (N,)
        by_group = torch.split(scores, [len(group.programs) for group in pack])
        losses = [
            group_loss(own, [programs[name] for name in group.programs], preferences[group.task_id], recipe)
            for group, own in zip(pack, by_group, strict=True)
        ]
        loss = torch.stack(losses).sum() / len(groups)
        torch.autograd.backward(loss)
        total += float(loss.detach())
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return total


def group_loss(
    scores: torch.Tensor, programs: Sequence[ProgramRecord], pairs: set[tuple[str, str]], recipe: Recipe
) -> torch.Tensor:
    """The loss of one group.

    Args:
        scores: one per program, (N,).
        programs: the group's, in the same order.
        pairs: program ids (chosen, rejected) of the problem.
    """
    settings = recipe.fit
    indices = [
        (i, j)
        for i, better in enumerate(programs)
        for j, worse in enumerate(programs)
        if (better.program_id, worse.program_id) in pairs
    ]
    rates = [program.pass_rate for program in programs]
    gaps = [(rates[i], rates[j]) for i, j in indices]
    margins = gaps_of(settings.margin, gaps) if settings.margin else None
    weights = gaps_of(settings.scale, gaps) if settings.scale else None
    passed = [rate == 1.0 for rate in rates]
    return bradley_terry(scores, indices, margins, settings.centre, weights) + settings.pointwise * pointwise(
        scores, passed
    )


def validation_auc(
    model: Any, encoder: Encoder, problems: dict[str, Problem], programs: Iterable[ProgramRecord], task_ids: set[str]
) -> dict[str, float]:
    """Mean AUC inside a problem over these validation problems, apart for sampled problems and the others."""
    by_task: dict[str, list[ProgramRecord]] = defaultdict(list)
    for program in programs:
        if program.task_id in task_ids and program.origin != "mutant":
            by_task[program.task_id].append(program)
    areas: dict[str, list[float]] = defaultdict(list)
    for members in by_task.values():
        sampled = any(program.iid_copies for program in members)
        if sampled:
            members = [program for program in members if program.iid_copies]
        encodings = Encodings(encoder, problems, {program.program_id: program for program in members})
        members = [program for program in members if (program.program_id, "body") in encodings]
        scores = _scores(model, [encodings[program.program_id, "body"] for program in members])
        area = auc(scores, [program.pass_rate == 1.0 for program in members])
        if area is not None:
            areas["validation_auc_sampled" if sampled else "validation_auc_other"].append(area)
    return {name: round(mean(values), 4) for name, values in sorted(areas.items())}


@torch.no_grad()
def _scores(model: Any, encoded: Sequence[tuple[Ids, Ids]]) -> list[float]:
    """Scores of completions under the first one's prompt, as trained: in bfloat16 autocast."""
    scores: list[float] = []
    for at in range(0, len(encoded), EVALUATION_BATCH):
        completions = [completion for _, completion in encoded[at : at + EVALUATION_BATCH]]
        with torch.autocast("cpu", torch.bfloat16):
            scores += group_scores(model, [(encoded[0][0], completions)]).tolist()
    return scores
