"""The codec of the split: exact builtin values as tagged JSON, the only thing that crosses from a program to its judge.

A value is encoded by its exact type (`type(v) is T`); whatever is not in the table (instances of the program's own
classes, subclasses, functions, iterators) goes to `opaque`, which answers with a handle or raises. Decoding rebuilds
values of the table and nothing else: no import, no constructor of the sender's choosing, sizes and depth bounded.

This file also runs inside the jail (copied there as `codec`), so it imports only the standard library.

Not promised: object identity and aliasing inside a value (`[[0]] * 3` arrives as three lists).
"""

from __future__ import annotations

import builtins
import json

TYPE_CHECKING = False  # the real one costs the jail an import of ten milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Opaque = Callable[[Any], dict[str, Any]]
    Handle = Callable[[dict[str, Any]], Any]

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
MAX_DEPTH = 200
MAX_NODES = 2_000_000
PLAIN_INT = 1 << 1024  # larger ints cross as hexadecimal: decimal text is quadratic and limited by the interpreter
MAX_INT_BITS = 1 << 22

_ATOMS = frozenset({type(None), bool, str})
_TYPES = {name: value for name, value in vars(builtins).items() if isinstance(value, type) and name == value.__name__}
_TYPES["NoneType"] = type(None)
_TYPE_NAMES = {t: name for name, t in _TYPES.items()}


class CodecError(Exception):
    """The bytes or the value cannot cross the wall; the message says why in words a person can read."""


def refuse(value: Any) -> dict[str, Any]:
    """The `opaque` of a judge that takes plain values only."""
    raise CodecError(f"a value of type {type(value).__name__} cannot cross the wall")


def dumps(tree: Any) -> bytes:
    try:
        data = _WRITER.encode(tree).encode("ascii")
    except (ValueError, RecursionError) as error:
        raise CodecError(f"not encodable: {error}") from None
    if len(data) > MAX_MESSAGE_BYTES:
        raise CodecError(f"the value takes {len(data)} bytes on the wire; at most {MAX_MESSAGE_BYTES} may cross")
    return data


def loads(data: bytes) -> Any:
    if len(data) > MAX_MESSAGE_BYTES:
        raise CodecError(f"a message of {len(data)} bytes; at most {MAX_MESSAGE_BYTES} may cross")
    if data.count(b",") + data.count(b"[") + data.count(b"{") > MAX_NODES:
        raise CodecError(f"a value of more than {MAX_NODES} parts")
    try:
        return _READER.decode(data.decode("ascii"))
    except (ValueError, RecursionError) as error:
        raise CodecError(f"a malformed message: {error}") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"the constant {name}")


_WRITER = json.JSONEncoder(separators=(",", ":"), check_circular=False)
_READER = json.JSONDecoder(parse_constant=_no_constant)


def encode(value: Any, opaque: Opaque = refuse, depth: int = 0) -> Any:
    """The JSON tree of `value`. Raises CodecError where `opaque` does, and past MAX_DEPTH."""
    kind = type(value)
    if kind in _ATOMS:
        return value
    if kind is int:
        if -PLAIN_INT < value < PLAIN_INT:
            return value
        if value.bit_length() > MAX_INT_BITS:
            raise CodecError(f"an int of {value.bit_length()} bits; at most {MAX_INT_BITS} may cross")
        return {"t": "int", "v": hex(value)}
    if kind is float:
        return value if value - value == 0 else {"t": "float", "v": repr(value)}
    if depth > MAX_DEPTH:
        raise CodecError(f"a value nested deeper than {MAX_DEPTH} levels")
    if kind is list:
        return _sequence(value, opaque, depth)
    encoder = _ENCODERS.get(kind)
    if encoder is not None:
        return encoder(value, opaque, depth + 1)
    return _encode_library(value, opaque, depth + 1)


def _sequence(values: Any, opaque: Opaque, depth: int) -> list[Any]:
    kinds = set(map(type, values))
    if kinds <= _ATOMS:
        return list(values)
    if kinds == {int} and min(values) > -PLAIN_INT and max(values) < PLAIN_INT:
        return list(values)
    depth += 1
    return [encode(value, opaque, depth) for value in values]


def _pairs(items: Any, opaque: Opaque, depth: int) -> list[Any]:
    return [[encode(key, opaque, depth), encode(value, opaque, depth)] for key, value in items]


