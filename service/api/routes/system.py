"""What the deployment is and how it does: languages, info, health, readiness, metrics."""

from __future__ import annotations

from importlib import metadata

from fastapi import APIRouter, Request
from fastapi.responses import Response

from plaudit.schemas import Health, InfoAnswer, LanguagesAnswer, QueueState, Readiness
from service import metrics
from service.api.dispatch.shard_monitor import QueueMonitor
from service.api.handlers.readiness import readiness, shard_states
from service.api.routes.openapi import READ_PROBLEMS, problems
from service.api.state import state_of
from service.queue.keys import EXECUTE_QUEUE
from service.settings import Settings

WORKER_KINDS = ("score", "execute")

router = APIRouter(tags=["system"])


@router.get(
    "/languages",
    response_model=LanguagesAnswer,
    responses=READ_PROBLEMS,
    summary="What the executors run, with toolchain versions",
)
async def languages(request: Request) -> LanguagesAnswer:
    return LanguagesAnswer(languages=state_of(request).fleet.languages)


@router.get(
    "/info",
    response_model=InfoAnswer,
    responses=READ_PROBLEMS,
    summary="Versions, limits, isolation level, models, queues",
)
async def info(request: Request) -> InfoAnswer:
    app_state = state_of(request)
    fleet, settings = app_state.fleet, app_state.settings
    return InfoAnswer(
        version=metadata.version("plaudit"),
        versions={name: metadata.version(name) for name in ("fastapi", "pydantic", "redis")} | fleet.versions,
        isolation=fleet.isolation,  # type: ignore[arg-type]
        limits={name: float(value) for name, value in settings if name.startswith("max_") and value is not None},
        models=list(fleet.models.values()),
        languages=fleet.languages,
        queues={name: _queue_state(name, monitor, settings) for name, monitor in sorted(fleet.queues.items())},
        workers={kind: len(fleet.of_kind(kind)) for kind in WORKER_KINDS},
        shards=shard_states(fleet, settings),
    )


def _queue_state(name: str, monitor: QueueMonitor, settings: Settings) -> QueueState:
    executes = name == EXECUTE_QUEUE
    return QueueState(
        depth=monitor.load.depth,
        cost=monitor.load.cost,
        oldest_ms=monitor.load.oldest_ms,
        drained_cost_per_s=monitor.rate or 0.0,
        max_depth=settings.max_queued_execute if executes else settings.max_queued_score,
        max_cost=settings.max_queued_execute_cpu_s if executes else settings.max_queued_score_tokens,
    )


@router.get("/health", response_model=Health, responses=problems(500), summary="The process lives")
async def health() -> Health:
    return Health(status="ok")


@router.get(
    "/ready",
    response_model=Readiness,
    responses={503: {"model": Readiness, "description": "Not ready"}},
    summary="A worker of each configured kind has done a job; 503 until then",
)
async def ready(request: Request) -> Response:
    app_state = state_of(request)
    state = readiness(app_state.fleet, app_state.settings)
    return Response(
        state.model_dump_json(exclude_none=True), 200 if state.ready else 503, media_type="application/json"
    )


@router.get("/metrics", responses={200: {"content": {"text/plain": {}}}}, response_class=Response, summary="Prometheus")
async def prometheus(request: Request) -> Response:
    fleet = state_of(request).fleet
    monitors, memory = fleet.queues, fleet.memory
    queues = metrics.queue_gauges(
        depth={name: monitor.load.depth for name, monitor in monitors.items()},
        cost={name: monitor.load.cost for name, monitor in monitors.items()},
        oldest_s={name: monitor.load.oldest_ms / 1000 for name, monitor in monitors.items()},
        rate={name: monitor.rate or 0.0 for name, monitor in monitors.items()},
        workers={kind: len(fleet.of_kind(kind)) for kind in WORKER_KINDS},
    )
    redis = metrics.memory_gauges(memory.used_bytes, memory.max_bytes, memory.families, memory.budgets)
    shards = metrics.shard_gauges({monitor.name: monitor.broker for monitor in fleet.monitors if monitor.name})
    content, media_type = metrics.exposition(request.headers.get("accept", ""), queues, redis, shards)
    return Response(content, headers={"Content-Type": media_type})
