"""The table of native operations: route, types and handler of each.

Routes, durable requests (whose stored body is answered by whichever process takes it up) and compatibility endpoints
use the same table.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from plaudit.schemas import (
    AuditAnswer,
    AuditRequest,
    ExecuteAnswer,
    ExecuteRequest,
    RankAnswer,
    RankRequest,
    RewardAnswer,
    RewardRequest,
    ScoreAnswer,
    ScoreRequest,
)
from service.api import json_body
from service.api.dispatch.request_context import RequestContext
from service.api.dispatch.tasks import SMALL_BYTES, mark_large, off_loop
from service.api.handlers.reward_service import RewardService

RequestT = TypeVar("RequestT", bound=ScoreRequest | ExecuteRequest | RewardRequest | RankRequest | AuditRequest)
AnswerT = TypeVar("AnswerT", bound=ScoreAnswer | ExecuteAnswer | RewardAnswer | RankAnswer | AuditAnswer)


@dataclass(frozen=True, slots=True)
class Operation(Generic[RequestT, AnswerT]):
    """One native operation.

    Args:
        route: its path, which also names it in a durable request.
        request: the type of its body.
        answer: the type of its answer.
        handler: the service's method.
        executes: whether it can run programs, so that there may be a replay of it.
    """

    route: str
    request: type[RequestT]
    answer: type[AnswerT]
    handler: Callable[[RewardService, RequestT, RequestContext], Awaitable[AnswerT]]
    executes: bool = True


SCORE = Operation(
    "/score", ScoreRequest, ScoreAnswer, lambda service, *arguments: service.score(*arguments), executes=False
)
EXECUTE = Operation("/execute", ExecuteRequest, ExecuteAnswer, lambda service, *arguments: service.execute(*arguments))
REWARD = Operation("/reward", RewardRequest, RewardAnswer, lambda service, *arguments: service.reward(*arguments))
RANK = Operation("/rank", RankRequest, RankAnswer, lambda service, *arguments: service.rank(*arguments))
AUDIT = Operation(
    "/audit", AuditRequest, AuditAnswer, lambda service, *arguments: service.audit(*arguments), executes=False
)

OPERATIONS: dict[str, Operation[Any, Any]] = {
    operation.route: operation for operation in (SCORE, EXECUTE, REWARD, RANK, AUDIT)
}


async def perform_stored(service: RewardService, route: str, body: bytes, context: RequestContext) -> dict[str, Any]:
    """Answer a durable request from its stored body."""
    operation = OPERATIONS[route]
    if len(body) > SMALL_BYTES:
        mark_large()
        request = await off_loop(lambda: operation.request.model_validate(json_body.load(body)))
    else:
        request = operation.request.model_validate_json(body)
    answer = await operation.handler(service, request, replace(context, lane=request.priority))
    return await off_loop(answer.model_dump, mode="json")
