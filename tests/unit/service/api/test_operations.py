"""The table of native operations: routes and stored bodies lead to the same handlers."""

from __future__ import annotations

from typing import Any

import pytest

from plaudit.schemas import AuditRequest, ExecuteRequest, RankRequest, RewardRequest, ScoreRequest
from service.api.dispatch.request_context import RequestContext
from service.api.handlers.operations import OPERATIONS, perform_stored
from service.api.routes import work

ITEM = {"prompt": "p", "completions": ["c"]}
PROGRAMS = {"language": "python", "programs": ["x = 1"], "tests": {"kind": "assert", "asserts": ["assert x == 1"]}}
BODIES: dict[str, ScoreRequest | ExecuteRequest | RewardRequest | RankRequest | AuditRequest] = {
    "/score": ScoreRequest.model_validate({"items": [ITEM], "priority": "low"}),
    "/execute": ExecuteRequest.model_validate({"items": [PROGRAMS], "priority": "low"}),
    "/reward": RewardRequest.model_validate({"items": [ITEM], "priority": "low"}),
    "/audit": AuditRequest.model_validate({"items": [{"tests": PROGRAMS["tests"]}], "priority": "low"}),
    "/rank": RankRequest.model_validate({"items": [ITEM], "priority": "low"}),
}


class RecordingService:
    """Records which method was called with what, and answers the request itself."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any, RequestContext]] = []

    def __getattr__(self, name: str) -> Any:
        async def method(request: Any, context: RequestContext) -> Any:
            self.calls.append((name, request, context))
            return request

        return method


def test_every_operation_has_a_route_of_its_types() -> None:
    routes = {route.path: route for route in work.router.routes}  # type: ignore[attr-defined]
    assert set(routes) == set(OPERATIONS)
    for path, operation in OPERATIONS.items():
        assert routes[path].response_model is operation.answer  # type: ignore[attr-defined]
        assert routes[path].body_field.field_info.annotation is operation.request  # type: ignore[attr-defined]


@pytest.mark.parametrize("route", sorted(OPERATIONS))
async def test_a_stored_body_is_answered_by_its_operation_in_its_lane(route: str) -> None:
    service: Any = RecordingService()
    context = RequestContext("r1", 1000, tenant="t")
    await perform_stored(service, route, BODIES[route].model_dump_json().encode(), context)
    ((method, request, seen),) = service.calls
    assert (f"/{method}", request) == (route, BODIES[route])
    assert (seen.request_id, seen.deadline_ms, seen.tenant, seen.lane) == ("r1", 1000, "t", "low")


def test_a_request_is_restartable_until_an_item_is_reported() -> None:
    reported: list[tuple[int, str]] = []
    context = RequestContext("r1", 1000, progress=lambda index, result: reported.append((index, result)))
    assert context.restartable
    context.report(3, "result")
    assert reported == [(3, "result")]
    assert not context.restartable
    silent = RequestContext("r2", 1000)
    silent.report(0, "nobody listens")
    assert silent.restartable
