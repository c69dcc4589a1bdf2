"""`POST /score`: completions scored by a reward model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from plaudit.schemas.base import (
    MAX_COMPLETIONS,
    MAX_ITEMS,
    MAX_TOKEN_IDS,
    Answer,
    Completeness,
    DeadlineMs,
    Id,
    ModelRef,
    Priority,
    ResultError,
    Status,
    Strict,
    Timing,
    TokenizerDigest,
    is_none,
)
from plaudit.schemas.conversation import PromptedItem, TextOrMessages

TokenIdList = Annotated[
    list[Annotated[int, Field(ge=0, lt=2**31, strict=True)]],
    Field(min_length=1, max_length=MAX_TOKEN_IDS, fail_fast=True),
]


class ScoreItem(PromptedItem):
    """A prompt with its completions, or whole sequences of token ids in their place."""

    completions: Annotated[
        list[TextOrMessages],
        Field(
            max_length=MAX_COMPLETIONS,
            fail_fast=True,
            description="an assistant's answers: texts, or messages that follow the prompt",
        ),
    ] = []
    token_ids: Annotated[
        list[TokenIdList] | None,
        Field(
            min_length=1,
            max_length=MAX_COMPLETIONS,
            fail_fast=True,
            exclude_if=is_none,
            description="whole sequences, special tokens included, in place of a prompt and completions",
        ),
    ] = None

    @model_validator(mode="after")
    def _has_something_to_score(self) -> ScoreItem:
        given = {"prompt", "completions"} & self.model_fields_set
        if self.token_ids is not None:
            if given:
                raise ValueError(f"token_ids and {min(given)}: token ids are whole sequences; leave out one of the two")
        elif len(given) < 2 or not self.completions:
            missing = "prompt (or messages)" if "prompt" not in given else "completions"
            raise ValueError(f"{missing}: missing; an item has a prompt and at least one completion, or token_ids")
        return self

    @property
    def num_scores(self) -> int:
        """How many scores the item asks for."""
        return len(self.completions if self.token_ids is None else self.token_ids)


class ScoreRequest(Strict):
    model: Id = "default"
    items: Annotated[list[ScoreItem], Field(min_length=1, max_length=MAX_ITEMS, fail_fast=True)]
    on_overflow: Literal["error", "truncate_left"] = "error"
    calibrated: bool = False
    tokenizer_digest: Annotated[
        TokenizerDigest | None,
        Field(
            exclude_if=is_none, description="of the tokenizer that made `token_ids`; must be the one in `GET /models`"
        ),
    ] = None
    priority: Priority = "normal"
    deadline_ms: DeadlineMs | None = None

    @model_validator(mode="after")
    def _ids_name_their_tokenizer(self) -> ScoreRequest:
        if self.tokenizer_digest is None and any(item.token_ids is not None for item in self.items):
            raise ValueError("tokenizer_digest: missing; token_ids need the digest of their tokenizer (`GET /models`)")
        return self


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
