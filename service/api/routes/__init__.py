"""The native endpoints. Each binds its input, calls one handler, and answers."""

from __future__ import annotations

from fastapi import APIRouter

from service.api.routes import activity, dashboard_files, jobs, models, system, testsets, work


def native_router() -> APIRouter:
    """All native endpoints, in the order of the OpenAPI document."""
    router = APIRouter()
    for module in (work, jobs, testsets, models, activity, system, dashboard_files):
        router.include_router(module.router)
    return router
