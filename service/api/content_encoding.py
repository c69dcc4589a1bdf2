"""Compressed request bodies: `Content-Encoding: gzip` or `deflate`, expanded as they arrive.

The bound on a body's size holds after expansion. A piece is expanded at a time, so a body that would expand to
gigabytes is rejected once it passes the bound, whatever its own size is.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterator

from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

from plaudit.errors import UnsupportedEncoding

PIECE_BYTES = 256 * 1024
GZIP, ZLIB, RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
_FORMATS = {"gzip": GZIP, "x-gzip": GZIP, "deflate": ZLIB}


def coding_of(header: str) -> str | None:
    """The coding that a Content-Encoding names; None for a body as it is. Raises UnsupportedEncoding."""
    coding = header.strip().lower()
    if coding in ("", "identity"):
        return None
    if coding not in _FORMATS:
        raise UnsupportedEncoding(f"header Content-Encoding: {coding[:64]!r} is not one of gzip, deflate, identity")
    return coding


class _Expander:
    """One compressed body. Its methods raise zlib.error for one that is broken."""

    def __init__(self, coding: str) -> None:
        self.format = _FORMATS[coding]
        self.stream = zlib.decompressobj(self.format)
        self.has_begun = False

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """What some more of the body expands to, at most `PIECE_BYTES` at a time."""
        while data:
            if self.stream.eof:  # gzip files may be joined
                self.stream = zlib.decompressobj(self.format)
            try:
                piece = self.stream.decompress(data, PIECE_BYTES)
            except zlib.error:
                if self.has_begun or self.format != ZLIB:
                    raise
                self.format = RAW  # what some clients mean by `deflate`
                self.stream = zlib.decompressobj(self.format)
                piece = self.stream.decompress(data, PIECE_BYTES)
            self.has_begun = True
            data = self.stream.unconsumed_tail or self.stream.unused_data
            if piece:
                yield piece

    def end(self) -> None:
        """There is no more. Raises zlib.error if there should be."""
        if self.has_begun and not self.stream.eof:
            raise zlib.error("the stream is cut off")


def expanded(receive: Receive, coding: str) -> Receive:
    """The same messages with the body as it was before compression."""
    messages = _expanded_messages(receive, _Expander(coding))

    async def receive_expanded() -> Message:
        async for message in messages:
            return message
        return await receive()

    return receive_expanded


async def _expanded_messages(receive: Receive, expander: _Expander) -> AsyncIterator[Message]:
    has_more = True
    while has_more:
        message = await receive()
        if message["type"] != "http.request":
            yield message
            return
        has_more = message.get("more_body", False)
        try:
            for piece in expander.pieces(message.get("body", b"")):
                yield {"type": "http.request", "body": piece, "more_body": True}
                await asyncio.sleep(0)
            if not has_more:
                expander.end()
        except zlib.error as error:
            raise HTTPException(400, f"body: not what its Content-Encoding says: {error}") from error
    yield {"type": "http.request", "body": b"", "more_body": False}
