"""The special methods of mirrors: who computes an operator, a comparison or a length."""

from __future__ import annotations

import sys

from sandbox.inside import async_bridge
from sandbox.inside.framing import Unsplittable
from sandbox.inside.operations import BINARY
from sandbox.inside.proxy import (
    ANSWER,
    CLASS,
    GIVEN,
    LENGTH,
    NUMBER,
    TAINTED,
    TEXT,
    ask,
    expect,
    get,
    is_foreign,
    mirror_entry,
    peer_of,
    refuse,
    spoken,
    where,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def lean(value: Any) -> None:
    peer = peer_of(value)
    peer.leaned = peer.leaned or peer.guarded


def lean_on_own(value: Any) -> None:
    """The same, unless the class is the library's: a generator's `__next__` is no method of the program's."""
    if type(mirror_entry(type(value), CLASS)) is int:
        lean(value)


def is_plain(value: Any) -> bool:
    """Whether a value is of this end's library, and nobody's object."""
    kind = type(value)
    return not is_foreign(value) and (
        kind.__module__ == "builtins" or kind.__module__.partition(".")[0] in sys.stdlib_module_names
    )


def binary(dunder: str, base: type | None) -> Any:
    """An operator of two operands: the value's, the program's under the rules above, or nobody's."""
    name = dunder.strip("_")
    turned = name not in BINARY and name.startswith("r")
    name = name[1:] if turned else name
    compares = name in ("eq", "ne", "lt", "le", "gt", "ge")
    symbol = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}.get(name, name)

    def method(self: Any, other: Any, *rest: Any) -> Any:
        peer = peer_of(self)
        theirs = is_foreign(other) and peer_of(other) is peer
        if base is not None and not (theirs and spoken(self)) and hasattr(base, dunder):
            if not theirs and spoken(self) and not compares and peer.guarded:
                return calculated(self, other)
            return getattr(base, dunder)(self, other, *rest)
        if peer.guarded and not theirs:
            if name in ("eq", "ne") or not (is_plain(other) or hasattr(type(other), "__array__")):
                return NotImplemented  # the other operand's word, if it is the tests' own; identity otherwise
            if compares or not spoken(self):
                raise (
                    refuse(self, repr(symbol))
                    if not spoken(self)
                    else peer.fail(
                        Unsplittable(
                            f"{symbol!r} between a {type(self).__name__} and a plain value would be computed by "
                            "the program itself"
                        )
                    )
                )
            return calculated(self, other)
        if peer.guarded and not (spoken(self) or spoken(other)):
            if name in ("eq", "ne") and self is other:
                return name == "eq"
            raise refuse(self, repr(symbol))
        lean(self)
        return ask(self, "binary", name=name, turned=turned, other=peer.encode(other))

    def calculated(self: Any, other: Any) -> Any:
        """Spoken-of object and plain value: an object comes out, or the program would do the test's sum."""
        peer = peer_of(self)
        peer.leaned = True
        result = ask(self, "binary", name=name, turned=turned, other=peer.encode(other))
        if not is_foreign(result):
            if base is None and type(result) in (int, float, complex, bool):
                raise peer.fail(Unsplittable(f"{symbol!r} with a plain value would be computed by the program itself"))
            return result
        if type(get(result, NUMBER)) is int and not isinstance(result, BaseException):
            object.__setattr__(result, TAINTED, True)
        return result

    return method


def own_or_asked(dunder: str, base: type | None, work: Any) -> Any:
    """A special method: of the value where the class extends a type of values and is not spoken of, else asked for."""
    if base is None or (not hasattr(base, dunder) and dunder.strip("_") not in OF_VALUES):
        return work

    def method(self: Any, *args: Any) -> Any:
        if spoken(self):
            return work(self, *args)
        if hasattr(base, dunder):
            return getattr(base, dunder)(self, *args)
        if dunder == "__bool__":  # a container, so its length says it
            return base.__len__(self) != 0  # type: ignore[attr-defined]
        raise refuse(self, repr(dunder))

    return method


