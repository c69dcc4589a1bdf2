"""One end of the call wire between the test process and the candidate: requests, replies and handles.

Both ends run this file inside their own jail; only trees of `codec` travel. Each end keeps the objects it has lent out
in a table and answers requests about them; the other end sees a `Remote`. While an end waits for its reply it answers
the other's requests, so a test's key function can be called by the program in the middle of a call.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable
    from typing import Any

    from sandbox.inside.remote import BASE_NAMES, NATIVE, Remote, base_of, get
    from sandbox.inside.wire import (
        Lost,
        Unsplittable,
        attempt,
        builtin_exception,
        describe_error,
        nearest_builtin,
        receive_frame,
        send_frame,
    )
    from sandbox.judge import codec
else:
    import codec
    from remote import BASE_NAMES, NATIVE, Remote, base_of, get
    from wire import (
        Lost,
        Unsplittable,
        attempt,
        builtin_exception,
        describe_error,
        nearest_builtin,
        receive_frame,
        send_frame,
    )

KNOWN_MODULES = frozenset(sys.stdlib_module_names) | {"numpy", "scipy", "sympy", "networkx", "sortedcontainers"}

STREAMS = ("stdin", "stdout", "stderr")


def import_module(name: str) -> Any:
    """A module of the other end's namespace is this end's own module of that name."""
    __import__(name)
    return sys.modules[name]


def follow(module: str, qualname: str) -> Any:
    value = import_module(module)
    for name in qualname.split("."):
        value = getattr(value, name)
    return value


def reference(value: Any) -> list[str] | None:
    """Module and name under which a function or class of the standard library is found again on the other side."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if module is None and isinstance(getattr(value, "__objclass__", None), type):  # str.upper and its like
        module = value.__objclass__.__module__
    if type(module) is not str or type(name) is not str or module.partition(".")[0] not in KNOWN_MODULES:
        return None
    found, error = attempt(lambda: follow(module, name))
    return [module, name] if error is None and found is value else None


def stream_name(value: Any) -> str | None:
    """Which of the standard streams a value is; the other end means its own."""
    return next((name for name in STREAMS if value is getattr(sys, name, None) and value is not None), None)


