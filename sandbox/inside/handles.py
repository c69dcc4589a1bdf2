"""Handles: the objects that one end has lent to the other, and the proxies for objects that it has borrowed.

Trees besides those of `codec`: {"t": "h", "mine": B, "id": H, ...}, an object of one of the two ends.
- mine: the sender's. Then "type" (its name), "c" (its class), or "class" (it is one), "module", "ref" (module and
  name where the library has it), "native", "member" (of the enumeration "c"), "e" (an exception: `error_tree`),
  "base" and "v" (the builtin value that it extends).
- not mine: the receiver's own object returns; with "member" or "of" (a value) that of the class H, with "v" an
  instance of the class H that has that value.
"""

from __future__ import annotations

import sys

from sandbox.inside import class_mirrors, library_mirrors, mirror_builder, mocks, proxy
from sandbox.inside.framing import Lost, Unsplittable, attempt, build_error, error_tree
from sandbox.inside.library_names import (
    KNOWN_MODULES,
    PLAIN_MODULES,
    STANDARD_STREAMS,
    follow,
    import_module,
    logger_name,
    reference,
    stream_name,
)
from sandbox.inside.operations import base_of, base_value, instance_of, replace_content
from sandbox.inside.proxy import (
    ANSWER,
    CLASS,
    MUTABLE,
    NUMBER,
    SYNCED,
    RemoteMethod,
    endpoint_of,
    instance_entry,
    is_mirror,
    is_proxy,
    own_entry,
)
from sandbox.inside.shared_containers import SharedContainers
from sandbox.judge import bounds, codec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_NESTED = 60  # objects within objects within one value


def is_enum(kind: type) -> bool:
    enum = sys.modules.get("enum")
    return enum is not None and isinstance(kind, enum.EnumType)


def pairs_of(value: Any) -> list[Any]:
    """Pairs that a message holds. Raises CodecError for anything else."""
    if value is None:
        return []
    if type(value) is not list or not all(type(pair) is list and len(pair) == 2 for pair in value):
        raise codec.CodecError("a reply that is malformed")
    return value


