"""Process reward models: a score per step of a completion, at the token that ends the step, and one for all of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from plaudit.errors import UsageError

Aggregate = Literal["min", "last", "mean", "product"]


@dataclass(frozen=True, slots=True)
class Steps:
    """How a completion is cut into steps.

    Attributes:
        token: the vocabulary entry at which a step is scored; None: at the last token of `separator`.
        split: the text between two steps as clients write them; None: clients write the token, or the separator.
        mark: the text put behind a step, which holds the token; None: the token alone.
        separator: a text that ends every step. Steps and separators are tokenised one by one, as TRL's `PRMTrainer` and
            Skywork-o1-PRM do.
        aggregate: the completion's own score: the minimum, the last or the mean of its steps' logits, or the log of the
            product of their probabilities (Lightman et al. 2023, arXiv 2305.20050, section 4.1; the minimum: Wang et
            al. 2023, Math-Shepherd, arXiv 2312.08935).
    """

    token: str | None = None
    split: str | None = None
    mark: str | None = None
    aggregate: Aggregate = "min"
    separator: str | None = None

    def __post_init__(self) -> None:
        if self.aggregate not in get_args(Aggregate):
            raise UsageError(f"aggregate {self.aggregate!r} is not one of {', '.join(get_args(Aggregate))}")
        if bool(self.token) == bool(self.separator):
            raise UsageError("steps: needs either `token`, a vocabulary entry, or `separator`, a text")
        if self.separator and self.mark is not None:
            raise UsageError("steps: `mark` is for a `token`; with `separator`, that text follows every step")
        if self.token and self.token not in self.behind:
            raise UsageError(f"the mark {self.mark!r} does not contain the token {self.token!r}")

    @property
    def behind(self) -> str:
        return (self.token or self.separator or "") if self.mark is None else self.mark

    def parts(self, completion: str) -> list[str]:
        """The steps of a completion, without what separates them."""
        split = self.split or self.separator
        parts = completion.split(split) if split else [completion]
        if len(parts) > 1 and not parts[-1].strip():
            parts.pop()
        return parts

    def marked(self, completion: str) -> str:
        """The completion with a mark behind every step. If it holds the token already, only a missing last is added."""
        if self.token and self.token in completion:
            return completion if completion.rstrip().endswith(self.token) else completion + self.behind
        return "".join(part + self.behind for part in self.parts(completion))

    def aggregated(self, logits: Sequence[float]) -> StepScores:
        """The completion's score; NaN if the logit of one step is not finite."""
        if not all(map(math.isfinite, logits)):
            return StepScores(math.nan, logits)
        if self.aggregate == "min":
            return StepScores(min(logits), logits)
        if self.aggregate == "last":
            return StepScores(logits[-1], logits)
        if self.aggregate == "mean":
            return StepScores(sum(logits) / len(logits), logits)
        # log sigmoid(x) = -log(1 + exp(-x)), written so that neither end overflows
        return StepScores(sum(min(x, 0.0) - math.log1p(math.exp(-abs(x))) for x in logits), logits)


class StepScores(float):
    """A completion's score, with the logits of its steps."""

    steps: tuple[float, ...]

    def __new__(cls, score: float, steps: Sequence[float]) -> StepScores:
        made = super().__new__(cls, score)
        made.steps = tuple(steps)
        return made
