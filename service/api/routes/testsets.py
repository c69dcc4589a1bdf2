"""Test suites that are stored by digest."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Request

from plaudit.errors import Invalid, Overloaded
from plaudit.schemas import InlineTests, TestsetAnswer
from service import metrics
from service.api.handlers.execute import to_suite
from service.api.routes.openapi import READ_PROBLEMS, problems
from service.api.state import state_of
from service.jobs import encode_suite, num_tests

router = APIRouter()


@router.put("/testsets/{sha256}", response_model=TestsetAnswer, responses=READ_PROBLEMS | problems(400, 413, 429))
async def put_testset(
    request: Request, sha256: Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")], tests: InlineTests
) -> TestsetAnswer:
    """Store a suite under the SHA-256 of the request's body, to be named by `{"kind": "ref", "sha256": …}`."""
    app_state = state_of(request)
    actual = hashlib.sha256(await request.body()).hexdigest()
    if actual != sha256:
        raise Invalid(f"sha256: the body's digest is {actual}")
    app_state.validator.check_tests("tests", tests)
    suite = to_suite(tests)
    keep_s = app_state.settings.keep_results_s
    try:
        await app_state.queue.put_suites({sha256: encode_suite(suite)}, keep_s)
    except Overloaded:
        metrics.rejected.labels("memory").inc()
        raise
    expires_at = datetime.now(UTC) + timedelta(seconds=keep_s)
    return TestsetAnswer(sha256=sha256, tests=num_tests(suite), expires_at=expires_at.isoformat(timespec="seconds"))