OF_VALUES = frozenset(
    {  # what a type of values does not have, a subclass that is not spoken of does not add
        "bool",
        "len",
        "getitem",
        "contains",
        "iter",
        "reversed",
        "int",
        "index",
        "float",
        "complex",
        "abs",
        "neg",
        "pos",
        "invert",
        "round",
        "trunc",
        "floor",
        "ceil",
    }
)


def number_of_kind(op: str, kind: Any = None) -> Any:
    def method(self: Any, *args: Any) -> Any:
        lean_on_own(self)
        if get(self, TAINTED):
            raise peer_of(self).fail(Unsplittable(f"{op} of what the program calculated with a value of the tests"))
        value = ask(self, op, **({"args": peer_of(self).encode(list(args))} if op == "round" else {}))
        return value if kind is None else expect(kind, value)

    return method


def asked(op: str, kind: Any = None, *, leans: bool = False) -> Any:
    def method(self: Any) -> Any:
        if leans:
            lean(self)
        else:
            lean_on_own(self)
        value = ask(self, op)
        return value if kind is None else expect(kind, value)

    return method


def length_of(self: Any) -> int:
    """`len`, which has to be as many items as the object gives when it is walked."""
    lean_on_own(self)
    length = expect(int, ask(self, "len"))
    peer = peer_of(self)
    if peer.guarded and not spoken(self):
        object.__setattr__(self, LENGTH, (peer.changes_made, length))
        agree(self)
    return length


def agree(self: Any) -> None:
    """Raises Unsplittable for an object that says it holds more or less than it gives, with nothing done between."""
    said, given = get(self, LENGTH), get(self, GIVEN)
    if said is not None and given is not None and said[0] == given[0] and said[1] != given[1]:
        name = type(self).__name__
        raise peer_of(self).fail(Unsplittable(f"a {name} of the length {said[1]} that gives {given[1]} items"))


def walk(self: Any, iterator: Any) -> Any:
    """The items of an object, counted."""
    peer = peer_of(self)
    began, count = peer.changes_made, 0
    for item in iterator:
        count += 1
        yield item
    if began == peer.changes_made:
        object.__setattr__(self, GIVEN, (began, count))
        agree(self)


def call_it(self: Any, *args: Any, **kwargs: Any) -> Any:
    if get(self, ANSWER) is None:  # not what a call has answered: the program has put it somewhere
        lean(self)
    return peer_of(self).call(where(self), args, kwargs)


def missing(self: Any, key: Any) -> Any:
    lean_on_own(self)
    return peer_of(self).call({**where(self), "method": "__missing__"}, (key,), {}, self)


def get_item(self: Any, key: Any) -> Any:
    lean_on_own(self)
    return ask(self, "item", key=peer_of(self).encode(key))


def set_item(self: Any, key: Any, value: Any) -> None:
    ask(self, "set_item", given=[key, value])


def delete_item(self: Any, key: Any) -> None:
    ask(self, "del_item", key=peer_of(self).encode(key))


def contains(self: Any, value: Any) -> bool:
    peer = peer_of(self)
    if peer.guarded and not spoken(self) and any("__iter__" in base.__dict__ for base in type(self).__mro__):
        return any(value is item or value == item for item in self)
    lean(self)
    found = expect(bool, ask(self, "contains", value=peer.encode(value)))
    if found and peer.guarded and not spoken(self):
        for decoy in (object, "\0no such thing", -1.5e300, (0, "\0")):
            if attempt_contains(self, decoy):
                raise peer.fail(Unsplittable(f"a {type(self).__name__} that contains everything"))
    return found


def attempt_contains(self: Any, decoy: Any) -> bool:
    try:
        return ask(self, "contains", value=peer_of(self).encode(decoy)) is True
    except Exception:  # noqa: BLE001 - a container may refuse what it cannot hold
        return False


