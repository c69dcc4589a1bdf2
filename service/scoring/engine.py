"""What computes scores, behind one small interface: the Hugging Face forward in this process, or a vLLM server.

- Every engine returns raw float32 logits for token ids, in the order of the request.
- Text becomes ids in this process, under the checkpoint's own template, whichever engine computes.
- No engine serves before it has reproduced the checkpoint's golden set (`parity.py`), so a revision means the same
  numbers on either.
- An engine that cannot answer raises `EngineUnavailable`: the jobs fail as a server error and may be retried. There is
  no score in that case, and no other engine takes over.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from plaudit.errors import TooLong
from service.jobs import Completion
from service.scoring.encoder import Encoded, Overflow, Prompt
from service.scoring.parity import Parity
from service.scoring.prefix_cache import PromptCache
from service.scoring.scheduler import Score
from service.scoring.spec import RewardModelSpec


class EngineUnavailable(Exception):
    """The engine does not answer, or its answer is not a score. A server error that may be retried."""


class Engine(Protocol):
    """One checkpoint, ready to score.

    Attributes:
        prefix_sharing_disabled_reason: why prompts are computed for every completion; None where they are shared.
        num_computed: tokens computed since the load.
        num_shared: tokens that sharing saved since the load.
        tokenizer_digest: of the vocabulary (`Encoder.tokenizer_digest`); None where texts are not tokenised here.
        is_remote: whether another server computes, so that this process's time says nothing about a batch's size.
        depends_on_group: whether a score depends on the other completions of its group.
        prompts: cached prompts, which are not computed when they come again.
        engine: what computes, with its version, for `GET /models`.
        own_class_error: largest difference to what the checkpoint's own Hugging Face class scores a few examples; None:
            not measured.
        quantization: by which method the weights are quantised; None: they are not.
        good_label: of two labels whose log-odds are the score, the place of the good one; None: another head.
    """

    spec: RewardModelSpec
    revision: str
    architecture: str
    dtype: str
    parameters: int
    max_length: int
    is_remote: bool
    depends_on_group: bool
    prefix_sharing_disabled_reason: str | None
    num_computed: int
    num_shared: int
    prompts: PromptCache
    engine: str
    own_class_error: float | None
    quantization: str | None
    good_label: int | None

    @property
    def tokenizer_digest(self) -> str | None: ...

    def encode_group(
        self, prompt: Prompt | None, completions: Sequence[Completion], on_overflow: Overflow = "error"
    ) -> list[Encoded | TooLong]:
        """Token ids of every completion of one prompt. See `Encoder.encode_group`."""

    def score(self, batch: Sequence[Encoded]) -> Sequence[Score]:
        """Raw logits, in the order of `batch`; a failure in place of one that has none.

        Raises:
            EngineUnavailable: the engine does not answer.
            RuntimeError, IndexError, MemoryError: as torch raises them, for a sequence that the model cannot score.
        """

    def check_golden(self) -> Parity:
        """Score the golden set of the checkpoint and compare. Raises `EngineUnavailable` and `UsageError`."""

    def pass_probability(self, score: float) -> float | None:
        """The calibrated P(the program passes all its tests), or None for a checkpoint without a calibration."""

    def close(self) -> None:
        """Release the model. It scores nothing afterwards."""
