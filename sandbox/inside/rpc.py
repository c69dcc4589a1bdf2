"""One end of the call wire between the test process and the candidate: requests, replies and handles.

Both ends run this file inside their own jail; only trees of `codec` travel, each message in a frame of its own.

Messages
  {"op": O, "id": N, "h": H, ...}     do O with the object that you have lent under H; `serving.OPERATIONS` has each O
  {"op": "get", "id": N, "name": S}   the program's object of that name; `call` takes a name instead of a handle as well
  {"op": "call", "id": N, "h": H, "method": S, "args": [...], "names": [...], "sync": [...]}
                                      the last arguments are by name; `sync` are stand-ins whose content may change
  {"id": N, "ok": TREE, "content": [[H, TREE]...]}   the answer
  {"id": N, "error": {...}}           an exception: its words for the judge, and under "it" the exception itself
  {"id": N, "wall": S}                what was asked for cannot cross
While an end waits for its answer it does what the other asks, in the thread that waits; so a test's key function can be
called by the program in the middle of a call. One thread at a time has the wire; it lets go of it while it works.

Trees besides those of `codec`: {"t": "h", "mine": B, "id": H, ...}, an object of one of the two ends.
  mine: of the sender's; then "type" (its name), "c" (its class), or "class" (it is one), "module", "ref" (module and
        name where the library has it), "native", "member" (of the enumeration "c"), "e" (an exception: `error_tree`),
        "base" and "v" (the builtin value that it extends)
  not mine: the receiver's own comes home; with "member" or "of" (a value) that of the class H, with "v" an instance
        of the class H that has that value

Identity and change: containers that can change have keys at both ends (`alive`): {"t": "h", "live": K} is the one under
the key K. In every message "live" tells what its sender has changed in them; "first" is the key of the first container
of "args", in the order of `codec.Lender`, or of "ok", where "held" says which. After it is read, those in "gone" are
forgotten. The judge itself, who calls by name, sends no "live" and hears of none.
"""

from __future__ import annotations

import _thread
import sys

from sandbox.inside import class_mirrors, mocks, proxy
from sandbox.inside.framing import (
    BeyondValues,
    Frames,
    Lost,
    Unsplittable,
    attempt,
    build_error,
    builtin_exception,
    describe_error,
    error_tree,
    send_frame,
)
from sandbox.inside.operations import base_of, base_value, fill, instance_of
from sandbox.inside.proxy import (
    ANSWER,
    CLASS,
    MUTABLE,
    NUMBER,
    SYNCED,
    Method,
    get,
    is_foreign,
    is_mirror,
    own,
    peer_of,
)
from sandbox.inside.shared_containers import Twins, release_frames
from sandbox.judge import bounds, codec

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable
    from typing import Any, NoReturn

KNOWN_MODULES = frozenset(sys.stdlib_module_names) | {
    "numpy",
    "scipy",
    "sympy",
    "networkx",
    "sortedcontainers",
    "pandas",
    "builtins",
}
STREAMS = ("stdin", "stdout", "stderr")
PLAIN_MODULES = frozenset(
    {  # whose classes do nothing with an object but what it is for
        "builtins",
        "collections",
        "_collections_abc",
        "_collections",
        "abc",
        "enum",
        "datetime",
        "decimal",
        "fractions",
        "numbers",
        "pathlib",
        "uuid",
        "ipaddress",
        "array",
        "io",
        "_io",
        "re",
        "typing",
        "types",
        "dataclasses",
        "queue",
        "_queue",
        "random",
        "_random",
        "zoneinfo",
        "time",
        "threading",
        "_thread",
        "itertools",
        "functools",
        "_functools",
        "json",
        "string",
        "numpy",
        "networkx",
        "sympy",
        "scipy",
        "sortedcontainers",
        "pandas",
        "contextlib",
        "heapq",
        "os",
        "asyncio",
        "_asyncio",
        "statistics",
        "weakref",
        "_weakref",
        "graphlib",
        "operator",
        "_operator",
        "logging",
        "argparse",
        "configparser",
        "csv",
        "_csv",
        "sqlite3",
        "hashlib",
        "_hashlib",
        "concurrent",
        "subprocess",
    }
)
# What asks an object of itself, and what may change one.
LOOKING = frozenset({"attr", "item", "str", "repr", "format", "len", "int", "index", "float", "contains", "bytes"})
ANSWERING = frozenset({"get", "poll", "complete"})
CHANGING = frozenset({"set_attr", "del_attr", "set_item", "del_item", "set_content", "enter", "exit"})
MAX_NESTED = 60  # objects within objects within one value


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


