"""How far an engine's scores are from those that the checkpoint was shipped with (its golden set).

Every golden row is scored alone, in one batch with all others, and behind cached prompts. Scores of a sequence alone
and in a batch are compared too, over the golden set, a few fixed texts and random tokens.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from plaudit.errors import Invalid, TooLong, UsageError
from service.scoring.encoder import Encoded, Encoder
from service.scoring.prefix_cache import PromptCache
from service.scoring.spec import SPEC_FILE

# Largest golden difference that is still the same model: fp32 kernels differ by about 1e-5 between machines; bf16
# moved scores by up to 0.26 at a score spread of 4 when it was measured. Kernels for quantised weights compute in
# bfloat16 or less, whatever the dtype is.
GOLDEN_TOLERANCE = {"float32": 1e-4, "bfloat16": 0.5}

MAX_RANDOM_TOKENS = 192
SAMPLE = (
    "Write a function `add(a, b)` that returns the sum of two numbers. Both may be integers or floats, positive, "
    "negative or zero; whole numbers of any size must be exact.\n\ndef add(a, b):\n",
    [
        "    return a + b\n",
        "    return a - b\n",
        "    pass\n",
        "    total = a\n    total += b\n    return total\n",
        "    if b < 0:\n        return a - abs(b)\n    return a + b\n",
        "    return sum([a, b])  # the sum of both\n",
    ],
)


@dataclass(frozen=True, slots=True)
class Parity:
    """How far an engine is from the scores that the checkpoint was shipped with.

    Attributes:
        max_abs_error: largest difference to the score of a golden row.
        n: number of golden rows.
        tolerance: largest `max_abs_error` that is accepted.
        ok: whether the engine may serve.
        max_batch_error: largest difference between the score of a sequence alone and in a batch. It is rounding, and
            in bfloat16 it bounds how far a score may be trusted.
    """

    max_abs_error: float
    n: int
    tolerance: float
    ok: bool
    max_batch_error: float


class Scorer(Protocol):
    """The part of an engine that is compared."""

    dtype: str
    quantization: str | None
    prompts: PromptCache

    def score(self, batch: Sequence[Encoded]) -> list[float]: ...


@dataclass(frozen=True, slots=True)
class Golden:
    """One row of a golden set: a text as token ids, and the score that it was shipped with.

    `drifted`: its token count has changed, so the tokenizer or the template is not that of the checkpoint.
    """

    encoded: Encoded
    score: float
    drifted: bool


def read_golden(encoder: Encoder, folder: Path) -> list[Golden]:
    """The golden set of a checkpoint, encoded; empty if its spec names none.

    Raises:
        UsageError: the golden set is missing, empty, or has an invalid row.
    """
    if encoder.spec.golden is None:
        return []
    path = folder / encoder.spec.golden
    if not path.is_file():
        raise UsageError(f"{SPEC_FILE} names a golden set that does not exist: {path}")
    golden = []
    try:
        for row in map(json.loads, filter(None, path.read_text(encoding="utf-8").splitlines())):
            encoded = encoder.encode(row["prompt"], row["completion"])
            golden.append(Golden(encoded, float(row["score"]), len(encoded.ids) != row["tokens"]))
    except (ValueError, KeyError, TypeError, Invalid, TooLong) as error:
        raise UsageError(f"{path}: row {len(golden) + 1} of the golden set: {type(error).__name__}: {error}") from error
    if not golden:
        raise UsageError(f"{path}: the golden set has no rows, so it proves nothing")
    return golden


def compare(scorer: Scorer, encoder: Encoder, golden: Sequence[Golden]) -> Parity:
    """Score every row alone, in one batch with all others, and behind cached prompts.

    A row whose token count differs counts as infinitely wrong.
    """
    batch = [*(row.encoded for row in golden), *_sample(encoder), *_random_group(encoder)]
    batched = scorer.score(batch)
    cached = [scorer.score([encoded])[0] for encoded in batch]  # behind prompts of that batch, where any are cached
    alone = []
    for encoded in batch:
        scorer.prompts.clear()
        alone += scorer.score([encoded])
    scorer.prompts.clear()
    errors = [math.inf if row.drifted else 0.0 for row in golden]
    for row, *scores in zip(golden, batched, cached, alone, strict=False):
        errors += [abs(score - row.score) for score in scores]
    max_error = _max(errors)
    tolerance = GOLDEN_TOLERANCE["bfloat16" if scorer.quantization else scorer.dtype]
    max_batch_error = _max(
        [abs(score - lone) for scores in (batched, cached) for score, lone in zip(scores, alone, strict=True)]
    )
    ok = max_error <= tolerance and math.isfinite(max_batch_error)
    return Parity(max_error, len(golden), tolerance, ok=ok, max_batch_error=max_batch_error)


def _sample(encoder: Encoder) -> list[Encoded]:
    try:
        return [encoded for encoded in encoder.encode_group(*SAMPLE) if isinstance(encoded, Encoded)]
    except Invalid:  # the chat template rejects the conversation
        return []


def _random_group(encoder: Encoder) -> list[Encoded]:
    """A prompt with completions of several lengths, drawn from the vocabulary: `SAMPLE` alone has hardly any tokens
    for a tokenizer that was not made for it."""
    tokenizer, rng = encoder.tokenizer, random.Random(0)
    ids = sorted(set(tokenizer.get_vocab().values()) - set(tokenizer.added_tokens_decoder))
    max_tokens = min(encoder.spec.max_length, MAX_RANDOM_TOKENS)
    prompt = tuple(rng.choices(ids, k=max_tokens // 2))
    lengths = (1, *(max_tokens * sixteenths // 16 or 1 for sixteenths in range(2, 9)))
    sequences = [(*prompt, *rng.choices(ids, k=length)) for length in lengths]
    group = []
    for tokens in sequences:
        last = len(tokens) - 1
        read = () if encoder.spec.steps is None else (last,)
        group.append(
            Encoded(tokens, len(prompt), False, read if encoder.spec.gating is None else (len(prompt) - 1, last))
        )
    return group


def _max(errors: Sequence[float]) -> float:
    """The largest; infinity if one is NaN, whose place in max() would depend on the order."""
    return max(errors, default=0.0) if all(map(math.isfinite, errors)) else math.inf