_ENCODERS: dict[type, Callable[[Any, Opaque, int], dict[str, Any]]] = {
    tuple: lambda v, o, d: {"t": "tuple", "v": _sequence(v, o, d)},
    dict: lambda v, o, d: {"t": "dict", "v": _pairs(v.items(), o, d)},
    set: lambda v, o, d: {"t": "set", "v": _sequence(v, o, d)},
    frozenset: lambda v, o, d: {"t": "frozenset", "v": _sequence(v, o, d)},
    bytes: lambda v, o, d: {"t": "bytes", "v": v.hex()},
    bytearray: lambda v, o, d: {"t": "bytearray", "v": v.hex()},
    complex: lambda v, o, d: {"t": "complex", "v": [encode(v.real), encode(v.imag)]},
    range: lambda v, o, d: {"t": "range", "v": [encode(v.start), encode(v.stop), encode(v.step)]},
    slice: lambda v, o, d: {"t": "slice", "v": _sequence((v.start, v.stop, v.step), o, d)},
    type(...): lambda v, o, d: {"t": "ellipsis"},
}


def _encode_library(value: Any, opaque: Opaque, depth: int) -> dict[str, Any]:
    """Values of the standard library, recognised by name so that nothing has to be imported to look at an int."""
    kind = type(value)
    if kind is type:
        return {"t": "type", "v": _TYPE_NAMES[value]} if value in _TYPE_NAMES else opaque(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if name == "decimal.Decimal":
        return {"t": "decimal", "v": str(value)}
    if name == "fractions.Fraction":
        return {"t": "fraction", "v": [encode(value.numerator), encode(value.denominator)]}
    if name in ("datetime.datetime", "datetime.date", "datetime.time") and getattr(value, "tzinfo", None) is None:
        return {"t": kind.__name__, "v": value.isoformat()}
    if name == "datetime.timedelta":
        return {"t": "timedelta", "v": [value.days, value.seconds, value.microseconds]}
    if name == "collections.deque":
        return {"t": "deque", "v": _sequence(value, opaque, depth), "max": value.maxlen}
    if name in ("collections.Counter", "collections.OrderedDict", "collections.defaultdict"):
        return {"t": kind.__name__, "v": _pairs(value.items(), opaque, depth)}
    if name == "numpy.ndarray" and value.dtype.kind in "biufcU" and value.size <= MAX_NODES:
        return {"t": "ndarray", "d": value.dtype.str, "v": encode(value.tolist(), opaque, depth)}
    if kind.__module__ == "numpy" and hasattr(value, "dtype") and value.ndim == 0 and value.dtype.kind in "biufcU":
        return {"t": "numpy", "d": value.dtype.str, "v": encode(value.item(), opaque, depth)}
    if isinstance(value, tuple) and kind.__bases__ == (tuple,) and type(getattr(kind, "_fields", None)) is tuple:
        fields = _sequence(kind._fields, refuse, depth)
        return {"t": "namedtuple", "n": kind.__name__, "f": fields, "v": _sequence(tuple(value), opaque, depth)}
    return opaque(value)


def decode(tree: Any, handle: Handle | None = None, depth: int = 0) -> Any:
    """Rebuild a value in a process that may spend its time on it. Handles go to `handle`; None refuses them."""
    kind = type(tree)
    if kind is list:
        if set(map(type, tree)) <= _SCALARS:
            return list(tree)  # a copy: the caller may compare with the tree what has become of the value
        if depth > MAX_DEPTH:
            raise CodecError(f"a value nested deeper than {MAX_DEPTH} levels")
        depth += 1
        return [decode(item, handle, depth) for item in tree]
    if kind is not dict:
        return tree
    if depth > MAX_DEPTH:
        raise CodecError(f"a value nested deeper than {MAX_DEPTH} levels")
    tag = tree.get("t")
    if tag == "h":
        if handle is None:
            raise CodecError(f"an opaque value of type {describe_handle(tree)}")
        return handle(tree)
    decoder = _DECODERS.get(tag) if type(tag) is str else None
    if decoder is None:
        raise CodecError(f"an unknown tag {tag!r:.50}")
    try:
        return decoder(tree, handle, depth + 1)
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise CodecError(f"a malformed {tag}: {type(error).__name__}: {error}") from None


def describe_handle(tree: dict[str, Any]) -> str:
    name = tree.get("type")
    return name[:80] if type(name) is str else "unknown"


_SCALARS = frozenset({type(None), bool, str, int, float})


def _items(tree: dict[str, Any], handle: Handle | None, depth: int) -> list[Any]:
    values = decode(tree["v"], handle, depth)
    if type(values) is not list:
        raise TypeError("not a sequence")
    return values


def _in_order(kind: type, items: list[Any]) -> Any:
    """A set that is walked in the order in which the sender walked his, if one of the usual ways to build it does that.

    The order depends on the size of the hash table, and that on how a set has grown: element by element or at once.
    """
    grown = kind(items)
    if list(grown) == items:
        return grown
    copied = kind(set(grown))
    return copied if list(copied) == items else grown


def _big_int(text: Any) -> int:
    if type(text) is not str or len(text) > MAX_INT_BITS // 4 + 4:
        raise ValueError("an int out of range")
    return int(text, 16)


def _numbers(tree: dict[str, Any], depth: int, *kinds: type) -> list[Any]:
    values = _items(tree, None, depth)
    if not all(type(value) in kinds for value in values):
        raise TypeError("a wrong kind of number")
    return values


def _text(value: Any) -> str:
    if type(value) is not str:
        raise TypeError("not a text")
    return value


def _library(module: str, name: str, *args: Any) -> Any:
    return getattr(__import__(module), name)(*args)


def _from_iso(tree: dict[str, Any]) -> Any:
    datetime = __import__("_datetime")  # tests may have replaced the names of the other

    return getattr(datetime, tree["t"]).fromisoformat(_text(tree["v"]))


def _default_dict(pairs: list[Any]) -> Any:
    from collections import defaultdict

    return defaultdict(None, pairs)


def _numpy(tree: dict[str, Any], handle: Handle | None, depth: int) -> Any:
    """An array or scalar again where numpy is at hand, its plain list or number where it is not."""
    value = decode(tree["v"], handle, depth)
    try:
        import numpy
    except ImportError:
        return value
    dtype = numpy.dtype(_text(tree["d"]))
    if dtype.kind not in "biufcU" or dtype.itemsize > 1 << 16:
        raise ValueError("a kind of array that is never sent")
    array = numpy.array(value, dtype=dtype)
    return array if tree["t"] == "ndarray" else array[()]


def _named_tuple(tree: dict[str, Any], handle: Handle | None, depth: int) -> Any:
    from collections import namedtuple

    fields = [_text(field) for field in tree["f"]]
    return namedtuple(_text(tree["n"]), fields)(*_items(tree, handle, depth))


_DECODERS: dict[str, Callable[[dict[str, Any], Handle | None, int], Any]] = {
    "int": lambda t, h, d: _big_int(t["v"]),
    "float": lambda t, h, d: {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}[_text(t["v"])],
    "tuple": lambda t, h, d: tuple(_items(t, h, d)),
    "dict": lambda t, h, d: dict(_items(t, h, d)),
    "set": lambda t, h, d: _in_order(set, _items(t, h, d)),
    "frozenset": lambda t, h, d: _in_order(frozenset, _items(t, h, d)),
    "bytes": lambda t, h, d: bytes.fromhex(_text(t["v"])),
    "bytearray": lambda t, h, d: bytearray.fromhex(_text(t["v"])),
    "complex": lambda t, h, d: complex(*_numbers(t, d, int, float)),
    "range": lambda t, h, d: range(*_numbers(t, d, int)),
    "slice": lambda t, h, d: slice(*_items(t, h, d)),
    "ellipsis": lambda t, h, d: ...,
    "type": lambda t, h, d: _TYPES[_text(t["v"])],
    "decimal": lambda t, h, d: _library("decimal", "Decimal", _text(t["v"])),
    "fraction": lambda t, h, d: _library("fractions", "Fraction", *_numbers(t, d, int)),
    "datetime": lambda t, h, d: _from_iso(t),
    "date": lambda t, h, d: _from_iso(t),
    "time": lambda t, h, d: _from_iso(t),
    "timedelta": lambda t, h, d: _library("datetime", "timedelta", *_numbers(t, d, int)),
    "deque": lambda t, h, d: _library("collections", "deque", _items(t, h, d), t["max"]),
    "Counter": lambda t, h, d: _library("collections", "Counter", dict(_items(t, h, d))),
    "OrderedDict": lambda t, h, d: _library("collections", "OrderedDict", _items(t, h, d)),
    "defaultdict": lambda t, h, d: _default_dict(_items(t, h, d)),
    "ndarray": _numpy,
    "numpy": _numpy,
    "namedtuple": _named_tuple,
}
