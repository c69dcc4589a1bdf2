"""What computes scores, behind one small interface: the Hugging Face forward in this process, or a vLLM server.

Both answer raw float32 logits from token ids, in the order in which they were asked; text becomes ids here, under the
checkpoint's own template, whatever engine it is for. Neither serves before it has reproduced the golden set that the
checkpoint was shipped with, so a revision means the same numbers on either.

An engine that cannot answer raises `EngineUnavailable`: the jobs in hand fail as the service's own fault, to be tried
again. There is no other number in that case, and no other engine steps in.
"""

from __future__ import annotations

import contextlib
import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from plaudit.errors import HostLacks, Invalid, TooLong, UsageError
from service.scoring.encoder import Encoded, Encoder, Overflow, Prompt
from service.scoring.prefix_cache import PromptCache
from service.scoring.spec import SPEC_FILE, RewardModelSpec

if TYPE_CHECKING:
    from service.settings import Settings

# Largest golden difference that is still the same model: fp32 kernels differ by about 1e-5 between machines; bf16
# moved scores by up to 0.26 at a score spread of 4 when it was measured.
GOLDEN_TOLERANCE = {"float32": 1e-4, "bfloat16": 0.5}


DRAWN_TOKENS = 192
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


class EngineUnavailable(Exception):
    """What computes scores does not answer, or answers something that is none. Ours, and worth another try."""


@dataclass(frozen=True, slots=True)
class Parity:
    """How far an engine is from the scores that the checkpoint was shipped with.

    `company`: the largest difference between a text's score alone and among others, over the golden set, `SAMPLE` and
    a group of tokens drawn at random: rounding, which in bfloat16 bounds how far a score may be trusted.
    """

    max_abs_error: float
    n: int
    tolerance: float
    ok: bool
    company: float


class Engine(Protocol):
    """One checkpoint, ready to score.

    `unshared`: why prompts are not shared; None where they are. `num_computed`, `num_shared`: tokens since the load.
    `prompts`: those that need no computing when they come again.
    `engine`: what computes, with its version, for `GET /models`.
    """

    spec: RewardModelSpec
    revision: str
    architecture: str
    dtype: str
    parameters: int
    max_length: int
    unshared: str | None
    num_computed: int
    num_shared: int
    prompts: PromptCache
    engine: str

    def encode_group(
        self, prompt: Prompt | None, completions: Sequence[str], on_overflow: Overflow = "error"
    ) -> list[Encoded | TooLong]:
        """Ids of every completion of one prompt. See `Encoder.encode_group`."""

    def score(self, batch: Sequence[Encoded]) -> list[float]:
        """Raw logits, in the order of `batch`.

        Raises `EngineUnavailable`; what a sequence of the batch is to blame for raises as torch raises it
        (`RuntimeError`, `IndexError`, `MemoryError`).
        """

    def check_golden(self) -> Parity:
        """Scores the golden set shipped in the checkpoint and compares. Raises `EngineUnavailable`, `UsageError`."""

    def pass_probability(self, score: float) -> float | None:
        """The shipped calibration's P(the program passes all its tests), or None where none is shipped."""

    def close(self) -> None:
        """Give back what it holds; it scores nothing any more."""


def open_engine(name: str, path: str, settings: Settings) -> tuple[Engine, Parity]:
    """The engine that the settings ask for with this checkpoint in it, and the proof against its golden set.

    Raises `HostLacks` on drift and for what is not there, `UsageError` for a checkpoint or settings that cannot be.
    """
    engine: Engine
    if settings.engine == "vllm":
        from service.scoring.vllm import VllmEngine

        engine = VllmEngine.open(name, path, settings)
    else:
        from service.scoring.reward_model import RewardModel

        engine = RewardModel.load(
            path,
            dtype=settings.dtype,
            threads=settings.torch_threads,
            deterministic=settings.deterministic,
            max_prompt_bytes=settings.max_prompt_cache_bytes,
            device=settings.device,
        )
    with contextlib.ExitStack() as undo:
        undo.callback(engine.close)
        try:
            parity = engine.check_golden()
        except EngineUnavailable as error:
            raise HostLacks(f"model {name!r}: {error}") from error
        if not parity.ok:
            raise HostLacks(
                f"model {name!r}: scores here differ from its golden set by {parity.max_abs_error:.3g} "
                f"(at most {parity.tolerance:g}); not served"
            )
        undo.pop_all()
    return engine, parity


