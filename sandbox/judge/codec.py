"""The codec of the split: exact builtin values as tagged JSON, the only thing that crosses from a program to its judge.

A value is encoded by its exact type (`type(v) is T`); whatever is not in the table (instances of the program's own
classes, subclasses, functions, iterators) goes to `opaque`, which answers with a handle or raises. Decoding rebuilds
values of the table and nothing else: no import, no constructor of the sender's choosing, sizes and depth bounded.

This file also runs inside the jail, so it imports only the standard library and what is copied there with it.

A `Lender` and the `Borrower` that reads after it keep identity as well: both number the containers that can change, in
the order in which these are finished, and one that has a number crosses as that (`same`). So `[[0]] * 3` arrives as
one list three times, and an argument that comes back is the argument. The judge itself speaks without them.
"""

from __future__ import annotations

import builtins
import json

from sandbox.judge import bounds, pandas_codec

TYPE_CHECKING = False  # the real one costs the jail an import of ten milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Opaque = Callable[[Any], dict[str, Any]]
    Handle = Callable[[dict[str, Any]], Any]

MAX_MESSAGE_BYTES = bounds.MAX_MESSAGE_BYTES
MAX_DEPTH = bounds.MAX_DEPTH
MAX_NODES = bounds.MAX_NODES
PLAIN_INT = 1 << 1024  # larger ints cross as hexadecimal: decimal text is quadratic and limited by the interpreter
MAX_INT_BITS = bounds.MAX_INT_BITS

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
        data = "".join(_write(tree, 0)).encode("ascii")
    except (ValueError, RecursionError) as error:
        raise CodecError(f"not encodable: {bounds.text(str(error))}") from None
    if len(data) > MAX_MESSAGE_BYTES:
        raise CodecError(f"the value takes {len(data)} bytes on the wire; at most {MAX_MESSAGE_BYTES} may cross")
    return data


def beginning(tree: Any, most: int) -> str:
    """The first characters of the message that holds `tree`; what follows is not written at all."""
    parts: list[str] = []
    left = most
    for part in _WRITER.iterencode(tree):
        parts.append(part[:left])
        left -= len(parts[-1])
        if left <= 0:
            break
    return "".join(parts)


def loads(data: bytes, most_containers: int = MAX_NODES) -> Any:
    """The tree of a message. Raises CodecError for one past the bounds, before anything is built of it."""
    if len(data) > MAX_MESSAGE_BYTES:
        raise CodecError(f"a message of {len(data)} bytes; at most {MAX_MESSAGE_BYTES} may cross")
    if len(data) > min(MAX_NODES, most_containers):  # each part takes a byte at least
        nodes, containers = bounds.count(data, MAX_NODES, most_containers)
        if nodes > MAX_NODES:
            raise CodecError(f"a value of more than {MAX_NODES} parts")
        if containers > most_containers:
            raise CodecError(f"a value of more than {most_containers} lists and objects")
    try:
        text = data.decode("ascii")
        if text.startswith("{"):  # as every message of ours; others, and what is malformed, the slower way tells
            tree, end = _scan(text, 0)
            if end == len(text):
                return tree
        return _READER.decode(text)
    except StopIteration:
        raise CodecError("a malformed message: a value is missing") from None
    except (ValueError, RecursionError) as error:
        raise CodecError(f"a malformed message: {bounds.text(str(error), bounds.MAX_NAME)}") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"the constant {name}")


_WRITER = json.JSONEncoder(separators=(",", ":"), check_circular=False)
_make: Any = getattr(json.encoder, "c_make_encoder", None)
_write: Any = _WRITER.iterencode
if _make is not None:  # made once, where `encode` makes one for each message
    _write = _make(None, _WRITER.default, json.encoder.encode_basestring_ascii, None, ":", ",", False, False, True)
_READER = json.JSONDecoder(parse_constant=_no_constant)
_scan: Any = getattr(_READER, "scan_once", None) or _READER.raw_decode


