"""A batch that fails is taken apart until what fails is alone; everybody else gets a score.

Out of memory halves the batch, which is how little was too much; a sequence that alone is too much is our fault, as is
a score that is not finite (the weights were finite when they were loaded). A sequence that fails alone in any other way
is `invalid`, but only if the model still scores something else: a model that scores nothing is our fault too. An engine
that does not answer fails the whole batch at once, as ours.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from service.scoring.encoder import Encoded
from service.scoring.engine import EngineUnavailable
from service.scoring.scheduler import Refused, Score

log = logging.getLogger(__name__)

# torch's allocator; C++'s; oneDNN, which makes a kernel and its memory in one, and fails in no other way on shapes that
# a loaded model has.
STARVED = ("can't allocate memory", "std::bad_alloc", "could not create a primitive", "could not create a memory")
CANARY = Encoded((0,), 0, truncated=False)

Scorer = Callable[[Sequence[Encoded]], list[float]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """`halvings`: how often memory made the batch smaller before a piece of it fitted."""

    scores: list[Score]
    halvings: int


def score_apart(score: Scorer, batch: Sequence[Encoded]) -> Outcome:
    """A score or a refusal for each sequence, in their order; raises nothing that the model raises."""
    outcome = _halve(score, batch, 0)
    blamed = [at for at, one in enumerate(outcome.scores) if isinstance(one, Refused) and not one.fault]
    if blamed and len(blamed) == len(batch) and not isinstance(_halve(score, [CANARY], 0).scores[0], float):
        broken = Refused("model_failed", "the model scores nothing any more", fault=True)
        return Outcome([broken] * len(batch), outcome.halvings)
    return outcome


def _halve(score: Scorer, batch: Sequence[Encoded], halvings: int) -> Outcome:
    try:
        scores = score(batch)
    except EngineUnavailable as error:  # nothing of this batch is to blame, and smaller ones would wait as long
        log.warning("no scores: %s", error)
        return Outcome([Refused("engine_unavailable", str(error), fault=True)] * len(batch), halvings)
    except (RuntimeError, IndexError, MemoryError) as error:  # torch's own: memory, a kernel, an id beyond the table
        starved = out_of_memory(error)
        if len(batch) == 1:
            log.exception("sequence failed", extra={"tokens": len(batch[0].ids)})
            return Outcome([_refusal(error, len(batch[0].ids), starved=starved)], halvings)
        log.warning("a batch of %d sequences failed and is halved: %s", len(batch), type(error).__name__)
        middle = len(batch) // 2
        parts = [_halve(score, part, halvings + starved) for part in (batch[:middle], batch[middle:])]
        return Outcome([one for part in parts for one in part.scores], max(part.halvings for part in parts))
    return Outcome([_finite(score, one, value, len(batch)) for one, value in zip(batch, scores, strict=True)], halvings)


def _refusal(error: Exception, tokens: int, *, starved: bool) -> Refused:
    if starved:
        return Refused("out_of_memory", f"{tokens} tokens need more memory than this worker has", fault=True)
    return Refused("invalid", f"the model cannot score this text: {type(error).__name__}")


def _finite(score: Scorer, one: Encoded, value: float, companions: int) -> Score:
    """The score; where it is no number, that of the sequence alone; where that is none either, a refusal."""
    if math.isfinite(value):
        return value
    if companions > 1:
        return _halve(score, [one], 0).scores[0]
    return Refused("not_finite", "the model gave no finite score", fault=True)


def out_of_memory(error: Exception) -> bool:
    """Whether memory ran out; on a CPU torch and oneDNN say so in a RuntimeError's text only."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(words in str(error) for words in STARVED)
