"""Frames, and exceptions as values: what both ends of the call wire inside the jails share below any meaning."""

from __future__ import annotations

import builtins

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable
    from typing import Any

    from sandbox.judge import bounds, codec
else:
    import bounds
    import codec

HEADER = 4


class Lost(BaseException):
    """The other end is gone, or speaks nonsense; nothing more can be asked of it."""


class Unsplittable(BaseException):
    """The test asks for something that cannot be done over the wire; the message says what."""


def attempt(work: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    """What `work` returns, and what it raises instead. The one place where anything a program may raise is a value."""
    try:
        return work(), None
    except BaseException as error:  # noqa: BLE001 - SystemExit and the program's own classes are answers as well
        return None, error


def send_frame(sock: _socket.socket, data: bytes) -> None:
    sock.sendall(len(data).to_bytes(HEADER, "big") + data)


def receive_exactly(sock: _socket.socket, size: int) -> bytes:
    parts = []
    while size:
        part = sock.recv(min(size, 1 << 20))
        if not part:
            raise Lost("the other end has closed the wire")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def receive_frame(sock: _socket.socket) -> bytes:
    size = int.from_bytes(receive_exactly(sock, HEADER), "big")
    if size > codec.MAX_MESSAGE_BYTES:
        raise Lost(f"a frame of {size} bytes was announced")
    return receive_exactly(sock, size)


def nearest_builtin(kind: type) -> str:
    for base in kind.__mro__:
        if base.__module__ == "builtins" and issubclass(base, BaseException):
            return base.__name__
    return "Exception"


def describe_error(error: BaseException) -> dict[str, Any]:
    """An exception as values: its nearest builtin class, its own name, message and plain arguments."""
    kind = type(error)
    message, second = attempt(lambda: str(error))  # the program's own __str__ may do anything
    if second is not None or type(message) is not str:
        message = f"<{type(second).__name__} while printing the exception>"
    args, _ = attempt(lambda: codec.encode(tuple(error.args)))
    if args is not None and len(codec.dumps(args)) > bounds.MAX_ERROR_ARGS_BYTES:
        args = None
    name, message = kind.__name__[: bounds.MAX_NAME], message[: bounds.MAX_ERROR]
    return {"base": nearest_builtin(kind), "name": name, "message": message, "args": args}


def builtin_exception(name: Any) -> type[BaseException]:
    kind = getattr(builtins, name, None) if type(name) is str else None
    return kind if isinstance(kind, type) and issubclass(kind, BaseException) else Exception
