"""The special methods of mirrors, and who computes their result on the tests' side (`endpoint.guarded`).

- An instance of a class that extends a type of values is that value here, rebuilt: an int, a text, a list. Operators
  and methods of these types are computed here, whatever the program's class defines.
- A class is *named* if the tests use its name (or that of one that it extends) as a class. Operators between two such
  objects, and the containment, truth and order that the class defines, are computed by the program. That marks the
  test.
- Of any other object the program never compares, orders or calculates, and never answers a method that belongs to the
  types of values (`startswith`, `issubset`, `equals`). The verdict is `invalid_result` then, and counts as failed.
- A plain value never equals an object, and is never less or more than one.
"""

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
    address_of,
    ask,
    endpoint_of,
    expect,
    instance_entry,
    is_named,
    is_proxy,
    mirror_entry,
    refuse,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def mark_reliance(value: Any) -> None:
    endpoint = endpoint_of(value)
    endpoint.relied_on_program = endpoint.relied_on_program or endpoint.guarded


def mark_reliance_on_own(value: Any) -> None:
    """Mark the reliance, unless the class is the library's: a generator's `__next__` is not the program's method."""
    if type(mirror_entry(type(value), CLASS)) is int:
        mark_reliance(value)


def is_plain(value: Any) -> bool:
    """Whether a value is of this end's library, and not an object of the tests or the program."""
    kind = type(value)
    return not is_proxy(value) and (
        kind.__module__ == "builtins" or kind.__module__.partition(".")[0] in sys.stdlib_module_names
    )


def binary(dunder: str, base: type | None) -> Any:
    """A binary operator: the value type's, the program's under the rules above, or none."""
    name = dunder.strip("_")
    turned = name not in BINARY and name.startswith("r")
    name = name[1:] if turned else name
    compares = name in ("eq", "ne", "lt", "le", "gt", "ge")
    symbol = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}.get(name, name)

    def method(self: Any, other: Any, *rest: Any) -> Any:
        endpoint = endpoint_of(self)
        from_other_end = is_proxy(other) and endpoint_of(other) is endpoint
        if base is not None and not (from_other_end and is_named(self)) and hasattr(base, dunder):
            if not from_other_end and is_named(self) and not compares and endpoint.guarded:
                return calculated(self, other)
            return getattr(base, dunder)(self, other, *rest)
        if endpoint.guarded and not from_other_end:
            if name in ("eq", "ne") or not (is_plain(other) or hasattr(type(other), "__array__")):
                return NotImplemented  # the other operand's word, if it is the tests' own; identity otherwise
            if compares or not is_named(self):
                raise (
                    refuse(self, repr(symbol))
                    if not is_named(self)
                    else endpoint.fail(
                        Unsplittable(
                            f"{symbol!r} between a {type(self).__name__} and a plain value would be computed by "
                            "the program itself"
                        )
                    )
                )
            return calculated(self, other)
        if endpoint.guarded and not (is_named(self) or is_named(other)):
            if name in ("eq", "ne") and self is other:
                return name == "eq"
            raise refuse(self, repr(symbol))
        mark_reliance(self)
        return ask(self, "binary", name=name, turned=turned, other=endpoint.encode(other))

    def calculated(self: Any, other: Any) -> Any:
        """A named object and a plain value: the result must be an object, or the program would do the test's sum."""
        endpoint = endpoint_of(self)
        endpoint.relied_on_program = True
        result = ask(self, "binary", name=name, turned=turned, other=endpoint.encode(other))
        if not is_proxy(result):
            if base is None and type(result) in (int, float, complex, bool):
                raise endpoint.fail(
                    Unsplittable(f"{symbol!r} with a plain value would be computed by the program itself")
                )
            return result
        if type(instance_entry(result, NUMBER)) is int and not isinstance(result, BaseException):
            object.__setattr__(result, TAINTED, True)
        return result

    return method


def own_or_asked(dunder: str, base: type | None, work: Any) -> Any:
    """A special method: the value type's if the class extends one and is not named, else asked of the other end."""
    if base is None or (not hasattr(base, dunder) and dunder.strip("_") not in OF_VALUES):
        return work

    def method(self: Any, *args: Any) -> Any:
        if is_named(self):
            return work(self, *args)
        if hasattr(base, dunder):
            return getattr(base, dunder)(self, *args)
        if dunder == "__bool__":  # a container, so its length says it
            return base.__len__(self) != 0  # type: ignore[attr-defined]
        raise refuse(self, repr(dunder))

    return method


