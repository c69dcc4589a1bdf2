"""The operations that one end of the wire performs on its own objects for the other end: one entry each.

The candidate's side performs all of them. The tests' side performs them for what the tests define (`lending_rules`).
"""

from __future__ import annotations

import operator
import sys
import types

from sandbox.inside import async_bridge
from sandbox.inside.argument_forms import bound_form

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

BASES = (bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset)
LIBRARY_BASES = {
    ("collections", "OrderedDict"),
    ("collections", "defaultdict"),
    ("collections", "Counter"),
    ("collections", "deque"),
    ("datetime", "datetime"),
    ("datetime", "date"),
    ("decimal", "Decimal"),
}
FUNCTION = type(lambda: 0)


def base_of(kind: type) -> type | None:
    """The type of values that instances of a subclass extend."""
    for base in kind.__mro__:
        if base in BASES or (base.__module__, base.__name__) in LIBRARY_BASES:
            return base if base is not kind else None
    return None


def base_value(value: Any, base: type) -> Any:
    """The builtin value that an instance of a subclass extends, past every method of the subclass."""
    plain: Any = base
    if issubclass(base, dict):
        content = {key: dict.__getitem__(value, key) for key in plain.__iter__(value)}
        return content if base is dict else plain(None, content) if base.__name__ == "defaultdict" else plain(content)
    if base in (list, tuple, set, frozenset) or base.__name__ == "deque":
        return plain(plain.__iter__(value))
    if base in (str, bytes, bytearray):
        return plain.__getitem__(value, slice(None))
    if base.__name__ in ("date", "datetime"):
        return plain(*parts_of(value, base))
    return plain(value) if base.__name__ == "Decimal" else plain.__add__(value, plain(0))


def parts_of(value: Any, base: type) -> tuple[Any, ...]:
    """What a date or time is made of, read past the methods of a subclass."""
    names = ["year", "month", "day"]
    if base.__name__ == "datetime":
        names += ["hour", "minute", "second", "microsecond", "tzinfo"]
    every: Any = base
    return tuple(getattr(every, name).__get__(value) for name in names)


def instance_of(kind: Any, value: Any, base: Any) -> Any:
    """An instance of a class that extends a type of values which never change, past the constructor of the class."""
    if base.__name__ in ("date", "datetime"):
        return base.__new__(kind, *parts_of(value, base))
    return base.__new__(kind, value)


def replace_content(target: Any, value: Any, base: type) -> None:
    """Make the content of an instance of a subclass of a container that of `value`."""
    plain: Any = base
    if issubclass(base, dict):
        plain.clear(target)
        for key, part in value.items():
            plain.__setitem__(target, key, part)
    elif base in (list, bytearray):
        plain.__setitem__(target, slice(None), value)
    elif base is set:
        set.clear(target)
        set.update(target, value)
    elif base.__name__ == "deque":
        plain.clear(target)
        plain.extend(target, value)


def describe(kind: Any) -> dict[str, Any]:
    """The description of a class: its name, its bases, and what it defines."""
    names: dict[str, str] = {}
    for name, value in list(vars(kind).items()):
        if getattr(value, "__module__", None) == "enum" and type(value) is FUNCTION:
            continue  # which every enumeration is given
        if value is None:
            names[name] = "none"
        elif type(value) is FUNCTION:
            names[name] = "function"
        elif isinstance(value, (staticmethod, classmethod)) or type(value).__name__ in ("method_descriptor", "builtin"):
            names[name] = "method"
        else:
            names[name] = "value"
    about: dict[str, Any] = {
        "name": kind.__name__[:200],
        "qualname": kind.__qualname__[:500],
        "module": str(kind.__module__)[:200],
        "bases": [base for base in kind.__bases__ if base is not object],
        "names": names,
        "doc": kind.__doc__ if type(kind.__doc__) is str else None,
        "meta": type(kind) is not type,
        "walked": hasattr(type(kind), "__iter__") or hasattr(type(kind), "__getitem__"),
    }
    fields = getattr(kind, "__dataclass_fields__", None)
    if type(fields) is dict:
        about["fields"] = [
            [name, str(field.type), bool(field.init), bool(field.repr), bool(field.kw_only), field._field_type.name]
            for name, field in fields.items()
        ]
        about["frozen"] = bool(kind.__dataclass_params__.frozen)
    if type(getattr(kind, "_fields", None)) is tuple and issubclass(kind, tuple):
        about["tuple"] = list(kind._fields)
        about["defaults"] = dict(getattr(kind, "_field_defaults", {}))
    enum = sys.modules.get("enum")
    if enum is not None and isinstance(kind, enum.EnumType):
        about["members"] = [[name, member._value_] for name, member in kind.__members__.items()]
    notes = vars(kind).get("__annotations__")
    if type(notes) is dict:
        about["annotations"] = {name: note if type(note) is type else str(note) for name, note in notes.items()}
    return about


def next_of(iterator: Any) -> Any:
    """The next item in a tuple; its return value in a list at the end."""
    try:
        return (next(iterator),)
    except StopIteration as end:
        return [end.value]


def in_pieces(value: Any, method: str, args: list[Any]) -> Any:
    """`send`, `throw` or `close` of a generator, as `next_of`."""
    try:
        return (getattr(value, method)(*args),)
    except StopIteration as end:
        return [end.value]


def leave(context: Any, endpoint: Any, message: Any) -> Any:
    error = endpoint.decode(message["error"])
    return bool(context.__exit__(None if error is None else type(error), error, None))


