"""The OpenAPI document: what the framework makes of the routes, and what it does not know.

Added are the ways to send a key, a description of every tag, examples of requests, and the codes of each problem.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from plaudit import errors
from plaudit.schemas import ProblemDocument
from service.api.compat import registry
from service.api.error_handlers import MEDIA_TYPE
from service.api.middleware import is_public
from service.api.openapi_examples import EXAMPLES
from service.api.routes.openapi import problems
from service.settings import Settings

TAGS = {
    "rewards": "Score, execute, reward, rank, audit",
    "requests": "Requests that run longer than a connection",
    "test suites": "Test suites that are stored by digest",
    "models": "Models",
    "activity": "What the deployment does",
    "system": "The deployment",
}
SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "an API key, where keys are configured"},
    "basic": {"type": "http", "scheme": "basic", "description": "the same key as the password; any user name"},
}
# Errors that no answer over HTTP has.
UNSENT = (errors.HostLacks, errors.UsageError, errors.Unreachable, errors.ClientClosed)


def openapi_document(app: FastAPI, settings: Settings) -> dict[str, Any]:
    """The document of this application; made once."""
    if app.openapi_schema is None:
        document = FastAPI.openapi(app)
        components = document["components"]
        components["schemas"]["ProblemDocument"] = ProblemDocument.model_json_schema()
        for unused in ("HTTPValidationError", "ValidationError"):
            components["schemas"].pop(unused, None)
        components["securitySchemes"] = SECURITY_SCHEMES
        keyed: list[dict[str, list[str]]] = [{name: []} for name in SECURITY_SCHEMES]
        document["security"] = keyed if settings.api_key or settings.admin_key else [{}, *keyed]
        document["tags"] = [{"name": name, "description": text} for name, text in tags(settings).items()]
        for path, operations in document["paths"].items():
            for operation in operations.values():
                _complete(path, operation)
        app.openapi_schema = document
    return app.openapi_schema


def tags(settings: Settings) -> dict[str, str]:
    """Every tag with its description: the native ones, and one per dialect that is switched on."""
    dialects = registry.enabled(settings.dialects_off)
    return TAGS | {dialect.name: f"Dialect of {dialect.clients}" for dialect in dialects}


def _complete(path: str, operation: dict[str, Any]) -> None:
    """Security, problems and examples of one operation."""
    if is_public(path):
        operation["security"] = []
    if dialect := registry.DIALECTS.get(operation["tags"][0]):
        retried = () if dialect.retry_status is None else (dialect.retry_status,)
        added = problems(*sorted({400, 401, 413, 415, 422, 500, *retried}))
        operation["responses"] |= {str(status): response for status, response in added.items()}
    if examples := EXAMPLES.get(path):
        for content in operation.get("requestBody", {}).get("content", {}).values():
            content["examples"] = {
                f"example-{number}": {"summary": summary, "value": value}
                for number, (summary, value) in enumerate(examples.items(), start=1)
            }
    operation["responses"] = {
        status: _with_codes(int(status), response) for status, response in sorted(operation["responses"].items())
    }


def _with_codes(status: int, response: dict[str, Any]) -> dict[str, Any]:
    """A response; that of a problem names the codes that it may have, and shows one."""
    problem = response.get("content", {}).get(MEDIA_TYPE)
    codes = _codes(status)
    if problem is None or not codes:
        return response
    named = ", ".join(f"`{kind.code}`" for kind in codes)
    content = {MEDIA_TYPE: {**problem, "example": _example(codes[0])}}
    return {**response, "description": f"{response['description']} ({named})", "content": content}


def _codes(status: int) -> list[type[errors.PlauditError]]:
    """The errors with this status, by code."""
    kinds = errors.kinds_below(errors.PlauditError)
    return sorted(
        (kind for kind in kinds if kind.status == status and kind not in UNSENT and kind.__module__ == errors.__name__),
        key=lambda kind: kind.code,
    )


def _example(kind: type[errors.PlauditError]) -> dict[str, Any]:
    problem = ProblemDocument(
        type=f"urn:plaudit:problem:{kind.code}",
        title=kind.title,
        status=kind.status,
        detail="what was wrong, where, the limit, and what to do",
        code=kind.code,
        retryable=kind.retryable,
        retry_after_ms=1200 if kind.retryable else None,
        request_id="0f6c1f5d6b6e4f4c9d6d3d1c0c6f2a11",
        errors=None,
    )
    return problem.model_dump(exclude_none=True)
