"""What a deployment does and did: workers and tenants, recent requests, slow work, the history."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request

from plaudit.schemas import HistoryAnswer, RequestsAnswer, RequestSummary, SlowAnswer, WorkersAnswer
from service.api.handlers.activity import workers_answer
from service.api.routes.jobs import RequestId
from service.api.routes.openapi import READ_PROBLEMS, problems
from service.api.state import state_of
from service.api.stores.activity import MAX_REQUESTS

router = APIRouter(tags=["activity"])

Step = Annotated[
    Literal["10", "240"], Query(description="seconds of a step: 10 for the last hour, 240 for the last day")
]


def _sees_all(request: Request) -> bool:
    """Whether the caller may see what other tenants do: with an admin key, or where there are no keys."""
    settings = state_of(request).settings
    return bool(request.state.admin) or not (settings.api_key or settings.admin_key)


def _tenants(request: Request) -> Sequence[str]:
    return state_of(request).activity.tenants if _sees_all(request) else [request.state.tenant]


@router.get(
    "/slow", summary="The slowest work of the last hour, and why", response_model=SlowAnswer, responses=READ_PROBLEMS
)
async def slow(request: Request) -> SlowAnswer:
    """The slowest prompts, programs and suites of the last hour, with where their time went."""
    return await state_of(request).activity.slow(_tenants(request))


@router.get(
    "/requests",
    summary="Recent requests and their way through the service",
    response_model=RequestsAnswer,
    responses=READ_PROBLEMS,
)
async def requests(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=MAX_REQUESTS)] = 50,
    errors: Annotated[bool, Query(description="only those that ended with a problem")] = False,
) -> RequestsAnswer:
    """Requests of the last hour with their way through the service, newest first."""
    found = await state_of(request).activity.requests(_tenants(request), limit, errors=errors)
    return RequestsAnswer(requests=found)


@router.get(
    "/requests/{request_id}",
    summary="One recent request by its id",
    response_model=RequestSummary,
    responses=READ_PROBLEMS | problems(404),
)
async def request_summary(request: Request, request_id: RequestId) -> RequestSummary:
    """One request of the last hour, by its X-Request-Id."""
    return await state_of(request).activity.request(_tenants(request), request_id)


@router.get(
    "/workers",
    summary="What workers do, and the tenants' shares",
    response_model=WorkersAnswer,
    responses=READ_PROBLEMS,
)
async def workers(request: Request) -> WorkersAnswer:
    """The live workers with what they are doing, and the tenants' shares of the queues."""
    app_state = state_of(request)
    num_requests = await app_state.activity.history.num_requests()
    return workers_answer(app_state.fleet, num_requests, request.state.tenant, sees_all=_sees_all(request))


@router.get("/history", summary="What happened per step of time", response_model=HistoryAnswer, responses=READ_PROBLEMS)
async def history(
    request: Request,
    step_s: Step = "10",
    since_ms: Annotated[
        int, Query(ge=0, le=10**14, description="Unix time; steps that began before it are left out")
    ] = 0,
) -> HistoryAnswer:
    """What happened per step of time, all API processes together, oldest first."""
    points = await state_of(request).activity.history.read(int(step_s), since_ms)
    return HistoryAnswer(step_s=int(step_s), points=points)