class Lender:
    """The `opaque` of a sender that keeps identity: what it has sent before goes as a number."""

    __slots__ = ("kept", "known", "opaque", "seen")

    def __init__(self, opaque: Opaque, kept: list[Any], known: dict[int, int] | None = None) -> None:
        self.opaque = opaque
        self.kept = kept  # alive as long as their ids are looked up
        self.known = known or {}  # ids of those that the receiver has already, and the keys that they have there
        self.seen = {id(value): number for number, value in enumerate(kept)}

    def __call__(self, value: Any) -> dict[str, Any]:
        return self.opaque(value)


class Borrower:
    """The `handle` of a receiver that keeps identity; `built` holds the containers by number."""

    __slots__ = ("built", "handle")

    def __init__(self, handle: Handle, built: list[Any]) -> None:
        self.handle = handle
        self.built = built

    def __call__(self, tree: dict[str, Any]) -> Any:
        return self.handle(tree)


SHARED_TAGS = frozenset(
    {  # of what can be changed in place
        "dict",
        "set",
        "bytearray",
        "deque",
        "Counter",
        "OrderedDict",
        "defaultdict",
        "ndarray",
        "array",
        "StringIO",
        "BytesIO",
        "SimpleNamespace",
        "Namespace",
        "UserDict",
        "UserList",
    }
)


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
    lender = opaque if type(opaque) is Lender and kind is not tuple else None
    if lender is not None:
        number = lender.seen.get(id(value))
        if number is not None:
            return {"t": "same", "n": number}
        if (key := lender.known.get(id(value))) is not None:
            return {"t": "h", "live": key}
    if kind is list:
        tree: Any = _sequence(value, opaque, depth)
    else:
        encoder: Callable[[Any, Opaque, int], Any] = _ENCODERS.get(kind, _encode_library)
        tree = encoder(value, opaque, depth + 1)
    if lender is not None and (kind is list or tree["t"] in SHARED_TAGS):
        lender.seen[id(value)] = len(lender.kept)
        lender.kept.append(value)
    return tree


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


