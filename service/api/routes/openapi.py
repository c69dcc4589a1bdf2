"""What several routes share in the OpenAPI document: their problems and their headers."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Header

PROBLEMS = {
    400: "The body is not JSON in UTF-8",
    401: "API key missing or unknown",
    403: "This key may not do that",
    404: "Not found",
    405: "Method not allowed",
    409: "Same idempotency key, another body",
    413: "Over a limit",
    415: "The body is not said to be JSON, or is compressed in a way that is not read here",
    422: "A field is wrong; `errors` has its path",
    429: "Queue full; see Retry-After",
    500: "Internal error",
    503: "Not possible now; retryable",
    504: "Not possible now; retryable",
}

Responses = dict[int | str, dict[str, Any]]


def problems(*statuses: int) -> Responses:
    """The OpenAPI entries of the problems that a route may answer with."""
    schema = {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}
    return {
        status: {"description": PROBLEMS[status], "content": {"application/problem+json": schema}}
        for status in statuses
    }


READ_PROBLEMS = problems(401, 422, 500, 503)  # of every route that only reads

DeadlineHeader = Annotated[str | None, Header(alias="X-Deadline-Ms", description="whole milliseconds from arrival")]
