"""Proxies: objects of the other process, as this end sees them.

- Every class of the other end has a *mirror* here (`class_mirrors`): a real class of the same name, of mirrored bases.
- An object of the other end is an instance of its mirror, so `type(x) is N`, `isinstance` and `except N` are Python's
  own, and so is a class of the tests that extends N.
- What a mirror does not have itself, it asks of the other end (`ask`).
- A proxy's own data (its number, its endpoint) has keys that cannot be written as attributes (`NUMBER`, `ENDPOINT`).
"""

from __future__ import annotations

import types

from sandbox.inside.framing import Unsplittable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    Kind = TypeVar("Kind")

NUMBER, ENDPOINT, SYNCED, TAINTED, TEXT, LENGTH, GIVEN, ANSWER = (
    f"\0{name}" for name in ("number", "peer", "synced", "tainted", "text", "length", "given", "answer")
)
CLASS = "\0class"  # the number of a mirror's class; instances have theirs under NUMBER
SHOWN = frozenset(
    {  # underlined attributes that are asked for; the others belong to protocols
        "__name__",
        "__qualname__",
        "__dict__",
        "__len__",
        "__code__",
        "__defaults__",
        "__kwdefaults__",
        "__annotations__",
        "__bases__",
        "__mro__",
        "__self__",
        "__func__",
        "__closure__",
        "__wrapped__",
        "__slots__",
        "__orig_bases__",
        "__signature__",
        "__args__",
        "__origin__",
        "__parameters__",
        "__type_params__",
        "__next__",
        "__post_init__",
    }
)
DECIDING = frozenset(
    {  # methods that decide or calculate what the test is about, in types that cross as values
        *(name for kind in (str, bytes, float, set) for name in dir(kind) if name.startswith("is")),
        "startswith",
        "endswith",
        "union",
        "intersection",
        "difference",
        "symmetric_difference",
        "count",
        "index",
        "find",
        "rfind",
        "equals",
        "equal",
        "equal_to",
        "almost_equal",
        "almost_equals",
        "isclose",
        "is_close",
        "allclose",
        "array_equal",
        "all",
        "any",
        "match",
        "fullmatch",
        "is_integer",
        "is_isomorphic",
        "is_equal",
        "same_as",
        "compare",
        "compare_total",
        "same_quantum",
        "is_absolute",
        "is_file",
        "is_dir",
        "exists",
        "has_key",
        "similar",
    }
)
MUTABLE = frozenset({"list", "dict", "set", "bytearray", "deque", "OrderedDict", "defaultdict", "Counter"})


def instance_entry(value: Any, key: str) -> Any:
    """An entry of a stand-in's own data; None for anything else."""
    try:
        return object.__getattribute__(value, key)
    except AttributeError:
        return None


def own_entry(kind: type, key: str) -> Any:
    """The same of a mirror, which its subclasses do not inherit."""
    return type.__getattribute__(kind, "__dict__").get(key)


def endpoint_of(value: Any) -> Any:
    return instance_entry(value, ENDPOINT) or mirror_entry(type(value), ENDPOINT)


def mirror_entry(kind: type, key: str) -> Any:
    for base in kind.__mro__:
        if (entry := own_entry(base, key)) is not None:
            return entry
    return None


def is_mirror(kind: Any) -> bool:
    """Whether a class stands for one of the other end, rather than a class of this end that extends a mirror."""
    return own_entry(kind, CLASS) is not None


def is_proxy(value: Any) -> bool:
    """Whether a value stands for an object of the other end."""
    return mirror_entry(type(value), ENDPOINT) is not None


def is_named(value: Any) -> bool:
    """Whether the tests use the class of a stand-in by name."""
    endpoint = endpoint_of(value)
    return not endpoint.guarded or any(
        own_entry(base, CLASS) in endpoint.named_classes for base in type(value).__mro__ if is_mirror(base)
    )


def note_attribute(owner: type, value: Any) -> Any:
    """Record that a class nested in a named class is named; a function in it is a method."""
    endpoint = mirror_entry(owner, ENDPOINT)
    number = mirror_entry(owner, CLASS)
    if isinstance(value, type):
        if is_mirror(value) and number in endpoint.named_classes:
            endpoint.named_classes.add(own_entry(value, CLASS))
    elif number != endpoint.entry_class:
        as_method(owner, value)
    elif is_proxy(value) and instance_entry(value, NUMBER) is not None:
        object.__setattr__(value, ANSWER, True)
    return value


def as_method(owner: Any, value: Any) -> Any:
    """An attribute that can be called is a method, whatever the program has put it into."""
    if is_proxy(value) and callable(value) and not isinstance(value, type):
        endpoint = mirror_entry(owner, ENDPOINT) if isinstance(owner, type) else endpoint_of(owner)
        endpoint.relied_on_program = endpoint.relied_on_program or endpoint.guarded
    return value


def address_of(value: Any) -> dict[str, Any]:
    """The address by which the other end finds the object that a stand-in stands for."""
    number = instance_entry(value, NUMBER)
    if number is not None:
        return {"h": number}
    if isinstance(value, RemoteMethod):
        return {"h": endpoint_of(value.obj).lend(value)["id"]}
    tree = endpoint_of(value).lend(value)
    return {"h": tree["id"]} | {name: tree[name] for name in ("member", "of", "v") if name in tree}