OF_VALUES = frozenset(
    {  # methods that a subclass which is not named does not add to its type of values
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
        mark_reliance_on_own(self)
        if instance_entry(self, TAINTED):
            raise endpoint_of(self).fail(Unsplittable(f"{op} of what the program calculated with a value of the tests"))
        value = ask(self, op, **({"args": endpoint_of(self).encode(list(args))} if op == "round" else {}))
        return value if kind is None else expect(kind, value)

    return method


def asked(op: str, kind: Any = None, *, leans: bool = False) -> Any:
    def method(self: Any) -> Any:
        if leans:
            mark_reliance(self)
        else:
            mark_reliance_on_own(self)
        value = ask(self, op)
        return value if kind is None else expect(kind, value)

    return method


def length_of(self: Any) -> int:
    """`len`, which must equal the number of items that iteration gives."""
    mark_reliance_on_own(self)
    length = expect(int, ask(self, "len"))
    endpoint = endpoint_of(self)
    if endpoint.guarded and not is_named(self):
        object.__setattr__(self, LENGTH, (endpoint.changes_made, length))
        agree(self)
    return length


def agree(self: Any) -> None:
    """Raises Unsplittable if an object's length differs from the number of its items, without a change in between."""
    length, given = instance_entry(self, LENGTH), instance_entry(self, GIVEN)
    if length is not None and given is not None and length[0] == given[0] and length[1] != given[1]:
        name = type(self).__name__
        raise endpoint_of(self).fail(Unsplittable(f"a {name} of the length {length[1]} that gives {given[1]} items"))


def walk(self: Any, iterator: Any) -> Any:
    """Iterate over the items of an object, and count them."""
    endpoint = endpoint_of(self)
    began, count = endpoint.changes_made, 0
    for item in iterator:
        count += 1
        yield item
    if began == endpoint.changes_made:
        object.__setattr__(self, GIVEN, (began, count))
        agree(self)


def call_it(self: Any, *args: Any, **kwargs: Any) -> Any:
    if instance_entry(self, ANSWER) is None:  # not what a call has answered: the program has put it somewhere
        mark_reliance(self)
    return endpoint_of(self).call(address_of(self), args, kwargs)


def missing(self: Any, key: Any) -> Any:
    mark_reliance_on_own(self)
    return endpoint_of(self).call({**address_of(self), "method": "__missing__"}, (key,), {}, self)


def get_item(self: Any, key: Any) -> Any:
    mark_reliance_on_own(self)
    return ask(self, "item", key=endpoint_of(self).encode(key))


def set_item(self: Any, key: Any, value: Any) -> None:
    ask(self, "set_item", given=[key, value])


def delete_item(self: Any, key: Any) -> None:
    ask(self, "del_item", key=endpoint_of(self).encode(key))


def contains(self: Any, value: Any) -> bool:
    endpoint = endpoint_of(self)
    if endpoint.guarded and not is_named(self) and any("__iter__" in base.__dict__ for base in type(self).__mro__):
        return any(value is item or value == item for item in self)
    mark_reliance(self)
    is_member = expect(bool, ask(self, "contains", value=endpoint.encode(value)))
    if is_member and endpoint.guarded and not is_named(self):
        for decoy in (object, "\0no such thing", -1.5e300, (0, "\0")):
            if attempt_contains(self, decoy):
                raise endpoint.fail(Unsplittable(f"a {type(self).__name__} that contains everything"))
    return is_member


def attempt_contains(self: Any, decoy: Any) -> bool:
    try:
        return ask(self, "contains", value=endpoint_of(self).encode(decoy)) is True
    except Exception:  # noqa: BLE001 - a container may refuse what it cannot hold
        return False


def iterate(self: Any) -> Any:
    mark_reliance_on_own(self)
    iterator = ask(self, "iter")
    if iterator is self:
        return iterator
    endpoint = endpoint_of(self)
    if instance_entry(self, GIVEN) is not None:
        mark_reliance(self)  # it may give other items now
    if not is_proxy(iterator):
        iterator = iter(iterator)
    elif type(mirror_entry(type(iterator), CLASS)) is int:
        return iterator  # of a class of the program's, which may be what the test is about
    return (
        walk(self, iterator) if endpoint.guarded and not is_named(self) and hasattr(type(self), "__len__") else iterator
    )


def step(self: Any) -> Any:
    mark_reliance_on_own(self)
    reply = ask(self, "next")
    if type(reply) is tuple and len(reply) == 1:
        return reply[0]
    value = reply[0] if type(reply) is list and len(reply) == 1 else None
    raise StopIteration(*(() if value is None else (value,)))


def hash_of(self: Any) -> int:
    if not is_named(self):
        return int(instance_entry(self, NUMBER) or 0) + 1
    mark_reliance(self)
    return expect(int, ask(self, "hash"))


def text_of(op: str) -> Any:
    def method(self: Any, *spec: str) -> str:
        known = instance_entry(self, TEXT)
        if known is not None and op == "str":
            return expect(str, known)
        return expect(str, ask(self, op, **({"spec": spec[0]} if spec else {})))

    return method


def leave(self: Any, kind: Any = None, error: Any = None, trace: Any = None) -> bool:
    """`__exit__` with the current exception. It may swallow the program's own, or one that the tests raise on purpose.

    Otherwise a context of the program could swallow the assertion that fails inside it.
    """
    endpoint = endpoint_of(self)
    swallows = expect(bool, ask(self, "exit", error=endpoint.encode(error)))
    mark_reliance(self)
    return swallows and (error is None or endpoint.may_swallow(error))


async def leave_async(self: Any, kind: Any = None, error: Any = None, trace: Any = None) -> bool:
    endpoint = endpoint_of(self)
    swallows = bool(await async_bridge.drive(self, "aexit", ask, error=endpoint.encode(error)))
    mark_reliance(self)
    return swallows and (error is None or endpoint.may_swallow(error))


def in_place(dunder: str, base: type | None) -> Any:
    work = binary(dunder, base)
    base_method = getattr(base, dunder, None)

    def method(self: Any, other: Any) -> Any:
        if base_method is not None and not is_named(self):
            return base_method(self, other)
        return work(self, other)

    return method


def method_for(dunder: str, base: type | None) -> Any:
    """The mirror's method for a special method that its class defines; None if it is not forwarded."""
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
