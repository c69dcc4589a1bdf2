"""Frames, and exceptions as values: the lowest layer of the wire between the two jails.

Three exceptions say why a test cannot continue, and what caused it:
- `Lost`: the other end has ended. How it ended decides the verdict.
- `Unsplittable`: this *answer* cannot be used, or the program would have to decide about itself. `invalid_result`.
- `BeyondValues`: the *test* asks for something that no program can answer over a wire of values (a patched name of the
  program's module). A property of the test, found before any program runs.
"""

from __future__ import annotations

import builtins

from sandbox.judge import bounds, codec

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable
    from typing import Any

HEADER = 4
READ = 1 << 14  # bytes of one reading: most messages are far smaller


class Lost(BaseException):
    """The other end has ended, or sent a malformed message; it cannot be asked anything more."""


class Unsplittable(BaseException):
    """An answer that cannot be used, or that only the program itself could judge; the message says what."""


class BeyondValues(BaseException):
    """The test itself asks for something other than values, whatever the program answers; the message says what."""


def attempt(work: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    """What `work` returns, or what it raises. The one place where any exception of a program becomes a value."""
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


class Frames:
    """Reads frames from a socket that nothing else reads; most frames take one read."""

    __slots__ = ("pending", "sock")

    def __init__(self, sock: _socket.socket) -> None:
        self.sock = sock
        self.pending = b""

    def next(self) -> bytes:
        pending = self.pending or self.sock.recv(READ)
        size = len(pending)
        if size >= HEADER and size == HEADER + int.from_bytes(pending[:HEADER], "big"):
            self.pending = b""
            return pending[HEADER:]
        return self.whole(pending)

    def whole(self, pending: bytes) -> bytes:
        """A frame of which there is too little yet, or more than it."""
        if len(pending) < HEADER:
            pending += receive_exactly(self.sock, HEADER - len(pending))
        end = HEADER + frame_size(pending)
        if len(pending) < end:
            pending += receive_exactly(self.sock, end - len(pending))
        self.pending = pending[end:]
        return pending[HEADER:end]


def frame_size(header: bytes) -> int:
    size = int.from_bytes(header[:HEADER], "big")
    if size > codec.MAX_MESSAGE_BYTES:
        raise Lost(f"a frame of {size} bytes was announced")
    return size


def receive_frame(sock: _socket.socket) -> bytes:
    return receive_exactly(sock, frame_size(receive_exactly(sock, HEADER)))


def nearest_builtin(kind: type) -> str:
    for base in kind.__mro__:
        if base.__module__ == "builtins" and issubclass(base, BaseException):
            return base.__name__
    return "Exception"


def message_of(error: BaseException) -> str:
    message, second = attempt(lambda: str(error))  # the program's own __str__ may do anything
    if second is not None or type(message) is not str:
        message = f"<{type(second).__name__} while printing the exception>"
    return str(message)[: bounds.MAX_ERROR]


def describe_error(error: BaseException) -> dict[str, Any]:
    """An exception in words, for the judge: its nearest builtin class, its own name, its message."""
    kind = type(error)
    return {"base": nearest_builtin(kind), "name": kind.__name__[: bounds.MAX_NAME], "message": message_of(error)}


def builtin_exception(name: Any) -> type[BaseException]:
    kind = getattr(builtins, name, None) if type(name) is str else None
    return kind if isinstance(kind, type) and issubclass(kind, BaseException) else Exception


def error_tree(error: BaseException, encode: Callable[[Any], Any]) -> dict[str, Any]:
    """What an exception carries: arguments, attributes, cause, context, notes."""
    tree: dict[str, Any] = {"m": message_of(error)}
    given = tuple(error.args)
    if isinstance(error, OSError) and len(given) == 2 and error.filename is not None:
        given = (*given, error.filename)  # as it was made; the class keeps it apart
    args, fault = attempt(lambda: encode(given))
    tree["a"] = args if fault is None and len(codec.dumps(args)) <= MAX_ARGUMENTS else None
    attributes = []
    for name, value in list(vars(error).items())[:MAX_ATTRIBUTES]:
        part, fault = attempt(lambda value=value: encode(value))  # type: ignore[misc]
        if fault is None and type(name) is str and len(codec.dumps(part)) <= MAX_ARGUMENTS:
            attributes.append([name, part])
    tree["d"] = attributes
    for key, other in (("cause", error.__cause__), ("context", error.__context__)):
        if other is not None:
            tree[key] = encode(other)
    tree["quiet"] = error.__suppress_context__
    return tree


MAX_ARGUMENTS = 10_000  # bytes on the wire of an exception's arguments, and of one attribute
MAX_ATTRIBUTES = 50


def build_error(
    kind: type[BaseException], tree: Any, decode: Callable[[Any], Any], made: Callable[[BaseException], object]
) -> BaseException:
    """An exception built from its `error_tree`; `made` is called with it before its cause is built."""
    fields = tree if type(tree) is dict else {}
    message = str(fields.get("m"))
    args = decode(fields["a"]) if fields.get("a") is not None else (message,)
    args = args if type(args) is tuple else (message,)
    error: Any
    error, fault = attempt(lambda: kind.__new__(kind, *args))
    if fault is not None:
        error, fault = attempt(lambda: kind.__new__(kind))
    if error is None:
        error = RuntimeError(f"{kind.__name__}: {message}")
    base: Any = next(base for base in kind.__mro__ if base.__module__ == "builtins")
    attempt(lambda: base.__init__(error, *args))
    if not isinstance(error, OSError):
        attempt(lambda: setattr(error, "args", args))
    made(error)
    for pair in fields.get("d") or ():
        name = pair[0] if type(pair) is list and len(pair) == 2 else None
        if type(name) is str and "\0" not in name and not hasattr(BaseException, name):
            object.__setattr__(error, name, decode(pair[1]))
    for key, place in (("cause", "__cause__"), ("context", "__context__")):
        other = decode(fields[key]) if key in fields else None
        if isinstance(other, BaseException) and other is not error:
            setattr(error, place, other)
    error.__suppress_context__ = fields.get("quiet") is True
    built: BaseException = error
    return built
