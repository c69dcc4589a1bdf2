"""Which models are served, and the swap to another revision."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request

from plaudit.schemas import ActivateAnswer, ActivateRequest, ModelsAnswer
from service.api.body_route import BodyRoute
from service.api.dispatch.request_context import deadline
from service.api.dispatch.tasks import cancel_on_disconnect
from service.api.routes.openapi import READ_PROBLEMS, DeadlineHeader, problems
from service.api.state import state_of

ACTIVATE_TIMEOUT_MS = 600_000  # of a request without a deadline: large checkpoints are read from slow disks

router = APIRouter(route_class=BodyRoute, tags=["models"])


@router.get(
    "/models",
    response_model=ModelsAnswer,
    responses=READ_PROBLEMS,
    summary="What is served: revision, limits, parity",
)
async def models(request: Request) -> ModelsAnswer:
    return ModelsAnswer(models=list(state_of(request).fleet.models.values()))


@router.post(
    "/models/{name}/activate",
    response_model=ActivateAnswer,
    responses=READ_PROBLEMS | problems(400, 403, 404, 409, 415),
    summary="Swap in another revision (admin key)",
)
async def activate(
    request: Request,
    name: Annotated[str, Path(min_length=1, max_length=256)],
    body: ActivateRequest,
    x_deadline_ms: DeadlineHeader = None,
) -> ActivateAnswer:
    """Load a checkpoint beside the one that serves, prove it in every scoring worker, then swap between two batches."""
    app_state = state_of(request)
    deadline_ms = deadline(app_state.settings, body.deadline_ms, x_deadline_ms, default_ms=ACTIVATE_TIMEOUT_MS)
    return await cancel_on_disconnect(request, app_state.reward_service.activate(name, body, deadline_ms))