class Peer:
    """One end of the wire. `policy` answers the other end's requests; `before_reply` runs ahead of every answer."""

    def __init__(
        self,
        sock: _socket.socket,
        policy: Callable[[Peer, dict[str, Any]], Any],
        *,
        follows_refs: bool = False,
        before_reply: Callable[[], object] = bool,
    ) -> None:
        self.sock = sock
        self.policy = policy
        self.follows_refs = follows_refs  # whether the other end may name what is to be used of our standard library
        self.before_reply = before_reply
        self.lent: dict[int, Any] = {}
        self.numbers: dict[int, int] = {}
        self.remotes: dict[int, Remote] = {}
        self.exceptions: dict[str, type[BaseException]] = {}
        self.foreign: list[BaseException] = []  # exceptions that came from the other end
        self.broken: BaseException | None = None  # the first Lost or Unsplittable; tests may not swallow it
        self.on_changed: Callable[[Any, Any], None] = ignore_change
        self.world: Any = None  # what this end shares with the other besides values
        self.next_id = 0
        self.turn = 0  # how often the other end has been asked to do something, not just for a value it has
        self.lends_stop = True  # whether a StopIteration of the other end is raised here as one

    def fail(self, error: BaseException) -> BaseException:
        """Remember that the wire could not do what was asked, and hand the reason back to be raised."""
        if self.broken is None:
            self.broken = error
        return error

    def is_foreign(self, error: BaseException) -> bool:
        return any(error is other for other in self.foreign)

    # values over the wire

    def lend(self, value: Any) -> dict[str, Any]:
        if type(value) is Remote:
            if get(value, "_peer") is self:
                return {"t": "h", "mine": False, "id": get(value, "_number")}
            raise self.fail(Unsplittable("a value of an earlier process"))
        number = self.numbers.get(id(value))
        if number is None:
            number = len(self.lent)
            self.numbers[id(value)] = number
            self.lent[number] = value
        kind = type(value)
        tree = {"t": "h", "mine": True, "id": number, "type": kind.__name__[:200], "base": base_of(value)}
        if (stream := stream_name(value)) is not None:
            tree["stream"] = stream
        native = type if isinstance(value, type) else kind
        if native in NATIVE.values():
            tree["native"] = native.__name__
        if kind is type(codec):
            tree["module"] = value.__name__
        elif not self.follows_refs and (found := reference(value)) is not None:
            tree["ref"] = found
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
        if tree.get("stream") in STREAMS:
            return getattr(sys, tree["stream"])
        if type(tree.get("module")) is str and tree["module"].partition(".")[0] in KNOWN_MODULES:
            own, missing = attempt(lambda: import_module(tree["module"]))
            if missing is None:
                return own
        if self.follows_refs and type(tree.get("ref")) is list:
            return follow(*tree["ref"])
        if type(tree.get("exception")) is list:
            return self.exception_class(*tree["exception"])
        remote = self.remotes.get(number)
        if remote is None:
            base = tree.get("base")
            seen_as = base if base in BASE_NAMES else None
            remote = Remote(self, number, codec.describe_handle(tree), seen_as, NATIVE.get(str(tree.get("native"))))
            self.remotes[number] = remote
        return remote

    def exception_class(self, name: Any, base: Any) -> type[BaseException]:
        """A local stand-in for an exception class of the other end, so that `except ItsError` works here."""
        if name not in self.exceptions:
            self.exceptions[name] = type(str(name), (builtin_exception(base),), {})
        return self.exceptions[name]

    def encode(self, value: Any) -> Any:
        try:
            return codec.encode(value, self.lend)
        except codec.CodecError as error:
            raise self.fail(Unsplittable(str(error))) from None

    def decode(self, tree: Any) -> Any:
        try:
            return codec.decode(tree, self.borrow)
        except codec.CodecError as error:
            raise self.fail(Unsplittable(str(error))) from None

    # requests and replies

    def request(self, op: str, **fields: Any) -> Any:
        """Ask the other end and wait; raises its exception here as the nearest builtin class."""
        self.next_id += 1
        self.turn += op != "base"
        number = self.next_id
        if self.world is not None and (news := self.world.news(self)) is not None:
            fields["world"] = news
        data = codec.dumps({"op": op, "id": number, **fields})
        try:
            send_frame(self.sock, data)
        except OSError as error:  # the other end has been killed, which is no answer of its own
            raise self.fail(Lost(str(error))) from None
        while True:
            message = self.receive()
            if "op" in message:
                self.answer(message)
            elif message.get("id") == number:
                if self.world is not None:
                    self.world.enter(self, message.get("world"))
                return self.open_reply(message)
            else:
                raise self.fail(Lost("a reply that nobody asked for"))

    def open_reply(self, reply: dict[str, Any]) -> Any:
        if "wall" in reply:
            raise self.fail(Unsplittable(str(reply["wall"])))
        if "error" in reply:
            raise self.rebuild_error(reply["error"])
        for position, changed in reply.get("changed") or ():
            self.on_changed(position, self.decode(changed))
        return self.decode(reply.get("ok"))

    def call(self, target: dict[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call something of the other end; list, dict and set arguments that it changes are changed here too."""
        values = [*args, *kwargs.values()]
        outer = self.on_changed

        def restore(position: Any, value: Any) -> None:
            if type(position) is int and 0 <= position < len(values):
                copy_into(values[position], value)

        encoded = [self.encode(value) for value in values]
        try:
            self.on_changed = restore
            return self.request("call", **target, args=encoded, names=list(kwargs))
        finally:
            self.on_changed = outer

    def rebuild_error(self, tree: Any) -> BaseException:
        if type(tree) is not dict:
            raise self.fail(Lost("an error without a description"))
        name, base, message = (str(tree.get(key)) for key in ("name", "base", "message"))
        if self.follows_refs and type(tree.get("ref")) is list:
            known, missing = attempt(lambda: follow(*tree["ref"]))
            if missing is None:
                args = codec.decode(tree["args"]) if tree.get("args") is not None else (message,)
                made, failed = attempt(lambda: known(*args))
                if failed is not None:
                    made = known.__new__(known)
                    made.args = args
                return made  # type: ignore[no-any-return]
        kind = self.exceptions.get(name) or builtin_exception(base)
        if issubclass(kind, (StopIteration, StopAsyncIteration)) and not self.lends_stop:
            name, kind, message = "RuntimeError", RuntimeError, f"{name} raised by the program"
            tree = {}
        if kind.__name__ != name and name.isidentifier():
            kind = self.exception_class(name, base)
        error: BaseException
        try:
            args = codec.decode(tree["args"]) if tree.get("args") is not None else (message,)
            error = kind(*args)
        except (TypeError, ValueError, codec.CodecError):
            error = RuntimeError(f"{name}: {message}")
        self.foreign.append(error)
        return error

    def receive(self) -> dict[str, Any]:
        try:
            message = codec.loads(receive_frame(self.sock))
        except (Lost, codec.CodecError, OSError) as error:
            raise self.fail(Lost(str(error))) from None
        if type(message) is not dict:
            raise self.fail(Lost("a message that is not an object"))
        return message

    def answer(self, message: dict[str, Any]) -> None:
        """Do what the other end asks and reply; anything the work raises becomes the reply."""
        number = message.get("id")
        changed: list[Any] = []

        def work() -> dict[str, Any]:
            if self.world is not None:
                self.world.enter(self, message.get("world"))
            value = self.encode(self.policy(self, message | {"changed": changed}))
            return {"id": number, "ok": value} | ({"changed": changed} if changed else {})

        def whole() -> bytes:
            news = None if self.world is None else self.world.news(self)
            return codec.dumps(reply if news is None else {**reply, "world": news})

        reply, error = attempt(work)
        if isinstance(error, Lost):
            raise error
        if isinstance(error, (codec.CodecError, Unsplittable)):
            reply = {"id": number, "wall": str(error)}
        elif error is not None:
            reply = {"id": number, "error": self.describe(error)}
        self.before_reply()
        data, error = attempt(whole)
        if isinstance(error, (codec.CodecError, Unsplittable)):
            data = codec.dumps({"id": number, "wall": str(error)})
        elif error is not None:
            raise error
        send_frame(self.sock, data)

    def describe(self, error: BaseException) -> dict[str, Any]:
        """An exception as values; one of the tests', whose program may have the very class, with where to find it."""
        about = describe_error(error)
        kind = type(error)
        if not self.follows_refs:
            found, missing = attempt(lambda: follow(kind.__module__, kind.__qualname__))
            if missing is None and found is kind and kind.__module__ not in ("__main__", "test_suite"):
                about["ref"] = [kind.__module__, kind.__qualname__]
        return about

    def local(self, message: dict[str, Any]) -> Any:
        """The local object a request is about."""
        number = message.get("h")
        if type(number) is not int or number not in self.lent:
            raise self.fail(Lost("a request about a handle that was never lent"))
        return self.lent[number]


def ignore_change(position: Any, value: Any) -> None:
    """What happens to a changed argument outside of any call: nothing."""


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
