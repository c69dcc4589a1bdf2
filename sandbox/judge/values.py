"""Values of observed calls: literals become values, and answers become digests that equal values share.

- Equality is Python's on builtin values: 1 == 1.0 == True, a tuple is not a list, the order of sets and dicts does not
  matter. Floats are rounded to `DIGITS` significant digits for a digest, and `same` lets them differ by `REL_TOL`.
- Answers arrive as trees of the codec and stay trees: nothing of a program is hashed, called or built here.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

from sandbox.judge import bounds, codec
from sandbox.judge.compare import Opaque, close

DIGITS = 9
REL_TOL = 1e-6
MAX_TEXT = 100_000  # characters of a literal
DIGEST_BYTES = 12
_FLOATS = frozenset({"inf", "-inf", "+inf", "infinity", "-infinity", "nan"})


class _Floats(ast.NodeTransformer):
    """Makes constants of `float("inf")`, which no literal can spell."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        match node:
            case ast.Call(func=ast.Name(id="float"), args=[ast.Constant(value=str(text))], keywords=[]):
                if text.strip().lower() in _FLOATS:
                    return ast.copy_location(ast.Constant(float(text)), node)
        return self.generic_visit(node)


def literal_of(source: str) -> Any:
    """The value of a literal. Raises ValueError."""
    return _value(_expression(source))


def call_values(arguments: str) -> tuple[list[Any], dict[str, Any]]:
    """The values of a call's arguments, by place and by name. Raises ValueError."""
    call = _expression(f"f({arguments}\n)")
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise ValueError("not the arguments of one call")
    if any(keyword.arg is None for keyword in call.keywords):
        raise ValueError("** is not a literal")
    named = {keyword.arg: _value(keyword.value) for keyword in call.keywords if keyword.arg}
    return [_value(node) for node in call.args], named


def _expression(source: str) -> ast.expr:
    if len(source) > MAX_TEXT:
        raise ValueError(f"a literal of {len(source)} characters; at most {MAX_TEXT} are read")
    try:
        return ast.parse(source.strip(), mode="eval").body
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"not an expression: {type(error).__name__}") from None


