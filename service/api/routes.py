"""The native endpoints: thin doors. Each binds its input, calls one thing, and answers."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from importlib import metadata, resources
from typing import Annotated, Any, cast

from fastapi import APIRouter, Header, Path, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from pydantic import BaseModel

from plaudit.errors import Invalid
from plaudit.schemas import (
    ActivateAnswer,
    ActivateRequest,
    ExecuteAnswer,
    ExecuteRequest,
    Health,
    InfoAnswer,
    InlineTests,
    JobAccepted,
    JobStatus,
    LanguagesAnswer,
    ModelsAnswer,
    QueueState,
    RankAnswer,
    RankRequest,
    Readiness,
    ReplayAnswer,
    RewardAnswer,
    RewardRequest,
    ScoreAnswer,
    ScoreRequest,
    TestsetAnswer,
)
from service import metrics
from service.api.dispatch.disconnect import while_connected
from service.api.dispatch.request_context import Context, Progress, deadline, new_request_id
from service.api.error_handlers import respond
from service.api.handlers.activation import ACTIVATE_MS
from service.api.handlers.activation import activate as swap
from service.api.handlers.execute import to_suite
from service.api.state import Services
from service.api.stores.durable_requests import START, request_id_of
from service.jobs import encode_suite, num_tests
from service.queue.keys import EXECUTE_QUEUE

log = logging.getLogger("plaudit.api")

REQUESTS: dict[str, type[ScoreRequest | ExecuteRequest | RewardRequest | RankRequest]] = {
    "/score": ScoreRequest,
    "/execute": ExecuteRequest,
    "/reward": RewardRequest,
    "/rank": RankRequest,
}

_WORDS = {
    400: "The body is not JSON in UTF-8",
    401: "API key missing or unknown",
    403: "This key may not do that",
    404: "Not found",
    405: "Method not allowed",
    409: "Same idempotency key, another body",
    413: "Over a limit",
    422: "A field is wrong; `errors` has its path",
    429: "Queue full; see Retry-After",
    500: "Internal error",
    503: "Not possible now; retryable",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI entries of the problems a route may answer with."""
    schema = {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}
    return {
        status: {"description": _WORDS[status], "content": {"application/problem+json": schema}} for status in statuses
    }


WORK = problems(400, 401, 404, 409, 413, 422, 429, 500, 503) | {202: {"model": JobAccepted, "description": "Accepted"}}
LOOK = problems(401, 422, 500, 503)

router = APIRouter()


def services(request: Request) -> Services:
    return cast(Services, request.app.state.services)


# --- work ------------------------------------------------------------------------------------------------------------

IdempotencyKey = Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=256)]
DeadlineHeader = Annotated[str | None, Header(alias="X-Deadline-Ms", description="whole milliseconds from arrival")]
Prefer = Annotated[str | None, Header(description="`respond-async` for 202 and a job")]


@router.post("/score", response_model=ScoreAnswer, responses=WORK, summary="Score completions by a reward model")
async def score(
    request: Request,
    body: ScoreRequest,
    idempotency_key: IdempotencyKey = None,
    x_deadline_ms: DeadlineHeader = None,
    prefer: Prefer = None,
) -> Response:
    return await _work(request, "/score", body, idempotency_key, x_deadline_ms, prefer)


@router.post("/execute", response_model=ExecuteAnswer, responses=WORK, summary="Run programs against tests")
async def execute(
    request: Request,
    body: ExecuteRequest,
    idempotency_key: IdempotencyKey = None,
    x_deadline_ms: DeadlineHeader = None,
    prefer: Prefer = None,
) -> Response:
    return await _work(request, "/execute", body, idempotency_key, x_deadline_ms, prefer)


@router.post("/reward", response_model=RewardAnswer, responses=WORK, summary="Join terms into rewards")
async def reward(
    request: Request,
    body: RewardRequest,
    idempotency_key: IdempotencyKey = None,
    x_deadline_ms: DeadlineHeader = None,
    prefer: Prefer = None,
) -> Response:
    return await _work(request, "/reward", body, idempotency_key, x_deadline_ms, prefer)


@router.post("/rank", response_model=RankAnswer, responses=WORK, summary="Rewards, and the order they make")
async def rank(
    request: Request,
    body: RankRequest,
    idempotency_key: IdempotencyKey = None,
    x_deadline_ms: DeadlineHeader = None,
    prefer: Prefer = None,
) -> Response:
    return await _work(request, "/rank", body, idempotency_key, x_deadline_ms, prefer)


async def perform(desk: Any, route: str, body: BaseModel, context: Context) -> BaseModel:
    """The desk's method of this route."""
    answer: BaseModel = await getattr(desk, route.removeprefix("/"))(body, context)
    return answer


