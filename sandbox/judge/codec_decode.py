"""Rebuilds values from trees of the codec: builtin types and those of the standard library, numpy and pandas only.

The sender chooses no import and no constructor. Sizes and depth are bounded.

This file also runs inside the jail, so it imports only the standard library and what is copied there with it.
"""

from __future__ import annotations

from sandbox.judge import bounds, pandas_codec
from sandbox.judge.codec_wire import MAX_DEPTH, MAX_INT_BITS, SHARED_TAGS, TYPES, Borrower, CodecError

TYPE_CHECKING = False  # the real one costs the jail an import of ten milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sandbox.judge.codec_wire import Handle


def decode(tree: Any, handle: Handle | None = None, depth: int = 0) -> Any:
    """Rebuild a value. Handles go to `handle`; None rejects them. Takes time in proportion to the tree."""
    kind = type(tree)
    if kind is list:
        values = _members(tree, handle, depth)
        if type(handle) is Borrower:
            handle.built.append(values)
        return values
    if kind is not dict:
        return tree
    if depth > MAX_DEPTH:
        raise CodecError(f"a value nested deeper than {MAX_DEPTH} levels")
    tag = tree.get("t")
    if tag == "h":
        if handle is None:
            raise CodecError(f"an opaque value of type {describe_handle(tree)}")
        return handle(tree)
    if tag == "same":
        number = tree.get("n")
        if type(handle) is not Borrower or type(number) is not int or not 0 <= number < len(handle.built):
            raise CodecError("a reference to nothing")
        return handle.built[number]
    decoder = DECODERS.get(tag) if type(tag) is str else None
    if decoder is None:
        raise CodecError(f"an unknown tag {bounds.text(tag, 50)}")
    try:
        value = decoder(tree, handle, depth + 1)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, MemoryError) as error:
        raise CodecError(f"a malformed {tag}: {type(error).__name__}") from None  # what it says quotes the value
    if type(handle) is Borrower and tag in SHARED_TAGS:
        handle.built.append(value)
    return value


def _members(tree: list[Any], handle: Handle | None, depth: int) -> list[Any]:
    if set(map(type, tree)) <= _SCALARS:
        return list(tree)  # a copy: the caller may compare with the tree what has become of the value
    if depth > MAX_DEPTH:
        raise CodecError(f"a value nested deeper than {MAX_DEPTH} levels")
    depth += 1
    return [decode(item, handle, depth) for item in tree]


def describe_handle(tree: dict[str, Any]) -> str:
    name = tree.get("type")
    return bounds.text(name, 80) if type(name) is str else "unknown"


_SCALARS = frozenset({type(None), bool, str, int, float})


def _items(tree: dict[str, Any], handle: Handle | None, depth: int) -> list[Any]:
    if type(tree["v"]) is not list:
        raise TypeError("not a sequence")
    return _members(tree["v"], handle, depth)


def _two(tree: dict[str, Any], handle: Handle | None, depth: int) -> list[Any]:
    """The pairs of a mapping."""
    if type(tree["v"]) is not list or not all(type(pair) is list and len(pair) == 2 for pair in tree["v"]):
        raise TypeError("not a sequence of pairs")
    depth += 1
    pairs = [(decode(key, handle, depth), decode(value, handle, depth)) for key, value in tree["v"]]
    check_hashes([key for key, _ in pairs])
    return pairs


def check_hashes(keys: list[Any]) -> list[Any]:
    """The keys. Raises ValueError if so many share a hash that building a table of them takes quadratic time.

    Hashes of numbers and tuples can be made to collide. By chance only pairs do: -1 and -2, and tuples of them.
    """
    if len(keys) > bounds.MAX_ALIKE:
        from collections import Counter

        alike = Counter(map(hash, keys)).values()
        if sum(count * count for count in alike) > bounds.MAX_ALIKE * len(keys):
            raise ValueError(f"a table whose keys share their hash with more than {bounds.MAX_ALIKE} others")
    return keys


def _in_order(kind: type, items: list[Any]) -> Any:
    """A set with the sender's iteration order, if one of the usual ways to build it gives that order.

    The order depends on the size of the hash table, and that on how a set has grown: element by element or at once.
    """
    grown = kind(check_hashes(items))
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


def _short(value: Any, most: int) -> str:
    if len(_text(value)) > most:
        raise ValueError("a text that is too long")
    return _text(value)


def _leaves(value: Any) -> int:
    """How many items the nested lists of an array hold."""
    return sum(map(_leaves, value)) if type(value) is list else 1


def _library(module: str, name: str, *args: Any) -> Any:
    return getattr(__import__(module), name)(*args)