def extend(kind: Any, endpoint: Any, message: Any) -> int:
    """A class that stands for one of the other end that extends ours; it forwards what that class overrides."""
    bases = tuple(endpoint.decode(tree) for tree in message["bases"])
    body: dict[str, Any] = {"__module__": kind.__module__}
    for name, (how, part) in endpoint.decode(message["body"]).items():
        if how == "function":
            body[name] = relay(name, part)
        elif how == "property":
            body[name] = property(*[None if accessor is None else relay(name, accessor) for accessor in part])
        elif how == "static":
            body[name] = staticmethod(part)
        else:
            body[name] = part
    named = endpoint.decode(message["named"])
    made = types.new_class(str(message["name"]), bases, named, lambda namespace: namespace.update(body))
    return int(endpoint.number_of(made))


def shadow(kind: Any, endpoint: Any, message: Any) -> int:
    """An object that stands for an instance of such a class, before its `__init__`."""
    return int(endpoint.number_of(kind.__new__(kind, *[endpoint.decode(tree) for tree in message["args"]])))


def relay(name: str, function: Any) -> Any:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return function(self, *args, **kwargs)

    method.__name__ = method.__qualname__ = name
    return method


def revive(kind: Any, endpoint: Any, message: Any) -> Any:
    return __import__("pickle").loads(endpoint.decode(message["data"]))


def set_content(value: Any, endpoint: Any, message: Any) -> None:
    base = base_of(type(value))
    if base is not None:
        replace_content(value, endpoint.decode(message["value"]), base)


def deep_copy(value: Any) -> Any:
    return __import__("copy").deepcopy(value)


def has_truth(value: Any) -> bool:
    return bool(value)


def set_attribute(target: Any, endpoint: Any, message: Any) -> None:
    if isinstance(target, type) and endpoint.state is not None and not endpoint.guarded:
        endpoint.state.save_original(target, message["name"])
    setattr(target, message["name"], bound_form(target, endpoint.take_arguments(message)[0][0]))


ARITHMETIC = (
    "add",
    "sub",
    "mul",
    "truediv",
    "floordiv",
    "mod",
    "pow",
    "and",
    "or",
    "xor",
    "lshift",
    "rshift",
    "matmul",
)
BINARY: dict[str, Any] = (
    {name: getattr(operator, f"__{name}__") for name in ("eq", "ne", "lt", "le", "gt", "ge", *ARITHMETIC)}
    | {f"i{name}": getattr(operator, f"__i{name}__") for name in ARITHMETIC}
    | {"divmod": divmod}
)


def binary(value: Any, endpoint: Any, message: Any) -> Any:
    other = endpoint.decode(message["other"])
    work = BINARY[message["name"]]
    return work(other, value) if message.get("turned") else work(value, other)


OPERATIONS: dict[str, Any] = {
    "describe": lambda o, p, m: describe(o),
    "attr": lambda o, p, m: getattr(o, m["name"]),
    "set_attr": set_attribute,
    "give_back": lambda o, p, m: p.state.restore_original(o, m["name"]),
    "del_attr": lambda o, p, m: delattr(o, m["name"]),
    "dir": lambda o, p, m: [str(name) for name in dir(o)],
    "item": lambda o, p, m: o[p.decode(m["key"])],
    "set_item": lambda o, p, m: operator.setitem(o, *p.take_arguments(m)[0]),
    "del_item": lambda o, p, m: operator.delitem(o, p.decode(m["key"])),
    "contains": lambda o, p, m: p.decode(m["value"]) in o,
    "binary": binary,
    "instance": lambda o, p, m: isinstance(p.decode(m["value"]), o),
    "subclass": lambda o, p, m: issubclass(p.decode(m["value"]), o),
    "iter": lambda o, p, m: iter(o),
    "reversed": lambda o, p, m: reversed(o),
    "next": lambda o, p, m: next_of(o),
    "pieces": lambda o, p, m: in_pieces(o, m["name"], p.take_arguments(m)[0]),
    "len": lambda o, p, m: len(o),
    "truth": lambda o, p, m: has_truth(o),
    "hash": lambda o, p, m: hash(o),
    "repr": lambda o, p, m: repr(o),
    "str": lambda o, p, m: str(o),
    "format": lambda o, p, m: format(o, m["spec"]),
    "bytes": lambda o, p, m: bytes(o),
    "int": lambda o, p, m: int(o),
    "index": lambda o, p, m: o.__index__(),
    "float": lambda o, p, m: float(o),
    "complex": lambda o, p, m: complex(o),
    "abs": lambda o, p, m: abs(o),
    "neg": lambda o, p, m: -o,
    "pos": lambda o, p, m: +o,
    "invert": lambda o, p, m: ~o,
    "round": lambda o, p, m: round(o, *p.decode(m["args"])),
    "trunc": lambda o, p, m: o.__trunc__(),
    "floor": lambda o, p, m: o.__floor__(),
    "ceil": lambda o, p, m: o.__ceil__(),
    "fspath": lambda o, p, m: o.__fspath__(),
    "enter": lambda o, p, m: o.__enter__(),
    "exit": leave,
    "copy": lambda o, p, m: __import__("copy").copy(o),
    "deepcopy": lambda o, p, m: deep_copy(o),
    "pickle": lambda o, p, m: __import__("pickle").dumps(o, m["protocol"]),
    "revive": revive,
    "extend": extend,
    "shadow": shadow,
    "set_content": set_content,
    **async_bridge.OPERATIONS,
}
