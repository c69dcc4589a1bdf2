"""Takes a failing batch apart until the failing sequence is alone; every other sequence gets its score.

- Out of memory halves the batch, and reports how often. A sequence that alone needs too much memory is a server error.
- A score that is not finite is tried alone, then it is a server error (the weights were finite when they were loaded).
- A sequence that fails alone in any other way is `invalid`, if the model still scores another sequence. If it does not,
  the model is broken, and the whole batch is a server error.
- An engine that does not answer fails the whole batch at once, as a server error.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from service.scoring.encoder import Encoded
from service.scoring.engine import EngineUnavailable
from service.scoring.scheduler import Score, ScoreFailure

log = logging.getLogger(__name__)

# Texts of errors that mean "no memory": torch's allocator, C++'s, and oneDNN's, which makes a kernel and its memory in
# one step and fails in no other way on the shapes of a loaded model.
OUT_OF_MEMORY = ("can't allocate memory", "std::bad_alloc", "could not create a primitive", "could not create a memory")
INVALID = "invalid"
CANARY = Encoded((0,), 0, truncated=False)

ScoreBatch = Callable[[Sequence[Encoded]], Sequence[Score]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One score or failure per sequence. `halvings`: how often the batch was halved before a part fitted in memory."""

    scores: list[Score]
    halvings: int


def score_apart(score: ScoreBatch, batch: Sequence[Encoded]) -> Outcome:
    """A score or a failure for each sequence, in the order of `batch`; nothing that the model raises is raised here."""
    outcome = _score_or_halve(score, batch, 0)
    num_invalid = sum(isinstance(end, ScoreFailure) and end.code == INVALID for end in outcome.scores)
    if num_invalid and num_invalid == len(batch) and not _scores_anything(score):
        broken = ScoreFailure("model_failed", "the model no longer scores any text", is_server_error=True)
        return Outcome([broken] * len(batch), outcome.halvings)
    return outcome


def _scores_anything(score: ScoreBatch) -> bool:
    return isinstance(_score_or_halve(score, [CANARY], 0).scores[0], float)


def _score_or_halve(score: ScoreBatch, batch: Sequence[Encoded], halvings: int) -> Outcome:
    try:
        scores = score(batch)
    except EngineUnavailable as error:  # no sequence is the cause, and a smaller batch would wait as long
        log.warning("no scores: %s", error)
        return Outcome([ScoreFailure("engine_unavailable", str(error), is_server_error=True)] * len(batch), halvings)
    except (RuntimeError, IndexError, MemoryError) as error:  # torch's own: memory, a kernel, an id beyond the table
        starved = out_of_memory(error)
        if len(batch) == 1:
            log.exception("sequence failed", extra={"tokens": len(batch[0].ids)})
            return Outcome([_failure(error, len(batch[0].ids), starved=starved)], halvings)
        log.warning("a batch of %d sequences failed and is halved: %s", len(batch), type(error).__name__)
        middle = len(batch) // 2
        halves = [_score_or_halve(score, half, halvings + starved) for half in (batch[:middle], batch[middle:])]
        return Outcome([end for half in halves for end in half.scores], max(half.halvings for half in halves))
    return Outcome(
        [_finite(score, encoded, value, len(batch)) for encoded, value in zip(batch, scores, strict=True)], halvings
    )


def _failure(error: Exception, num_tokens: int, *, starved: bool) -> ScoreFailure:
    if starved:
        detail = f"{num_tokens} tokens need more memory than this worker has"
        return ScoreFailure("out_of_memory", detail, is_server_error=True)
    return ScoreFailure(INVALID, f"the model cannot score this text: {type(error).__name__}")


def _finite(score: ScoreBatch, encoded: Encoded, value: Score, batch_size: int) -> Score:
    """The value, or the engine's failure; if it is not finite, the score of the sequence alone, or a failure."""
    if isinstance(value, ScoreFailure) or math.isfinite(value):
        return value
    if batch_size > 1:
        return _score_or_halve(score, [encoded], 0).scores[0]
    return ScoreFailure("not_finite", "the model gave no finite score", is_server_error=True)


def out_of_memory(error: Exception) -> bool:
    """Whether memory ran out; on a CPU torch and oneDNN say so only in the text of a RuntimeError."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(text in str(error) for text in OUT_OF_MEMORY)
