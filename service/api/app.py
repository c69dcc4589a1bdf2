"""The FastAPI application: what the lifespan opens, it closes on the same screen."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib import metadata

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from plaudit.errors import UsageError
from service import metrics
from service.api import error_handlers
from service.api.compat import registry
from service.api.dispatch.fleet import REFRESH_S, Fleet
from service.api.dispatch.reply_router import ReplyRouter
from service.api.dispatch.shard_monitor import ShardMonitor
from service.api.dispatch.shards import Shards
from service.api.dispatch.submission import Dispatcher
from service.api.dispatch.tasks import cancel_and_wait, repeat
from service.api.handlers.activity import activity_gauges
from service.api.handlers.operations import perform_stored
from service.api.handlers.readiness import probe_workers
from service.api.handlers.replays import Replays
from service.api.handlers.reward_service import RewardService
from service.api.handlers.score_cache import ScoreCache
from service.api.handlers.validation import RequestValidator
from service.api.middleware import Drain, RequestMiddleware, tenant_of
from service.api.openapi_document import openapi_document
from service.api.response_forms import GzipAnswers, HeadAnswers
from service.api.routes import native_router, native_routes
from service.api.state import AppState
from service.api.stores.activity import FLUSH_EVERY_S, Activity
from service.api.stores.durable_requests import HEARTBEAT_S, DurableRequests, ShardedDurableRequests
from service.api.stores.event_reader import CHECK_S, EventReader
from service.api.stores.sample_log import SampleLog
from service.queue.connections import SHARD_TIMEOUT_S, SOCKET_TIMEOUT_S, connect_async
from service.queue.producer import Queue
from service.queue.protocol import shard_clock
from service.queue.shards import addresses as shards_of
from service.settings import Settings

EXPOSED_HEADERS = ["X-Request-Id", "Server-Timing", "Retry-After", "Location"]
DESCRIPTION = "A reward service for code models: reward-model scores and sandboxed tests, audited."


def create_app(settings: Settings) -> FastAPI:
    """The application for these settings. Raises UsageError for a binding that would be open to the network."""
    if settings.redis_url is None:
        raise UsageError("the API needs --redis-url (`plaudit up` brings its own queue)")
    if not settings.loopback and not settings.api_key and not settings.accept_no_auth:
        raise UsageError(
            f"refusing to listen on {settings.host} without API keys: give --api-key, or accept it with "
            "--accept-no-auth"
        )

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        name = uuid.uuid4().hex
        addresses = shards_of(settings.redis_urls)
        timeout_s = SOCKET_TIMEOUT_S if len(addresses) == 1 else SHARD_TIMEOUT_S
        clients = [connect_async(address.url, socket_timeout_s=timeout_s) for address in addresses]
        queues = [
            Queue(client, settings.namespace, name, shard_clock(len(clients)), num_replicas=settings.redis_replicas)
            for client in clients
        ]
        shards = Shards({address.name: queue for address, queue in zip(addresses, queues, strict=True)})
        listed = addresses if len(addresses) > 1 else []
        monitors = [ShardMonitor(queue, settings, listed, index) for index, queue in enumerate(queues)]
        fleet = Fleet(monitors, settings)
        reply_routers = [
            ReplyRouter(queue, on_worked=monitor.mark_proven) for queue, monitor in zip(queues, monitors, strict=True)
        ]
        dispatcher = Dispatcher(shards, reply_routers, fleet, settings)
        validator = RequestValidator(settings)
        replays = Replays(shards, settings.keep_replays_s, settings.max_replay_bytes)
        sample_log = SampleLog(settings.candidates_dir, settings.max_candidates_bytes, name)
        score_cache = ScoreCache(shards, settings.cache_s)
        reward_service = RewardService(dispatcher, validator, score_cache, replays, sample_log)
        reader_clients = [connect_async(address.url, max_connections=1) for address in addresses]
        readers = [EventReader(client, queue, name) for client, queue in zip(reader_clients, queues, strict=True)]
        keys = [*settings.api_key, *settings.admin_key]
        activity = Activity(shards, map(tenant_of, keys), functools.partial(activity_gauges, fleet))
        perform = functools.partial(activity.observed, functools.partial(perform_stored, reward_service))
        of_shard = [
            DurableRequests(queue, name, settings.keep_results_s, perform, reader)
            for queue, reader in zip(queues, readers, strict=True)
        ]
        durable_requests = ShardedDurableRequests(shards, of_shard)
        app.state.plaudit = AppState(
            settings, shards, fleet, validator, reward_service, durable_requests, replays, activity
        )
        metrics.build_info.labels(metadata.version("plaudit")).set(1)
        await fleet.refresh()
        gc.freeze()  # what is loaded stays loaded: the collector need not look at it again
        loops: list[tuple[str, Callable[[], Awaitable[None]], float]] = [
            ("prove", functools.partial(probe_workers, dispatcher), REFRESH_S / 4),
            ("activity", activity.flush, FLUSH_EVERY_S),
        ]
        for index in range(len(shards)):
            loops += [
                ("replies", reply_routers[index].receive, 0.0),
                ("fleet", monitors[index].refresh, REFRESH_S),
                ("requests", of_shard[index].heartbeat, HEARTBEAT_S),
                ("events", readers[index].receive, 0.0),
                ("owners", readers[index].check, CHECK_S),
            ]
        if len(shards) > 1:
            loops.append(("reconcile", fleet.reconcile, REFRESH_S))
        tasks = [asyncio.create_task(repeat(label, step, every_s), name=label) for label, step, every_s in loops]
        try:
            yield
        finally:
            await durable_requests.close()
            await replays.close()
            await sample_log.close()
            await activity.close()
            await cancel_and_wait(tasks)
            for client in (*reader_clients, *clients):
                await client.aclose()

    app = FastAPI(
        title="plaudit",
        version=metadata.version("plaudit"),
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # service/api/routes/reference.py
        redoc_url=None,
        root_path=settings.root_path,
    )
    app.include_router(native_router())
    registry.install(app, settings.dialects_off)
    error_handlers.install(app)
    app.state.drain = Drain()
    app.add_middleware(GzipAnswers)
    app.add_middleware(HeadAnswers)
    dialects = registry.enabled(settings.dialects_off)
    routes = [*native_routes(), *(route for dialect in dialects for route in dialect.router.routes)]
    app.add_middleware(RequestMiddleware, settings=settings, drain=app.state.drain, routes=routes)
    if settings.cors_origin:  # outermost: a browser asks for permission without a key
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origin,
            allow_methods=["GET", "HEAD", "POST", "PUT", "DELETE"],
            allow_headers=["*"],
            expose_headers=EXPOSED_HEADERS,
        )
    app.openapi = functools.partial(openapi_document, app, settings)  # type: ignore[method-assign]
    return app
