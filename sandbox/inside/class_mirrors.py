"""Mirrors: classes of the other end, rebuilt here so that Python's own rules for classes hold.

- A mirror has the name, the bases and the special methods of its class, and none of their code: each asks the other
  end.
- A class of the tests that extends a mirror gets a class at the other end that stands for it (`announce`).
- `mirror_builder` makes a mirror from a description, `library_mirrors` those of the library's classes.
"""

from __future__ import annotations

import abc
import types

from sandbox.inside.operations import base_of
from sandbox.inside.proxy import (
    CLASS,
    ENDPOINT,
    MUTABLE,
    NUMBER,
    SHOWN,
    Proxy,
    RemoteAttribute,
    expect,
    is_mirror,
    mirror_entry,
    note_attribute,
    own_entry,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

META = "\0meta"
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
            return own_entry(cls, ENDPOINT).call({"h": own_entry(cls, CLASS)}, args, kwargs)
        return extended(cls, args, kwargs)

    def __getattr__(cls, name: str) -> Any:
        if name == "__signature__" and is_mirror(cls):
            return signature_of(cls)
        if (name.startswith("__") and name.endswith("__") and name not in SHOWN) or name.startswith(("\0", "_abc_")):
            raise AttributeError(f"type object {cls.__name__!r} has no attribute {name!r} over the wire")
        return note_attribute(cls, mirror_entry(cls, ENDPOINT).request("attr", h=mirror_entry(cls, CLASS), name=name))

    def __setattr__(cls, name: str, value: Any) -> None:
        if not is_mirror(cls) or name.startswith(("__", "_abc_", "\0")):
            super().__setattr__(name, value)
        else:
            endpoint = own_entry(cls, ENDPOINT)
            if isinstance(value, RemoteAttribute):  # what the mirror has of its own: the program's original
                endpoint.request("give_back", h=own_entry(cls, CLASS), name=name)
            else:
                endpoint.request("set_attr", h=own_entry(cls, CLASS), name=name, given=[value])

    def __delattr__(cls, name: str) -> None:
        if not is_mirror(cls):
            super().__delattr__(name)
        else:
            own_entry(cls, ENDPOINT).request("del_attr", h=own_entry(cls, CLASS), name=name)

    def __dir__(cls) -> Any:
        return mirror_entry(cls, ENDPOINT).request("dir", h=mirror_entry(cls, CLASS))

    def __instancecheck__(cls, value: Any) -> bool:
        if type.__instancecheck__(cls, value):
            return True
        return is_mirror(cls) and bool(own_entry(cls, META)) and asked_about(cls, "instance", value)

    def __subclasscheck__(cls, kind: Any) -> bool:
        if type.__subclasscheck__(cls, kind):
            return True
        return is_mirror(cls) and bool(own_entry(cls, META)) and asked_about(cls, "subclass", kind)


class IterableMirror(Mirror):
    """The metaclass of mirrors of classes that can themselves be iterated, measured and indexed (enumerations)."""

    def __iter__(cls) -> Any:
        return iter(mirror_entry(cls, ENDPOINT).request("iter", h=mirror_entry(cls, CLASS)))

    def __len__(cls) -> int:
        return expect(int, mirror_entry(cls, ENDPOINT).request("len", h=mirror_entry(cls, CLASS)))

    def __bool__(cls) -> bool:
        return True

    def __getitem__(cls, key: Any) -> Any:
        return item_of(cls, key)


def item_of(cls: Any, key: Any) -> Any:
    endpoint = mirror_entry(cls, ENDPOINT)
    return endpoint.request("item", h=mirror_entry(cls, CLASS), key=endpoint.encode(key))


def signature_of(cls: Any) -> Any:
    """The signature of a class, by its `__init__`. Raises AttributeError for one without."""
    import inspect

    start = own_entry(cls, ENDPOINT).request("attr", h=own_entry(cls, CLASS), name="__init__")
    if not isinstance(start, types.FunctionType):
        raise AttributeError("__signature__")
    whole = inspect.signature(start)
    return whole.replace(parameters=list(whole.parameters.values())[1:])


def asked_about(cls: Any, op: str, value: Any) -> bool:
    """Whether a class with rules of its own (an ABC, a Protocol) accepts something as instance or subclass."""
    endpoint = own_entry(cls, ENDPOINT)
    endpoint.relied_on_program = endpoint.relied_on_program or endpoint.guarded
    return expect(bool, endpoint.request(op, h=own_entry(cls, CLASS), value=endpoint.encode(value)))


def extended(cls: Any, args: Any, kwargs: Any) -> Any:
    """An instance of a class of this end that extends mirrors. The other end gets an object that stands for it."""
    base = base_of(cls)
    endpoint = mirror_entry(cls, ENDPOINT)
    made = cls.__new__(cls) if base is None and cls.__new__ is object.__new__ else cls.__new__(cls, *args, **kwargs)
    if type(made) is not cls:
        return made
    if not issubclass(cls, BaseException):
        plain = [base(made)] if base is not None and base.__name__ not in MUTABLE else []
        number = endpoint.request("shadow", h=own_entry(cls, SHADOW), args=[endpoint.encode(value) for value in plain])
        object.__setattr__(made, ENDPOINT, endpoint)
        object.__setattr__(made, NUMBER, expect(int, number))
        endpoint.proxies[number] = made
    made.__init__(*args, **kwargs)
    return made


def announce(cls: Any, named: dict[str, Any]) -> None:
    """Make the other end create a class that stands for a class of this end."""
    endpoint = mirror_entry(cls, ENDPOINT)
    mirrors = [kind for kind in cls.__mro__ if is_mirror(kind)]
    nearest = [kind for kind in mirrors if not any(issubclass(other, kind) for other in mirrors if other is not kind)]
    body: dict[str, Any] = {}
    for kind in reversed(cls.__mro__):
        if not is_mirror(kind) and issubclass(kind, Proxy) and kind is not Proxy:
            body.update(lent_body(kind))
    number = endpoint.request(
        "extend",
        h=own_entry(nearest[0], CLASS),
        name=cls.__name__,
        bases=[endpoint.encode(kind) for kind in nearest],
        body=endpoint.encode(body),
        named=endpoint.encode(named),
    )
    type.__setattr__(cls, SHADOW, expect(int, number))
    endpoint.proxies[number] = cls


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