_ENCODERS: dict[type, Callable[[Any, Opaque, int], Any]] = {
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
    encoder = _LIBRARY.get(f"{kind.__module__}.{kind.__qualname__}")
    if encoder is not None:
        tree = encoder(value, opaque, depth)
        return opaque(value) if tree is None else tree
    if str(kind.__module__).partition(".")[0] == "pandas":  # a class may have made its module's name a property
        tree = pandas_codec.encode(value, opaque, depth, _Codec)
        return opaque(value) if tree is None else tree
    if kind.__module__ == "numpy" and hasattr(value, "dtype") and value.ndim == 0:
        tree = _encode_array(value, opaque, depth)
        return opaque(value) if tree is None else tree | {"t": "numpy"}
    if isinstance(value, tuple) and kind.__bases__ == (tuple,) and type(getattr(kind, "_fields", None)) is tuple:
        fields = _sequence(kind._fields, refuse, depth)
        tree = {"t": "namedtuple", "n": kind.__name__, "f": fields}
        if opaque is not refuse:
            tree["c"] = opaque(kind)
        return tree | {"v": _sequence(tuple(value), opaque, depth)}
    return opaque(value)


def _encode_time(value: Any, opaque: Opaque, depth: int) -> Any:
    zone = getattr(value, "tzinfo", None)
    if zone is None:
        return {"t": type(value).__name__, "v": value.isoformat()}
    if f"{type(zone).__module__}.{type(zone).__qualname__}" not in ("datetime.timezone", "zoneinfo.ZoneInfo"):
        return None
    text = value.replace(tzinfo=None).isoformat()
    return {"t": type(value).__name__, "v": text, "z": encode(zone, opaque, depth), "fold": value.fold}


def _encode_zone(value: Any, opaque: Opaque, depth: int) -> Any:
    offset, *name = value.__getinitargs__()
    return {"t": "timezone", "v": [offset.days, offset.seconds, offset.microseconds], "n": [*map(str, name)]}


def _encode_array(value: Any, opaque: Opaque, depth: int) -> Any:
    """An array or a scalar of numpy, by its numbers; None for what numpy itself would have to pickle."""
    kind, size = value.dtype.kind, value.dtype.itemsize
    if kind not in "biufcUSmM" or value.size > MAX_NODES or (kind == "c" and size > 16):
        return None
    tree: dict[str, Any] = {"t": "ndarray", "d": value.dtype.str}
    if 0 in value.shape:
        tree["s"] = list(value.shape)
    if kind in "mM":
        value = value.reshape(-1).view("i8").reshape(value.shape) if value.ndim else value.astype("i8")
    elif kind == "f" and size > 8:
        return tree | {"v": encode([repr(one)[_digits(repr(one))] for one in value.reshape(-1)]), "s": [*value.shape]}
    return tree | {"v": encode(value.tolist(), refuse, depth)}


def _digits(text: str) -> slice:
    """Where the number is in the picture of a long double: `3.0`, or `np.longdouble('3.0')`."""
    at = text.find("'")
    return slice(at + 1, text.rfind("'")) if at >= 0 else slice(None)


def _encode_match(value: Any, opaque: Opaque, depth: int) -> Any:
    spots = [value.pos, value.endpos, *value.span()]
    return {"t": "match", "p": encode(value.re, opaque, depth), "s": encode(value.string, opaque, depth), "v": spots}


def _encode_view(value: Any, opaque: Opaque, depth: int) -> Any:
    if value.ndim != 1 or not value.contiguous:
        return None
    return {"t": "memoryview", "v": value.tobytes().hex(), "f": value.format, "r": value.readonly}


def _encode_io(value: Any, opaque: Opaque, depth: int) -> Any:
    if value.closed:
        return None
    return {"t": type(value).__name__, "v": encode(value.getvalue(), opaque, depth), "n": value.tell()}


def _encode_default_dict(value: Any, opaque: Opaque, depth: int) -> Any:
    tree = {"t": "defaultdict", "v": _pairs(value.items(), opaque, depth)}
    factory = value.default_factory
    return tree if factory is None or opaque is refuse else tree | {"f": encode(factory, opaque, depth)}


def _as_pairs(name: str) -> Callable[[Any, Opaque, int], Any]:
    return lambda v, o, d: {"t": name, "v": _pairs(v.items(), o, d)}


_LIBRARY: dict[str, Callable[[Any, Opaque, int], Any]] = {
    "decimal.Decimal": lambda v, o, d: {"t": "decimal", "v": str(v)},
    "fractions.Fraction": lambda v, o, d: {"t": "fraction", "v": [encode(v.numerator), encode(v.denominator)]},
    "datetime.datetime": _encode_time,
    "datetime.date": _encode_time,
    "datetime.time": _encode_time,
    "datetime.timedelta": lambda v, o, d: {"t": "timedelta", "v": [v.days, v.seconds, v.microseconds]},
    "datetime.timezone": _encode_zone,
    "zoneinfo.ZoneInfo": lambda v, o, d: None if v.key is None else {"t": "zone", "v": v.key},
    "time.struct_time": lambda v, o, d: {"t": "struct_time", "v": list(v)},
    "collections.deque": lambda v, o, d: {"t": "deque", "v": _sequence(v, o, d), "max": v.maxlen},
    "collections.Counter": _as_pairs("Counter"),
    "collections.OrderedDict": _as_pairs("OrderedDict"),
    "collections.defaultdict": _encode_default_dict,
    "collections.UserDict": lambda v, o, d: {"t": "UserDict", "v": _pairs(v.data.items(), o, d)},
    "collections.UserList": lambda v, o, d: {"t": "UserList", "v": _sequence(v.data, o, d)},
    "collections.UserString": lambda v, o, d: {"t": "UserString", "v": encode(v.data, o, d)},
    "collections.ChainMap": lambda v, o, d: {"t": "ChainMap", "v": _sequence(v.maps, o, d)},
    "builtins.mappingproxy": _as_pairs("mappingproxy"),
    "builtins.dict_keys": lambda v, o, d: {"t": "dict_keys", "v": _sequence(list(v), o, d)},
    "builtins.dict_values": lambda v, o, d: {"t": "dict_values", "v": _sequence(list(v), o, d)},
    "builtins.dict_items": lambda v, o, d: {"t": "dict_items", "v": _pairs(v, o, d)},
    "builtins.memoryview": _encode_view,
    "types.SimpleNamespace": lambda v, o, d: {"t": "SimpleNamespace", "v": _pairs(vars(v).items(), o, d)},
    "argparse.Namespace": lambda v, o, d: {"t": "Namespace", "v": _pairs(vars(v).items(), o, d)},
    "array.array": lambda v, o, d: {"t": "array", "k": v.typecode, "v": encode(v.tolist())},
    "uuid.UUID": lambda v, o, d: {"t": "uuid", "v": hex(v.int)},
    "re.Pattern": lambda v, o, d: {"t": "pattern", "v": encode(v.pattern), "f": v.flags},
    "re.Match": _encode_match,
    "_io.StringIO": _encode_io,
    "_io.BytesIO": _encode_io,
    "numpy.ndarray": _encode_array,
    **{
        f"pathlib.{name}": lambda v, o, d: {"t": "path", "k": type(v).__name__, "v": str(v)}
        for name in ("PosixPath", "PurePosixPath", "PureWindowsPath")
    },
    **{
        f"ipaddress.IPv{version}{name}": lambda v, o, d: {"t": "ip", "k": type(v).__name__, "v": str(v)}
        for version in "46"
        for name in ("Address", "Network", "Interface")
    },
}


def decode(tree: Any, handle: Handle | None = None, depth: int = 0) -> Any:
    """Rebuild a value in a process that may spend its time on it. Handles go to `handle`; None refuses them."""
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
    decoder = _DECODERS.get(tag) if type(tag) is str else None
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
    """The keys. Raises ValueError where so many share a hash that a table of them takes the square of their number.

    Hashes of numbers and tuples can be made to collide. Honest ones collide by twos: -1 and -2, and tuples of them.
    """
    if len(keys) > bounds.MAX_ALIKE:
        from collections import Counter

        alike = Counter(map(hash, keys)).values()
        if sum(count * count for count in alike) > bounds.MAX_ALIKE * len(keys):
            raise ValueError(f"a table whose keys share their hash with more than {bounds.MAX_ALIKE} others")
    return keys


def _in_order(kind: type, items: list[Any]) -> Any:
    """A set that is walked in the order in which the sender walked his, if one of the usual ways to build it does that.

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
            raise ValueError("a shape that is none")
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
    """The same match, found again; one that cannot be is malformed."""
    pattern, string = decode(tree["p"], handle, depth), decode(tree["s"], handle, depth)
    pos, endpos, start, end = _numbers(tree, depth, int)
    if type(pattern).__name__ != "Pattern" or type(string) not in (str, bytes):
        raise TypeError("not a match")
    for found in (
        pattern.match(string, pos, endpos),
        pattern.fullmatch(string, pos, endpos),
        pattern.search(string, pos, endpos),
        pattern.match(string, start, endpos),
        pattern.fullmatch(string, start, end),
    ):
        if found is not None and found.span() == (start, end):
            return found
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


_DECODERS: dict[str, Callable[[dict[str, Any], Handle | None, int], Any]] = {
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
    "type": lambda t, h, d: _TYPES[_text(t["v"])],
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
    **dict.fromkeys(pandas_codec.TAGS, lambda t, h, d: pandas_codec.decode(t, h, d, _Codec)),
}


class _Codec:
    """What `pandas_codec` needs of this file, which imports it."""

    encode, decode = staticmethod(encode), staticmethod(decode)


TAGS = frozenset(_DECODERS)  # of every value that is not a handle
