"""Durable requests while they run and after: status, events, cancellation, replay."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Request
from fastapi.responses import Response, StreamingResponse

from plaudit.schemas import JobStatus, ReplayAnswer
from service.api.routes.openapi import READ_PROBLEMS, problems
from service.api.state import state_of
from service.api.stores.durable_requests import START

JobId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]
Cursor = Annotated[str, Query(pattern=r"^[0-9]{1,15}-[0-9]{1,15}$", description="from the last answer")]
LastEventId = Annotated[
    str | None,
    Header(
        alias="Last-Event-ID", pattern=r"^[0-9]{1,15}-[0-9]{1,15}$", description="a cursor, as an EventSource sends it"
    ),
]
RequestId = Annotated[str, Path(pattern=r"^[A-Za-z0-9._:-]{1,128}$")]

router = APIRouter(tags=["requests"])


@router.get(
    "/jobs/{job_id}",
    response_model=JobStatus,
    responses=READ_PROBLEMS | problems(404),
    summary="A durable request: wait for news of it",
)
async def job(
    request: Request, job_id: JobId, wait_ms: Annotated[int, Query(ge=0, le=60_000)] = 0, cursor: Cursor = START
) -> JobStatus:
    return (
        await state_of(request).durable_requests.of(job_id).status(job_id, request.state.tenant, cursor, wait_ms / 1000)
    )


@router.get(
    "/jobs/{job_id}/events",
    responses=READ_PROBLEMS
    | problems(404)
    | {
        200: {
            "description": "Server-sent events: `item` per finished item, then `end`",
            "content": {"text/event-stream": {}},
        },
    },
    response_class=StreamingResponse,
    summary="The same as server-sent events",
)
async def job_events(
    request: Request, job_id: JobId, cursor: Cursor = START, last_event_id: LastEventId = None
) -> StreamingResponse:
    durable_requests, tenant = state_of(request).durable_requests.of(job_id), request.state.tenant
    await durable_requests.read(job_id, tenant)  # unknown: 404 before the stream begins
    events = _server_sent(durable_requests.events(job_id, tenant, last_event_id or cursor))
    return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def _server_sent(statuses: AsyncIterator[JobStatus]) -> AsyncIterator[str]:
    async for status in statuses:
        for item in status.items:
            # Only the last item has the cursor: a client that comes back after half of them reads them all again.
            event_id = f"id: {status.cursor}\n" if item is status.items[-1] else ""
            yield f"event: item\n{event_id}data: {item.model_dump_json()}\n\n"
        if status.state != "running":
            end = status.model_copy(update={"items": []})
            yield f"event: end\nid: {status.cursor}\ndata: {end.model_dump_json()}\n\n"
        elif not status.items:
            yield ": still running\n\n"


@router.delete("/jobs/{job_id}", response_model=JobStatus, responses=READ_PROBLEMS | problems(404), summary="Cancel it")
async def cancel_job(request: Request, job_id: JobId) -> JobStatus:
    return await state_of(request).durable_requests.of(job_id).cancel(job_id, request.state.tenant)


@router.get(
    "/requests/{request_id}/replay",
    response_model=ReplayAnswer,
    responses=READ_PROBLEMS | problems(404),
    summary="What it takes to reproduce its verdicts",
)
async def replay(request: Request, request_id: RequestId) -> Response:
    """Everything that it takes to reproduce the verdicts of a request, by its X-Request-Id."""
    answer = await state_of(request).replays.of(request_id, request.state.tenant)
    return Response(answer.model_dump_json(), media_type="application/json")
