"""What all parts of the contract share: strict requests, tolerant answers, problems, words."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Status = Literal["ok", "timeout_queue", "infra_error", "cancelled", "invalid"]
Completeness = Literal["complete", "partial"]
Priority = Literal["high", "normal", "low"]

# The hard ceilings of lists, above the settings that a deployment limits them by. Past one, the rest is not looked at.
MAX_ITEMS = 16_384
MAX_COMPLETIONS = 65_536
MAX_TESTS = 100_000
MAX_MESSAGES = 10_000
MAX_TOKEN_IDS = 4_000_000  # of one sequence; a model takes far fewer
MAX_FIELDS = 256  # of one object that has named fields


def is_none(value: Any) -> bool:
    """For `exclude_if`: a field that is newer than others is left out of stored bodies, which versions compare."""
    return value is None


Id = Annotated[str, Field(min_length=1, max_length=256)]
Text = Annotated[str, Field(max_length=64 * 1024 * 1024)]  # a bare `str` would let half a surrogate pair in
TokenizerDigest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
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


MAX_NESTING = 100  # lists and objects within each other; parsers and serializers give up somewhere beyond


def survives_json(value: Any) -> Any:
    """A value that survives JSON: without NaN, infinity and half surrogate pairs, nested at most `MAX_NESTING` deep."""
    left = [(value, 0)]
    while left:
        part, depth = left.pop()
        if depth > MAX_NESTING:
            raise ValueError(f"more than {MAX_NESTING} lists and objects within each other")
        match part:
            case float(number) if not math.isfinite(number):
                raise ValueError("NaN and infinity are not JSON numbers")
            case str(text):
                try:
                    text.encode()
                except UnicodeEncodeError:
                    raise ValueError("half of a surrogate pair is not text") from None
            case list(parts):
                left += [(child, depth + 1) for child in parts]
            case dict(fields):
                left += [(child, depth + 1) for child in (*fields.keys(), *fields.values())]
    return value


Exact = Annotated[Any, AfterValidator(survives_json)]


class Answer(BaseModel):
    """Answers tolerate fields of a newer server, so that an older client goes on."""

    model_config = ConfigDict(extra="ignore", frozen=True)


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
    queue_ms: float = Field(default=0.0, description="the longest wait in the queue of one of its jobs")
    compute_ms: float = Field(default=0.0, description="the work of all its jobs together, which run side by side")
    wall_ms: float = Field(default=0.0, description="from arrival to answer, by the clock")


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