def logger_name(value: Any) -> str | None:
    """The name of a logger, by which the other end finds its own."""
    logging = sys.modules.get("logging")
    if logging is None or type(value) not in (logging.Logger, logging.RootLogger):
        return None
    name = value.name
    known = type(name) is str and len(name) <= bounds.MAX_NAME and logging.root.manager.loggerDict.get(name) is value
    return str(name) if known or value is logging.root else None


def is_enum(kind: type) -> bool:
    enum = sys.modules.get("enum")
    return enum is not None and isinstance(kind, enum.EnumType)


class Peer:
    """One end of the wire. `policy` answers the other end's requests; `before_reply` runs ahead of every answer.

    `follows_refs`: the other end may name what is to be used of our standard library. `guarded`: the other end is the
    program, which must not decide about itself (`remote`).
    """

    def __init__(
        self,
        sock: _socket.socket,
        policy: Callable[[Peer, dict[str, Any]], Any],
        *,
        follows_refs: bool = False,
        guarded: bool = False,
        before_reply: Callable[[], object] = bool,
    ) -> None:
        self.sock = sock
        self.frames = Frames(sock)
        self.policy = policy
        self.follows_refs = follows_refs
        self.guarded = guarded
        self.before_reply = before_reply
        self.lent: dict[int, Any] = {}
        self.numbers: dict[int, int] = {}
        self.remotes: dict[int, Any] = {}  # stand-ins and mirrors by the other end's number
        self.given: set[tuple[str, str]] = set()  # functions and loggers that this end has handed over, by name
        self.natives: dict[type, Any] = dict(class_mirrors.READY)
        self.came: dict[int, int] = {}  # id of an exception of the other end's, its number there
        self.building: set[int] = set()
        self.twins = Twins(0 if guarded else 1)
        self.depth = 0  # requests of the other end that are being done
        self.telling: Any = _thread.RLock()
        self.foreign: list[BaseException] = []  # exceptions that came from the other end
        self.broken: BaseException | None = None  # the first Lost or Unsplittable; tests may not swallow it
        self.failed: BaseException | None = None  # an assertion that failed inside of what the program called
        self.world: Any = None  # what this end shares with the other besides values
        self.next_id = 0
        self.heard = 0  # messages in this test
        self.nested = 0
        self.lends_stop = True  # whether a StopIteration of the other end is raised here as one
        self.leaned = False  # whether a verdict would rest on methods of the program's objects
        self.spoken: set[int] = set()  # numbers of the classes that the tests speak of
        self.entry: int | None = None  # the number of the entry point, where it is a class
        self.looks: dict[str, int] = {}  # what an object has said of itself, by what it was asked
        self.answering = False  # whether what arrives is what a call has answered, or a name of the program's
        self.changes_made = 0  # how often anything was done that may change an object
        self.lock = _thread.allocate_lock()
        proxy.peers[:] = [self]

    def fail(self, error: BaseException) -> BaseException:
        """Remember that the wire could not do what was asked, and hand the reason back to be raised."""
        if self.broken is None:
            self.broken = error
        self.twins.lose()
        return error

    def is_foreign(self, error: BaseException) -> bool:
        return any(error is other for other in self.foreign)

    def may_stop(self, error: BaseException) -> bool:
        """Whether a context of the program may swallow an exception: the program's own, or one raised on purpose."""
        if not self.guarded:
            return True
        if self.is_foreign(error):  # but for what a wrong answer makes of the test's next step
            return not isinstance(error, (AttributeError, NameError, TypeError))
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        if isinstance(error, AssertionError) or trace is None:
            return False
        return bool(trace.tb_frame.f_code.co_code[trace.tb_lasti] == RAISE)

    # values over the wire

    def number_of(self, value: Any) -> int:
        number = self.numbers.get(id(value))
        if number is None:
            number = len(self.lent)
            if number >= bounds.MAX_HANDLES:
                raise self.fail(Unsplittable(f"more than {bounds.MAX_HANDLES} objects are lent over the wire"))
            self.numbers[id(value)] = number
            self.lent[number] = value
        return number

    def lend(self, value: Any) -> dict[str, Any]:
        kind = type(value)
        if (stream := stream_name(value)) is not None:
            name = kind.__name__[: bounds.MAX_NAME]
            return {"t": "h", "mine": True, "id": self.number_of(value), "type": name, "stream": stream}
        if kind is Method:
            value = value.real()
            kind = type(value)
        if is_foreign(value) or (isinstance(value, type) and is_mirror(value)):
            return self.send_home(value)
        if isinstance(value, type) and (number := own(value, class_mirrors.SHADOW)) is not None:
            return {"t": "h", "mine": False, "id": number}
        if isinstance(value, BaseException) and id(value) in self.came:
            return {"t": "h", "mine": False, "id": self.came[id(value)]}
        number = self.number_of(value)
        tree: dict[str, Any] = {"t": "h", "mine": True, "id": number, "type": kind.__name__[: bounds.MAX_NAME]}
        if isinstance(value, type):
            tree["class"] = True
            if (found := reference(value)) is not None:
                tree["ref"] = found
        elif kind is type(codec):
            tree["module"] = value.__name__
        elif is_enum(kind):
            tree |= {"c": self.encode(kind), "member": value._name_, "v": self.encode(value._value_)}
        elif isinstance(value, BaseException):
            tree["c"] = self.encode(kind)
            if number not in self.building:
                self.building.add(number)
                try:
                    tree["e"] = error_tree(value, self.encode)
                finally:
                    self.building.discard(number)
        else:
            if (seen := mocks.class_of(value)) is not None:
                tree["c"] = self.encode(seen)
                return tree
            if class_mirrors.NATIVE.get(kind.__name__) is kind:
                tree["native"] = kind.__name__
            else:
                tree["c"] = self.encode(kind)
            if (found := reference(value)) is not None:
                tree["ref"] = found
                self.given.add((found[0], found[1]))
            elif (logger := logger_name(value)) is not None:
                tree["logger"] = logger
                self.given.add(("logging", logger))
            base = base_of(kind)
            if base is not None:
                tree |= {"base": base.__name__, "v": self.content(value, base)}
                if base.__name__ in MUTABLE:
                    self.twins.note(self.twins.lent, number, value, base)
        return tree

    def content(self, value: Any, base: type | None = None) -> Any:
        """The tree of the builtin value that an instance of a subclass extends."""
        if self.nested > MAX_NESTED:
            raise codec.CodecError(f"objects nested deeper than {MAX_NESTED} levels")
        self.nested += 1
        try:
            base = base or base_of(type(value)) or type(value)
            return codec.encode(base_value(value, base), self.lend)
        finally:
            self.nested -= 1

    def send_home(self, value: Any) -> dict[str, Any]:
        """The tree of a stand-in: the other end finds its own object by it."""
        home = own(value, proxy.PEER) if isinstance(value, type) else peer_of(value)
        if home is not self:
            raise self.fail(Unsplittable("a value of an earlier process"))
        if isinstance(value, type):
            return {"t": "h", "mine": False, "id": own(value, CLASS)}
        number = get(value, NUMBER)
        kind = type(value)
        if is_enum(kind):
            named = {"member": value._name_} if value._name_ in kind.__members__ else {"of": self.encode(value._value_)}
            return {"t": "h", "mine": False, "id": own(kind, CLASS), **named}
        if number is None:
            if base_of(kind) is None or not is_mirror(kind):
                raise self.fail(Unsplittable(f"a {kind.__name__} that the program has not made"))
            return {"t": "h", "mine": False, "id": own(kind, CLASS), "v": self.content(value)}
        proxy.push(value)
        return {"t": "h", "mine": False, "id": number}

    def borrow(self, tree: dict[str, Any]) -> Any:
        if "live" in tree:
            return self.twins.find(tree["live"])
        number = tree.get("id")
        if type(number) is not int:
            raise codec.CodecError("a handle without a number")
        if tree.get("mine") is False:  # one of ours comes home
            if number not in self.lent:
                raise codec.CodecError("a handle that was never lent")
            return self.come_home(self.lent[number], tree)
        if tree.get("stream") in STREAMS:
            return getattr(sys, tree["stream"])
        if type(tree.get("logger")) is str and (self.follows_refs or self.has_given(["logging", tree["logger"]])):
            return import_module("logging").getLogger(None if tree["logger"] == "root" else tree["logger"])
        if type(tree.get("module")) is str and tree["module"].partition(".")[0] in KNOWN_MODULES:
            known, missing = attempt(lambda: import_module(tree["module"]))
            if missing is None:
                return known
        ref = tree.get("ref")
        if type(ref) is list and (self.follows_refs or tree.get("class") is True or self.has_given(ref)):
            known, missing = attempt(lambda: follow(*map(str, tree["ref"])))
            if missing is None and isinstance(known, type) and self.is_library(known):
                return known
            if missing is None and (self.follows_refs or not isinstance(known, type)):
                return known
        if tree.get("class") is True:
            if number not in self.remotes:
                self.make_room()
                about = self.request("describe", h=number)
                if type(about) is not dict or type(about.get("bases")) is not list:
                    raise codec.CodecError("a class without a description")
                self.remotes.setdefault(number, class_mirrors.mirror(self, number, about))
            return self.remotes[number]
        known = self.remotes.get(number)
        if known is not None:
            if get(known, SYNCED) is not None and "v" in tree:
                self.refresh(known, tree["v"])
            return known
        return self.stand_in(number, tree)

    def has_given(self, ref: list[Any]) -> bool:
        """Whether what the other end names, a function of the library or a logger, this end has handed over."""
        return len(ref) == 2 and all(type(part) is str for part in ref) and tuple(ref) in self.given

    def is_library(self, kind: type) -> bool:
        """Whether a class that the other end names is used here as it is: for the program, of few modules only.

        What the program names it chooses, and a class such as `mock._ANY` makes objects that equal everything.
        """
        if not self.guarded or issubclass(kind, BaseException):
            return str(kind.__module__).partition(".")[0] in KNOWN_MODULES
        return str(kind.__module__).partition(".")[0] in PLAIN_MODULES

    def come_home(self, value: Any, tree: dict[str, Any]) -> Any:
        if isinstance(value, type) and ("member" in tree or "of" in tree) and is_enum(value):
            kind: Any = value
            return kind.__members__[str(tree["member"])] if "member" in tree else kind(self.decode(tree["of"]))
        if isinstance(value, type) and "v" in tree:
            base: Any = base_of(value)
            if base is None:
                raise codec.CodecError("a value of a class without values")
            content = self.decode(tree["v"])
            made = instance_of(value, content, base) if base.__name__ not in MUTABLE else base.__new__(value)
            if base.__name__ in MUTABLE:
                fill(made, content, base)
            return made
        return value

    def stand_in(self, number: int, tree: dict[str, Any]) -> Any:
        """The object here for one of the other end's that is met for the first time."""
        native = tree.get("native")
        if type(native) is str and native in class_mirrors.NATIVE:
            kind: Any = class_mirrors.NATIVE[native]
        elif "c" in tree:
            kind = self.decode(tree["c"])
        else:
            kind = object
        if not isinstance(kind, type):
            raise codec.CodecError("an object whose class is none")
        if is_enum(kind):
            return self.member(kind, tree)
        if issubclass(kind, BaseException):
            return build_error(kind, tree.get("e"), self.decode, lambda error: self.arrived(number, error))
        base = base_of(kind)
        extends = own(kind, class_mirrors.SHADOW) is not None  # a class of ours, made by the other end
        if base is None and not is_mirror(kind) and not extends:
            if self.guarded and (base_of(type("_", (kind,), {})) if class_mirrors.plain_class(kind) else kind is bool):
                raise codec.CodecError(f"a {kind.__name__} without a value")
            if kind not in self.natives:
                self.natives[kind] = class_mirrors.native_mirror(self, kind)
            kind = self.natives[kind]
        if base is None:
            made = object.__new__(kind)
        else:
            if "v" not in tree:
                raise codec.CodecError(f"a {base.__name__} without a value")
            value = self.decode(tree["v"])
            plain: Any = base
            if type(value) is not base:
                raise self.fail(Unsplittable(f"the builtin value behind a {kind.__name__}"))
            if not is_mirror(kind) and not extends:
                return value
            made = plain.__new__(kind) if base.__name__ in MUTABLE else instance_of(kind, value, base)
            if base.__name__ in MUTABLE:
                fill(made, value, base)
                object.__setattr__(made, SYNCED, self.content(made, base))
                self.twins.note(self.twins.borrowed, number, made, base)
        self.make_room()
        object.__setattr__(made, NUMBER, number)
        object.__setattr__(made, proxy.PEER, self)
        if self.answering:
            object.__setattr__(made, ANSWER, True)
        self.remotes[number] = made
        return made

    def make_room(self) -> None:
        """Raises CodecError where the other end has given as many objects as are kept."""
        if len(self.remotes) >= bounds.MAX_HANDLES:
            raise codec.CodecError(f"more than {bounds.MAX_HANDLES} objects of the program are in hand")

    def member(self, kind: Any, tree: dict[str, Any]) -> Any:
        name = tree.get("member")
        if type(name) is str and name in kind.__members__:
            return kind.__members__[name]
        found, error = attempt(lambda: kind(self.decode(tree.get("v"))))
        if error is not None:
            raise codec.CodecError(f"no member of {kind.__name__}")
        return found

    def arrived(self, number: int, error: BaseException) -> None:
        self.make_room()
        object.__setattr__(error, NUMBER, number)
        object.__setattr__(error, proxy.PEER, self)
        self.remotes[number] = error
        self.came[id(error)] = number

    def refresh_all(self, reply: dict[str, Any]) -> None:
        for number, tree in pairs_of(reply.get("content")):
            if type(number) is int and number in self.remotes:
                self.refresh(self.remotes[number], tree)

    def refresh(self, value: Any, tree: Any) -> None:
        base = base_of(type(value))
        content = self.decode(tree)
        if base is not None and type(content) is base and base.__name__ in MUTABLE:
            fill(value, content, base)
            object.__setattr__(value, SYNCED, self.content(value, base))

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

    def request(self, op: str, /, given: Any = None, **fields: Any) -> Any:
        """Ask the other end and wait; raises its exception here. `given`: values that it may keep."""
        reply = self.open_reply(self.exchange(op, fields, given))
        value = self.take(reply, answering=op in ANSWERING)
        if self.guarded:
            self.look_again(op, fields, reply.get("ok"))
        return value

    def look_again(self, op: str, fields: dict[str, Any], tree: Any) -> None:
        """An object that says of itself now this, now that, though nothing was done to it, computes what it says."""
        if op in CHANGING:
            self.looks.clear()
            self.changes_made += 1
        elif op in LOOKING:
            if type(tree) is dict and tree.get("t") == "h" and "native" in tree:
                tree = True  # a method, a generator: a new one each time
            said, error = attempt(lambda: codec.dumps(tree))
            if said is not None and b'"live":' in said:
                return  # a container that both ends hold: what changes in it is told, and marks the test
            asked = codec.dumps({**fields, "sync": None, "op": op}).decode()
            if error is not None or self.looks.setdefault(asked, hash(said)) != hash(said):
                self.leaned = True

    def exchange(self, op: str, fields: dict[str, Any], values: Any = None) -> dict[str, Any]:
        """Send a request and wait for its reply; with each goes what its sender has changed. `values`: arguments."""
        reply = self.converse(op, fields, values)
        self.hear(reply)
        if "world" in reply and self.world is not None:
            self.world.enter(self, reply["world"])
        return reply

    def compose(self, fields: dict[str, Any], values: Any) -> dict[str, Any]:
        """What a request says besides what it asks."""
        message = {**fields, "live": self.twins.news(self.lend)}
        if "of" in message["live"] or "home" in message["live"]:  # the tests have changed what the program holds
            self.looks.clear()
            self.changes_made += 1
        if values is not None:
            lender = self.twins.lender(self.lend)
            self.twins.since = self.twins.next
            message["args"] = [codec.encode(value, lender) for value in values]
            if lender.kept:
                message["first"] = self.twins.commit(lender.kept)
        if self.world is not None and (news := self.world.news(self)) is not None:
            message["world"] = news
        return message

    def converse(self, op: str, fields: dict[str, Any], values: Any) -> dict[str, Any]:
        check_room()
        self.telling.acquire()  # until it is sent: what one thread tells of, the next takes for known
        has_wire = False
        try:
            message = self.compose(fields, values)
            self.lock.acquire()
            has_wire = True
            self.next_id += 1
            number = self.next_id
            send_frame(self.sock, codec.dumps({"op": op, "id": number, **message}))
        except BaseException as error:
            if has_wire:
                self.lock.release()
            if isinstance(error, OSError):  # the other end has been killed, which is no answer of its own
                raise self.fail(Lost(str(error))) from None
            if isinstance(error, codec.CodecError):
                raise self.fail(Unsplittable(str(error))) from None
            raise
        finally:
            self.telling.release()
        try:
            while True:
                reply = self.receive()
                self.heard += 1
                if self.heard > bounds.MAX_MESSAGES:
                    raise self.fail(Unsplittable(f"more than {bounds.MAX_MESSAGES} messages for one test"))
                if "op" in reply:
                    self.answer(reply)
                elif reply.get("id") == number:
                    return reply
                else:
                    raise self.fail(Lost("a reply that nobody asked for"))
        finally:
            self.lock.release()

    def hear(self, message: dict[str, Any]) -> None:
        """Make the changes of the other end in the containers that both hold."""
        if "live" not in message:
            return
        try:
            for one in self.twins.hear(message["live"], self.borrow):
                object.__setattr__(one.value, SYNCED, self.content(one.value, one.base))
            self.leaned = self.leaned or (self.guarded and self.twins.leaned)
            self.twins.leaned = False
        except (codec.CodecError, TypeError, ValueError) as error:
            raise self.fail(Unsplittable(bounds.text(str(error)))) from None

    def take(self, reply: dict[str, Any], *, answering: bool = False) -> Any:
        """The value that a reply brings, and which of its containers the other end holds on to.

        `answering`: it is what the program was asked for, so the functions in it may be called as a part of the answer.
        """
        borrower = codec.Borrower(self.borrow, [])
        try:
            self.answering = answering
            try:
                value = codec.decode(reply.get("ok"), borrower)
            finally:
                self.answering = False
            held = self.twins.held(reply.get("held"), borrower.built)
            self.twins.adopt(reply.get("first"), held)
            self.settle(reply)
        except (codec.CodecError, TypeError, ValueError) as error:
            raise self.fail(Unsplittable(bounds.text(str(error)))) from None
        return value

    def open_reply(self, reply: dict[str, Any]) -> dict[str, Any]:
        if "wall" in reply:
            raise self.fail(Unsplittable(bounds.text(reply["wall"])))
        if "error" in reply:
            error = self.rebuild_error(reply["error"])
            self.settle(reply)
            raise error
        return reply

    def settle(self, reply: dict[str, Any]) -> None:
        """Do what a reply asks for after its value has been read."""
        try:
            self.refresh_all(reply)
            self.twins.forget(reply.get("gone", []))
        except codec.CodecError as error:
            raise self.fail(Unsplittable(bounds.text(str(error)))) from None

    def call(self, target: dict[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any], owner: Any = None) -> Any:
        """Call something of the other end; arguments that it changes are changed here too, whatever comes of it."""
        values = [*args, *kwargs.values()]
        fields = {**target, "names": list(kwargs)}
        alive = [
            value for value in (owner, *values) if type(type(value)) is not type and get(value, SYNCED) is not None
        ]
        if alive:
            for value in alive:
                proxy.push(value)
            fields["sync"] = [get(value, NUMBER) for value in alive]
        reply = self.exchange("call", fields, values)
        self.changes_made += 1
        if self.looks and (owner is not None or any(is_foreign(value) for value in values)):
            self.looks.clear()
        return self.take(self.open_reply(reply), answering=True)

    def rebuild_error(self, tree: Any) -> BaseException:
        if type(tree) is not dict:
            raise self.fail(Lost("an error without a description"))
        if tree.get("it") is not None:
            found = self.decode(tree["it"])
            if not isinstance(found, BaseException):
                raise self.fail(Lost("an error that is none"))
            error: BaseException = found
            if id(error) not in self.came and get(error, NUMBER) is None:
                if not isinstance(error, AssertionError):  # which says of the tests that they fail, wherever it was
                    self.foreign.append(error)
                return error  # our own comes home, through the other end, which has let it pass
        else:
            error = builtin_exception(tree.get("base"))(bounds.text(tree.get("message"), bounds.MAX_ERROR))
        if isinstance(error, (StopIteration, StopAsyncIteration)) and not self.lends_stop:
            error = RuntimeError(f"{type(error).__name__} raised by the program")
        self.foreign.append(error)
        return error

    def receive(self) -> dict[str, Any]:
        try:
            message = codec.loads(self.frames.next())
        except (Lost, codec.CodecError, OSError) as error:
            raise self.fail(Lost(str(error))) from None
        if type(message) is not dict:
            raise self.fail(Lost("a message that is not an object"))
        return message

    def serve(self) -> NoReturn:
        """Do what the other end asks, until it is gone."""
        self.lock.acquire()
        while True:
            self.answer(self.receive())

    def with_news(self, data: bytes, number: Any) -> bytes:
        """A reply, and what has changed in this end's world."""
        if self.world is None or (news := self.world.news(self)) is None:
            return data
        try:
            return codec.dumps({**codec.loads(data), "world": news})
        except codec.CodecError as error:
            return codec.dumps({"id": number, "wall": bounds.text(str(error))})

    def answer(self, message: dict[str, Any]) -> None:
        """Do what the other end asks and reply; anything the work raises becomes the reply. Called with the lock."""
        number = message.get("id")
        found: list[Any] = []
        has_word = False
        self.lock.release()
        try:
            _, error = attempt(lambda: found.append(self.work(message)))
            if isinstance(error, Lost):
                raise error
            self.telling.acquire()
            has_word = True
            data = self.reply(message, found, error)
            self.before_reply()
            data, fault = attempt(lambda: self.with_news(data, number))
            if fault is not None:
                if not isinstance(fault, (codec.CodecError, Unsplittable, BeyondValues)):
                    raise fault
                data = codec.dumps({"id": number, "wall": bounds.text(str(fault))})
        except BaseException:
            if has_word:
                self.telling.release()
            raise
        finally:
            self.lock.acquire()
        try:
            send_frame(self.sock, data)
        except OSError as fault:
            raise self.fail(Lost(str(fault))) from None
        finally:
            self.telling.release()

    def work(self, message: dict[str, Any]) -> Any:
        if self.world is not None:
            self.world.enter(self, message.get("world"))
        self.hear(message)
        self.depth += 1
        try:
            return self.policy(self, message)
        finally:
            self.depth -= 1

    def reply(self, message: dict[str, Any], found: list[Any], error: BaseException | None) -> bytes:
        """The reply that says what work has returned, which is in `found`, or what it has raised."""
        number = message.get("id")
        if error is None:
            data, error = attempt(lambda: codec.dumps(self.say(message, found)))
            if error is None:
                return bytes(data)
        if isinstance(error, Lost):
            raise error
        if isinstance(error, (codec.CodecError, Unsplittable, BeyondValues)):
            return codec.dumps({"id": number, "wall": bounds.text(str(error))})
        return self.error_reply(message, error)

    def say(self, message: dict[str, Any], found: list[Any]) -> dict[str, Any]:
        """What is said of a value. Only here does anything of ours hold it: what is held besides, somebody keeps."""
        reply: dict[str, Any] = {"id": message.get("id")}
        if "live" not in message:  # the judge itself, who keeps nothing
            return reply | {"ok": codec.encode(found.pop(), self.lend)}
        reply["live"] = self.twins.news(self.lend, forget=False)
        lender = self.twins.lender(self.lend)
        reply["ok"] = codec.encode(found.pop(), lender)
        return reply | self.twins.keep(lender) | self.contents(message) | self.gone()

    def gone(self) -> dict[str, Any]:
        """What both ends may forget once this reply has been read."""
        gone = self.twins.prune() if self.twins.by_key else []
        if not self.guarded and not self.depth and self.twins.by_key:
            gone += self.twins.evict()
        return {"gone": gone} if gone else {}

    def contents(self, message: dict[str, Any]) -> dict[str, Any]:
        """What containers of ours hold now that have a stand-in with content at the other end."""
        numbers = message.get("sync") or ()
        return {"content": [[number, self.content(self.lent[number])] for number in numbers]} if numbers else {}

    def error_reply(self, message: dict[str, Any], error: BaseException) -> bytes:
        if self.guarded and isinstance(error, AssertionError) and not self.is_foreign(error):
            self.failed = self.failed or error
        if not self.guarded:
            release_frames(error)
        words = describe_error(error)
        reply = {"id": message.get("id"), "error": words}
        if "live" not in message:
            it, _ = attempt(lambda: codec.encode(error, self.lend))
            data, fault = attempt(lambda: codec.dumps(reply | {"error": words | {"it": it}}))
            return codec.dumps(reply) if fault is not None else bytes(data)

        def whole() -> bytes:
            live = self.twins.news(self.lend, forget=False)
            it, _ = attempt(lambda: codec.encode(error, self.lend))
            return codec.dumps(reply | {"error": words | {"it": it}, "live": live} | self.gone())

        data, fault = attempt(whole)
        if fault is not None:
            self.twins.lose()
            return codec.dumps(reply)
        return bytes(data)

    def take_arguments(self, message: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """The decoded arguments of a request."""
        borrower = codec.Borrower(self.borrow, [])
        values = [codec.decode(tree, borrower) for tree in message["args"]]
        if "live" in message:
            self.twins.adopt(message.get("first"), borrower.built)
        names = message.get("names") or []
        split = len(values) - len(names)
        return values[:split], dict(zip(names, values[split:], strict=True))

    def local(self, message: dict[str, Any]) -> Any:
        """The local object a request is about."""
        number = message.get("h")
        if type(number) is not int or number not in self.lent:
            raise self.fail(Lost("a request about a handle that was never lent"))
        if "member" in message or "of" in message or "v" in message:
            return self.come_home(self.lent[number], message)
        return self.lent[number]


RAISE = compile("raise E", "", "exec").co_code[-2]  # the instruction; the module that names it costs each fork


def has_room(calls: int) -> bool:
    """Raise RecursionError here, before anything is said, where the stack would not hold an answer to be given."""
    return calls == 0 or has_room(calls - 1)


def check_room() -> None:
    """`has_room`, except on a shallow stack, where counting frames (without a call each) shows it."""
    try:
        sys._getframe(sys.getrecursionlimit() // 4)
    except ValueError:
        return
    has_room(ROOM)


ROOM = 60


def pairs_of(value: Any) -> list[Any]:
    """Pairs that a message holds. Raises CodecError for anything else."""
    if value is None:
        return []
    if type(value) is not list or not all(type(pair) is list and len(pair) == 2 for pair in value):
        raise codec.CodecError("a reply that is malformed")
    return value


class Loop:
    """Two ends without a socket between them, for `warm`."""

    def __init__(self) -> None:
        self.waiting = bytearray()
        self.other: Any = None

    def sendall(self, data: bytes) -> None:
        message = codec.loads(data[4:])
        if "op" not in message:
            self.other.sock.waiting += data
            return
        with self.other.lock:
            self.other.answer(message)

    def recv(self, size: int) -> bytes:
        part = bytes(self.waiting[:size])
        del self.waiting[:size]
        return part


def warm(rounds: int = 20) -> None:
    """Run what every call runs: code that has run adapts itself no more, and its pages stay shared after a fork."""

    def call(peer: Peer, message: dict[str, Any]) -> Any:
        if message["op"] == "get":
            return sample
        args, named = peer.take_arguments(message)
        return peer.local(message)(*args, **named)

    def sample(values: list[Any]) -> list[Any]:
        values.append({"a": (1, 2.5)})
        return sorted(map(str, values))

    for _ in range(rounds):
        loops = [Loop(), Loop()]
        ends = [
            Peer(loops[0], call, guarded=True),  # type: ignore[arg-type]
            Peer(loops[1], call, follows_refs=True),  # type: ignore[arg-type]
        ]
        loops[0].other, loops[1].other = ends[1], ends[0]
        ends[0].request("get", name="f")([3, 1, [2]])
    proxy.peers.clear()
