"""One end of the call wire between the test process and the candidate: requests, replies, handles and proxies.

Both ends run this file inside their own jail; only trees of `codec` travel. Each end keeps the objects it has lent out
in a table and answers requests about them; the other end sees a `Remote`. While an end waits for its reply it answers
the other's requests, so a test's key function can be called by the program in the middle of a call.

The one rule that makes the verdict safe lives in `Remote`: no comparison, containment or arithmetic between a remote
object and a local value is ever computed by the other side. The other side is only asked for values.
"""

from __future__ import annotations

import builtins
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any
    import _socket
    from collections.abc import Callable

    from sandbox.judge import codec
else:
    import codec

HEADER = 4
KNOWN_MODULES = frozenset(sys.stdlib_module_names) | {"numpy", "scipy", "sympy", "networkx", "sortedcontainers"}


class Lost(BaseException):
    """The other end is gone, or speaks nonsense; nothing more can be asked of it."""


class Unsplittable(BaseException):
    """The test asks for something that cannot be done over the wire; the message says what."""


class Foreign:
    """Exceptions that came from the other end, by identity: the local end must tell them from its own."""

    def __init__(self) -> None:
        self.seen: list[BaseException] = []

    def holds(self, error: BaseException) -> bool:
        return any(error is other for other in self.seen)


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
    try:
        message = str(error)
    except BaseException as second:  # the program's own __str__
        message = f"<{type(second).__name__} while printing the exception>"
    try:
        args = codec.encode(tuple(error.args))
        if len(codec.dumps(args)) > 10_000:
            args = None
    except codec.CodecError:
        args = None
    return {"base": nearest_builtin(kind), "name": kind.__name__[:200], "message": message[:2000], "args": args}


def builtin_exception(name: Any) -> type[BaseException]:
    kind = getattr(builtins, name, None) if type(name) is str else None
    return kind if isinstance(kind, type) and issubclass(kind, BaseException) else Exception


def importlib_import(name: str) -> Any:
    """A module of the other end's namespace is this end's own module of that name."""
    __import__(name)
    return sys.modules[name]


