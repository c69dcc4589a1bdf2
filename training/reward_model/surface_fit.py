"""`fit.surface`: a linear head on the numbers of a completion's surface, beside the model's own.

- It is fitted on pairs of independent samples of the training problems. Mutants, references and repaired programs are
  left out: they differ in what they compute, and their surface says nothing (measured: docs/log.md).
- Length and the last newline are left out, too. They tell how a sampler was stopped, and are easily gamed.
- The loss is Bradley-Terry's over the differences of the numbers, each problem with the same weight, with a quadratic
  penalty. It is convex and takes seconds.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from plaudit.errors import TooLong, UsageError
from service.scoring.reward_model import RewardModel
from service.scoring.spec import SPEC_FILE
from service.scoring.surface import CLAMP, NUMBERS, SurfaceHead, SurfaceWeight
from training.data.preferences import qualifies
from training.pipeline.config import PairConfig
from training.pipeline.records import Problem, ProgramRecord

LEFT_OUT = ("characters", "ends_with_newline", "comments")
PENALTY = 0.02  # times the squared weights, beside a mean loss of about 0.6
ROUNDS = 60


def add_surface(
    model: RewardModel,
    folder: Path,
    problems: Mapping[str, Problem],
    programs: Iterable[ProgramRecord],
    rule: PairConfig,
    share: float,
) -> RewardModel:
    """Write the surface's weights into the checkpoint's spec.

    Args:
        model: the checkpoint.
        folder: the checkpoint's.
        problems: by task id.
        programs: with their verdicts.
        rule: which of them make a pair.
        share: weight of the surface beside the model's own score.

    Returns:
        the checkpoint, loaded again.

    Raises:
        UsageError: no training problem has a pair of independent samples.
    """
    by_task: dict[str, list[ProgramRecord]] = defaultdict(list)
    for program in programs:
        is_sample = program.iid_copies > 0 and program.pass_rate is not None
        if is_sample and problems[program.task_id].fold == "train":
            by_task[program.task_id].append(program)
    head = SurfaceHead(model.encoder.tokenizer, model.spec.template, ())
    groups: list[tuple[torch.Tensor, torch.Tensor]] = []  # numbers (N, S), pairs (P, 2)
    for task_id in sorted(by_task):
        numbers, rates = [], []
        completions = [program.completion for program in by_task[task_id]]
        group = model.encode_group(problems[task_id].prompt, completions, "truncate_left")
        for program, encoded in zip(by_task[task_id], group, strict=True):
            if not isinstance(encoded, TooLong):
                numbers.append(head.numbers(encoded.ids))
                rates.append(program.pass_rate or 0.0)
        places = range(len(rates))
        pairs = [(i, j) for i in places for j in places if qualifies(rates[i], rates[j], rule)]
        if pairs:
            groups.append((torch.tensor(numbers, dtype=torch.float64), torch.tensor(pairs)))
    if not groups:
        raise UsageError("fit.surface: no training problem has a pair of independent samples; set it to 0")
    weights = fitted(groups, share)
    dataclasses.replace(model.spec, surface=weights).write(folder / SPEC_FILE)
    model.close()
    return RewardModel.load(folder, threads=torch.get_num_threads())


def fitted(groups: list[tuple[torch.Tensor, torch.Tensor]], share: float) -> tuple[SurfaceWeight, ...]:
    """The weight of every number that varies, times `share`.

    Args:
        groups: of each problem the numbers (N, S), NaN where a text has no such number, and pairs (P, 2), the places
            of a better and a worse program.
        share: what the weights are multiplied with.
    """
    everything = torch.cat([numbers for numbers, _ in groups])
    mean = everything.nanmean(0)
    scale = (everything - mean).square().nanmean(0).sqrt()
    varies = (scale > 1e-6) & torch.tensor([name not in LEFT_OUT for name in NUMBERS])
    scale = torch.where(varies, scale, 1.0)
    differences = []
    for numbers, pairs in groups:
        deviations = (((numbers - mean) / scale).clamp(-CLAMP, CLAMP).nan_to_num() * varies)[pairs]  # (P, 2, S)
        differences.append(deviations[:, 0] - deviations[:, 1])
    stacked = torch.cat(differences)
    pair_weights = torch.cat([torch.full((len(d),), 1 / (len(d) * len(differences))) for d in differences]).double()
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