def ask(value: Any, op: str, /, **fields: Any) -> Any:
    endpoint = endpoint_of(value)
    if (
        instance_entry(value, SYNCED) is not None
    ):  # a container of the tests' as well: its content goes there and comes back
        push_content(value)
        fields["sync"] = [instance_entry(value, NUMBER)]
    return endpoint.request(op, **address_of(value), **fields)


def push_content(value: Any) -> None:
    """Send the other end the content of a container that has been changed here."""
    synced = instance_entry(value, SYNCED)
    if synced is not None:
        endpoint = endpoint_of(value)
        tree = endpoint.content(value)
        if tree != synced:
            object.__setattr__(value, SYNCED, tree)
            endpoint.request("set_content", h=instance_entry(value, NUMBER), value=tree)


def expect(kind: type[Kind], value: Any) -> Kind:
    if type(value) is not kind:
        raise TypeError(f"the program answers with {type(value).__name__} where {kind.__name__} is due")
    return value


def refuse(value: Any, what: str) -> BaseException:
    name = type(value).__name__
    reason = f"{what} of a {name} would be computed by the program itself, and the tests do not name that class"
    error: BaseException = endpoint_of(value).fail(Unsplittable(reason))
    return error


class RemoteMethod:
    """A method of an object of the other end, bound. `owner`: of the class that defines it, for `super()`."""

    __slots__ = ("__weakref__", "name", "obj", "owner")

    def __init__(self, obj: Any, name: str, owner: int | None = None) -> None:
        self.obj = obj
        self.name = name
        self.owner = owner

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        endpoint = endpoint_of(self.obj)
        if self.owner is not None:
            return endpoint.call({"h": self.owner, "method": self.name}, (self.obj, *args), kwargs)
        if endpoint.guarded:
            if not is_named(self.obj) and (self.name in DECIDING or (self.name in ("get", "pop") and len(args) > 1)):
                raise refuse(self.obj, repr(self.name))
            endpoint.relied_on_program = True
        return endpoint.call({**address_of(self.obj), "method": self.name}, args, kwargs, self.obj)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return types.MethodType

    @property
    def __self__(self) -> Any:
        return self.obj

    @property
    def __name__(self) -> str:
        return self.name

    @property
    def __doc__(self) -> Any:  # type: ignore[override]
        return getattr(self.real(), "__doc__", None)

    def real(self) -> Any:
        return ask(self.obj, "attr", name=self.name)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real(), name)

    def __eq__(self, other: Any) -> bool:
        return type(other) is RemoteMethod and other.obj is self.obj and other.name == self.name

    def __hash__(self) -> int:
        return hash((id(self.obj), self.name))


class RemoteAttribute:
    """An attribute that the class of the other end defines: a method is bound here, anything else asked for."""

    def __init__(self, name: str, *, bound: bool, number: int, base: type | None) -> None:
        self.name = name
        self.bound = bound
        self.number = number
        self.base = base if base is not None and hasattr(base, name) else None

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return note_attribute(
                owner, mirror_entry(owner, ENDPOINT).request("attr", h=mirror_entry(owner, CLASS), name=self.name)
            )
        if self.base is not None and not is_named(instance):
            return getattr(self.base, self.name).__get__(instance, owner)
        if self.bound:
            return RemoteMethod(instance, self.name, None if is_mirror(owner) else self.number)
        return as_method(instance, ask(instance, "attr", name=self.name))

    def __set__(self, instance: Any, value: Any) -> None:
        set_attribute(instance, self.name, value)

    def __delete__(self, instance: Any) -> None:
        ask(instance, "del_attr", name=self.name)


def set_attribute(instance: Any, name: str, value: Any) -> None:
    if isinstance(instance, BaseException) or instance_entry(instance, NUMBER) is None:
        object.__setattr__(instance, name, value)
    else:
        ask(instance, "set_attr", name=name, given=[value])


class Proxy:
    """What every mirror of a class has."""

    def __getattr__(self, name: str) -> Any:
        if (name.startswith("__") and name.endswith("__") and name not in SHOWN) or "\0" in name:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r} over the wire")
        endpoint = endpoint_of(self)
        if endpoint.guarded and name in DECIDING and not is_named(self):
            if not callable(attribute := ask(self, "attr", name=name)):
                return attribute
            raise refuse(self, repr(name))
        return as_method(self, ask(self, "attr", name=name))

    def __setattr__(self, name: str, value: Any) -> None:
        if not is_mirror(type(self)):  # of the tests' own class: its properties come first
            for base in type(self).__mro__:
                attribute = base.__dict__.get(name)
                if attribute is not None and not is_mirror(base) and hasattr(type(attribute), "__set__"):
                    object.__setattr__(self, name, value)
                    return
        set_attribute(self, name, value)

    def __delattr__(self, name: str) -> None:
        ask(self, "del_attr", name=name)

    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        return ask(self, "attr", name="__dict__")

    def __dir__(self) -> Any:
        return ask(self, "dir")

    def __copy__(self) -> Any:
        return ask(self, "copy")

    def __deepcopy__(self, memo: Any) -> Any:
        return ask(self, "deepcopy")

    def __reduce_ex__(self, protocol: Any) -> Any:
        return revive_object, (ask(self, "pickle", protocol=int(protocol)),)


endpoints: list[Any] = []  # the wire of this process, for objects that come out of a pickle


def revive_object(data: bytes) -> Any:
    return endpoints[0].request("revive", h=0, data=endpoints[0].encode(data))
