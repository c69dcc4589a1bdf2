"""Errors as HTTP: the one place where an exception becomes `application/problem+json` (RFC 9457)."""

from __future__ import annotations

import logging
import math
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from plaudit.errors import BadRequest, Invalid, NotFound, PlauditError, TooLarge
from plaudit.schemas import ProblemDocument
from service import metrics

log = logging.getLogger("plaudit.api")

MEDIA_TYPE = "application/problem+json"


def problem_of(error: PlauditError, request_id: str, errors: list[dict[str, Any]] | None = None) -> ProblemDocument:
    retry_after_ms = None if error.retry_after_s is None else math.ceil(error.retry_after_s * 1000)
    return ProblemDocument(
        type=f"urn:plaudit:problem:{error.code}",
        title=error.title,
        status=error.status,
        detail=error.detail,
        code=error.code,
        retryable=error.retryable,
        retry_after_ms=retry_after_ms,
        request_id=request_id,
        errors=errors,
    )


def respond(problem: ProblemDocument) -> Response:
    headers = {}
    if problem.retry_after_ms is not None:
        headers["Retry-After"] = str(math.ceil(problem.retry_after_ms / 1000))
    if problem.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(problem.model_dump_json(), problem.status, headers, MEDIA_TYPE)


class MethodNotAllowed(PlauditError):
    status, code, title, retryable = 405, "method_not_allowed", "Method not allowed", False


def _path(location: tuple[Any, ...]) -> str:
    return ".".join(str(part) for part in location if part != "body") or "body"


def install(app: FastAPI) -> None:
    """The handlers of our errors and of the framework's; what nobody expected ends in `frame`."""

    @app.exception_handler(PlauditError)
    async def ours(request: Request, error: PlauditError) -> Response:
        if error.status >= 500:
            log.warning("%s: %s", error.code, error.detail, extra={"request_id": request.state.request_id})
        return respond(problem_of(error, request.state.request_id))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        errors = [{"path": _path(one["loc"]), "message": one["msg"], "type": one["type"]} for one in error.errors()]
        metrics.rejected.labels("invalid").inc()
        first = errors[0]
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        detail = f"{first['path']}: {first['message']}{more}"
        return respond(problem_of(Invalid(detail), request.state.request_id, errors[:50]))

    @app.exception_handler(HTTPException)
    async def framework(request: Request, error: HTTPException) -> Response:
        kinds: dict[int, type[PlauditError]] = {400: BadRequest, 404: NotFound, 405: MethodNotAllowed, 413: TooLarge}
        kind = kinds.get(error.status_code, BadRequest)
        return respond(problem_of(kind(str(error.detail)), request.state.request_id))