async def _work(
    request: Request, route: str, body: Any, key: str | None, deadline_header: str | None, prefer: str | None
) -> Response:
    """Now, durably (an idempotency key), or later (`Prefer: respond-async`)."""
    these, state = services(request), request.state
    later = prefer is not None and "respond-async" in [part.strip() for part in prefer.split(",")]
    default_ms = these.settings.async_deadline_ms if later else None
    until = deadline(these.settings, body.deadline_ms, deadline_header, default_ms=default_ms)
    if these.settings.log_payloads:
        log.info("payload", extra={"request_id": state.request_id, "payload": body.model_dump(mode="json")})
    if key is None and not later:
        context = Context(state.request_id, until, body.priority, state.tenant)
        answer = await while_connected(request, perform(these.desk, route, body, context))
        state.queue_ms, state.compute_ms = context.queue_ms, context.compute_ms
        return Response(answer.model_dump_json(), media_type="application/json")
    job = request_id_of(state.tenant, key) if key is not None else new_request_id()
    await these.ledger.start(job, route, body.model_dump_json().encode(), state.tenant, until, len(body.items))
    if route != "/score":
        these.replays.alias(state.tenant, state.request_id, job)
    if later:
        accepted = _accepted(job, these.settings.keep_results_s, until)
        return Response(
            accepted.model_dump_json(),
            202,
            {"Location": accepted.status_url, "Preference-Applied": "respond-async"},
            "application/json",
        )
    entry = await these.ledger.wait(job, state.tenant)
    if entry.problem is not None:
        return respond(entry.problem.model_copy(update={"request_id": state.request_id}))
    if entry.answer is None:
        raise Invalid("this request was cancelled; use another Idempotency-Key")
    timing = entry.answer["timing"]
    state.queue_ms, state.compute_ms = timing["queue_ms"], timing["compute_ms"]
    return JSONResponse(entry.answer)


async def durable(
    these: Services, route: str, frame: bytes, request_id: str, tenant: str, until: int, progress: Progress
) -> dict[str, Any]:
    """What the ledger runs: the same desk, from a stored body."""
    body = REQUESTS[route].model_validate_json(frame)
    context = Context(request_id, until, body.priority, tenant, progress)
    answer = await perform(these.desk, route, body, context)
    return answer.model_dump(mode="json")


def _accepted(job: str, keep_s: int, until_ms: int) -> JobAccepted:
    expires = datetime.fromtimestamp(until_ms / 1000, UTC) + timedelta(seconds=keep_s)
    return JobAccepted(
        job_id=job,
        status_url=f"/jobs/{job}",
        events_url=f"/jobs/{job}/events",
        expires_at=expires.isoformat(timespec="seconds"),
    )


# --- asynchronous jobs -----------------------------------------------------------------------------------------------

JobId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]
Cursor = Annotated[str, Query(pattern=r"^[0-9]{1,15}-[0-9]{1,15}$", description="from the last answer")]
LastEventId = Annotated[
    str | None,
    Header(
        alias="Last-Event-ID", pattern=r"^[0-9]{1,15}-[0-9]{1,15}$", description="a cursor, as an EventSource sends it"
    ),
]


@router.get("/jobs/{job_id}", response_model=JobStatus, responses=LOOK | problems(404))
async def job(
    request: Request, job_id: JobId, wait_ms: Annotated[int, Query(ge=0, le=60_000)] = 0, cursor: Cursor = START
) -> JobStatus:
    return await services(request).ledger.status(job_id, request.state.tenant, cursor, wait_ms / 1000)