def _from_iso(tree: dict[str, Any], handle: Handle | None, depth: int) -> Any:
    datetime = __import__("_datetime")  # tests may have replaced the names of the other

    value = getattr(datetime, tree["t"]).fromisoformat(_text(tree["v"]))
    if "z" not in tree:
        return value
    zone = decode(tree["z"], handle, depth)
    if not isinstance(zone, datetime.tzinfo):
        raise TypeError("not a time zone")
    return value.replace(tzinfo=zone, fold=tree["fold"])


def _zone(tree: dict[str, Any], handle: Handle | None, depth: int) -> Any:
    import datetime

    offset, names = datetime.timedelta(*_numbers(tree, depth, int)), tree["n"]
    if offset == datetime.timedelta(0) and not names:
        return datetime.UTC
    return datetime.timezone(offset, *map(_text, names[:1]))


def _default_dict(tree: dict[str, Any], handle: Handle | None, depth: int) -> Any:
    from collections import defaultdict

    pairs = _two(tree, handle, depth)
    return defaultdict(None if handle is None else decode(tree.get("f"), handle, depth), pairs)


def _numpy(tree: dict[str, Any], handle: Handle | None, depth: int) -> Any:
    """An array or scalar again where numpy is at hand, its plain list or number where it is not."""
    value = decode(tree["v"], None, depth)
    try:
        import numpy
    except ImportError:
        return value
    dtype = numpy.dtype(_short(tree["d"], bounds.MAX_DTYPE))
    if dtype.kind not in "biufcUSmM" or dtype.itemsize > 1 << 16:
        raise ValueError("a kind of array that is never sent")
    if dtype.kind in "US" and dtype.itemsize * _leaves(value) > bounds.MAX_ARRAY_BYTES:
        raise ValueError("an array that takes more than it was sent in")
    is_time = dtype.kind in "mM"
    array = numpy.array(value, dtype="i8").view(dtype) if is_time else numpy.array(value, dtype=dtype)
    shape = tree.get("s")
    if shape is not None:
        if type(shape) is not list or not all(type(size) is int and 0 <= size < 1 << 40 for size in shape):
            raise ValueError("a malformed shape")
        array = array.reshape(shape)
    return array if tree["t"] == "ndarray" else array[()]


def _named_tuple(tree: dict[str, Any], handle: Handle | None, depth: int) -> Any:
    from collections import namedtuple

    kind = decode(tree["c"], handle, depth) if handle is not None and "c" in tree else None
    if isinstance(kind, type) and issubclass(kind, tuple) and [*getattr(kind, "_fields", ())] == tree["f"]:
        return tuple.__new__(kind, _items(tree, handle, depth))
    if len(tree["f"]) > bounds.MAX_FIELDS:
        raise ValueError("too many fields")
    fields = [_short(field, bounds.MAX_NAME) for field in tree["f"]]
    return namedtuple(_short(tree["n"], bounds.MAX_NAME), fields)(*_items(tree, handle, depth))


def _named(module: str, names: tuple[str, ...]) -> Callable[[dict[str, Any], Handle | None, int], Any]:
    def decoder(tree: dict[str, Any], handle: Handle | None, depth: int) -> Any:
        if tree["k"] not in names:
            raise ValueError("a kind that is never sent")
        return _library(module, tree["k"], _text(tree["v"]))

    return decoder


def _pattern(tree: dict[str, Any], handle: Handle | None, depth: int) -> Any:
    import re

    text, flags = decode(tree["v"], None, depth), tree["f"]
    if type(text) not in (str, bytes) or type(flags) is not int:
        raise TypeError("not a pattern")
    try:
        return re.compile(text, flags)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(str(error)) from None


def _match(tree: dict[str, Any], handle: Handle | None, depth: int) -> Any:
    """The same match, found by matching again. A match that is not found again is malformed."""
    pattern, string = decode(tree["p"], handle, depth), decode(tree["s"], handle, depth)
    pos, endpos, start, end = _numbers(tree, depth, int)
    if type(pattern).__name__ != "Pattern" or type(string) not in (str, bytes):
        raise TypeError("not a match")
    for candidate in (
        pattern.match(string, pos, endpos),
        pattern.fullmatch(string, pos, endpos),
        pattern.search(string, pos, endpos),
        pattern.match(string, start, endpos),
        pattern.fullmatch(string, start, end),
    ):
        if candidate is not None and candidate.span() == (start, end):
            return candidate
    raise ValueError("a match that cannot be found again")


def _memory(tree: dict[str, Any], handle: Handle | None, depth: int) -> Any:
    data = bytes.fromhex(_text(tree["v"]))
    view: Any = memoryview(data if tree["r"] is True else bytearray(data))
    return view.cast(_text(tree["f"]))


