"""The pandas values that cross between program and judge: data frames, series, indexes and single times, as parts.

A column crosses as the array of numbers that it is, or else as a list of its values and the name of its type; an index
as a range, as such a column, or as the columns of its levels. What is rebuilt equals the original by pandas' own
`equals`. Columns of other types (sparse, Arrow, intervals, periods) do not cross; nor do `attrs` and flags.

This file also runs inside the jail, so it imports pandas only where there is some.
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

KINDS = frozenset(
    {
        "DataFrame",
        "Series",
        "Index",
        "RangeIndex",
        "MultiIndex",
        "DatetimeIndex",
        "TimedeltaIndex",
        "CategoricalIndex",
        "Timestamp",
        "Timedelta",
        "NaTType",
        "NAType",
        "Categorical",
    }
)
TYPES = re.compile(  # of columns that cross as lists
    r"object|str|string|boolean|U?Int(8|16|32|64)|Float(32|64)|datetime64\[(s|ms|us|ns), [A-Za-z0-9_/+:-]{1,64}\]"
)
MAX_LEVELS = 32
TAGS = ("dataframe", "series", "pdindex", "categorical", "timestamp", "pdtimedelta", "pdmissing")


def encode(value: Any, opaque: Any, depth: int, codec: Any) -> dict[str, Any] | None:
    """The tree of an object of pandas; None for one that does not cross."""
    name = type(value).__name__
    if name not in KINDS:
        return None
    if name == "DataFrame":
        columns = [_column(value.iloc[:, at], opaque, depth, codec) for at in range(value.shape[1])]
        parts = [_index(value.columns, opaque, depth, codec), _index(value.index, opaque, depth, codec)]
        if None in columns or None in parts:
            return None
        return {"t": "dataframe", "v": columns, "c": parts[0], "i": parts[1]}
    if name == "Series":
        column, index = _column(value, opaque, depth, codec), _index(value.index, opaque, depth, codec)
        if column is None or index is None:
            return None
        return {"t": "series", "v": column, "i": index, "n": codec.encode(value.name, opaque, depth)}
    if name == "Timestamp":
        zone = None if value.tzinfo is None else str(value.tzinfo)
        return {"t": "timestamp", "v": value.isoformat(), "z": zone, "u": value.unit}
    if name == "Timedelta":
        return {"t": "pdtimedelta", "v": int(value.value)}
    if name in ("NaTType", "NAType"):
        return {"t": "pdmissing", "v": name}
    if name == "Categorical":
        return _categories(value, opaque, depth, codec)
    return _index(value, opaque, depth, codec)


def _column(series: Any, opaque: Any, depth: int, codec: Any) -> dict[str, Any] | None:
    """Values of a series or a flat index, without its name and labels."""
    dtype = str(series.dtype)
    if dtype == "category":
        return _categories(getattr(series, "array", series), opaque, depth, codec)
    if series.dtype.__class__.__module__.startswith("numpy") and series.dtype.kind in "biufcmM":
        return {"t": "column", "a": codec.encode(series.to_numpy(), opaque, depth)}
    if TYPES.fullmatch(dtype) is None:
        return None
    return {"t": "column", "v": codec.encode(list(series.array), opaque, depth), "d": dtype}


def _categories(value: Any, opaque: Any, depth: int, codec: Any) -> dict[str, Any] | None:
    categories = _column(value.categories, opaque, depth, codec)
    if categories is None:
        return None
    return {"t": "categorical", "v": [int(code) for code in value.codes], "c": categories, "o": bool(value.ordered)}


def _index(index: Any, opaque: Any, depth: int, codec: Any) -> dict[str, Any] | None:
    names = codec.encode(list(index.names), opaque, depth)
    if type(index).__name__ == "RangeIndex":
        return {"t": "pdindex", "r": [index.start, index.stop, index.step], "n": names}
    if type(index).__name__ == "MultiIndex":
        levels = [_column(index.get_level_values(at), opaque, depth, codec) for at in range(index.nlevels)]
        return None if None in levels else {"t": "pdindex", "l": levels, "n": names}
    column = _column(index, opaque, depth, codec)
    return None if column is None else {"t": "pdindex", "v": column, "n": names}


def decode(tree: dict[str, Any], handle: Any, depth: int, codec: Any) -> Any:
    """The object again. Raises ValueError for a tree that `encode` does not make, or where pandas is missing."""
    try:
        pandas: Any = __import__("pandas")
    except ImportError:
        raise ValueError("pandas is missing where the tests run") from None
    tag = tree["t"]
    if tag == "dataframe":
        columns = [_values(column, handle, depth, codec, pandas) for column in _list(tree["v"])]
        index = _labels(tree["i"], handle, depth, codec, pandas)
        frame = pandas.DataFrame(dict(enumerate(columns)), index=index)
        frame.columns = _labels(tree["c"], handle, depth, codec, pandas)
        return frame
    if tag == "series":
        values = _values(tree["v"], handle, depth, codec, pandas)
        index = _labels(tree["i"], handle, depth, codec, pandas)
        return pandas.Series(values, index=index, name=codec.decode(tree["n"], handle, depth))
    if tag == "timestamp":
        moment = pandas.Timestamp(_text(tree["v"]))
        zone = tree["z"]
        moment = moment if zone is None else moment.tz_convert(_text(zone))
        return moment.as_unit(_text(tree["u"]))
    if tag == "pdtimedelta":
        return pandas.Timedelta(_int(tree["v"]))
    if tag == "pdmissing":
        return pandas.NaT if tree["v"] == "NaTType" else pandas.NA
    if tag == "pdindex":
        return _labels(tree, handle, depth, codec, pandas)
    return _values(tree, handle, depth, codec, pandas)


def _values(tree: Any, handle: Any, depth: int, codec: Any, pandas: Any) -> Any:
    if type(tree) is not dict:
        raise ValueError("not a column")
    if tree.get("t") == "categorical":
        categories = _values(tree["c"], handle, depth, codec, pandas)
        codes = [_int(code) for code in _list(tree["v"])]
        return pandas.Categorical.from_codes(codes, pandas.Index(categories), ordered=tree["o"] is True)
    if tree.get("t") != "column":
        raise ValueError("not a column")
    if "a" in tree:
        array = codec.decode(tree["a"], handle, depth)
        if type(array).__module__ != "numpy" or array.ndim != 1:
            raise ValueError("not a flat array")
        return array
    dtype = _text(tree["d"])
    if TYPES.fullmatch(dtype) is None:
        raise ValueError("a type of column that is never sent")
    values = _list(codec.decode(tree["v"], handle, depth))
    if dtype == "object":  # or pandas would look for a better type
        array = __import__("numpy").empty(len(values), dtype=object)
        for at, value in enumerate(values):
            array[at] = value
        return array
    return pandas.array(values, dtype=dtype)


def _labels(tree: Any, handle: Any, depth: int, codec: Any, pandas: Any) -> Any:
    if type(tree) is not dict or tree.get("t") != "pdindex":
        raise ValueError("not an index")
    names = _list(codec.decode(tree["n"], handle, depth))
    if "r" in tree:
        start, stop, step = (_int(number) for number in _list(tree["r"]))
        return pandas.RangeIndex(start, stop, step, name=names[0])
    if "l" in tree:
        levels = [_values(level, handle, depth, codec, pandas) for level in _list(tree["l"])]
        if not 0 < len(levels) <= MAX_LEVELS:
            raise ValueError("too many levels")
        return pandas.MultiIndex.from_arrays(levels, names=names)
    values = _values(tree["v"], handle, depth, codec, pandas)
    keeps = {"dtype": object} if str(getattr(values, "dtype", "")) == "object" else {}
    return pandas.Index(values, name=names[0], **keeps)


def _list(value: Any) -> list[Any]:
    if type(value) is not list:
        raise ValueError("not a list")
    return value


def _text(value: Any) -> str:
    if type(value) is not str or len(value) > 200:
        raise ValueError("not a short text")
    return value


def _int(value: Any) -> int:
    if type(value) is not int:
        raise ValueError("not a whole number")
    return value