def _value(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(_Floats().visit(node))
    except (ValueError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(f"not a literal: {type(error).__name__}") from None


def digest_of(tree: Any) -> str:
    """A short digest of a returned tree. Raises Opaque for a handle in it, codec.CodecError for a malformed one."""
    return _part(tree, 0).hex()


def digest_of_text(output: bytes) -> str:
    """A digest of printed bytes: blanks at line ends and blank lines at the end do not matter."""
    lines = [line.rstrip() for line in output.rstrip().split(b"\n")]
    return _digest(b"p", b"\n".join(lines)).hex()


def _part(tree: Any, depth: int) -> bytes:
    kind = type(tree)
    if kind is str:
        return _digest(b"s", tree.encode("utf-8", "surrogatepass"))
    if tree is None:
        return _digest(b"n")
    if kind is bool or kind is int:
        return _digest(b"i", hex(tree).encode())
    if kind is float:
        return _digest(*_number(tree))
    if depth > codec.MAX_DEPTH:
        raise codec.CodecError(f"a value nested deeper than {codec.MAX_DEPTH} levels")
    if kind is list:
        return _digest(b"[", *(_part(item, depth + 1) for item in tree))
    tag, value = tag_of(tree), tree.get("v")
    if tag in ("int", "float"):
        return _part(codec.decode(tree), depth + 1)
    if tag == "numpy":
        return _part(value, depth + 1)
    form = _FORMS.get(tag)
    if form is not None and type(value) is list:
        return form(value, depth + 1)
    return _digest(b"o", tag.encode(), codec.dumps(value))


def _number(value: float) -> tuple[bytes, bytes]:
    """The kind and the digits of a float; one that is integral is spelled as the int that it equals."""
    if value - value != 0:
        return b"f", repr(value).encode()
    rounded = value if value.is_integer() else float(f"{value:.{DIGITS}g}")
    return (b"i", hex(int(rounded)).encode()) if rounded.is_integer() else (b"f", repr(rounded).encode())


def _pairs(value: list[Any]) -> list[Any]:
    if not all(type(pair) is list and len(pair) == 2 for pair in value):
        raise codec.CodecError("a malformed dict")
    return value


_FORMS: dict[str, Callable[[list[Any], int], bytes]] = {
    **dict.fromkeys(("tuple", "namedtuple"), lambda v, d: _digest(b"(", *(_part(item, d) for item in v))),
    **dict.fromkeys(("set", "frozenset"), lambda v, d: _digest(b"{", *sorted({_part(item, d) for item in v}))),
    **dict.fromkeys(
        ("dict", "OrderedDict", "defaultdict", "Counter"),
        lambda v, d: _digest(b":", *sorted(_part(key, d) + _part(item, d) for key, item in _pairs(v))),
    ),
}
_KIND_OF_TAG = {
    "namedtuple": "tuple",
    "frozenset": "set",
    "OrderedDict": "dict",
    "defaultdict": "dict",
    "Counter": "dict",
}


def same(got: Any, expected: Any, tolerance: float | None = None) -> bool:
    """Whether two trees are of equal values, floats within `REL_TOL`. Raises as `digest_of`.

    `tolerance`: two numbers may differ by as much, and by `REL_TOL` of that more: the value itself was rounded.
    """
    return _part(got, 0) == _part(expected, 0) or _close(got, expected) or _near(got, expected, tolerance)


def _near(got: Any, expected: Any, tolerance: float | None) -> bool:
    first, second = _plain(got), _plain(expected)
    if tolerance is None or not (isinstance(first, int | float) and isinstance(second, int | float)):
        return False
    try:
        return abs(float(first) - float(second)) <= tolerance * (1 + REL_TOL)
    except OverflowError:
        return False


def _close(got: Any, expected: Any) -> bool:
    """The same with a tolerance, for trees that were digested already: their depth and their tags are right."""
    first, second = _plain(got), _plain(expected)
    if isinstance(first, int | float) and isinstance(second, int | float):
        if type(first) is not float and type(second) is not float:
            return first == second
        try:
            return close(float(first), float(second), REL_TOL)
        except OverflowError:
            return False
    if type(first) is list and type(second) is list:
        return len(first) == len(second) and all(map(_close, first, second))
    if type(first) is dict and type(second) is dict and first.get("t") and type(first.get("v")) is list:
        tag = first["t"]
        if tag != second.get("t") or len(first["v"]) != len(second["v"]):
            return False
        if tag == "tuple":
            return all(map(_close, first["v"], second["v"]))
        if tag == "dict":
            items = {_part(key, 0): item for key, item in second["v"]}
            keys = [_part(key, 0) for key, _ in first["v"]]
            return set(keys) == set(items) and all(
                _close(item, items[key]) for key, (_, item) in zip(keys, first["v"], strict=True)
            )
    return _part(got, 0) == _part(expected, 0)


def _plain(tree: Any) -> Any:
    """The tree with numbers decoded and one tag for all kinds that Python's == does not tell apart."""
    if type(tree) is not dict:
        return tree
    tag = tag_of(tree)
    if tag in ("int", "float"):
        return codec.decode(tree)
    if tag == "numpy":
        return _plain(tree.get("v"))
    return {"t": _KIND_OF_TAG.get(tag, tag), "v": tree.get("v")}


def tag_of(tree: Any) -> str:
    """The tag of a tree that is a value. Raises Opaque for a handle."""
    tag = tree.get("t") if type(tree) is dict else None
    if tag == "h":
        raise Opaque(f"an opaque value of type {codec.describe_handle(tree)}")
    if type(tag) is not str or tag not in codec.TAGS:
        raise codec.CodecError(f"an unknown tag {bounds.text(tag, 50)}")
    return tag


def _digest(*parts: bytes) -> bytes:
    """Of parts that are digests themselves, or the last of which alone has no fixed length."""
    return blake2b(b"\0".join(parts), digest_size=DIGEST_BYTES).digest()