@router.get(
    "/jobs/{job_id}/events",
    responses=LOOK
    | problems(404)
    | {
        200: {
            "description": "Server-sent events: `item` per finished item, then `end`",
            "content": {"text/event-stream": {}},
        },
    },
    response_class=StreamingResponse,
)
async def job_events(
    request: Request, job_id: JobId, cursor: Cursor = START, last_event_id: LastEventId = None
) -> StreamingResponse:
    cursor = last_event_id or cursor
    ledger, tenant = services(request).ledger, request.state.tenant
    await ledger.entry(job_id, tenant)  # unknown: 404 before the stream begins

    async def stream() -> AsyncIterator[str]:
        async for status in ledger.events(job_id, tenant, cursor):
            for item in status.items:
                # Only the last says where to go on: who comes back after half of them gets them again, and misses none.
                place = f"id: {status.cursor}\n" if item is status.items[-1] else ""
                yield f"event: item\n{place}data: {item.model_dump_json()}\n\n"
            if status.state != "running":
                end = status.model_copy(update={"items": []})
                yield f"event: end\nid: {status.cursor}\ndata: {end.model_dump_json()}\n\n"
            elif not status.items:
                yield ": still running\n\n"

    return StreamingResponse(stream(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


@router.delete("/jobs/{job_id}", response_model=JobStatus, responses=LOOK | problems(404))
async def cancel_job(request: Request, job_id: JobId) -> JobStatus:
    return await services(request).ledger.cancel(job_id, request.state.tenant)


# --- replays ---------------------------------------------------------------------------------------------------------

RequestId = Annotated[str, Path(pattern=r"^[A-Za-z0-9._:-]{1,128}$")]


@router.get("/requests/{request_id}/replay", response_model=ReplayAnswer, responses=LOOK | problems(404))
async def replay(request: Request, request_id: RequestId) -> Response:
    """Everything that it takes to reproduce the verdicts of a request, by its X-Request-Id."""
    found = await services(request).replays.of(request_id, request.state.tenant)
    return Response(found.model_dump_json(), media_type="application/json")


# --- test sets -------------------------------------------------------------------------------------------------------


@router.put("/testsets/{sha256}", response_model=TestsetAnswer, responses=LOOK | problems(400, 413))
async def put_testset(
    request: Request, sha256: Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")], tests: InlineTests
) -> TestsetAnswer:
    """Store a suite under the SHA-256 of the request's body, to be named by `{"kind": "ref", "sha256": …}`."""
    these = services(request)
    actual = hashlib.sha256(await request.body()).hexdigest()
    if actual != sha256:
        raise Invalid(f"sha256: the body's is {actual}")
    these.door.check_tests("tests", tests)
    suite = to_suite(tests)
    keep_s = these.settings.keep_results_s
    await these.queue.put_suite(sha256, encode_suite(suite), keep_s)
    expires = datetime.now(UTC) + timedelta(seconds=keep_s)
    return TestsetAnswer(sha256=sha256, tests=num_tests(suite), expires_at=expires.isoformat(timespec="seconds"))


# --- looking around --------------------------------------------------------------------------------------------------


@router.get("/models", response_model=ModelsAnswer, responses=LOOK)
async def models(request: Request) -> ModelsAnswer:
    return ModelsAnswer(models=list(services(request).fleet.models.values()))


@router.post(
    "/models/{name}/activate",
    response_model=ActivateAnswer,
    responses=LOOK | problems(400, 403, 404, 409),
    summary="Swap in another revision (admin key)",
)
async def activate(
    request: Request,
    name: Annotated[str, Path(min_length=1, max_length=256)],
    body: ActivateRequest,
    x_deadline_ms: DeadlineHeader = None,
) -> ActivateAnswer:
    """Load a checkpoint beside the one that serves, prove it in every scoring worker, then swap between two batches."""
    these = services(request)
    until = deadline(these.settings, body.deadline_ms, x_deadline_ms, default_ms=ACTIVATE_MS)
    return await while_connected(request, swap(these.fleet, these.door, name, body, until))


@router.get("/languages", response_model=LanguagesAnswer, responses=LOOK)
async def languages(request: Request) -> LanguagesAnswer:
    return LanguagesAnswer(languages=services(request).fleet.languages)


@router.get("/info", response_model=InfoAnswer, responses=LOOK)
async def info(request: Request) -> InfoAnswer:
    these = services(request)
    fleet, settings = these.fleet, these.settings
    limits = {name: float(value) for name, value in settings if name.startswith("max_")}
    return InfoAnswer(
        version=metadata.version("plaudit"),
        versions={name: metadata.version(name) for name in ("fastapi", "pydantic", "redis")} | fleet.versions,
        isolation=fleet.isolation,  # type: ignore[arg-type]
        limits=limits,
        models=list(fleet.models.values()),
        languages=fleet.languages,
        queues={name: _queue_state(these, name) for name in sorted(fleet.lines)},
        workers={kind: len(fleet.of_kind(kind)) for kind in ("score", "execute")},
    )


def _queue_state(these: Services, name: str) -> QueueState:
    line, settings = these.fleet.line(name), these.settings
    executing = name == EXECUTE_QUEUE
    return QueueState(
        depth=line.load.depth,
        cost=line.load.cost,
        oldest_ms=line.load.oldest_ms,
        drained_cost_per_s=line.rate or 0.0,
        max_depth=settings.max_queued_execute if executing else settings.max_queued_score,
        max_cost=settings.max_queued_execute_cpu_s if executing else settings.max_queued_score_tokens,
    )


@router.get("/health", response_model=Health, responses=problems(500))
async def health() -> Health:
    return Health(status="ok")


@router.get("/ready", response_model=Readiness, responses={503: {"model": Readiness, "description": "Not ready"}})
async def ready(request: Request) -> Response:
    state = services(request).readiness()
    return Response(state.model_dump_json(), 200 if state.ready else 503, media_type="application/json")


@router.get("/metrics", responses={200: {"content": {"text/plain": {}}}}, response_class=Response)
async def prometheus(request: Request) -> Response:
    fleet = services(request).fleet
    lines = fleet.lines
    snapshot = metrics.queue_gauges(
        depth={name: line.load.depth for name, line in lines.items()},
        cost={name: line.load.cost for name, line in lines.items()},
        oldest_s={name: line.load.oldest_ms / 1000 for name, line in lines.items()},
        rate={name: line.rate or 0.0 for name, line in lines.items()},
        workers={kind: len(fleet.of_kind(kind)) for kind in ("score", "execute")},
    )
    return Response(metrics.exposition(snapshot), media_type="text/plain; version=0.0.4; charset=utf-8")


_CSP = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@router.get("/", response_class=HTMLResponse, include_in_schema=False)
async def dashboard() -> HTMLResponse:
    page = resources.files("service.api").joinpath("dashboard", "index.html").read_text("utf-8")
    return HTMLResponse(page, headers={"Content-Security-Policy": _CSP})