class Peer:
    """One end of the wire. `policy` answers requests on local objects; `exceptions` maps names to local classes."""

    def __init__(self, sock: _socket.socket, policy: Callable[[Peer, dict[str, Any]], Any]) -> None:
        self.sock = sock
        self.policy = policy
        self.lent: dict[int, Any] = {}
        self.numbers: dict[int, int] = {}
        self.remotes: dict[int, Remote] = {}
        self.exceptions: dict[str, type[BaseException]] = {}
        self.foreign = Foreign()
        self.next_id = 0

    # values over the wire

    def lend(self, value: Any) -> dict[str, Any]:
        if type(value) is Remote:
            if object.__getattribute__(value, "_peer") is self:
                return {"t": "h", "mine": False, "id": object.__getattribute__(value, "_number")}
            raise Unsplittable("a value of an earlier process")
        number = self.numbers.get(id(value))
        if number is None:
            number = len(self.lent)
            self.numbers[id(value)] = number
            self.lent[number] = value
        kind = type(value)
        tree = {"t": "h", "mine": True, "id": number, "type": kind.__name__[:200], "base": base_of(value)}
        if kind is type(codec):
            tree["module"] = value.__name__
        elif isinstance(value, type) and issubclass(value, BaseException):
            tree["exception"] = [value.__name__, nearest_builtin(value)]
        return tree

    def borrow(self, tree: dict[str, Any]) -> Any:
        number = tree.get("id")
        if type(number) is not int:
            raise codec.CodecError("a handle without a number")
        if tree.get("mine") is False:  # one of ours comes home
            if number not in self.lent:
                raise codec.CodecError("a handle that was never lent")
            return self.lent[number]
        if type(tree.get("module")) is str and tree["module"].partition(".")[0] in KNOWN_MODULES:
            return importlib_import(tree["module"])
        if type(tree.get("exception")) is list:
            return self.exception_class(*tree["exception"])
        remote = self.remotes.get(number)
        if remote is None:
            base = tree.get("base")
            remote = Remote(self, number, codec.describe_handle(tree), base if type(base) is str else None)
            self.remotes[number] = remote
        return remote

    def exception_class(self, name: Any, base: Any) -> type[BaseException]:
        """A local stand-in for an exception class of the other end, so that `except ItsError` works here."""
        if name not in self.exceptions:
            self.exceptions[name] = type(str(name), (builtin_exception(base),), {})
        return self.exceptions[name]

    def encode(self, value: Any) -> Any:
        return codec.encode(value, self.lend)

    def decode(self, tree: Any) -> Any:
        return codec.decode(tree, self.borrow)

    # requests and replies

    def request(self, op: str, **fields: Any) -> Any:
        """Ask the other end and wait; raises its exception here as the nearest builtin class."""
        self.next_id += 1
        number = self.next_id
        send_frame(self.sock, codec.dumps({"op": op, "id": number, **fields}))
        while True:
            message = self.receive()
            if "op" in message:
                self.answer(message)
            elif message.get("id") == number:
                return self.open_reply(message)
            else:
                raise Lost("a reply that nobody asked for")

    def open_reply(self, reply: dict[str, Any]) -> Any:
        if "wall" in reply:
            raise Unsplittable(str(reply["wall"]))
        if "error" in reply:
            raise self.rebuild_error(reply["error"])
        for position, changed in reply.get("changed") or ():
            self.on_changed(position, self.decode(changed))
        return self.decode(reply.get("ok"))

    def on_changed(self, position: Any, value: Any) -> None:
        """Overridden for one call by `call`, which knows the arguments."""

    def call(self, target: dict[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call something of the other end; list, dict and set arguments that it changes are changed here too."""
        values = [*args, *kwargs.values()]
        outer = self.on_changed

        def restore(position: Any, value: Any) -> None:
            if type(position) is int and 0 <= position < len(values):
                copy_into(values[position], value)

        encoded = [self.encode(value) for value in values]
        try:
            self.on_changed = restore  # type: ignore[method-assign]
            return self.request("call", **target, args=encoded, names=list(kwargs))
        finally:
            self.on_changed = outer  # type: ignore[method-assign]

    def rebuild_error(self, tree: Any) -> BaseException:
        if type(tree) is not dict:
            raise Lost("an error without a description")
        name, base, message = (str(tree.get(key)) for key in ("name", "base", "message"))
        kind = self.exceptions.get(name) or builtin_exception(base)
        if kind.__name__ != name and name.isidentifier():
            kind = self.exception_class(name, base)
        error: BaseException
        try:
            args = codec.decode(tree["args"]) if tree.get("args") is not None else (message,)
            error = kind(*args)
        except (TypeError, ValueError, codec.CodecError):
            error = RuntimeError(f"{name}: {message}")
        self.foreign.seen.append(error)
        return error

    def receive(self) -> dict[str, Any]:
        try:
            message = codec.loads(receive_frame(self.sock))
        except codec.CodecError as error:
            raise Lost(str(error)) from None
        except OSError as error:
            raise Lost(str(error)) from None
        if type(message) is not dict:
            raise Lost("a message that is not an object")
        return message

    def answer(self, message: dict[str, Any]) -> None:
        """Do what the other end asks and reply; anything the work raises becomes the reply."""
        number = message.get("id")
        reply: dict[str, Any]
        try:
            changed: list[Any] = []
            value = self.policy(self, message | {"changed": changed})
            reply = {"id": number, "ok": self.encode(value)}
            if changed:
                reply["changed"] = changed
            data = codec.dumps(reply)
        except (Lost, Unsplittable):
            raise
        except codec.CodecError as error:
            data = codec.dumps({"id": number, "wall": str(error)})
        except BaseException as error:  # whatever the program raises, SystemExit included, is its answer
            data = codec.dumps({"id": number, "error": describe_error(error)})
        self.before_reply()
        send_frame(self.sock, data)

    def before_reply(self) -> None:
        """Set by an end that has something to do before every reply."""

    def local(self, message: dict[str, Any]) -> Any:
        """The local object a request is about."""
        number = message.get("h")
        if type(number) is not int or number not in self.lent:
            raise Lost("a request about a handle that was never lent")
        return self.lent[number]


def copy_into(target: Any, value: Any) -> None:
    kind = type(target)
    if kind is not type(value):
        return
    if kind is list or kind is bytearray:
        target[:] = value
    elif kind is set or kind is dict:
        target.clear()
        target.update(value)
    elif kind.__name__ in ("deque", "Counter", "OrderedDict", "defaultdict"):
        target.clear()
        (target.extend if kind.__name__ == "deque" else target.update)(value)
    elif kind is tuple:
        for old, new in zip(target, value, strict=False):
            copy_into(old, new)


BASES = (bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset)


def base_of(value: Any) -> str | None:
    """The builtin value type that an instance of a subclass could be shown as."""
    for base in BASES:
        if isinstance(value, base):
            return base.__name__
    return None


class Remote:
    """An object of the other end. Equality is identity, or the comparison here of the builtin value it extends."""

    __slots__ = ("_base", "_number", "_peer", "_type")

    def __init__(self, peer: Peer, number: int, type_name: str, base: str | None) -> None:
        object.__setattr__(self, "_peer", peer)
        object.__setattr__(self, "_number", number)
        object.__setattr__(self, "_type", type_name)
        object.__setattr__(self, "_base", base)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return get(self, "_peer").call({"h": get(self, "_number")}, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        if name == "__name__" or not (name.startswith("__") and name.endswith("__")):
            return ask(self, "attr", name=name)
        if name in ("__dict__", "__doc__", "__qualname__", "__module__", "__len__"):
            return ask(self, "attr", name=name)
        raise AttributeError(f"{get(self, '_type')!r} object has no attribute {name!r} over the wire")

    @property
    def __class__(self) -> Any:  # so that isinstance() sees the builtin type that the remote class extends
        base = get(self, "_base")
        return Remote if base is None else getattr(builtins, base)

    def __setattr__(self, name: str, value: Any) -> None:
        ask(self, "set_attr", name=name, value=get(self, "_peer").encode(value))

    def __delattr__(self, name: str) -> None:
        ask(self, "del_attr", name=name)

    def __iter__(self) -> Any:
        return walk(self)

    def __next__(self) -> Any:
        found = ask(self, "next")
        if found is None:
            raise StopIteration
        return found[0]

    def __reversed__(self) -> Any:
        return ask(self, "reversed")

    def __len__(self) -> int:
        return expect(int, ask(self, "len"))

    def __bool__(self) -> bool:
        return expect(bool, ask(self, "truth"))

    def __getitem__(self, key: Any) -> Any:
        return ask(self, "item", key=get(self, "_peer").encode(key))

    def __setitem__(self, key: Any, value: Any) -> None:
        peer = get(self, "_peer")
        ask(self, "set_item", key=peer.encode(key), value=peer.encode(value))

    def __delitem__(self, key: Any) -> None:
        ask(self, "del_item", key=get(self, "_peer").encode(key))

    def __contains__(self, value: Any) -> bool:
        if get(self, "_base") is not None:
            return value in base_value(self)
        return any(value is item or value == item for item in self)

    def __repr__(self) -> str:
        return expect(str, ask(self, "repr"))

    def __str__(self) -> str:
        return expect(str, ask(self, "str"))

    def __format__(self, spec: str) -> str:
        return expect(str, ask(self, "format", spec=spec))

    def __int__(self) -> int:
        return expect(int, ask(self, "int"))

    def __index__(self) -> int:
        return expect(int, ask(self, "index"))

    def __float__(self) -> float:
        return expect(float, ask(self, "float"))

    def __abs__(self) -> Any:
        return ask(self, "abs")

    def __neg__(self) -> Any:
        return ask(self, "neg")

    def __enter__(self) -> Any:
        return ask(self, "enter")

    def __exit__(self, *error: Any) -> None:
        ask(self, "exit")

    def __hash__(self) -> int:
        return get(self, "_number") + 1

    def __eq__(self, other: Any) -> bool:
        if type(other) is Remote:
            if self is other:
                return True
            if get(other, "_base") is None:
                return False
            other = base_value(other)
        return get(self, "_base") is not None and bool(base_value(self) == other)


def get(remote: Remote, name: str) -> Any:
    return object.__getattribute__(remote, name)


def ask(remote: Remote, op: str, **fields: Any) -> Any:
    return get(remote, "_peer").request(op, h=get(remote, "_number"), **fields)


def expect(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(f"the program answers with {type(value).__name__} where {kind.__name__} is due")
    return value


def walk(remote: Remote) -> Any:
    """Iterate over something of the other end, one item a request."""
    iterator = ask(remote, "iter")
    if type(iterator) is not Remote:
        return iter(iterator)
    return pull(iterator)


def pull(iterator: Remote) -> Any:
    while True:
        found = ask(iterator, "next")
        if found is None:
            return
        yield found[0]


def base_value(remote: Remote) -> Any:
    """The builtin value that a remote instance of a subclass extends, rebuilt here."""
    value = ask(remote, "base")
    if type(value) is Remote or type(value).__name__ != get(remote, "_base"):
        raise Unsplittable(f"the builtin value behind a {get(remote, '_type')}")
    return value


def _ordering(symbol: str, compare: Any) -> Any:
    def method(self: Remote, other: Any) -> Any:
        if get(self, "_base") is None:
            raise Unsplittable(f"{symbol} on a {get(self, '_type')} would be computed by the program that is judged")
        return compare(base_value(self), base_value(other) if type(other) is Remote else other)

    return method


def _install() -> None:
    import operator as o

    for name, symbol in (
        ("lt", "<"), ("le", "<="), ("gt", ">"), ("ge", ">="), ("add", "+"), ("sub", "-"), ("mul", "*"),
        ("truediv", "/"), ("floordiv", "//"), ("mod", "%"), ("pow", "**"), ("and_", "&"), ("or_", "|"), ("xor", "^"),
        ("lshift", "<<"), ("rshift", ">>"), ("matmul", "@"),
    ):  # fmt: skip
        compare = getattr(o, name)
        stem = name.rstrip("_")
        setattr(Remote, f"__{stem}__", _ordering(symbol, compare))
        if stem not in ("lt", "le", "gt", "ge"):
            setattr(Remote, f"__r{stem}__", _ordering(symbol, lambda a, b, f=compare: f(b, a)))


_install()