def _io(tree: dict[str, Any], handle: Handle | None, depth: int) -> Any:
    value = _library("io", tree["t"], decode(tree["v"], None, depth))
    value.seek(tree["n"])
    return value


def _namespace(tree: dict[str, Any], handle: Handle | None, depth: int) -> Any:
    module = "types" if tree["t"] == "SimpleNamespace" else "argparse"
    value = _library(module, tree["t"])
    vars(value).update((_text(name), part) for name, part in _two(tree, handle, depth))
    return value


def _user_list(tree: dict[str, Any], handle: Handle | None, depth: int) -> Any:
    return _library("collections", "UserList", _items(tree, handle, depth))


DECODERS: dict[str, Callable[[dict[str, Any], Handle | None, int], Any]] = {
    "int": lambda t, h, d: _big_int(t["v"]),
    "float": lambda t, h, d: {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}[_text(t["v"])],
    "tuple": lambda t, h, d: tuple(_items(t, h, d)),
    "dict": lambda t, h, d: dict(_two(t, h, d)),
    "set": lambda t, h, d: _in_order(set, _items(t, h, d)),
    "frozenset": lambda t, h, d: _in_order(frozenset, _items(t, h, d)),
    "bytes": lambda t, h, d: bytes.fromhex(_text(t["v"])),
    "bytearray": lambda t, h, d: bytearray.fromhex(_text(t["v"])),
    "complex": lambda t, h, d: complex(*_numbers(t, d, int, float)),
    "range": lambda t, h, d: range(*_numbers(t, d, int)),
    "slice": lambda t, h, d: slice(*_items(t, h, d)),
    "ellipsis": lambda t, h, d: ...,
    "type": lambda t, h, d: TYPES[_text(t["v"])],
    "decimal": lambda t, h, d: _library("decimal", "Decimal", _text(t["v"])),
    "fraction": lambda t, h, d: _library("fractions", "Fraction", *_numbers(t, d, int)),
    "datetime": _from_iso,
    "date": _from_iso,
    "time": _from_iso,
    "timedelta": lambda t, h, d: _library("datetime", "timedelta", *_numbers(t, d, int)),
    "timezone": _zone,
    "zone": lambda t, h, d: _library("zoneinfo", "ZoneInfo", _text(t["v"])),
    "struct_time": lambda t, h, d: _library("time", "struct_time", _items(t, h, d)),
    "deque": lambda t, h, d: _library("collections", "deque", _items(t, h, d), t["max"]),
    "Counter": lambda t, h, d: _library("collections", "Counter", dict(_two(t, h, d))),
    "OrderedDict": lambda t, h, d: _library("collections", "OrderedDict", _two(t, h, d)),
    "defaultdict": _default_dict,
    "UserDict": lambda t, h, d: _library("collections", "UserDict", dict(_two(t, h, d))),
    "UserList": _user_list,
    "UserString": lambda t, h, d: _library("collections", "UserString", _text(t["v"])),
    "ChainMap": lambda t, h, d: _library("collections", "ChainMap", *_items(t, h, d)),
    "mappingproxy": lambda t, h, d: _library("types", "MappingProxyType", dict(_two(t, h, d))),
    "dict_keys": lambda t, h, d: dict.fromkeys(check_hashes(_items(t, h, d))).keys(),
    "dict_values": lambda t, h, d: dict(enumerate(_items(t, h, d))).values(),
    "dict_items": lambda t, h, d: dict(_two(t, h, d)).items(),
    "memoryview": _memory,
    "SimpleNamespace": _namespace,
    "Namespace": _namespace,
    "array": lambda t, h, d: _library("array", "array", _text(t["k"]), _items(t, None, d)),
    "uuid": lambda t, h, d: __import__("uuid").UUID(int=_big_int(t["v"])),
    "pattern": _pattern,
    "match": _match,
    "StringIO": _io,
    "BytesIO": _io,
    "path": _named("pathlib", ("PosixPath", "PurePosixPath", "PureWindowsPath")),
    "ip": _named("ipaddress", tuple(f"IPv{v}{name}" for v in "46" for name in ("Address", "Network", "Interface"))),
    "ndarray": _numpy,
    "numpy": _numpy,
    "namedtuple": _named_tuple,
    **dict.fromkeys(pandas_codec.TAGS, lambda t, h, d: pandas_codec.decode(t, h, d, _Decoder)),
}


class _Decoder:
    """What `pandas_codec` needs of this file, which imports it."""

    decode = staticmethod(decode)


TAGS = frozenset(DECODERS)  # of every value that is not a handle