class HandleTable:
    """The objects that one end has lent and borrowed, by number, and their encoding.

    - `guarded`: the other end is the program, which must not decide about itself (`proxy`).
    - `follows_refs`: the other end may name what is to be used of this end's standard library.
    """

    if TYPE_CHECKING:

        def request(self, op: str, /, given: Any = None, **fields: Any) -> Any:
            """Ask the other end and wait: `rpc.Endpoint` can."""

    def __init__(self, *, guarded: bool, follows_refs: bool) -> None:
        self.guarded = guarded
        self.follows_refs = follows_refs
        self.lent: dict[int, Any] = {}
        self.numbers: dict[int, int] = {}  # id of a lent object, its number
        self.proxies: dict[int, Any] = {}  # stand-ins and mirrors by the other end's number
        self.given: set[tuple[str, str]] = set()  # functions and loggers that this end has handed over, by name
        self.natives: dict[type, Any] = dict(library_mirrors.READY)
        self.error_numbers: dict[int, int] = {}  # id of an exception of the other end's, its number there
        self.building: set[int] = set()  # numbers of the exceptions that are being written
        self.nested = 0
        self.containers = SharedContainers(0 if guarded else 1)
        self.broken: BaseException | None = None  # the first Lost or Unsplittable; tests may not swallow it
        self.answering = False  # whether what arrives is what a call has answered, or a name of the program's

    def fail(self, error: BaseException) -> BaseException:
        """Record that the wire could not do what was asked, and return the reason, which the caller raises."""
        if self.broken is None:
            self.broken = error
        self.containers.lose()
        return error

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
        if kind is RemoteMethod:
            value = value.real()
            kind = type(value)
        if is_proxy(value) or (isinstance(value, type) and is_mirror(value)):
            return self.encode_proxy(value)
        if isinstance(value, type) and (number := own_entry(value, class_mirrors.SHADOW)) is not None:
            return {"t": "h", "mine": False, "id": number}
        if isinstance(value, BaseException) and id(value) in self.error_numbers:
            return {"t": "h", "mine": False, "id": self.error_numbers[id(value)]}
        number = self.number_of(value)
        tree: dict[str, Any] = {"t": "h", "mine": True, "id": number, "type": kind.__name__[: bounds.MAX_NAME]}
        if isinstance(value, type):
            tree["class"] = True
            if (ref := reference(value)) is not None:
                tree["ref"] = ref
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
            if library_mirrors.NATIVE.get(kind.__name__) is kind:
                tree["native"] = kind.__name__
            else:
                tree["c"] = self.encode(kind)
            if (ref := reference(value)) is not None:
                tree["ref"] = ref
                self.given.add((ref[0], ref[1]))
            elif (logger := logger_name(value)) is not None:
                tree["logger"] = logger
                self.given.add(("logging", logger))
            base = base_of(kind)
            if base is not None:
                tree |= {"base": base.__name__, "v": self.content(value, base)}
                if base.__name__ in MUTABLE:
                    self.containers.note(self.containers.lent, number, value, base)
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

    def encode_proxy(self, value: Any) -> dict[str, Any]:
        """The tree of a stand-in: the other end finds its own object by it."""
        home = own_entry(value, proxy.ENDPOINT) if isinstance(value, type) else endpoint_of(value)
        if home is not self:
            raise self.fail(Unsplittable("a value of an earlier process"))
        if isinstance(value, type):
            return {"t": "h", "mine": False, "id": own_entry(value, CLASS)}
        number = instance_entry(value, NUMBER)
        kind = type(value)
        if is_enum(kind):
            named = {"member": value._name_} if value._name_ in kind.__members__ else {"of": self.encode(value._value_)}
            return {"t": "h", "mine": False, "id": own_entry(kind, CLASS), **named}
        if number is None:
            if base_of(kind) is None or not is_mirror(kind):
                raise self.fail(Unsplittable(f"a {kind.__name__} that the program has not made"))
            return {"t": "h", "mine": False, "id": own_entry(kind, CLASS), "v": self.content(value)}
        proxy.push_content(value)
        return {"t": "h", "mine": False, "id": number}

    def borrow(self, tree: dict[str, Any]) -> Any:
        if "live" in tree:
            return self.containers.find(tree["live"])
        number = tree.get("id")
        if type(number) is not int:
            raise codec.CodecError("a handle without a number")
        if tree.get("mine") is False:  # one of ours comes home
            if number not in self.lent:
                raise codec.CodecError("a handle that was never lent")
            return self.resolve_own(self.lent[number], tree)
        if tree.get("stream") in STANDARD_STREAMS:
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
            if number not in self.proxies:
                self.check_capacity()
                about = self.request("describe", h=number)
                if type(about) is not dict or type(about.get("bases")) is not list:
                    raise codec.CodecError("a class without a description")
                self.proxies.setdefault(number, mirror_builder.mirror(self, number, about))
            return self.proxies[number]
        known = self.proxies.get(number)
        if known is not None:
            if instance_entry(known, SYNCED) is not None and "v" in tree:
                self.refresh(known, tree["v"])
            return known
        return self.stand_in(number, tree)

    def has_given(self, ref: list[Any]) -> bool:
        """Whether this end has handed over the library function or logger that the other end names."""
        return len(ref) == 2 and all(type(part) is str for part in ref) and tuple(ref) in self.given

    def is_library(self, kind: type) -> bool:
        """Whether a class that the other end names is used here directly; for the program, of few modules only.

        The program chooses the names, and a class such as `mock._ANY` makes objects that equal everything.
        """
        if not self.guarded or issubclass(kind, BaseException):
            return str(kind.__module__).partition(".")[0] in KNOWN_MODULES
        return str(kind.__module__).partition(".")[0] in PLAIN_MODULES

    def resolve_own(self, value: Any, tree: dict[str, Any]) -> Any:
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
                replace_content(made, content, base)
            return made
        return value

    def stand_in(self, number: int, tree: dict[str, Any]) -> Any:
        """The proxy for an object of the other end that arrives for the first time."""
        native = tree.get("native")
        if type(native) is str and native in library_mirrors.NATIVE:
            kind: Any = library_mirrors.NATIVE[native]
        elif "c" in tree:
            kind = self.decode(tree["c"])
        else:
            kind = object
        if not isinstance(kind, type):
            raise codec.CodecError("an object whose class is not a class")
        if is_enum(kind):
            return self.member(kind, tree)
        if issubclass(kind, BaseException):
            return build_error(kind, tree.get("e"), self.decode, lambda error: self.add_error(number, error))
        base = base_of(kind)
        extends = own_entry(kind, class_mirrors.SHADOW) is not None  # a class of ours, made by the other end
        if base is None and not is_mirror(kind) and not extends:
            if self.guarded and (base_of(type("_", (kind,), {})) if mirror_builder.plain_class(kind) else kind is bool):
                raise codec.CodecError(f"a {kind.__name__} without a value")
            if kind not in self.natives:
                self.natives[kind] = library_mirrors.native_mirror(self, kind)
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
                replace_content(made, value, base)
                object.__setattr__(made, SYNCED, self.content(made, base))
                self.containers.note(self.containers.borrowed, number, made, base)
        self.check_capacity()
        object.__setattr__(made, NUMBER, number)
        object.__setattr__(made, proxy.ENDPOINT, self)
        if self.answering:
            object.__setattr__(made, ANSWER, True)
        self.proxies[number] = made
        return made

    def check_capacity(self) -> None:
        """Raises CodecError where the other end has given as many objects as are kept."""
        if len(self.proxies) >= bounds.MAX_HANDLES:
            raise codec.CodecError(f"more than {bounds.MAX_HANDLES} objects of the program are kept")

    def member(self, kind: Any, tree: dict[str, Any]) -> Any:
        name = tree.get("member")
        if type(name) is str and name in kind.__members__:
            return kind.__members__[name]
        member, error = attempt(lambda: kind(self.decode(tree.get("v"))))
        if error is not None:
            raise codec.CodecError(f"no member of {kind.__name__}")
        return member

    def add_error(self, number: int, error: BaseException) -> None:
        self.check_capacity()
        object.__setattr__(error, NUMBER, number)
        object.__setattr__(error, proxy.ENDPOINT, self)
        self.proxies[number] = error
        self.error_numbers[id(error)] = number

    def refresh_all(self, reply: dict[str, Any]) -> None:
        for number, tree in pairs_of(reply.get("content")):
            if type(number) is int and number in self.proxies:
                self.refresh(self.proxies[number], tree)

    def refresh(self, value: Any, tree: Any) -> None:
        base = base_of(type(value))
        content = self.decode(tree)
        if base is not None and type(content) is base and base.__name__ in MUTABLE:
            replace_content(value, content, base)
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

    def local(self, message: dict[str, Any]) -> Any:
        """The local object a request is about."""
        number = message.get("h")
        if type(number) is not int or number not in self.lent:
            raise self.fail(Lost("a request about a handle that was never lent"))
        if "member" in message or "of" in message or "v" in message:
            return self.resolve_own(self.lent[number], message)
        return self.lent[number]
