"""Jobs, models, languages, health: every call that sends no work."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from plaudit.grading import Level
from plaudit.schemas.base import Answer, DeadlineMs, ProblemDocument, Strict


class JobAccepted(Answer):
    job_id: str
    status_url: str
    events_url: str
    expires_at: str


class JobEvent(Answer):
    """One finished item of an asynchronous request: `result` is that item's entry of `results`."""

    index: int
    result: dict[str, Any]


class JobStatus(Answer):
    job_id: str
    state: Literal["running", "done", "cancelled", "failed"]
    cursor: str = Field(description="hand it back to get only what is new")
    items: list[JobEvent]
    total: int
    answer: dict[str, Any] | None = Field(None, description="the whole answer, once done")
    error: ProblemDocument | None = None


class ModelInfo(Answer):
    name: str
    revision: str
    architecture: str
    dtype: str
    quantization: str | None = Field(None, description="by which method the weights are quantised; null: they are not")
    parameters: int
    max_length: int
    calibrated: bool
    good_label: int | None = Field(
        None, description="of two labels whose log-odds are the score, the place of the good one; null: another head"
    )
    template_date: str | None = Field(
        None, description="the date that the chat template prints as today's; null: it prints none"
    )
    prefix_sharing_disabled_reason: str | None = Field(
        None, description="why prompts are computed for every completion; null: once"
    )
    engine: str = Field("", description="what computes the scores, with its version")
    tokenizer_digest: str | None = Field(
        None, description="of its vocabulary, for `token_ids`: SHA-256 of the sorted [token, id] pairs as compact JSON"
    )
    parity: Annotated[
        dict[str, Any],
        Field(
            description="measured at start: `max_abs_error` to the golden set's `n` scores (at most `tolerance`), and "
            "`max_batch_error`, the largest difference between a score alone and among others; `own_class_error`, to "
            "the checkpoint's own Hugging Face class on a few examples, null where transformers has none"
        ),
    ]
    workers: int


class ModelsAnswer(Answer):
    models: list[ModelInfo]


class ActivateRequest(Strict):
    """Which checkpoint is to take over: one that this deployment knows by its digest, or one at a path."""

    revision: Annotated[
        str | None, Field(pattern=r"^sha256:[0-9a-f]{64}$", description="digest; with `path`, what must be there")
    ] = None
    path: Annotated[
        str | None, Field(min_length=1, max_length=4096, description="folder or hub id, as the scoring workers see it")
    ] = None
    deadline_ms: DeadlineMs | None = None

    @model_validator(mode="after")
    def _names_one(self) -> ActivateRequest:
        if self.revision is None and self.path is None:
            raise ValueError("give `revision`, or `path`, or both")
        return self


class ActivateAnswer(Answer):
    """From here on, requests are scored by `revision`; those that were accepted before get what they were promised."""

    name: str
    revision: str
    previous: str
    workers: int = Field(description="scoring workers that have it")
    took_ms: float = 0.0


class PackageInfo(Answer):
    name: str
    version: str


class LanguageInfo(Answer):
    name: str
    version: str
    aliases: list[str]
    kinds: list[str]
    variants: dict[str, list[str]] = Field(
        {}, description="names that mean another standard or another way to run (`c++20`, `go_test`): their spellings"
    )
    packages: list[PackageInfo] = Field([], description="what programs can import beside the standard library")


class LanguagesAnswer(Answer):
    languages: list[LanguageInfo]


class TestsetAnswer(Answer):
    sha256: str
    tests: int
    expires_at: str

    __test__ = False


class Health(Answer):
    status: Literal["ok"]


class ShardState(Answer):
    """One Redis of several. `url` is without its secrets; `problems`: what it lacks for work to be done on it."""

    name: str
    url: str
    up: bool
    scorers: int
    executors: int
    problems: list[str]


class Readiness(Answer):
    """`reasons`: why it is not ready; with several shards also what some of them lack while others are ready."""

    ready: bool
    broker: bool
    scorers: int
    executors: int
    reasons: list[str]
    shards: list[ShardState] | None = Field(default=None, description="left out if there is only one")


class QueueState(Answer):
    depth: int
    cost: float
    max_depth: int
    max_cost: float
    oldest_ms: float
    drained_cost_per_s: float


class InfoAnswer(Answer):
    version: str
    versions: dict[str, str]
    isolation: Level | None
    limits: dict[str, float]
    models: list[ModelInfo]
    languages: list[LanguageInfo]
    queues: dict[str, QueueState]
    workers: dict[str, int]
    shards: list[ShardState] = Field(default_factory=list, description="empty if there is only one")
