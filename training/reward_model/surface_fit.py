"""`fit.surface`: a linear head on the numbers of a completion's surface, beside the model's own.

- It is fitted on pairs of the training problems: of independent samples, and with the weight `fit.surface_answers` of
  other models' programs, in any language, as assistants' answers. Mutants and references are left out: they differ in
  what they compute, and their surface says nothing (measured: docs/log.md).
- Length and the last newline are left out, too. They tell how a sampler was stopped, and are easily gamed.
- The loss is Bradley-Terry's over the differences of the numbers, each problem with the same weight, with a quadratic
  penalty. It is convex and takes seconds.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from plaudit.errors import TooLong, UsageError
from service.scoring.reward_model import RewardModel
from service.scoring.spec import SPEC_FILE
from service.scoring.surface import CLAMP, NUMBERS, SurfaceHead, SurfaceWeight
from training.data.preferences import qualifies
from training.pipeline.config import FitConfig, PairConfig
from training.pipeline.records import Problem, ProgramRecord
from training.reward_model.template import presented

LEFT_OUT = ("characters", "ends_with_newline", "comments")
PENALTY = 0.02  # times the squared weights, beside a mean loss of about 0.6
ROUNDS = 60


class SurfacePairs(NamedTuple):
    """Programs of one problem in one form: their numbers (N, S), NaN where a text has no such number; pairs (P, 2) of
    places, the better program first; and what the problem counts."""

    numbers: torch.Tensor
    pairs: torch.Tensor
    weight: float = 1.0


def add_surface(
    model: RewardModel,
    folder: Path,
    problems: Mapping[str, Problem],
    programs: Iterable[ProgramRecord],
    rule: PairConfig,
    settings: FitConfig,
) -> RewardModel:
    """Write the surface's weights into the checkpoint's spec.

    Args:
        model: the checkpoint.
        folder: the checkpoint's.
        problems: by task id.
        programs: with their verdicts.
        rule: which of them make a pair.
        settings: `surface`, the weight beside the model's own score, and `surface_answers`.

    Returns:
        the checkpoint, loaded again.

    Raises:
        UsageError: no training problem has a pair of samples.
    """
    head = SurfaceHead(model.encoder.tokenizer, model.spec.template, ())
    groups = [
        found
        for form, weight, group in _shown(problems, programs, settings)
        if (found := _pairs_of(group, problems[group[0].task_id], form, weight, model, head, rule))
    ]
    if not groups:
        raise UsageError("fit.surface: no training problem has a pair of samples; set it to 0")
    weights = fitted(groups, settings.surface)
    dataclasses.replace(model.spec, surface=weights).write(folder / SPEC_FILE)
    model.close()
    return RewardModel.load(folder, threads=torch.get_num_threads())


def _shown(
    problems: Mapping[str, Problem], programs: Iterable[ProgramRecord], settings: FitConfig
) -> Iterator[tuple[str, float, list[ProgramRecord]]]:
    """Form, weight and programs of every training problem: its independent samples, and its others as answers."""
    by_task: dict[tuple[str, bool], list[ProgramRecord]] = defaultdict(list)
    for program in programs:
        if program.origin == "sample" and program.pass_rate is not None and problems[program.task_id].fold == "train":
            by_task[program.task_id, program.iid_copies > 0].append(program)
    for (_, independent), group in sorted(by_task.items()):
        if independent:
            yield "body", 1.0, group
        elif settings.surface_answers:
            yield "chat", settings.surface_answers, group


def _pairs_of(
    group: Sequence[ProgramRecord],
    problem: Problem,
    form: str,
    weight: float,
    model: RewardModel,
    head: SurfaceHead,
    rule: PairConfig,
) -> SurfacePairs | None:
    """The numbers and pairs of these programs, None without a pair. A program that is too long is left out."""
    numbers, rates = [], []
    for program in group:
        prompt, completion = presented(program, problem.prompt, problem.entry_point, form, problem.language)
        encoded = model.encode_group(prompt, [completion], "truncate_left")[0]
        if not isinstance(encoded, TooLong):
            numbers.append(head.numbers(encoded.ids))
            rates.append(program.pass_rate or 0.0)
    places = range(len(rates))
    pairs = [(i, j) for i in places for j in places if qualifies(rates[i], rates[j], rule)]
    return SurfacePairs(torch.tensor(numbers, dtype=torch.float64), torch.tensor(pairs), weight) if pairs else None


def fitted(groups: Sequence[SurfacePairs], share: float) -> tuple[SurfaceWeight, ...]:
    """The weight of every number that varies, times `share`.

    Args:
        groups: what is learnt from.
        share: what the weights are multiplied with.
    """
    everything = torch.cat([group.numbers for group in groups])
    mean = everything.nanmean(0)
    scale = (everything - mean).square().nanmean(0).sqrt()
    varies = (scale > 1e-6) & torch.tensor([name not in LEFT_OUT for name in NUMBERS])
    scale = torch.where(varies, scale, 1.0)
    total = sum(group.weight for group in groups)
    differences, shares = [], []
    for numbers, pairs, weight in groups:
        deviations = (((numbers - mean) / scale).clamp(-CLAMP, CLAMP).nan_to_num() * varies)[pairs]  # (P, 2, S)
        differences.append(deviations[:, 0] - deviations[:, 1])
        shares.append(torch.full((len(pairs),), weight / (len(pairs) * total), dtype=torch.float64))
    stacked, pair_weights = torch.cat(differences), torch.cat(shares)
    weights = torch.zeros(len(NUMBERS), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=ROUNDS, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (torch.nn.functional.softplus(-stacked @ weights) * pair_weights).sum()
        loss = loss + PENALTY * weights.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return tuple(
        SurfaceWeight(name, *(round(float(value), 5) for value in (share * weight, middle, deviation)))
        for name, weight, middle, deviation, counts in zip(NUMBERS, weights.detach(), mean, scale, varies, strict=True)
        if counts
    )
