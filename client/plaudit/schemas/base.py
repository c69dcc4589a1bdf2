"""What all parts of the contract share: strict requests, tolerant answers, problems, words."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Status = Literal["ok", "timeout_queue", "infra_error", "cancelled", "invalid"]
Completeness = Literal["complete", "partial"]
Priority = Literal["high", "normal", "low"]

# The hard ceilings of lists, above the settings that a deployment limits them by. Past one, the rest is not looked at.
MAX_ITEMS = 16_384
MAX_COMPLETIONS = 65_536
MAX_TESTS = 100_000
MAX_MESSAGES = 10_000
MAX_FIELDS = 256  # of one object that has named fields

Id = Annotated[str, Field(min_length=1, max_length=256)]
Text = Annotated[str, Field(max_length=64 * 1024 * 1024)]  # a bare `str` would let half a surrogate pair in
DeadlineMs = Annotated[int, Field(ge=1, le=86_400_000, description="budget from arrival, in milliseconds")]


class Strict(BaseModel):
    """Requests: unknown fields are errors, and so are NaN and infinity (JSON has neither)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _few_fields(cls, given: Any) -> Any:
        if isinstance(given, dict) and len(given) > MAX_FIELDS:
            raise ValueError(f"{len(given)} fields are more than {MAX_FIELDS}")
        return given


class Answer(BaseModel):
    """Answers tolerate fields of a newer server, so that an older client goes on."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Message(Strict):
    role: Literal["system", "user", "assistant", "tool"]
    content: Text


Messages = Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)]
Prompt = Annotated[Text | Messages, Field(description="text, or chat messages")]
Completions = Annotated[list[Text], Field(min_length=1, max_length=MAX_COMPLETIONS, fail_fast=True)]


class ResultError(Answer):
    """Why one result has no value: a code to branch on and a sentence to read."""

    code: str
    detail: str
    retryable: bool = False


class ModelRef(Answer):
    name: str
    revision: str | None = None


class Timing(Answer):
    queue_ms: float = 0.0
    compute_ms: float = 0.0


class ProblemDocument(Answer):
    """RFC 9457 application/problem+json."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    retryable: bool
    retry_after_ms: int | None = None
    request_id: str
    errors: list[dict[str, Any]] | None = Field(None, description="per field, for code `invalid`")
