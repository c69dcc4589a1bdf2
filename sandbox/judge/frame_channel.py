"""Frames between this process and a jailed one, each a length and a JSON text."""

from __future__ import annotations

import socket
from typing import Any

from sandbox.judge import bounds, codec


class FrameChannel:
    """Frames to and from a jailed process, read without ever waiting for it, none longer than `most` bytes."""

    def __init__(self, sock: socket.socket, most: int = bounds.MAX_MESSAGE_BYTES) -> None:
        self.sock = sock
        self.most = most
        self.pending = bytearray()
        self.closed = False
        sock.setblocking(False)

    def fileno(self) -> int:
        return self.sock.fileno()

    def fill(self) -> None:
        try:
            while len(self.pending) < self.most + 64:
                part = self.sock.recv(1 << 18)
                if not part:
                    self.closed = True
                    return
                self.pending += part
        except BlockingIOError:
            return
        except OSError:
            self.closed = True

    def frame(self) -> bytes | None:
        """One whole frame, if it is there. Raises CodecError for one that is announced as too long."""
        if len(self.pending) < 4:
            return None
        size = int.from_bytes(self.pending[:4], "big")
        if size > self.most:
            raise codec.CodecError(f"a message of {size} bytes was announced; at most {self.most} are read")
        if len(self.pending) < 4 + size:
            return None
        data = bytes(self.pending[4 : 4 + size])
        del self.pending[: 4 + size]
        return data

    def close(self) -> None:
        self.sock.close()

    def send(self, message: dict[str, Any]) -> None:
        """Write a small message whole. Raises OSError if the other end is gone."""
        data = codec.dumps(message)
        self.sock.setblocking(True)
        try:
            self.sock.sendall(len(data).to_bytes(4, "big") + data)
        finally:
            self.sock.setblocking(False)
