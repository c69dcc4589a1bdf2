"""The operations: `/score`, `/execute`, `/reward`, `/rank`, `/audit`.

A request is answered now, durably (an idempotency key: the answer can be read again), or later
(`Prefer: respond-async`: 202 and a job).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request
from fastapi.responses import JSONResponse, Response

from plaudit.errors import RequestCancelled
from plaudit.schemas import (
    AuditAnswer,
    AuditRequest,
    ExecuteAnswer,
    ExecuteRequest,
    JobAccepted,
    RankAnswer,
    RankRequest,
    RewardAnswer,
    RewardRequest,
    ScoreAnswer,
    ScoreRequest,
)
from service.api.body_route import BodyRoute
from service.api.dispatch import trail
from service.api.dispatch.request_context import RequestContext, deadline, new_request_id
from service.api.dispatch.tasks import cancel_on_disconnect, off_loop
from service.api.error_handlers import respond
from service.api.handlers.operations import AUDIT, EXECUTE, RANK, REWARD, SCORE, AnswerT, Operation, RequestT
from service.api.routes.openapi import DeadlineHeader, Responses, problems
from service.api.state import AppState, state_of
from service.api.stores.durable_requests import request_id_of

log = logging.getLogger("plaudit.api")

WORK_PROBLEMS: Responses = problems(400, 401, 404, 409, 413, 415, 422, 429, 500, 503) | {
    202: {"model": JobAccepted, "description": "Accepted"}
}

router = APIRouter(route_class=BodyRoute, tags=["rewards"])


@dataclass(frozen=True, slots=True)
class WorkHeaders:
    idempotency_key: str | None
    deadline_ms: str | None
    prefers_async: bool


def work_headers(
    idempotency_key: Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=256)] = None,
    x_deadline_ms: DeadlineHeader = None,
    prefer: Annotated[str | None, Header(description="`respond-async` for 202 and a job")] = None,
) -> WorkHeaders:
    preferences = [] if prefer is None else [preference.strip() for preference in prefer.split(",")]
    return WorkHeaders(idempotency_key, x_deadline_ms, "respond-async" in preferences)


Headers = Annotated[WorkHeaders, Depends(work_headers)]


@router.post(
    "/score", response_model=ScoreAnswer, responses=WORK_PROBLEMS, summary="Score completions by a reward model"
)
async def score(request: Request, body: ScoreRequest, headers: Headers) -> Response:
    return await _answer(request, SCORE, body, headers)


@router.post("/execute", response_model=ExecuteAnswer, responses=WORK_PROBLEMS, summary="Run programs against tests")
async def execute(request: Request, body: ExecuteRequest, headers: Headers) -> Response:
    return await _answer(request, EXECUTE, body, headers)


@router.post("/reward", response_model=RewardAnswer, responses=WORK_PROBLEMS, summary="Join terms into rewards")
async def reward(request: Request, body: RewardRequest, headers: Headers) -> Response:
    return await _answer(request, REWARD, body, headers)


@router.post("/rank", response_model=RankAnswer, responses=WORK_PROBLEMS, summary="Rewards, and the order they make")
async def rank(request: Request, body: RankRequest, headers: Headers) -> Response:
    return await _answer(request, RANK, body, headers)


@router.post("/audit", response_model=AuditAnswer, responses=WORK_PROBLEMS, summary="Say what test suites are worth")
async def audit(request: Request, body: AuditRequest, headers: Headers) -> Response:
    return await _answer(request, AUDIT, body, headers)


async def _answer(
    request: Request, operation: Operation[RequestT, AnswerT], body: RequestT, headers: WorkHeaders
) -> Response:
    app_state = state_of(request)
    settings = app_state.settings
    here = trail.current()
    here.stage("read")
    here.num_items = len(body.items)
    default_ms = settings.async_deadline_ms if headers.prefers_async else None
    deadline_ms = deadline(settings, body.deadline_ms, headers.deadline_ms, default_ms=default_ms)
    if settings.log_payloads:
        payload: dict[str, Any] = body.model_dump(mode="json")
        log.info("payload", extra={"request_id": request.state.request_id, "payload": payload})
    if headers.idempotency_key is None and not headers.prefers_async:
        return await _answer_now(request, operation, body, deadline_ms)
    job_id = await _start_durable(request, operation, body, deadline_ms, headers)
    if headers.prefers_async:
        return _accepted(job_id, request.scope.get("root_path", ""), settings.keep_results_s, deadline_ms)
    return await _answer_durable(request, app_state, job_id)


async def _answer_now(
    request: Request, operation: Operation[RequestT, AnswerT], body: RequestT, deadline_ms: int
) -> Response:
    state = request.state
    context = RequestContext(state.request_id, deadline_ms, body.priority, state.tenant)
    answer = await cancel_on_disconnect(request, operation.handler(state_of(request).reward_service, body, context))
    state.queue_ms, state.compute_ms = context.queue_ms, context.compute_ms
    return Response(answer.model_dump_json(), media_type="application/json")


async def _start_durable(
    request: Request,
    operation: Operation[RequestT, AnswerT],
    body: RequestT,
    deadline_ms: int,
    headers: WorkHeaders,
) -> str:
    """The id of the durable request, which is being worked on."""
    app_state, tenant = state_of(request), request.state.tenant
    key = headers.idempotency_key
    job_id = new_request_id() if key is None else request_id_of(tenant, key)
    stored_body = await off_loop(lambda: body.model_dump_json().encode())
    await app_state.durable_requests.of(job_id).start(
        job_id,
        operation.route,
        stored_body,
        tenant,
        deadline_ms,
        len(body.items),
        brief=not headers.prefers_async,
    )
    if operation.executes:
        app_state.replays.alias(tenant, request.state.request_id, job_id)
    return job_id


async def _answer_durable(request: Request, app_state: AppState, job_id: str) -> Response:
    """Wait for a durable request and answer it."""
    state = request.state
    durable = await app_state.durable_requests.of(job_id).wait(job_id, state.tenant)
    if durable.problem is not None:
        return respond(durable.problem.model_copy(update={"request_id": state.request_id}))
    if durable.answer is None:
        raise RequestCancelled("the request with this Idempotency-Key was cancelled; use another key")
    timing = durable.answer["timing"]
    state.queue_ms, state.compute_ms = timing["queue_ms"], timing["compute_ms"]
    return JSONResponse(durable.answer)


def _accepted(job_id: str, root_path: str, keep_s: int, deadline_ms: int) -> Response:
    expires_at = datetime.fromtimestamp(deadline_ms / 1000, UTC) + timedelta(seconds=keep_s)
    accepted = JobAccepted(
        job_id=job_id,
        status_url=f"{root_path}/jobs/{job_id}",
        events_url=f"{root_path}/jobs/{job_id}/events",
        expires_at=expires_at.isoformat(timespec="seconds"),
    )
    headers = {"Location": accepted.status_url, "Preference-Applied": "respond-async"}
    return Response(accepted.model_dump_json(), 202, headers, "application/json")
