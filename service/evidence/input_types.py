"""Typical arguments of a function whose prompt shows no example: from annotations, defaults, nouns and names."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from typing import Any

from service.evidence.examples import Parameter, Reading

MAX_PROMPT = 20_000  # characters that are searched for nouns
MAX_ANNOTATION = 300

INTS = (5, 12, 1, 10, 3, 7, 20, 2, 0)
FLOATS = (2.5, 10.0, 0.5, 3.0, 7.25)
TEXTS = ("hello world", "Abc", "racecar", "The quick brown Fox", "a1b2", "aab", "")
INT_LISTS: tuple[list[int], ...] = ([3, 1, 2, 5, 4], [1, 2, 2, 3], [10, -3, 7], [4], [0, 5, 5, -1, 8, 2], [])
FLOAT_LISTS = ([1.0, 2.5, 3.0], [4.2, -1.0, 0.5, 2.0], [3.5])
TEXT_LISTS: tuple[list[str], ...] = (["apple", "Bob", "cat"], ["aa", "b", "aa", "cde"], ["hello"], [])
MATRICES = ([[1, 2], [3, 4]], [[1, 2, 3], [4, 5, 6], [7, 8, 9]], [[5]])
DICTS = ({"a": 1, "b": 2}, {"x": 3}, {"one": 1, "two": 2, "three": 3})
BOOLS = (True, False)
NEGATIVES = (-3, -10)

_TYPICAL: dict[str, Sequence[Any]] = {
    "int": INTS,
    "positive": tuple(number for number in INTS if number > 0),
    "integer": (*INTS, *NEGATIVES),
    "float": FLOATS,
    "str": TEXTS,
    "bool": BOOLS,
    "list": INT_LISTS,
    "list[int]": INT_LISTS,
    "list[float]": FLOAT_LISTS,
    "list[str]": TEXT_LISTS,
    "list[list[int]]": MATRICES,
    "dict": DICTS,
    "tuple": tuple(tuple(values) for values in INT_LISTS[:4]),
    "set": tuple(set(values) for values in INT_LISTS[:5]),
}

# In this order; the first that a text has decides.
_NOUNS: tuple[tuple[str, str], ...] = (
    (r"(?:matrix|grid|(?:list|array) of (?:lists|arrays)|2d|two.dimensional)", "list[list[int]]"),
    (r"(?:list|array|sequence|vector|collection)s? of (?:\w+ ){0,2}(?:strings?|words|names)", "list[str]"),
    (r"(?:list|array|sequence|vector|collection)s? of (?:\w+ ){0,2}(?:floats?|reals?|decimals?)", "list[float]"),
    (r"(?:list|array|sequence|vector)s?", "list[int]"),
    (r"(?:dictionary|dict|mapping)", "dict"),
    (r"(?:positive|non.?negative|natural) (?:integers?|numbers?|int)|natural number", "positive"),
    (r"(?:strings?|texts?|words?|sentences?|characters?)", "str"),
    (r"(?:floating.?point|floats?|real number|decimal)", "float"),
    (r"(?:integers?|int)", "integer"),
    (r"(?:booleans?|bool)", "bool"),
    (r"numbers?", "int"),
)
_NAMES: tuple[tuple[str, str], ...] = (
    (r"(?:matrix|grid|board|mat)", "list[list[int]]"),
    (r"(?:strings|words|strs|names|tokens)", "list[str]"),
    (r"(?:prices|floats|weights|scores)", "list[float]"),
    (
        r"(?:l|xs|ys|lst\w*|list\w*|arr\w*|array\w*|nums\w*|numbers|seq\w*|values|items|elements|data|\w+_list|l\d)",
        "list[int]",
    ),
    (r"(?:d|dict\w*|mapping|map|\w+_dict)", "dict"),
    (
        r"(?:s\d?|st|str\d?|string\w*|text\w*|txt|word\w*|sentence|message|msg|name|char|c|ch|prefix|suffix|substring"
        r"|pattern|date|file_name|filename|path|\w+_string|\w+_str)",
        "str",
    ),
    (r"(?:flag|is_\w+|has_\w+)", "bool"),
    (r"(?:x|y|z|a|b|rate|price|ratio|threshold|eps|alpha|radius|r)", "int"),
)


def typical_arguments(reading: Reading, prompt: str, completions: Sequence[str]) -> list[tuple[Any, ...]]:
    """Some calls' values for a signature, the required parameters and those with a default alike.

    Args:
        reading: its parameters.
        prompt: searched for nouns, near a parameter's name first.
        completions: the group's code; what it does with a parameter overrules a noun that says otherwise.

    Returns:
        Up to a dozen tuples of arguments, none without parameters.
    """
    plain = [parameter for parameter in reading.parameters if not parameter.name.startswith("*")]
    if not plain:
        return []
    text = prompt[-MAX_PROMPT:].lower()
    used = "\n".join(completions)[:MAX_PROMPT]
    columns = [_TYPICAL[type_of(parameter, text, used, alone=len(plain) == 1)] for parameter in plain]
    most = max(map(len, columns))
    return [
        tuple(column[(row + shift) % len(column)] for shift, column in enumerate(columns)) for row in range(most + 3)
    ]


def type_of(parameter: Parameter, text: str, used: str, *, alone: bool) -> str:
    """The kind of a parameter, a key of the table of typical values."""
    if parameter.annotation:
        kind = of_annotation(parameter.annotation)
        if kind == "int" and alone:
            return "positive" if re.search(r"\b(?:positive|natural|n-th|nth|non.?negative)\b", text) else "int"
        if kind is not None:
            return kind
    if parameter.default is not None and (kind := of_default(parameter.default)) is not None:
        return kind
    name = parameter.name.lower()
    near = re.findall(rf"(?:^|[^\n]{{0,60}})\b{re.escape(name)}\b[^\n]{{0,60}}", text)[1:] if len(name) > 1 else []
    for place in ([text] if alone else []) + near[:3]:
        for pattern, kind in _NOUNS:
            found = re.search(rf"\b(?:given|takes?|accepts?|an?|the|of|is)\b[^\n]{{0,30}}\b{pattern}\b", place)
            if found and _agrees(kind, name, used):
                return kind
    for pattern, kind in _NAMES:
        if re.fullmatch(pattern, name):
            return kind
    return "int"


def _agrees(kind: str, name: str, used: str) -> bool:
    """Whether the completions do not treat a parameter as something else."""
    word = re.escape(name)
    if re.search(rf"\b{word}\.(?:split|lower|upper|isalpha|strip|replace)\(", used):
        return kind == "str"
    if re.search(rf"\brange\({word}\)|\b{word} [-+%] \d|\b{word} (?:==|<=?|>=?) \d", used):
        return kind in ("int", "positive", "integer", "float")
    if re.search(rf"\bin {word}\b|\blen\({word}\)", used):
        return kind not in ("int", "positive", "integer", "float", "bool")
    return True


_SIMPLE = {"int": "int", "float": "float", "str": "str", "bool": "bool", "dict": "dict", "tuple": "tuple", "set": "set"}
_LISTS = frozenset({"list", "sequence", "iterable", "collection", "array"})


def of_annotation(annotation: str) -> str | None:
    """The kind that an annotation says: the first alternative of a union, the items of a list two levels deep."""
    if len(annotation) > MAX_ANNOTATION:
        return None
    try:
        node = ast.parse(annotation.strip("'\""), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return _of_node(node)


def _of_node(node: ast.expr) -> str | None:
    if isinstance(node, ast.BinOp):
        return _of_node(node.left) or _of_node(node.right)
    if isinstance(node, ast.Attribute):
        return _of_name(node.attr)
    if isinstance(node, ast.Name):
        return _of_name(node.id)
    if not isinstance(node, ast.Subscript):
        return None
    outer = getattr(node.value, "attr", getattr(node.value, "id", "")).lower()
    inner = node.slice.elts[0] if isinstance(node.slice, ast.Tuple) and node.slice.elts else node.slice
    if outer in ("optional", "union"):
        return _of_node(inner)
    if outer in _LISTS:
        item = _of_node(inner)
        kind = f"list[{item}]"
        return kind if kind in _TYPICAL else "list[list[int]]" if item and item.startswith("list") else "list"
    return _of_name(outer)


def _of_name(name: str) -> str | None:
    name = name.lower()
    return "list" if name in _LISTS else _SIMPLE.get(name)


def of_default(default: str) -> str | None:
    """The kind of a default value; None where it is None or no literal."""
    try:
        value = ast.literal_eval(default[:MAX_ANNOTATION])
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return None
    if isinstance(value, list) and value:
        kind = f"list[{type(value[0]).__name__}]"
        return kind if kind in _TYPICAL else "list"
    return type(value).__name__ if type(value).__name__ in _TYPICAL else None
