"""Messages between a program and its judge as bytes: JSON text within bounds, and the errors of malformed text.

This file also runs inside the jail, so it imports only the standard library and what is copied there with it.
"""

from __future__ import annotations

import builtins
import json

from sandbox.judge import bounds

TYPE_CHECKING = False  # the real one costs the jail an import of ten milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Opaque = Callable[[Any], dict[str, Any]]
    Handle = Callable[[dict[str, Any]], Any]

MAX_MESSAGE_BYTES = bounds.MAX_MESSAGE_BYTES
MAX_DEPTH = bounds.MAX_DEPTH
MAX_NODES = bounds.MAX_NODES
PLAIN_INT = 1 << 1024  # larger ints cross as hexadecimal: decimal text is quadratic and limited by the interpreter
MAX_INT_BITS = bounds.MAX_INT_BITS

TYPES = {name: value for name, value in vars(builtins).items() if isinstance(value, type) and name == value.__name__}
TYPES["NoneType"] = type(None)
TYPE_NAMES = {t: name for name, t in TYPES.items()}


class CodecError(Exception):
    """The bytes or the value cannot cross between program and judge; the message says why."""


def dumps(tree: Any) -> bytes:
    try:
        data = "".join(_write(tree, 0)).encode("ascii")
    except (ValueError, RecursionError) as error:
        raise CodecError(f"not encodable: {bounds.text(str(error))}") from None
    if len(data) > MAX_MESSAGE_BYTES:
        raise CodecError(f"the value takes {len(data)} bytes on the wire; at most {MAX_MESSAGE_BYTES} may cross")
    return data


def beginning(tree: Any, most: int) -> str:
    """The first characters of the message that holds `tree`; what follows is not written at all."""
    parts: list[str] = []
    left = most
    for part in _WRITER.iterencode(tree):
        parts.append(part[:left])
        left -= len(parts[-1])
        if left <= 0:
            break
    return "".join(parts)


def loads(data: bytes, most_containers: int = MAX_NODES) -> Any:
    """The tree of a message. Raises CodecError for one past the bounds, before anything is built of it."""
    if len(data) > MAX_MESSAGE_BYTES:
        raise CodecError(f"a message of {len(data)} bytes; at most {MAX_MESSAGE_BYTES} may cross")
    if len(data) > min(MAX_NODES, most_containers):  # each part takes a byte at least
        nodes, containers = bounds.count(data, MAX_NODES, most_containers)
        if nodes > MAX_NODES:
            raise CodecError(f"a value of more than {MAX_NODES} parts")
        if containers > most_containers:
            raise CodecError(f"a value of more than {most_containers} lists and objects")
    try:
        text = data.decode("ascii")
        if text.startswith("{"):  # as every message of ours; others, and what is malformed, the slower way tells
            tree, end = _scan(text, 0)
            if end == len(text):
                return tree
        return _READER.decode(text)
    except StopIteration:
        raise CodecError("a malformed message: a value is missing") from None
    except (ValueError, RecursionError) as error:
        raise CodecError(f"a malformed message: {bounds.text(str(error), bounds.MAX_NAME)}") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"the constant {name}")


_WRITER = json.JSONEncoder(separators=(",", ":"), check_circular=False)
_make: Any = getattr(json.encoder, "c_make_encoder", None)
_write: Any = _WRITER.iterencode
if _make is not None:  # made once, where `encode` makes one for each message
    _write = _make(None, _WRITER.default, json.encoder.encode_basestring_ascii, None, ":", ",", False, False, True)
_READER = json.JSONDecoder(parse_constant=_no_constant)
_scan: Any = getattr(_READER, "scan_once", None) or _READER.raw_decode


class Lender:
    """The `opaque` of a sender that keeps identity: what it has sent before goes as a number."""

    __slots__ = ("kept", "known", "opaque", "seen")

    def __init__(self, opaque: Opaque, kept: list[Any], known: dict[int, int] | None = None) -> None:
        self.opaque = opaque
        self.kept = kept  # alive as long as their ids are looked up
        self.known = known or {}  # ids of those that the receiver has already, and the keys that they have there
        self.seen = {id(value): number for number, value in enumerate(kept)}

    def __call__(self, value: Any) -> dict[str, Any]:
        return self.opaque(value)


class Borrower:
    """The `handle` of a receiver that keeps identity; `built` holds the containers by number."""

    __slots__ = ("built", "handle")

    def __init__(self, handle: Handle, built: list[Any]) -> None:
        self.handle = handle
        self.built = built

    def __call__(self, tree: dict[str, Any]) -> Any:
        return self.handle(tree)


SHARED_TAGS = frozenset(
    {  # of what can be changed in place
        "dict",
        "set",
        "bytearray",
        "deque",
        "Counter",
        "OrderedDict",
        "defaultdict",
        "ndarray",
        "array",
        "StringIO",
        "BytesIO",
        "SimpleNamespace",
        "Namespace",
        "UserDict",
        "UserList",
    }
)
