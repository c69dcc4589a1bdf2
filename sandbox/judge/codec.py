"""The codec of the split: exact builtin values as tagged JSON, the only thing that crosses from a program to its judge.

- Here values become trees; `codec_decode` makes values of trees, and `codec_wire` bytes of trees.
- A value is encoded by its exact type (`type(v) is T`). Whatever is not in the table (instances of the program's own
  classes, subclasses, functions, iterators) goes to `opaque`, which answers with a handle or raises.
- A `Lender` and the `Borrower` that reads after it keep identity as well. Both number the containers that can change,
  in the order in which these are finished, and one that has a number crosses as that (`same`). So `[[0]] * 3` arrives
  as one list three times, and an argument that comes back is the argument. The judge itself does not use them.

This file also runs inside the jail, so it imports only the standard library and what is copied there with it.
"""

from __future__ import annotations

from sandbox.judge import pandas_codec
from sandbox.judge.codec_decode import (
    DECODERS,
    TAGS,
    check_hashes,
    decode,
    describe_handle,
)
from sandbox.judge.codec_wire import (
    MAX_DEPTH,
    MAX_INT_BITS,
    MAX_MESSAGE_BYTES,
    MAX_NODES,
    PLAIN_INT,
    SHARED_TAGS,
    TYPE_NAMES,
    Borrower,
    CodecError,
    Lender,
    beginning,
    dumps,
    loads,
)

TYPE_CHECKING = False  # the real one costs the jail an import of ten milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sandbox.judge.codec_wire import Opaque

__all__ = (
    "DECODERS",
    "MAX_DEPTH",
    "MAX_INT_BITS",
    "MAX_MESSAGE_BYTES",
    "MAX_NODES",
    "PLAIN_INT",
    "SHARED_TAGS",
    "TAGS",
    "TYPE_NAMES",
    "Borrower",
    "CodecError",
    "Lender",
    "beginning",
    "check_hashes",
    "decode",
    "describe_handle",
    "dumps",
    "encode",
    "loads",
    "refuse",
)

_ATOMS = frozenset({type(None), bool, str})


def refuse(value: Any) -> dict[str, Any]:
    """The `opaque` of a judge that takes plain values only."""
    raise CodecError(f"a value of type {type(value).__name__} cannot cross between program and judge")


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
        return {"t": "type", "v": TYPE_NAMES[value]} if value in TYPE_NAMES else opaque(value)
    encoder = _LIBRARY.get(f"{kind.__module__}.{kind.__qualname__}")
    if encoder is not None:
        tree = encoder(value, opaque, depth)
        return opaque(value) if tree is None else tree
    if str(kind.__module__).partition(".")[0] == "pandas":  # a class may have made its module's name a property
        tree = pandas_codec.encode(value, opaque, depth, _Encoder)
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
        return tree | {
            "v": encode([repr(number)[_digits(repr(number))] for number in value.reshape(-1)]),
            "s": [*value.shape],
        }
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


class _Encoder:
    """What `pandas_codec` needs of this file, which imports it."""

    encode = staticmethod(encode)
