"""An object of the other process, as it looks from here.

The one rule that makes the verdict safe lives in this file: no comparison, containment or arithmetic between a remote
object and a local value is ever computed by the other side. The other side is only asked for values: of an attribute,
an item, a call, the length. An instance of a class that extends a builtin type can be asked for the builtin value
underneath, and is compared here by that; methods of texts and numbers (`startswith`, `is_integer`) are called on it.

What has been said once stands: between two calls into the program that value does not change, and of a type that cannot
change it never does. So `f(x) in (1, 2, 3)` is one answer held against three values, not three tries.
"""

from __future__ import annotations

import builtins
import operator
import types

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    from sandbox.inside.peer import Peer
    from sandbox.inside.wire import Unsplittable

    Kind = TypeVar("Kind")
else:
    from wire import Unsplittable

BASES = (bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset)
BASE_NAMES = [base.__name__ for base in BASES]
LASTING = frozenset({"bool", "int", "float", "complex", "str", "bytes", "tuple", "frozenset"})
NATIVE = {  # what an object can be besides a value, and a test may ask about
    kind.__name__: kind
    for kind in (type, types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.GeneratorType,
                 types.CoroutineType, types.AsyncGeneratorType, types.CodeType)
}  # fmt: skip
SHOWN = frozenset({  # underlined attributes that are asked for; the others belong to protocols
    "__name__", "__qualname__", "__dict__", "__len__", "__code__", "__defaults__", "__kwdefaults__", "__annotations__",
    "__bases__", "__mro__", "__self__", "__func__", "__closure__", "__wrapped__",
})  # fmt: skip
OWN_METHODS = {base.__name__: base for base in (bool, int, float, complex, str, bytes)}


def base_of(value: Any) -> str | None:
    """The builtin value type that an instance of a subclass could be shown as."""
    for base in BASES:
        if isinstance(value, base):
            return base.__name__
    return None


class Remote:
    """An object of the other end. Equality is identity, or the comparison here of the builtin value it extends."""

    __slots__ = ("_base", "_native", "_number", "_peer", "_said", "_type")

    def __init__(self, peer: Peer, number: int, type_name: str, base: str | None, native: type | None) -> None:
        object.__setattr__(self, "_peer", peer)
        object.__setattr__(self, "_number", number)
        object.__setattr__(self, "_type", type_name)
        object.__setattr__(self, "_base", base)
        object.__setattr__(self, "_native", native)
        object.__setattr__(self, "_said", None)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return get(self, "_peer").call({"h": get(self, "_number")}, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and callable(getattr(OWN_METHODS.get(get(self, "_base")), name, None)):
            return getattr(base_value(self), name)
        if name in SHOWN or not (name.startswith("__") and name.endswith("__")):
            return ask(self, "attr", name=name)
        raise AttributeError(f"{get(self, '_type')!r} object has no attribute {name!r} over the wire")

    @property  # type: ignore[misc]
    def __class__(self) -> Any:  # so that isinstance() sees the builtin type underneath, or a function
        base = get(self, "_base")
        return get(self, "_native") or Remote if base is None else getattr(builtins, base)

    def __instancecheck__(self, value: Any) -> bool:  # of a class that is the program's, which it alone can answer
        return expect(bool, ask(self, "instance", value=get(self, "_peer").encode(value)))

    def __subclasscheck__(self, value: Any) -> bool:
        return expect(bool, ask(self, "subclass", value=get(self, "_peer").encode(value)))

    def __setattr__(self, name: str, value: Any) -> None:
        ask(self, "set_attr", name=name, value=get(self, "_peer").encode(value))

    def __delattr__(self, name: str) -> None:
        ask(self, "del_attr", name=name)

    def __iter__(self) -> Any:
        return walk(self)

    def __next__(self) -> Any:
        if get(self, "_native") is types.CoroutineType:  # driven by a loop of the tests: one step
            raise StopIteration(ask(self, "await"))
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
            return bool(value in base_value(self))
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

    def __await__(self) -> Any:
        return wait_for(self)

    def __aiter__(self) -> Any:
        return walk_async(self)

    async def __anext__(self) -> Any:
        found = ask(self, "anext")
        if found is None:
            raise StopAsyncIteration
        return found[0]

    async def __aenter__(self) -> Any:
        return ask(self, "aenter")

    async def __aexit__(self, *error: Any) -> None:
        ask(self, "aexit")

    def __hash__(self) -> int:
        return expect(int, get(self, "_number")) + 1

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


def expect(kind: type[Kind], value: Any) -> Kind:
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


def wait_for(remote: Remote) -> Any:
    """What `await` steps through: nothing, before the value is there."""
    yield from ()
    return ask(remote, "await")


async def walk_async(remote: Remote) -> Any:
    iterator = ask(remote, "aiter")
    while True:
        found = ask(iterator, "anext")
        if found is None:
            return
        yield found[0]


def base_value(remote: Remote) -> Any:
    """The builtin value that a remote instance of a subclass extends, the same one until it may change."""
    peer, said = get(remote, "_peer"), get(remote, "_said")
    if said is not None and (said[0] == peer.turn or get(remote, "_base") in LASTING):
        return said[1]
    value = ask(remote, "base")
    if type(value) is Remote or type(value).__name__ != get(remote, "_base"):
        raise peer.fail(Unsplittable(f"the builtin value behind a {get(remote, '_type')}"))
    object.__setattr__(remote, "_said", (peer.turn, value))
    return value


def _ordering(symbol: str, compare: Any) -> Any:
    def method(self: Remote, other: Any) -> Any:
        if get(self, "_base") is None:
            raise get(self, "_peer").fail(
                Unsplittable(f"{symbol} on a {get(self, '_type')} would be computed by the program itself")
            )
        return compare(base_value(self), base_value(other) if type(other) is Remote else other)

    return method


def _install() -> None:
    for name in ("__doc__", "__module__"):  # which the class itself has
        setattr(Remote, name, property(lambda self, name=name: ask(self, "attr", name=name)))  # type: ignore[misc]
    for name, symbol in (
        ("lt", "<"), ("le", "<="), ("gt", ">"), ("ge", ">="), ("add", "+"), ("sub", "-"), ("mul", "*"),
        ("truediv", "/"), ("floordiv", "//"), ("mod", "%"), ("pow", "**"), ("and_", "&"), ("or_", "|"), ("xor", "^"),
        ("lshift", "<<"), ("rshift", ">>"), ("matmul", "@"),
    ):  # fmt: skip
        compare = getattr(operator, name)
        stem = name.rstrip("_")
        setattr(Remote, f"__{stem}__", _ordering(symbol, compare))
        if stem not in ("lt", "le", "gt", "ge"):
            setattr(Remote, f"__r{stem}__", _ordering(symbol, lambda a, b, f=compare: f(b, a)))


_install()
