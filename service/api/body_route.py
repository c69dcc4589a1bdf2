"""Routes that bind large bodies in a thread, so that the event loop answers others meanwhile.

A body of up to `SMALL_BYTES` is bound by the framework, in the event loop. A larger one is parsed (`json_body`) and
validated in a thread first; the framework then finds a value of the right type. What handlers do with the whole of a
large request goes through `off_loop`, too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import APIRoute

from plaudit.errors import BadRequest, UnsupportedMediaType
from plaudit.field_errors import not_json
from service.api import json_body
from service.api.dispatch.tasks import SMALL_BYTES, in_thread, mark_large


class BodyRoute(APIRoute):
    """A route with at most one body, which may be large."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()
        field = self.body_field

        async def with_bound_body(request: Request) -> Response:
            if field is not None:
                body = await request.body()
                if body and not _is_json(request):
                    given = request.headers.get("content-type")
                    said = f"is said to be {given}" if given else "has no Content-Type"
                    raise UnsupportedMediaType(f"body: it {said}; send `Content-Type: application/json`")
                if len(body) > SMALL_BYTES:
                    mark_large()
                    request._json = await in_thread(_bound, field, body)
            return await handler(request)

        return with_bound_body


def _is_json(request: Request) -> bool:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return media_type.startswith("application/") and media_type.endswith(("/json", "+json"))


def _bound(field: Any, body: bytes) -> Any:
    """The body as the type of the route's field. Raises what the framework would raise."""
    try:
        parsed = json_body.load(body)
    except json.JSONDecodeError as error:
        whole = len(body) <= json_body.PIECE_BYTES  # of a larger one the position is that in a piece
        why = not_json(error.msg, error.pos, error.doc) if whole else f"not JSON: {error.msg}"
        raise BadRequest(f"body: {why}") from error
    except (ValueError, RecursionError) as error:
        raise BadRequest(json_body.NOT_UTF8_JSON) from error
    value, errors = field.validate(parsed, {}, loc=("body",))
    if errors:
        raise RequestValidationError(errors)
    return value
