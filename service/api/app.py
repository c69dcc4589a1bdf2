"""The FastAPI application: what opens, closes on the same screen."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import uuid
from collections.abc import AsyncIterator
from importlib import metadata

from fastapi import FastAPI

from plaudit.errors import UsageError
from plaudit.schemas import ProblemDocument
from service import metrics
from service.api import error_handlers, routes
from service.api.compat import registry as dialects
from service.api.dispatch.background import repeat
from service.api.dispatch.fleet import REFRESH_S, Fleet
from service.api.dispatch.reply_router import Mailbox
from service.api.dispatch.tasks import end
from service.api.handlers.replays import Replays
from service.api.handlers.reward_service import Desk
from service.api.handlers.validation import Door
from service.api.middleware import Drain, Frame
from service.api.state import Services
from service.api.stores.durable_requests import BEAT_S, Ledger
from service.api.stores.sample_log import Candidates
from service.queue.connections import connect_async
from service.queue.producer import Queue
from service.settings import Settings

DESCRIPTION = "A reward service for code models: reward-model scores and sandboxed tests, audited."


def create_app(settings: Settings) -> FastAPI:
    """The application for these settings. Raises UsageError for a binding that would be open to the world."""
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
        assert settings.redis_url is not None
        client = connect_async(settings.redis_url)
        queue = Queue(client, settings.namespace, name)
        fleet = Fleet(queue, settings)
        mailbox = Mailbox(queue, fleet.prove)
        door = Door(settings, fleet)
        replays = Replays(queue, settings.keep_replays_s, settings.max_replay_bytes)
        candidates = Candidates(settings.candidates_dir, settings.max_candidates_bytes, name)
        desk = Desk(queue, mailbox, fleet, settings, door, replays, candidates)
        ledger = Ledger(
            queue, name, settings.keep_results_s, lambda *arguments: routes.durable(app.state.services, *arguments)
        )
        app.state.services = Services(settings, queue, fleet, door, desk, ledger, replays)
        metrics.build_info.labels(metadata.version("plaudit")).set(1)
        await fleet.refresh()
        gc.freeze()  # what is loaded stays: the collector need not look at it again and again
        loops = (
            ("replies", mailbox.turn, 0.0),
            ("fleet", fleet.refresh, REFRESH_S),
            ("requests", ledger.turn, BEAT_S),
            ("prove", desk.prove, REFRESH_S / 4),
        )
        tasks = [asyncio.create_task(repeat(label, turn, every_s), name=label) for label, turn, every_s in loops]
        try:
            yield
        finally:
            await ledger.close()
            await replays.close()
            await candidates.close()
            await end(tasks)
            await client.aclose()

    app = FastAPI(
        title="plaudit", version=metadata.version("plaudit"), description=DESCRIPTION, lifespan=lifespan, redoc_url=None
    )
    app.include_router(routes.router)
    dialects.install(app, settings.dialects_off)
    error_handlers.install(app)
    app.state.drain = Drain()
    app.add_middleware(Frame, settings=settings, drain=app.state.drain)
    app.openapi = functools.partial(_openapi, app)  # type: ignore[method-assign]
    return app


def _openapi(app: FastAPI) -> dict[str, object]:
    """The framework's document, with our problem type in place of its validation error."""
    if app.openapi_schema is None:
        document = FastAPI.openapi(app)
        schemas = document["components"]["schemas"]
        schemas["ProblemDocument"] = ProblemDocument.model_json_schema()
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        app.openapi_schema = document
    return app.openapi_schema
