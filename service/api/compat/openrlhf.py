"""OpenRLHF: `POST /get_reward {query, prompts, labels}` → `{rewards, scores, extra_logs}`.

- One missing reward ends the training run, and the client's own tries last five seconds. So the handler never answers a
  server error: it waits inside, for less than the client's 180 s, and then answers the configured fallback number with
  `extra_logs.reward_ok` 0.
- `extra_logs` holds numbers under constant keys, as the trainer needs them.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import Field

from plaudit.errors import Invalid, PlauditError
from plaudit.labels import Tested
from service import metrics
from service.api.compat.base import CompatCall, CompatRequest, Dialect, FailFastList, Text
from service.api.compat.grading import (
    Grade,
    GradeOptions,
    columns_without_grade,
    grade_by_model,
    grade_by_tests,
    tests_of,
)

log = logging.getLogger("plaudit.compat")

DIALECT = Dialect("openrlhf", "OpenRLHF `--reward.remote_url`", deadline_s=170, retry_status=None)

MAX_LEAD_CHARS = 64  # of tokens that decoding may put before the prompt
MIN_TAIL_CHARS = 32  # a shorter end of the prompt could stand anywhere in the query


class GetRewardRequest(CompatRequest):
    query: FailFastList[Text]
    prompts: FailFastList[Any] = Field(default_factory=list)
    labels: FailFastList[Any] = Field(default_factory=list)


@DIALECT.router.post("/get_reward")
async def get_reward(request: Request, body: GetRewardRequest) -> JSONResponse:
    options, call = GradeOptions.of(request), CompatCall(request, DIALECT.deadline_s)
    num_queries = len(body.query)
    for name, column in (("prompts", body.prompts), ("labels", body.labels)):
        if column and len(column) != num_queries:
            raise Invalid(f"{name}: {len(column)} entries, and there are {num_queries} queries")
    prompts = body.prompts or [None] * num_queries
    labels = body.labels or [None] * num_queries
    fallback = call.app_state.settings.fallback_reward
    tests = [tests_of(label, options, f"labels.{index}") for index, label in enumerate(labels)]
    work = [_grade(call, *row, options) for row in zip(body.query, prompts, tests, strict=True)]
    grades = await call.while_connected(asyncio.gather(*work))
    rows = [columns_without_grade(fallback) if grade is None else grade.columns() for grade in grades]
    return JSONResponse(
        {
            "rewards": [fallback if grade is None else grade.reward for grade in grades],
            "scores": [row["score"] for row in rows],
            "extra_logs": {name: [row[name] for row in rows] for name in rows[0]} if rows else {},
        }
    )


async def _grade(
    call: CompatCall, query: str, prompt: Any, tests: Tested | None, options: GradeOptions
) -> Grade | None:
    """A grade; None where it is not ready in time, or where the tests cannot be used."""
    try:
        if tests is not None:
            return await call.with_retries(lambda: grade_by_tests(call, response_of(query, prompt), tests, options))
        return await call.with_retries(lambda: grade_by_model(call, None, query, options))
    except PlauditError as error:
        metrics.infra_errors.labels("openrlhf", error.code).inc()
        request_id = call.request.state.request_id
        log.warning("answered the fallback reward: %s", error.detail, extra={"request_id": request_id})
        return None


def response_of(query: str, prompt: Any) -> str:
    """The query after the prompt, or after the prompt's end; all of it where the two share nothing.

    The query was decoded from tokens: its left may be truncated, or it may begin with one more token.
    """
    if not isinstance(prompt, str) or not prompt:
        return query
    start = query.find(prompt, 0, MAX_LEAD_CHARS + len(prompt))
    if start >= 0:
        return query[start + len(prompt) :]
    tail = prompt[-MIN_TAIL_CHARS:]
    start = query.find(tail, 0, MAX_LEAD_CHARS + len(prompt)) if len(prompt) >= MIN_TAIL_CHARS else -1
    return query[start + len(tail) :] if start >= 0 else query
