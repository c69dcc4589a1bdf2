"""Who scores in `evaluate`: a checkpoint in this process, on any device, the model of a running service, or a
checkpoint in each executor of a Ray cluster.

A checkpoint is the run's own, a folder, or a hub id (`evaluate.checkpoint`); the service is asked under the same
prompts. Both truncate a prompt that does not fit on the left, as the golden set's examples are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from plaudit.client import Client
from plaudit.errors import InfraError, TooLong, UsageError
from plaudit.schemas import ScoreResult
from training.pipeline import config
from training.pipeline.engines import scoring_engine
from training.pipeline.progress import StageProgress
from training.pipeline.ray_executors import chunked, ordered_on_ray
from training.pipeline.records import Problem, ProgramRecord
from training.pipeline.run import Run
from training.reward_model.finalize import score_programs

ITEMS = 64  # problems in a request to the service


AnswerGroup = tuple[str, Sequence[str]]  # a prompt, and answers to it


class ProgramScorer(Protocol):
    """Scores programs, and says under which revision."""

    @property
    def revision(self) -> str: ...

    @property
    def parameters(self) -> int | None: ...

    def score(self, problems: Mapping[str, Problem], programs: Sequence[ProgramRecord]) -> list[float]:
        """One score per program, in their order."""
        ...

    def score_answers(self, groups: Sequence[AnswerGroup]) -> list[list[float]]:
        """The scores of every group's answers, in their order."""
        ...

    def probability(self, score: float) -> float | None:
        """The calibrated chance of passing; None without a calibration."""
        ...


def recipe_scorer(recipe: config.Recipe, run: Run) -> ProgramScorer:
    """Who scores in this recipe's `evaluate`, by its engine. Raises `UsageError` for settings that do not agree."""
    if scoring_engine(recipe).name == "ray":
        return RayScorer(recipe.evaluate, recipe.ray, run)
    return scorer_of(recipe.evaluate, run)


def scorer_of(settings: config.EvaluateConfig, run: Run | None = None) -> ProgramScorer:
    """The scorer that the recipe names; `run` has the checkpoint where they name none.

    Raises `UsageError` for settings that do not go together.
    """
    if settings.service:
        if settings.checkpoint:
            raise UsageError(
                "evaluate.checkpoint and evaluate.service: name one of them; the service has its own models"
            )
        return ServiceScorer(settings, run)
    return CheckpointScorer(settings, run)


class CheckpointScorer:
    """A checkpoint in this process. Raises what `RewardModel.load` raises."""

    def __init__(self, settings: config.EvaluateConfig, run: Run | None) -> None:
        from service.scoring.reward_model import RewardModel

        if run is None and not settings.checkpoint:
            raise UsageError("evaluate.checkpoint and evaluate.service are empty: name a model to score with")
        self._run = run
        own = None if run is None else run.path("checkpoint/config.json").parent
        self._model = RewardModel.load(
            settings.checkpoint or own or "",
            dtype=settings.dtype,
            device=settings.device,
            threads=settings.threads,
        )

    @property
    def revision(self) -> str:
        return self._model.revision

    @property
    def parameters(self) -> int | None:
        return self._model.parameters

    def score(self, problems: Mapping[str, Problem], programs: Sequence[ProgramRecord]) -> list[float]:
        return score_programs(self._model, problems, programs, self._run, "evaluate: scores")

    def score_group(self, group: AnswerGroup) -> list[float]:
        """The scores of one prompt's completions, which are a batch of their own: the same on every engine."""
        prompt, completions = group
        return self._model.score([self._model.encode(prompt, text, "truncate_left") for text in completions])

    def score_answers(self, groups: Sequence[AnswerGroup]) -> list[list[float]]:
        """Raises `UsageError` for an answer that does not fit, however much of its prompt is cut."""
        scores = []
        for prompt, answers in groups:
            encoded = self._model.encode_group(prompt, answers, "truncate_left")
            fitting = [one for one in encoded if not isinstance(one, TooLong)]
            if len(fitting) < len(answers):
                raise UsageError(f"an answer is longer than the model takes; its prompt begins {prompt[:60]!r}")
            scores.append(self._model.score(fitting))
        return scores

    def probability(self, score: float) -> float | None:
        return self._model.pass_probability(score)


def _in_groups(
    problems: Mapping[str, Problem],
    programs: Sequence[ProgramRecord],
    score: Callable[[Sequence[AnswerGroup]], list[list[float]]],
) -> list[float]:
    """Scores in the programs' order, asked for by problem."""
    by_task: dict[str, list[ProgramRecord]] = {}
    for program in programs:
        by_task.setdefault(program.task_id, []).append(program)
    groups = [(problems[name].prompt, [p.completion for p in group]) for name, group in by_task.items()]
    scores = {
        program.program_id: value
        for group, values in zip(by_task.values(), score(groups), strict=True)
        for program, value in zip(group, values, strict=True)
    }
    return [scores[program.program_id] for program in programs]


