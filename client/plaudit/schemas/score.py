"""`POST /score`: completions scored by a reward model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from plaudit.schemas.base import (
    MAX_ITEMS,
    Answer,
    Completeness,
    Completions,
    DeadlineMs,
    Id,
    ModelRef,
    Priority,
    Prompt,
    ResultError,
    Status,
    Strict,
    Timing,
)


class ScoreItem(Strict):
    id: Id | None = None
    prompt: Prompt
    completions: Completions


class ScoreRequest(Strict):
    model: Id = "default"
    items: Annotated[list[ScoreItem], Field(min_length=1, max_length=MAX_ITEMS, fail_fast=True)]
    on_overflow: Literal["error", "truncate_left"] = "error"
    calibrated: bool = False
    priority: Priority = "normal"
    deadline_ms: DeadlineMs | None = None


class CompletionScore(Answer):
    status: Status
    score: float | None = Field(None, description="raw logit, unbounded")
    pass_probability: float | None = Field(None, description="by the checkpoint's own calibration, if asked for")
    steps: list[float] | None = Field(None, description="raw logit of each step; of process reward models only")
    tokens: int | None = None
    truncated: bool = False
    cached: bool = False
    trainable: bool
    error: ResultError | None = None


class ScoreResult(Answer):
    id: str | None = None
    best: int | None = Field(None, description="index of the highest score; null if none")
    completions: list[CompletionScore]


class ScoreAnswer(Answer):
    request_id: str
    status: Completeness
    model: ModelRef
    results: list[ScoreResult]
    timing: Timing
