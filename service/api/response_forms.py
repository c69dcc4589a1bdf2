"""Answers in the forms that HTTP has for every resource: HEAD where there is GET, and gzip for who takes it."""

from __future__ import annotations

from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MIN_GZIP_BYTES = 1024
GZIP_LEVEL = 1  # the event loop waits for it; higher levels take several times as long for a tenth less


class GzipAnswers(GZipMiddleware):
    """Compresses answers, but not streams of events. Clients say with `Accept-Encoding` whether they want it."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(app, minimum_size=MIN_GZIP_BYTES, compresslevel=GZIP_LEVEL)


class HeadAnswers:
    """ASGI middleware: HEAD is answered as GET is, without the body."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return
        as_get = {**scope, "method": "GET"}
        is_over = False

        async def send_head(message: Message) -> None:
            nonlocal is_over
            if message["type"] == "http.response.body":
                if is_over:
                    return  # of a stream, whose client has what it asked for
                is_over, message = True, {"type": "http.response.body", "body": b"", "more_body": False}
            await send(message)

        try:
            await self.app(as_get, receive, send_head)
        finally:
            scope.update({name: as_get[name] for name in ("route", "endpoint") if name in as_get})
