"""The native endpoints. Each binds its input, calls one handler, and answers."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.routing import BaseRoute

from service.api.routes import activity, dashboard_files, jobs, models, reference, system, testsets, work

MODULES = (work, jobs, testsets, models, activity, system, dashboard_files, reference)  # as in the OpenAPI document


def native_router() -> APIRouter:
    """All native endpoints."""
    router = APIRouter()
    for module in MODULES:
        router.include_router(module.router)
    return router


def native_routes() -> list[BaseRoute]:
    """The routes of all native endpoints."""
    return [route for module in MODULES for route in module.router.routes]
