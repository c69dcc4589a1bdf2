"""`fit.loop = "head"`: Bradley-Terry on the head alone, over states that are computed once.

- The language model stays as it is. Its state at a text's last token is what the head reads, so every text needs one
  forward in all, whatever the number of steps and seeds: minutes on a CPU where the group loop needs an hour.
- States are kept in `states/`, by program and form. Cross-validation fits all its parts on one set of them.
- A step draws pairs, each problem as often as any other. States are in standard deviations of the training programs
  while the head learns; the written head has these folded in, so the checkpoint is an ordinary classifier.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.pipeline.config import Recipe, result_fields
from training.pipeline.digests import content_key
from training.pipeline.progress import StageProgress
from training.pipeline.records import read_problems, read_programs
from training.pipeline.run import Run
from training.reward_model.finalize import FittedModel
from training.reward_model.initial_model import initial_model
from training.reward_model.loss import preference_loss
from training.reward_model.metrics_log import MetricsLog
from training.reward_model.optimization import keep_freed_memory
from training.reward_model.packed_forward import group_hidden
from training.reward_model.pair_groups import Encodings, read_preferences
from training.reward_model.trainer import validation_auc

PAIRS = 4096  # pairs of a step
DECAY = 1e-2
BATCH = 24  # completions of one prompt in a forward
SAVE_EVERY = 200  # problems between two writes of the states
State = tuple[str, str]  # program id, form


def fit(recipe: Recipe, run: Run) -> FittedModel:
    """Train the head; writes `checkpoint/` and a row of `fit.jsonl`."""
    torch.set_num_threads(1)
    keep_freed_memory()
    settings = recipe.fit
    problems = read_problems(run.path("problems.jsonl"))
    programs = {program.program_id: program for program in read_programs(run.path("verified.jsonl"))}
    preferences, validation_tasks = read_preferences(run)
    start = initial_model(recipe, run)
    torch.manual_seed(recipe.seed)
    model = start.load().eval()
    encodings = Encodings(start.encoder, problems, programs, settings.longest)
    forms = {task_id: forms_of(task_id, settings.forms, settings.presentation) for task_id in preferences}
    wanted = {
        task_id: [(name, form) for form in forms[task_id] for name in sorted({n for pair in pairs for n in pair})]
        for task_id, pairs in sorted(preferences.items())
    }
    cache = PooledStates(
        run.path("states/states.pt"), content_key(settings.max_length, settings.longest, *start.identity)
    )
    states, rows = cache.of(model.model, wanted, encodings, run)
    pairs = []
    for task_id, own in sorted(preferences.items()):
        for form in forms[task_id]:
            named = [((better, form), (worse, form)) for better, worse in sorted(own)]
            pairs.append([(rows[good], rows[bad]) for good, bad in named if good in rows and bad in rows])
    weight, loss = head_of(states, [own for own in pairs if own], settings.head_steps, settings.head_lr, recipe.seed)
    with torch.no_grad():
        model.score.weight.copy_(weight[None])
    with MetricsLog(run, "fit", 0, settings.trackers, result_fields(settings)) as metrics:
        areas = validation_auc(model, start.encoder, problems, programs.values(), validation_tasks)
        metrics.add({"step": settings.head_steps, "loss": round(loss, 4), **areas})
        row = metrics.rows[-1]
    start.write(model, encodings.last_ids())
    return FittedModel({"problems": len(preferences), "states": len(rows), **row}, lambda: None)


def forms_of(task_id: str, forms: Sequence[str], presentation: float) -> tuple[str, ...]:
    """The forms in which a problem's programs are shown: their own, and for a share of problems a drawn one, too."""
    draw = random.Random(task_id)
    return ("body", draw.choice(forms)) if draw.random() < presentation else ("body",)