def iterate(self: Any) -> Any:
    lean_on_own(self)
    iterator = ask(self, "iter")
    if iterator is self:
        return iterator
    peer = peer_of(self)
    if get(self, GIVEN) is not None:
        lean(self)  # it may give other items now
    if not is_foreign(iterator):
        iterator = iter(iterator)
    elif type(mirror_entry(type(iterator), CLASS)) is int:
        return iterator  # of a class of the program's, which may be what the test is about
    return walk(self, iterator) if peer.guarded and not spoken(self) and hasattr(type(self), "__len__") else iterator


def step(self: Any) -> Any:
    lean_on_own(self)
    found = ask(self, "next")
    if type(found) is tuple and len(found) == 1:
        return found[0]
    value = found[0] if type(found) is list and len(found) == 1 else None
    raise StopIteration(*(() if value is None else (value,)))


def hash_of(self: Any) -> int:
    if not spoken(self):
        return int(get(self, NUMBER) or 0) + 1
    lean(self)
    return expect(int, ask(self, "hash"))


def text_of(op: str) -> Any:
    def method(self: Any, *spec: str) -> str:
        said = get(self, TEXT)
        if said is not None and op == "str":
            return expect(str, said)
        return expect(str, ask(self, op, **({"spec": spec[0]} if spec else {})))

    return method


def leave(self: Any, kind: Any = None, error: Any = None, trace: Any = None) -> bool:
    """`__exit__`, with the exception there is. One that the tests raise on purpose may stop here, or the program's.

    Otherwise a context of the program could swallow the very assertion that fails inside of it.
    """
    peer = peer_of(self)
    swallows = expect(bool, ask(self, "exit", error=peer.encode(error)))
    lean(self)
    return swallows and (error is None or peer.may_stop(error))


async def leave_async(self: Any, kind: Any = None, error: Any = None, trace: Any = None) -> bool:
    peer = peer_of(self)
    swallows = bool(await async_bridge.drive(self, "aexit", ask, error=peer.encode(error)))
    lean(self)
    return swallows and (error is None or peer.may_stop(error))


def in_place(dunder: str, base: type | None) -> Any:
    work = binary(dunder, base)
    ours = getattr(base, dunder, None)

    def method(self: Any, other: Any) -> Any:
        if ours is not None and not spoken(self):
            return ours(self, other)
        return work(self, other)

    return method


def method_for(dunder: str, base: type | None) -> Any:
    """What stands in a mirror for a special method that its class defines; None for one that is nobody's business."""
    name = dunder.strip("_")
    if name in BINARY or (name[:1] == "r" and name[1:] in BINARY):
        made = in_place(dunder, base) if name[:1] == "i" and name[1:] in BINARY else binary(dunder, base)
    elif name in SIMPLE:
        made = own_or_asked(dunder, base, SIMPLE[name])
    else:
        return None
    made.__name__ = made.__qualname__ = dunder
    return made


SIMPLE: dict[str, Any] = {
    "missing": missing,
    "call": call_it,
    "getitem": get_item,
    "setitem": set_item,
    "delitem": delete_item,
    "contains": contains,
    "iter": iterate,
    "next": step,
    "reversed": asked("reversed"),
    "len": length_of,
    "bool": asked("truth", bool, leans=True),
    "hash": hash_of,
    "repr": text_of("repr"),
    "str": text_of("str"),
    "format": text_of("format"),
    "bytes": asked("bytes", bytes),
    "int": number_of_kind("int", int),
    "index": number_of_kind("index", int),
    "float": number_of_kind("float", float),
    "complex": number_of_kind("complex", complex),
    "abs": number_of_kind("abs"),
    "neg": asked("neg"),
    "pos": asked("pos"),
    "invert": asked("invert"),
    "round": number_of_kind("round"),
    "trunc": number_of_kind("trunc"),
    "floor": number_of_kind("floor"),
    "ceil": number_of_kind("ceil"),
    "fspath": asked("fspath"),
    "enter": asked("enter"),
    "exit": leave,
    "await": async_bridge.wait_for(ask),
    "aiter": async_bridge.iterate(ask),
    "anext": async_bridge.step(ask),
    "aenter": async_bridge.enter(ask),
    "aexit": leave_async,
}
