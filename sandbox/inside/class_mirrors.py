"""Classes of the other end, made again here so that Python's own rules for classes hold: mirrors.

A mirror has the name, the bases and the special methods of its class, and nothing of what these do: each asks the other
end (`remote`). Enumerations, named tuples, dataclasses and exceptions are rebuilt as what they are. A class of the
library that the wall has no value for gets a mirror as well, whose instances say that they are of that class.
"""

from __future__ import annotations

import abc
import types

from sandbox.inside import async_bridge
from sandbox.inside.framing import attempt
from sandbox.inside.operations import base_of
from sandbox.inside.proxy import (
    CLASS,
    MUTABLE,
    NUMBER,
    PEER,
    SHOWN,
    Asked,
    Foreign,
    Method,
    ask,
    expect,
    hear,
    is_mirror,
    method_for,
    mirror_entry,
    own,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

META = "\0meta"
NATIVE: dict[str, type] = {  # what an object can be besides a value, and a test may ask about
    str(kind.__name__): kind
    for kind in (
        types.FunctionType,
        types.BuiltinFunctionType,
        types.MethodType,
        types.GeneratorType,
        types.CoroutineType,
        types.AsyncGeneratorType,
        types.CodeType,
        types.FrameType,
        types.TracebackType,
        types.MethodWrapperType,
        types.WrapperDescriptorType,
        types.MethodDescriptorType,
        types.ClassMethodDescriptorType,
        types.GetSetDescriptorType,
        types.MemberDescriptorType,
        types.CellType,
        types.GenericAlias,
        map,
        filter,
        zip,
        enumerate,
        reversed,
        property,
        staticmethod,
        classmethod,
        type(iter([])),
        type(iter(())),
        type(iter({})),
        type(iter(set())),
        type(iter("")),
        type(iter(range(0))),
        type(iter({}.values())),
        type(iter({}.items())),
        type(reversed([])),
        type(iter(b"")),
        type(iter(int, 0)),
        object,
    )
}
PROTOCOL = frozenset(
    {  # special methods that instances of NATIVE are asked for
        "__call__",
        "__iter__",
        "__next__",
        "__len__",
        "__getitem__",
        "__repr__",
        "__str__",
        "__await__",
        "__aiter__",
        "__anext__",
        "__enter__",
        "__exit__",
        "__contains__",
        "__eq__",
        "__ne__",
        "__bool__",
        "__setitem__",
        "__delitem__",
        "__reversed__",
        "__lt__",
        "__le__",
        "__gt__",
        "__ge__",
        "__add__",
        "__sub__",
        "__mul__",
        "__or__",
        "__and__",
        "__truediv__",
        "__radd__",
        "__rmul__",
        "__rsub__",
        "__hash__",
        "__aenter__",
        "__aexit__",
        "__float__",
        "__int__",
        "__index__",
        "__abs__",
        "__neg__",
        "__fspath__",
        "__format__",
        "__complex__",
        "__round__",
        "__pow__",
        "__mod__",
        "__floordiv__",
        "__matmul__",
        "__xor__",
        "__invert__",
        "__rtruediv__",
        "__rpow__",
    }
)
SKIPPED = frozenset(
    {
        "__dict__",
        "__weakref__",
        "__module__",
        "__doc__",
        "__qualname__",
        "__new__",
        "__init__",
        "__slots__",
        "__getattr__",
        "__getattribute__",
        "__setattr__",
        "__delattr__",
        "__dir__",
        "__class__",
        "__reduce__",
        "__reduce_ex__",
        "__init_subclass__",
        "__subclasshook__",
        "__dataclass_fields__",
        "__dataclass_params__",
        "__abstractmethods__",
        "__annotations__",
    }
)


SHADOW = (
    "\0shadow"  # the number of the class that stands at the other end for a class of this one that extends a mirror
)


class Mirror(abc.ABCMeta):
    """The class of mirrors, and of the classes of this end that extend them."""

    def __new__(cls, name: str, bases: Any, namespace: Any, **named: Any) -> Any:
        return super().__new__(cls, name, bases, namespace)

    def __init__(cls, name: str, bases: Any, namespace: Any, **named: Any) -> None:
        super().__init__(name, bases, namespace)
        if not is_mirror(cls) and not issubclass(cls, BaseException) and mirror_entry(cls, CLASS) is not None:
            announce(cls, named)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if is_mirror(cls):
            return own(cls, PEER).call({"h": own(cls, CLASS)}, args, kwargs)
        return extended(cls, args, kwargs)

    def __getattr__(cls, name: str) -> Any:
        if name == "__signature__" and is_mirror(cls):
            return signature_of(cls)
        if (name.startswith("__") and name.endswith("__") and name not in SHOWN) or name.startswith(("\0", "_abc_")):
            raise AttributeError(f"type object {cls.__name__!r} has no attribute {name!r} over the wire")
        return hear(cls, mirror_entry(cls, PEER).request("attr", h=mirror_entry(cls, CLASS), name=name))

    def __setattr__(cls, name: str, value: Any) -> None:
        if not is_mirror(cls) or name.startswith(("__", "_abc_", "\0")):
            super().__setattr__(name, value)
        else:
            peer = own(cls, PEER)
            if isinstance(value, Asked):  # what the mirror has of its own: the program's original
                peer.request("give_back", h=own(cls, CLASS), name=name)
            else:
                peer.request("set_attr", h=own(cls, CLASS), name=name, given=[value])

    def __delattr__(cls, name: str) -> None:
        if not is_mirror(cls):
            super().__delattr__(name)
        else:
            own(cls, PEER).request("del_attr", h=own(cls, CLASS), name=name)

    def __dir__(cls) -> Any:
        return mirror_entry(cls, PEER).request("dir", h=mirror_entry(cls, CLASS))

    def __instancecheck__(cls, value: Any) -> bool:
        if type.__instancecheck__(cls, value):
            return True
        return is_mirror(cls) and bool(own(cls, META)) and asked_about(cls, "instance", value)

    def __subclasscheck__(cls, kind: Any) -> bool:
        if type.__subclasscheck__(cls, kind):
            return True
        return is_mirror(cls) and bool(own(cls, META)) and asked_about(cls, "subclass", kind)


class Walked(Mirror):
    """The class of mirrors whose own class has a class that can be walked, measured and asked for items."""

    def __iter__(cls) -> Any:
        return iter(mirror_entry(cls, PEER).request("iter", h=mirror_entry(cls, CLASS)))

    def __len__(cls) -> int:
        return expect(int, mirror_entry(cls, PEER).request("len", h=mirror_entry(cls, CLASS)))

    def __bool__(cls) -> bool:
        return True

    def __getitem__(cls, key: Any) -> Any:
        return item_of(cls, key)


def item_of(cls: Any, key: Any) -> Any:
    peer = mirror_entry(cls, PEER)
    return peer.request("item", h=mirror_entry(cls, CLASS), key=peer.encode(key))


def signature_of(cls: Any) -> Any:
    """The signature of a class, by its `__init__`. Raises AttributeError for one without."""
    import inspect

    start = own(cls, PEER).request("attr", h=own(cls, CLASS), name="__init__")
    if not isinstance(start, types.FunctionType):
        raise AttributeError("__signature__")
    whole = inspect.signature(start)
    return whole.replace(parameters=list(whole.parameters.values())[1:])


def asked_about(cls: Any, op: str, value: Any) -> bool:
    """Whether a class with rules of its own (an ABC, a Protocol) takes something for its instance or subclass."""
    peer = own(cls, PEER)
    peer.leaned = peer.leaned or peer.guarded
    return expect(bool, peer.request(op, h=own(cls, CLASS), value=peer.encode(value)))


def extended(cls: Any, args: Any, kwargs: Any) -> Any:
    """An instance of a class of this end that extends mirrors. The other end gets an object that stands for it."""
    base = base_of(cls)
    peer = mirror_entry(cls, PEER)
    made = cls.__new__(cls) if base is None and cls.__new__ is object.__new__ else cls.__new__(cls, *args, **kwargs)
    if type(made) is not cls:
        return made
    if not issubclass(cls, BaseException):
        plain = [base(made)] if base is not None and base.__name__ not in MUTABLE else []
        number = peer.request("shadow", h=own(cls, SHADOW), args=[peer.encode(value) for value in plain])
        object.__setattr__(made, PEER, peer)
        object.__setattr__(made, NUMBER, expect(int, number))
        peer.remotes[number] = made
    made.__init__(*args, **kwargs)
    return made


def announce(cls: Any, named: dict[str, Any]) -> None:
    """Have a class made at the other end that stands for one of this end."""
    peer = mirror_entry(cls, PEER)
    mirrors = [kind for kind in cls.__mro__ if is_mirror(kind)]
    nearest = [kind for kind in mirrors if not any(issubclass(other, kind) for other in mirrors if other is not kind)]
    body: dict[str, Any] = {}
    for kind in reversed(cls.__mro__):
        if not is_mirror(kind) and issubclass(kind, Foreign) and kind is not Foreign:
            body.update(lent_body(kind))
    number = peer.request(
        "extend",
        h=own(nearest[0], CLASS),
        name=cls.__name__,
        bases=[peer.encode(kind) for kind in nearest],
        body=peer.encode(body),
        named=peer.encode(named),
    )
    type.__setattr__(cls, SHADOW, expect(int, number))
    peer.remotes[number] = cls


def lent_body(kind: type) -> dict[str, Any]:
    body: dict[str, Any] = {}
    for name, value in vars(kind).items():
        if (name in SKIPPED and name != "__init__") or name.startswith(("_abc_", "\0")):
            continue
        if type(value) is types.FunctionType:
            body[name] = ("function", value)
        elif type(value) is property:
            body[name] = ("property", [value.fget, value.fset, value.fdel])
        elif type(value) is staticmethod:
            body[name] = ("static", value.__func__)
        elif not isinstance(value, classmethod) and not name.startswith("__"):
            body[name] = ("value", value)
    return body


class Inherited(Asked):
    """`__init__` of a mirror, which only classes of this end that extend it ever call."""

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return Unbound(self.number, owner)
        return Method(instance, self.name, self.number)


class Unbound:
    """`Base.__init__`, called by its class's name."""

    def __init__(self, number: int, owner: type) -> None:
        self.number = number
        self.owner = owner

    def __call__(self, instance: Any, *args: Any, **kwargs: Any) -> Any:
        return Method(instance, "__init__", self.number)(*args, **kwargs)


def usable(base: Any) -> bool:
    """Whether a class of the library can be a base of a mirror: it does nothing to instances that are made past it."""
    if not isinstance(base, type) or issubclass(base, type):
        return False
    return not (base.__module__ == "typing" or type(base).__name__ == "_ProtocolMeta" or base.__name__ == "Generic")


def mirror(peer: Any, number: int, about: dict[str, Any]) -> Any:
    """The mirror of a class that `about` describes (`serving.describe`)."""
    name = str(about["name"])
    bases = [base for base in about["bases"] if usable(base)]
    if type(about.get("members")) is list:
        made = enumeration(peer, number, about, name, bases)
        if made is not None:
            return made
        bases = [base for base in bases if not hasattr(base, "__members__")]
    if type(about.get("tuple")) is list and not any(is_mirror(base) for base in bases):
        from collections import namedtuple

        bases = [namedtuple(name, [str(field) for field in about["tuple"]])]

    def probe(namespace: dict[str, Any]) -> None:
        namespace[CLASS] = number

    meta = Walked if about.get("walked") else Mirror
    _, error = attempt(lambda: types.new_class(name, (Foreign, *bases), {"metaclass": meta}, probe))
    if error is not None:
        bases = [base for base in bases if is_mirror(base) or base_of(base) or issubclass(base, BaseException)]
    body = body_of(peer, number, about, bases)
    lineage = bases if any(issubclass(base, Foreign) for base in bases) else [Foreign, *bases]
    made, error = attempt(
        lambda: types.new_class(name, tuple(lineage), {"metaclass": meta}, lambda ns: ns.update(body))
    )
    if error is not None:
        made = types.new_class(name, (Foreign,), {"metaclass": meta}, lambda ns: ns.update(body))
    dress(made, about)
    return made


def dress(made: Any, about: dict[str, Any]) -> None:
    """What `dataclasses` and `typing` look for in a class."""
    type.__setattr__(made, "__qualname__", str(about["qualname"]))
    fields = about.get("fields")
    if type(fields) is not list:
        return
    import dataclasses
    import keyword

    found = {}
    for name, note, is_init, is_repr, kw_only, which in fields:
        if not str(name).isidentifier() or keyword.iskeyword(str(name)):
            continue  # `dataclasses` writes programs with it
        field: Any = dataclasses.field(init=bool(is_init), repr=bool(is_repr), kw_only=bool(kw_only))
        field.name, field.type = str(name), note
        kinds = [dataclasses._FIELD, dataclasses._FIELD_CLASSVAR, dataclasses._FIELD_INITVAR]  # type: ignore[attr-defined]
        field._field_type = next((kind for kind in kinds if kind.name == which), kinds[0])
        found[field.name] = field
    type.__setattr__(made, "__dataclass_fields__", found)
    plain = dataclasses.make_dataclass("_", [], frozen=bool(about.get("frozen")))
    type.__setattr__(made, "__dataclass_params__", plain.__dataclass_params__)  # type: ignore[attr-defined]
    order = tuple(name for name, field in found.items() if field.init and not field.kw_only)
    type.__setattr__(made, "__match_args__", order)


def body_of(peer: Any, number: int, about: dict[str, Any], bases: list[Any]) -> dict[str, Any]:
    value_base = next((base if base_of(base) is None else base_of(base) for base in bases if is_value(base)), None)
    names = dict(about["names"])
    for base in bases:  # a class of the library that is no value and no interface: all of it is the other end's
        if (
            not is_mirror(base)
            and not is_value(base)
            and not issubclass(base, BaseException)
            and not is_interface(base)
        ):
            names = {
                name: "function" if callable(getattr(base, name)) else "value"
                for name in dir(base)
                if not hasattr(object, name)
            } | names
    body: dict[str, Any] = {
        "__module__": module_of(about),
        "__doc__": about.get("doc"),
        CLASS: number,
        PEER: peer,
        META: bool(about.get("meta")),
    }
    fields = set(about.get("tuple") or ()) if not any(is_mirror(base) for base in bases) else set()
    local = set(dir(tuple)) | {"_fields", "_asdict", "_replace", "_make", "_field_defaults"} if fields else set()
    for name, how in names.items():
        if name == "__init__":
            body[name] = Inherited(name, bound=True, number=number, base=None)
        if name in SKIPPED or name in fields or name in local or "\0" in name or name.startswith("_abc_"):
            continue
        if name.startswith("__") and name.endswith("__"):
            special = None if how == "none" else method_for(name, value_base)
            if special is not None or (how == "none" and method_for(name, value_base) is not None):
                body[name] = special
        else:
            body[name] = Asked(name, bound=how == "function", number=number, base=value_base)
    if any(base.__module__ == "typing" for base in about["bases"]):
        body["__class_getitem__"] = classmethod(item_of)
    notes = about.get("annotations")
    if type(notes) is dict:
        body["__annotations__"] = notes
    if any(issubclass(base, BaseException) for base in bases):
        for name in ("__eq__", "__hash__", "__ne__"):
            body.pop(name, None)
    return body


def module_of(about: dict[str, Any]) -> str:
    """The module that a class says it is of; what the tests define says `test_suite`, and nothing else does."""
    module = str(about["module"])
    return "__main__" if module == "test_suite" else module


def is_value(base: Any) -> bool:
    from_values = base_of(base)
    return (
        from_values is not None or base_of(type("_", (base,), {})) is base if plain_class(base) else bool(from_values)
    )


def plain_class(base: Any) -> bool:
    return not is_mirror(base) and attempt(lambda: type("_", (base,), {}))[1] is None


def is_interface(base: Any) -> bool:
    return str(base.__module__) in ("abc", "collections.abc", "_collections_abc", "numbers", "contextlib", "os")


def enumeration(peer: Any, number: int, about: dict[str, Any], name: str, bases: list[Any]) -> Any:
    """The same enumeration, with members of this end's own."""
    import enum

    if not any(isinstance(base, enum.EnumType) for base in bases):
        return None
    meta = enum_mirror()
    value_base = next((base_of(base) for base in reversed(bases) if base_of(base) is not None), None)
    members = [(str(member), value) for member, value in about["members"]]
    taken = {member for member, _ in members}

    def make() -> Any:
        lineage = tuple(bases)
        namespace = meta.__prepare__(name, lineage)
        for member, value in members:
            namespace[member] = value
        namespace["__module__"] = module_of(about)
        for attribute, how in about["names"].items():
            if attribute in taken or attribute in SKIPPED or "\0" in attribute or attribute.startswith("_"):
                if not (attribute.startswith("__") and attribute.endswith("__")) or attribute in SKIPPED:
                    continue
                special = method_for(attribute, value_base) if how != "none" else None
                if special is not None:
                    namespace[attribute] = special
            else:
                namespace[attribute] = Asked(attribute, bound=how == "function", number=number, base=value_base)
        namespace["__getattr__"] = of_member
        if "_missing_" in about["names"]:
            namespace["_missing_"] = classmethod(lambda cls, value: looked_up(peer, number, value))
        return meta(name, lineage, namespace)

    made, error = attempt(make)
    if error is not None:
        return None
    for key, value in ((CLASS, number), (PEER, peer), (META, False)):
        type.__setattr__(made, key, value)
    return made


def looked_up(peer: Any, number: int, value: Any) -> Any:
    """The member for a value that none has, which the program says."""
    peer.leaned = peer.leaned or peer.guarded
    return peer.call({"h": number, "method": "_missing_"}, (value,), {})


def of_member(self: Any, name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
    return Foreign.__getattr__(self, name)


def enum_mirror() -> Any:
    import enum

    if not _enum_mirrors:

        class EnumMirror(enum.EnumType):
            def __getattr__(cls, name: str) -> Any:
                if name.startswith("__") or "\0" in name or mirror_entry(cls, PEER) is None:
                    raise AttributeError(name)
                return mirror_entry(cls, PEER).request("attr", h=mirror_entry(cls, CLASS), name=name)

        _enum_mirrors.append(EnumMirror)
    return _enum_mirrors[0]


_enum_mirrors: list[Any] = []


def native_mirror(peer: Any, kind: type) -> Any:
    """What stands for instances of a class of the library that is no value: functions, generators, locks, graphs."""
    body: dict[str, Any] = {"__module__": kind.__module__, PEER: peer, CLASS: f"\0{kind.__name__}", META: False}
    body["__class__"] = property(lambda self: kind)
    for name in ("__doc__", "__module__"):  # which the class itself has
        body[name] = shown(name)
    for name in PROTOCOL:
        if getattr(kind, name, None) is not getattr(object, name, None):
            body[name] = method_for(name, None)
    if "__eq__" in body and "__hash__" not in body:
        body["__hash__"] = method_for("__hash__", None)
    if kind is types.CoroutineType:
        body.update(async_bridge.coroutine_methods(ask))
    elif kind is types.GeneratorType:
        for name in ("send", "throw", "close"):
            body[name] = in_pieces(name)
    return types.new_class(kind.__name__, (Foreign,), {"metaclass": Mirror}, lambda namespace: namespace.update(body))


def shown(name: str) -> Any:
    return property(lambda self: ask(self, "attr", name=name))


def in_pieces(name: str) -> Any:
    def method(self: Any, *args: Any) -> Any:
        if name == "throw":
            args = args[:1] if len(args) < 2 or args[1] is None else args[1:2]
        found = ask(self, "pieces", name=name, given=args)
        if type(found) is tuple and len(found) == 1:
            return found[0]
        if name == "close":
            return None
        raise StopIteration(*([] if found[0] is None else found))

    method.__name__ = name
    return method


# Those that most programs need are made once, for all processes that are forked from this one; whose an instance is, it
# says itself.
READY: dict[type, Any] = {
    kind: native_mirror(False, kind)
    for kind in (types.FunctionType, types.MethodType, types.GeneratorType, types.CoroutineType)
}
