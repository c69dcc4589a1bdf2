"""Test suites that are stored by digest."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Request

from plaudit.errors import Invalid, Overloaded
from plaudit.schemas import InlineTests, TestsetAnswer
from service import metrics
from service.api.body_route import BodyRoute
from service.api.dispatch.tasks import off_loop
from service.api.routes.openapi import READ_PROBLEMS, problems
from service.api.state import state_of
from service.jobs import encode_suite, num_tests
from service.judging import to_suite

router = APIRouter(route_class=BodyRoute, tags=["test suites"])


@router.put(
    "/testsets/{sha256}",
    response_model=TestsetAnswer,
    responses=READ_PROBLEMS | problems(400, 413, 415, 429),
    summary="Store a test suite, to be named by its digest",
)
async def put_testset(
    request: Request, sha256: Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")], tests: InlineTests
) -> TestsetAnswer:
    """Store a suite under the SHA-256 of the request's body, to be named by `{"kind": "ref", "sha256": …}`."""
    app_state = state_of(request)
    body = await request.body()
    actual = (await off_loop(hashlib.sha256, body)).hexdigest()
    if actual != sha256:
        raise Invalid(f"sha256: the body's digest is {actual}")
    await off_loop(app_state.validator.check_tests, "tests", tests)
    suite = await off_loop(to_suite, tests)
    keep_s = app_state.settings.keep_results_s
    frame = await off_loop(encode_suite, suite)
    try:
        await app_state.shards.put_suites({sha256: frame}, keep_s)
    except Overloaded:
        metrics.rejected.labels("memory").inc()
        raise
    expires_at = datetime.now(UTC) + timedelta(seconds=keep_s)
    return TestsetAnswer(sha256=sha256, tests=num_tests(suite), expires_at=expires_at.isoformat(timespec="seconds"))
