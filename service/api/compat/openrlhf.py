"""OpenRLHF: `POST /get_reward {query, prompts, labels}` → `{rewards, scores, extra_logs}`.

One reward that stays out ends the training run, and the client's own tries last five seconds. So this handler never
refuses what is only our misfortune: it waits inside, below the client's 180 s, and then answers the configured fallback
number with `extra_logs.reward_ok` 0. `extra_logs` holds numbers under constant keys, as the trainer needs them.
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
from service.api.compat.base import Dialect, Loose, Text, Visit
from service.api.compat.grade import Grade, Options, by_model, by_tests, no_numbers, tested_by

log = logging.getLogger("plaudit.dialects")

DIALECT = Dialect("openrlhf", "OpenRLHF `--reward.remote_url`", deadline_s=170, sheds=None)

MAX_LEAD = 64  # characters of tokens that decoding may put before the prompt
MIN_TAIL = 32  # an end of the prompt shorter than this could stand anywhere


class RewardsAsked(Loose):
    query: list[Text]
    prompts: list[Any] = Field(default_factory=list)
    labels: list[Any] = Field(default_factory=list)


@DIALECT.router.post("/get_reward")
async def get_reward(request: Request, body: RewardsAsked) -> JSONResponse:
    options, visit = Options.of(request), Visit(request, DIALECT.deadline_s)
    for name, column in (("prompts", body.prompts), ("labels", body.labels)):
        if column and len(column) != len(body.query):
            raise Invalid(f"{name}: {len(column)} of them, and {len(body.query)} queries")
    prompts = body.prompts or [None] * len(body.query)
    labels = body.labels or [None] * len(body.query)
    fallback = visit.services.settings.fallback_reward
    tested = [tested_by(label, options, f"labels.{at}") for at, label in enumerate(labels)]
    work = [_one(visit, *row, options) for row in zip(body.query, prompts, tested, strict=True)]
    grades = await visit.alive(asyncio.gather(*work))
    numbers = [no_numbers(fallback) if grade is None else grade.numbers() for grade in grades]
    return JSONResponse(
        {
            "rewards": [fallback if grade is None else grade.reward for grade in grades],
            "scores": [row["score"] for row in numbers],
            "extra_logs": {name: [row[name] for row in numbers] for name in numbers[0]} if numbers else {},
        }
    )


async def _one(visit: Visit, query: str, prompt: Any, tested: Tested | None, options: Options) -> Grade | None:
    """A grade, or None where there is none to be had: not in time, or never, because the tests cannot be judged by."""
    try:
        if tested is not None:
            return await visit.patiently(lambda: by_tests(visit, response_of(query, prompt), tested, options))
        return await visit.patiently(lambda: by_model(visit, None, query, options))
    except PlauditError as error:
        metrics.infra_errors.labels("openrlhf", error.code).inc()
        log.warning(
            "answered the fallback reward: %s", error.detail, extra={"request_id": visit.request.state.request_id}
        )
        return None


def response_of(query: str, prompt: Any) -> str:
    """The query after the longest end of the prompt that it begins with; all of it where they share nothing.

    The query was decoded again: it may lack the prompt's left (truncated) or begin with a token more.
    """
    if not isinstance(prompt, str) or not prompt:
        return query
    at = query.find(prompt, 0, MAX_LEAD + len(prompt))
    if at >= 0:
        return query[at + len(prompt) :]
    tail = prompt[-MIN_TAIL:]
    at = query.find(tail, 0, MAX_LEAD + len(prompt)) if len(prompt) >= MIN_TAIL else -1
    return query[at + len(tail) :] if at >= 0 else query