@dataclass(frozen=True, slots=True)
class PooledStates:
    """States by program and form in a file; `key` names the model that computed them."""

    path: Path
    key: str

    def of(
        self, backbone: Any, wanted: dict[str, list[State]], encodings: Encodings, run: Run
    ) -> tuple[Tensor, dict[State, int]]:
        """The states of these programs by problem, and the row of each. A program that is too long has none.

        Returns:
            the states, (N, H), and the row of every program and form that has one.
        """
        known: dict[State, Tensor] = self._read()
        progress = StageProgress(run, "fit: states", len(wanted))
        for at, keys in enumerate(wanted.values(), start=1):
            missing = [key for key in keys if key not in known and key in encodings]
            known |= zip(missing, pooled(backbone, missing, encodings), strict=True)
            progress.at(at)
            if missing and at % SAVE_EVERY == 0:
                self._write(known)
        self._write(known)
        names = [key for keys in wanted.values() for key in keys if key in known]
        return torch.stack([known[key] for key in names]).float(), {key: row for row, key in enumerate(names)}

    def _read(self) -> dict[State, Tensor]:
        if not self.path.is_file():
            return {}
        saved = torch.load(self.path, weights_only=True)
        return dict(zip(map(tuple, saved["names"]), saved["states"], strict=True)) if saved["key"] == self.key else {}

    def _write(self, known: dict[State, Tensor]) -> None:
        scratch = self.path.with_suffix(".writing")
        names = [list(name) for name in known]
        torch.save({"key": self.key, "names": names, "states": torch.stack(list(known.values()))}, scratch)
        scratch.replace(self.path)


@torch.no_grad()
def pooled(backbone: Any, keys: Iterable[State], encodings: Encodings) -> list[Tensor]:
    """The states of these programs in their order, (H) each, in half precision."""
    by_prompt: dict[tuple[int, ...], list[State]] = defaultdict(list)
    for key in keys:
        by_prompt[encodings[key][0]].append(key)
    found: dict[State, Tensor] = {}
    for prompt, members in by_prompt.items():
        members.sort(key=lambda key: len(encodings[key][1]))
        for at in range(0, len(members), BATCH):
            batch = members[at : at + BATCH]
            with torch.autocast("cpu", torch.bfloat16):
                hidden = group_hidden(backbone, [(prompt, [encodings[key][1] for key in batch])])  # (B, H)
            found |= zip(batch, hidden.half(), strict=True)
    return [found[key] for key in keys]


def head_of(
    states: Tensor, pairs: list[list[tuple[int, int]]], steps: int, lr: float, seed: int
) -> tuple[Tensor, float]:
    """The weights of a linear head and its last loss.

    Args:
        states: of the programs, (N, H).
        pairs: rows (better, worse) of each problem.
        steps: of AdamW, each over `PAIRS` pairs; the learning rate falls to zero.
        lr: the first learning rate.
        seed: draws the pairs.

    Returns:
        weights (H) for states as they are.
    """
    draw = torch.Generator().manual_seed(seed)
    mean, deviation = states.mean(0), states.std(0) + 1e-3
    scaled = (states - mean) / deviation
    starts = torch.tensor([0, *(len(own) for own in pairs[:-1])]).cumsum(0)  # (P,)
    sizes = torch.tensor([len(own) for own in pairs])
    flat = torch.tensor([pair for own in pairs for pair in own])  # (K, 2)
    head = torch.nn.Parameter(torch.zeros(states.shape[1]))
    optimiser = torch.optim.AdamW([head], lr=lr, weight_decay=DECAY)
    loss = torch.zeros(())
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = lr * (1 - step / steps)
        problem = torch.randint(len(pairs), (PAIRS,), generator=draw)
        place = (torch.rand(PAIRS, generator=draw) * sizes[problem]).long()
        chosen, rejected = flat[starts[problem] + place].T  # (K,), (K,)
        loss = preference_loss(scaled[chosen] @ head, scaled[rejected] @ head)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
    return head.detach() / deviation, float(loss.detach())
