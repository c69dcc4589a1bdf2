"""Errors over HTTP: the one place where an exception becomes `application/problem+json` (RFC 9457)."""

from __future__ import annotations

import logging
import math
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from plaudit.errors import BadRequest, Invalid, MethodNotAllowed, NotFound, PlauditError, TooLarge
from plaudit.field_errors import by_field, not_json, sentence
from plaudit.schemas import MAX_COMPLETIONS, MAX_ITEMS, MAX_TESTS, ProblemDocument
from service import metrics
from service.api.dispatch import trail
from service.api.json_body import NOT_UTF8_JSON

log = logging.getLogger("plaudit.api")

MEDIA_TYPE = "application/problem+json"


HTTP_ERRORS: dict[int, type[PlauditError]] = {400: BadRequest, 404: NotFound, 405: MethodNotAllowed, 413: TooLarge}
MAX_FIELD_ERRORS = 10
LIST_CEILINGS = frozenset({MAX_COMPLETIONS, MAX_ITEMS, MAX_TESTS})


def problem_document(
    error: PlauditError, request_id: str, errors: list[dict[str, Any]] | None = None
) -> ProblemDocument:
    """An error as the client reads it. `errors`: one entry per wrong field. The request's trail learns of it."""
    trail.current().failed(error.code, error.detail)
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
    """The HTTP answer of a problem."""
    headers = {}
    if problem.retry_after_ms is not None:
        headers["Retry-After"] = str(math.ceil(problem.retry_after_ms / 1000))
    if problem.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(problem.model_dump_json(), problem.status, headers, MEDIA_TYPE)


def _is_past_ceiling(field: Any) -> bool:
    """Whether a list is longer than any deployment's limit for it."""
    return field["type"] == "too_long" and (field.get("ctx") or {}).get("max_length") in LIST_CEILINGS


def install(app: FastAPI) -> None:
    """Handle plaudit's errors and the framework's. An unexpected one is handled by the middleware."""

    @app.exception_handler(PlauditError)
    async def plaudit_error(request: Request, error: PlauditError) -> Response:
        if error.status >= 500:
            log.warning("%s: %s", error.code, error.detail, extra={"request_id": request.state.request_id})
        return respond(problem_document(error, request.state.request_id))

    @app.exception_handler(RequestValidationError)
    async def validation_error(request: Request, error: RequestValidationError) -> Response:
        fields = error.errors()
        if fields[0]["type"] == "json_invalid":
            text = error.body if isinstance(error.body, str) else ""
            detail = f"body: {not_json(fields[0]['ctx']['error'], fields[0]['loc'][-1], text)}"
            metrics.rejected.labels(BadRequest.code).inc()
            return respond(problem_document(BadRequest(detail), request.state.request_id))
        rows = by_field(fields)[:MAX_FIELD_ERRORS]
        errors = [{"path": path or "body", "message": message, "type": kind} for path, message, kind in rows]
        detail = sentence(fields)
        error_class = TooLarge if any(_is_past_ceiling(field) for field in fields) else Invalid
        metrics.rejected.labels(error_class.code).inc()
        return respond(problem_document(error_class(detail), request.state.request_id, errors))

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        error_class = HTTP_ERRORS.get(error.status_code, BadRequest)
        detail = str(error.detail)
        if error.status_code == 404 and detail == "Not Found":  # the framework's own: no route has this path
            detail = f"{request.method} {request.url.path}: there is no such endpoint; /docs lists them"
        elif error.status_code == 400 and detail == "There was an error parsing the body":  # the framework's, too
            detail = NOT_UTF8_JSON
        elif error.status_code == 405:
            allowed = (error.headers or {}).get("Allow", "another method")
            detail = f"{request.url.path} takes {allowed}, not {request.method}"
        return respond(problem_document(error_class(detail), request.state.request_id))
