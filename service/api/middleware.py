"""Around every request: its id, its API key, its size, its time, its log line; and the last error handler.

Pure ASGI, so that a handler sees its client's disconnect.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
import re
import time
from collections.abc import Sequence
from typing import Any

from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plaudit.errors import BadRequest, ClientClosed, Forbidden, PlauditError, ShuttingDown, TooLarge, Unauthorized
from service import metrics, tracing
from service.api.content_encoding import coding_of, expanded
from service.api.dispatch import trail
from service.api.dispatch.request_context import new_request_id
from service.api.dispatch.trail import Trail
from service.api.error_handlers import HTTP_ERRORS, problem_document, respond
from service.api.listening import path_below_root
from service.api.stores.activity import PROBED, Activity
from service.settings import Settings

log = logging.getLogger("plaudit.access")

PUBLIC = frozenset({"/", "/health", "/ready", "/metrics", "/docs", "/openapi.json"})
PUBLIC_FOLDERS = ("/dashboard/", "/docs/")  # files of the pages at / and /docs
ADMIN = re.compile(r"^/models/[^/]+/activate$")
_REQUEST_ID = re.compile(r"^[A-Za-z0-9._:-]{1,128}$")


def is_public(path: str) -> bool:
    """Whether this path answers without a key."""
    return path in PUBLIC or path.startswith(PUBLIC_FOLDERS)


class Drain:
    """The requests that are being answered. What the drain does not finish gets a 503, not a broken connection."""

    def __init__(self) -> None:
        self.ended = False
        self._tasks: set[asyncio.Task[Any]] = set()

    def enter(self) -> asyncio.Task[Any]:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        return task

    def leave(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)

    def end(self) -> None:
        """Answer every open request 503 `shutting_down`."""
        self.ended = True
        for task in self._tasks:
            task.cancel()


class RequestMiddleware:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp, settings: Settings, drain: Drain, routes: Sequence[BaseRoute]) -> None:
        self.app = app
        self.routes = routes
        self.settings = settings
        self.drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if not tracing.is_on() or path_below_root(scope) in PROBED:
            await self._handle(scope, receive, send, tracing.NO_SPAN)
            return
        parent = dict(scope["headers"]).get(b"traceparent", b"").decode("latin-1")
        with tracing.span(scope["method"], parent=parent, kind="server") as span:
            await self._handle(scope, receive, send, span)

    async def _handle(self, scope: Scope, receive: Receive, send: Send, span: tracing.Span) -> None:
        started_at = time.perf_counter()
        headers = {name.lower(): value for name, value in scope["headers"]}
        given_id = headers.get(b"x-request-id", b"").decode("latin-1")
        state: dict[str, Any] = scope.setdefault("state", {})
        state["request_id"] = given_id if _REQUEST_ID.match(given_id) else new_request_id()
        state["queue_ms"], state["compute_ms"] = 0.0, 0.0
        statuses: list[int] = []
        here = Trail(state["request_id"], time.monotonic(), trace_id=span.trace_id, route=path_below_root(scope))
        here.id_is_own = state["request_id"] != given_id
        trail.begin(here)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])
                total_ms = (time.perf_counter() - started_at) * 1000
                times = {"queue": state["queue_ms"], "compute": state["compute_ms"], "total": total_ms}
                timing = ", ".join(f"{name};dur={ms:.1f}" for name, ms in times.items())
                message["headers"] = [
                    *message.get("headers", []),
                    (b"x-request-id", state["request_id"].encode()),
                    (b"server-timing", timing.encode()),
                ]
            await send(message)

        if scope["method"] not in ("GET", "HEAD") and len(scope["path"]) > 1:
            scope["path"] = scope["path"].rstrip("/") or "/"  # what a redirect would ask a client to send again
        task = self.drain.enter()
        try:
            state["tenant"] = ""
            state["tenant"], state["admin"] = self._tenant(path_below_root(scope), headers)
            here.floors_ms = scope["app"].state.plaudit.activity.floors(state["tenant"])
            await self.app(scope, self._bounded(scope, headers, receive), send_with_headers)
        except asyncio.CancelledError:
            if not self.drain.ended or statuses:
                raise
            task.uncancel()
            shutdown = ShuttingDown("the server is shutting down and did not finish this request", retry_after_s=1.0)
            await respond(problem_document(shutdown, state["request_id"]))(scope, receive, send_with_headers)
        except PlauditError as error:  # of the key, the size or the encoding; a route's own are answered further in
            metrics.rejected.labels(error.code).inc()
            await respond(problem_document(error, state["request_id"]))(scope, receive, send_with_headers)
        except HTTPException as error:  # a body that outgrew its limit, or is broken, while a middleware read it
            problem = problem_document(
                HTTP_ERRORS.get(error.status_code, BadRequest)(str(error.detail)), state["request_id"]
            )
            await respond(problem)(scope, receive, send_with_headers)
        except Exception:  # the API's last handler
            log.exception("unexpected error", extra={"request_id": state["request_id"], "path": scope["path"]})
            metrics.infra_errors.labels("api", "internal").inc()
            if not statuses:
                problem = problem_document(
                    PlauditError("unexpected error; the server's log has the traceback"), state["request_id"]
                )
                problem = problem.model_copy(update={"status": state.get("retry_status") or problem.status})
                await respond(problem)(scope, receive, send_with_headers)
        finally:
            self.drain.leave(task)
            status = statuses[0] if statuses else ClientClosed.status
            self._record(scope, state, here, span, status, time.perf_counter() - started_at)

    def _tenant(self, path: str, headers: dict[bytes, bytes]) -> tuple[str, bool]:
        """A digest of the caller's key (empty without keys), and whether it is an admin key.

        Raises Unauthorized, Forbidden, TooLarge.
        """
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.settings.max_body_bytes:
            raise _too_large(int(length), self.settings.max_body_bytes)
        keys, admins = self.settings.api_key, self.settings.admin_key
        needs_admin = ADMIN.match(path) is not None
        if is_public(path) or not (keys or admins):
            return "", False
        given_key = _key_of(headers.get(b"authorization", b"").decode("latin-1"))
        matches = [key for key in (*keys, *admins) if hmac.compare_digest(key.encode(), given_key.encode())]
        if not matches:
            how = "send `Authorization: Bearer <key>`, or put the key into the URL as `user:<key>@host`"
            raise Unauthorized("this key is not one of the service's" if given_key else f"no key was given: {how}")
        is_admin = any(hmac.compare_digest(key.encode(), given_key.encode()) for key in admins)
        if needs_admin and not is_admin:
            raise Forbidden("this call needs an admin key")
        return tenant_of(given_key), is_admin

    def _bounded(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive) -> Receive:
        """Expand a compressed body, and count one whose size is not known beforehand. Raises UnsupportedEncoding."""
        coding = coding_of(headers.get(b"content-encoding", b"").decode("latin-1"))
        if coding is not None:
            receive = expanded(receive, coding)
            gone = (b"content-encoding", b"content-length")
            scope["headers"] = [header for header in scope["headers"] if header[0].lower() not in gone]
        elif b"content-length" in headers:
            return receive
        num_bytes = 0

        async def counted() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > self.settings.max_body_bytes:
                raise HTTPException(413, _too_large(num_bytes, self.settings.max_body_bytes).detail)
            return message

        return counted

    def _meant_route(self, scope: Scope) -> BaseRoute | None:
        """Of a request that was turned away before it had one: its metrics are that route's."""
        return next((route for route in self.routes if route.matches(scope)[0] is Match.FULL), None)

    def _record(
        self, scope: Scope, state: dict[str, Any], here: Trail, span: tracing.Span, status: int, seconds: float
    ) -> None:
        route = getattr(scope.get("route") or self._meant_route(scope), "path", "unmatched")
        if route != "unmatched":
            here.route = route
        span.set_http(route, scope["method"], status)
        span.set(request_id=state["request_id"], jobs=here.num_jobs, cached=here.num_cached)
        if labels := here.exemplar:
            metrics.exemplars.observe("plaudit_http_request_seconds", route, seconds, labels)
        activity: Activity = scope["app"].state.plaudit.activity
        activity.record(here, state["tenant"], scope["method"], status, seconds)
        metrics.http_requests.labels(route, scope["method"], str(status)).inc()
        metrics.http_seconds.labels(route).observe(seconds)
        if route not in ("/health", "/ready", "/metrics"):
            log.info(
                "request",
                extra={
                    "request_id": state["request_id"],
                    "method": scope["method"],
                    "route": route,
                    "status": status,
                    "ms": round(seconds * 1000, 1),
                    "queue_ms": round(state["queue_ms"], 1),
                    "compute_ms": round(state["compute_ms"], 1),
                    "tenant": state.get("tenant", ""),
                    "client": (scope.get("client") or ("",))[0],
                },
            )


def tenant_of(key: str) -> str:
    """The digest by which a key's tenant is known."""
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def _key_of(authorization: str) -> str:
    """The key of a Bearer header, or the password of a Basic one, which clients send for `http://user:key@host`."""
    scheme, _, credentials = authorization.partition(" ")
    credentials = credentials.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(credentials, validate=True).decode().partition(":")[2]
        except ValueError:
            return ""
    return credentials if scheme.lower() == "bearer" else ""


def _too_large(size: int, limit: int) -> TooLarge:
    return TooLarge(f"body: {size} bytes are more than {limit} (max_body_bytes)")