@dataclass(frozen=True, slots=True)
class Golden:
    """One row of a golden set: a text as ids, and the score that it was shipped with.

    `drifted`: its token count is another one: the tokenizer or the template is not that of the checkpoint.
    """

    encoded: Encoded
    score: float
    drifted: bool


def read_golden(encoder: Encoder, folder: Path) -> list[Golden]:
    """The checkpoint's golden set, encoded; empty where it names none. Raises `UsageError` where the one that it names
    is not there, or is none."""
    if encoder.spec.golden is None:
        return []
    path = folder / encoder.spec.golden
    if not path.is_file():
        raise UsageError(f"{SPEC_FILE} names a golden set that is not there: {path}")
    golden = []
    try:
        for row in map(json.loads, filter(None, path.read_text(encoding="utf-8").splitlines())):
            one = encoder.encode(row["prompt"], row["completion"])
            golden.append(Golden(one, float(row["score"]), len(one.ids) != row["tokens"]))
    except (ValueError, KeyError, TypeError, Invalid, TooLong) as error:
        raise UsageError(f"{path}: row {len(golden) + 1} of the golden set: {type(error).__name__}: {error}") from error
    if not golden:
        raise UsageError(f"{path}: a golden set without rows proves nothing")
    return golden


def compare(engine: Engine, encoder: Encoder, golden: Sequence[Golden]) -> Parity:
    """Every row is scored alone, in the company of all others, and behind prompts that were kept. A row whose token
    count differs counts as infinitely wrong."""
    batch = [*(row.encoded for row in golden), *_sample(encoder), *_drawn(encoder)]
    together = engine.score(batch)
    kept = [engine.score([one])[0] for one in batch]  # behind prompts of that batch, where any are kept
    alone = []
    for one in batch:
        engine.prompts.clear()
        alone += engine.score([one])
    engine.prompts.clear()
    errors = [math.inf if row.drifted else 0.0 for row in golden]
    for row, *scores in zip(golden, together, kept, alone, strict=False):
        errors += [abs(score - row.score) for score in scores]
    worst = _worst(errors)
    tolerance = GOLDEN_TOLERANCE[engine.dtype]
    company = _worst([abs(one - other) for some in (together, kept) for one, other in zip(some, alone, strict=True)])
    ok = worst <= tolerance and math.isfinite(company)
    return Parity(worst, len(golden), tolerance, ok=ok, company=company)


def _sample(encoder: Encoder) -> list[Encoded]:
    try:
        return [one for one in encoder.encode_group(*SAMPLE) if isinstance(one, Encoded)]
    except Invalid:  # a chat template that takes no such conversation
        return []


def _drawn(encoder: Encoder) -> list[Encoded]:
    """A prompt with completions of several lengths, all of it drawn from the vocabulary: `SAMPLE` alone is next to
    nothing to a tokenizer that was not made for it."""
    tokenizer, draw = encoder.tokenizer, random.Random(0)
    ids = sorted(set(tokenizer.get_vocab().values()) - set(tokenizer.added_tokens_decoder))
    most = min(encoder.spec.max_length, DRAWN_TOKENS)
    prompt = tuple(draw.choices(ids, k=most // 2))
    drawn = [(*prompt, *draw.choices(ids, k=length)) for length in (1, *(most * at // 16 or 1 for at in range(2, 9)))]
    return [Encoded(one, len(prompt), False, () if encoder.spec.steps is None else (len(one) - 1,)) for one in drawn]


def _worst(errors: Sequence[float]) -> float:
    """max() of a NaN would depend on the order."""
    return max(errors, default=0.0) if all(map(math.isfinite, errors)) else math.inf