class RayScorer:
    """A checkpoint per executor of a Ray cluster; each gets a chunk of problems at a time.

    Every node reads the checkpoint from the same path, or from the hub.
    """

    def __init__(self, settings: config.EvaluateConfig, cluster: config.RayConfig, run: Run) -> None:
        own = str(run.path("checkpoint/config.json").parent.absolute())
        self._settings = dataclasses.replace(settings, checkpoint=settings.checkpoint or own)
        self._cluster = cluster
        self._probabilities: dict[float, float | None] = {}
        self._revision = ""
        self._parameters: int | None = None

    @property
    def revision(self) -> str:
        return self._revision

    @property
    def parameters(self) -> int | None:
        return self._parameters

    def score(self, problems: Mapping[str, Problem], programs: Sequence[ProgramRecord]) -> list[float]:
        return _in_groups(problems, programs, lambda groups: self._ask(groups, answers=False))

    def score_answers(self, groups: Sequence[AnswerGroup]) -> list[list[float]]:
        """Raises `UsageError` for an answer that does not fit, however much of its prompt is cut."""
        return self._ask(groups, answers=True)

    def probability(self, score: float) -> float | None:
        return self._probabilities[score]

    def _ask(self, groups: Sequence[AnswerGroup], *, answers: bool) -> list[list[float]]:
        chunks = chunked(groups, self._cluster.chunk)
        opened = partial(_checkpoint, self._settings, answers)
        scores = []
        for rows in ordered_on_ray(opened, chunks, self._cluster, gpus=self._cluster.gpus):
            for scored in rows:
                self._revision, self._parameters = scored.revision, scored.parameters
                self._probabilities |= scored.probabilities
                scores.append(scored.scores)
        return scores


@dataclass(frozen=True, slots=True)
class ScoredGroup:
    """The scores of a group's completions, and by whom."""

    scores: list[float]
    probabilities: dict[float, float | None]
    revision: str
    parameters: int | None


@contextmanager
def _checkpoint(
    settings: config.EvaluateConfig, answers: bool
) -> Iterator[Callable[[list[AnswerGroup]], list[ScoredGroup]]]:
    scorer = CheckpointScorer(settings, None)

    def score(groups: list[AnswerGroup]) -> list[ScoredGroup]:
        scored = scorer.score_answers(groups) if answers else [scorer.score_group(group) for group in groups]
        return [
            ScoredGroup(scores, {one: scorer.probability(one) for one in scores}, scorer.revision, scorer.parameters)
            for scores in scored
        ]

    yield score


class ServiceScorer:
    """The model `evaluate.model` of a running service."""

    def __init__(self, settings: config.EvaluateConfig, run: Run | None = None) -> None:
        self._settings, self._run = settings, run
        self._probabilities: dict[float, float | None] = {}
        self._revision = ""

    @property
    def revision(self) -> str:
        return self._revision

    @property
    def parameters(self) -> int | None:
        return None

    def score(self, problems: Mapping[str, Problem], programs: Sequence[ProgramRecord]) -> list[float]:
        """Raises `InfraError` for a program without a score, and what the client raises."""
        return _in_groups(problems, programs, self.score_answers)

    def score_answers(self, groups: Sequence[AnswerGroup]) -> list[list[float]]:
        """Raises `InfraError` for an answer without a score, and what the client raises."""
        settings, scores = self._settings, list[list[float]]()
        key = Path(settings.key_file).read_text(encoding="utf-8").strip() if settings.key_file else None
        progress = StageProgress(self._run, "evaluate: scores", len(groups)) if self._run is not None else None
        with Client(settings.service, key, timeout_s=settings.timeout_s) as client:
            for at in range(0, len(groups), ITEMS):
                part = groups[at : at + ITEMS]
                items = [{"prompt": prompt, "completions": list(answers)} for prompt, answers in part]
                answer = client.score(items, model=settings.model, on_overflow="truncate_left", calibrated=True)
                revision = answer.model.revision or ""
                if self._revision not in ("", revision):
                    raise InfraError(f"{settings.model}: another revision was activated while the programs were scored")
                self._revision = revision
                scores += [self._read(prompt, result) for (prompt, _), result in zip(part, answer.results, strict=True)]
                if progress is not None:
                    progress.at(len(scores))
        return scores

    def _read(self, prompt: str, result: ScoreResult) -> list[float]:
        scores = []
        for completion in result.completions:
            if completion.score is None:
                reason = completion.error.detail if completion.error else completion.status
                raise InfraError(f"an answer has no score: {reason}; its prompt begins {prompt[:60]!r}")
            scores.append(completion.score)
            self._probabilities[completion.score] = completion.pass_probability
        return scores

    def probability(self, score: float) -> float | None:
        return self._probabilities[score]
