"""What the program may do with the tests' stand-ins: mocks, and files in memory that they lend it.

- The program can call a mock and use its attributes, except its configuration: only the tests set how it answers, and
  only they read what it recorded.
- A mock that passes calls on (`wraps`, `side_effect`) does so only to the tests' own functions, and to library
  functions without side effects.
"""

from __future__ import annotations

import io
import sys

from sandbox.inside.argument_forms import is_stand_in
from sandbox.inside.framing import Unsplittable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MAKERS = frozenset(
    {  # attributes of mocks that are the tests'
        "side_effect",
        "return_value",
        "configure_mock",
        "attach_mock",
        "mock_add_spec",
        "reset_mock",
        "called",
        "call_count",
        "call_args",
        "call_args_list",
        "mock_calls",
        "method_calls",
        "await_count",
        "await_args",
        "await_args_list",
        "mock",
    }
)
FILE_METHODS = frozenset(
    {
        "read",
        "readline",
        "readlines",
        "write",
        "writelines",
        "seek",
        "tell",
        "flush",
        "truncate",
        "getvalue",
        "readable",
        "writable",
        "seekable",
        "isatty",
        "closed",
        "name",
        "mode",
        "encoding",
        "errors",
        "newlines",
        "close",
        "read1",
        "readinto",
    }
)
PURE = frozenset(
    {
        "math",
        "cmath",
        "random",
        "time",
        "json",
        "re",
        "datetime",
        "string",
        "itertools",
        "functools",
        "statistics",
        "operator",
        "collections",
        "posixpath",
        "genericpath",
        "decimal",
        "fractions",
        "copy",
        "textwrap",
        "builtins",
    }
)
NOT_PURE = frozenset(
    {
        "eval",
        "exec",
        "compile",
        "open",
        "__import__",
        "getattr",
        "setattr",
        "delattr",
        "vars",
        "globals",
        "locals",
        "input",
        "print",
        "breakpoint",
        "help",
        "dir",
    }
)
MAX_STEPS = 10_000


class MockShape:
    """A mock as the program's end sees it: it has a mock's operations, and asks the tests' end for each."""

    def asked(self, *args: Any) -> Any:
        raise TypeError("only the other end's stand-in is used")

    __call__ = __enter__ = __exit__ = __iter__ = __len__ = __getitem__ = __setitem__ = __delitem__ = asked
    __bool__ = __int__ = __float__ = __index__ = __str__ = __repr__ = asked
    __await__ = asked


_seen: dict[str, type] = {}


def class_of(value: Any) -> type | None:
    """The class that the program's end sees for a mock."""
    if mock_of(value) is not value:
        return None
    name = type(value).__name__
    if name not in _seen:
        _seen[name] = type(name, (MockShape,), {})
    return _seen[name]


OPERATIONS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "attr": lambda o, p, m: getattr(o, m["name"]),
    "set_attr": lambda o, p, m: setattr(o, m["name"], *p.take_arguments(m)[0]),
    "item": lambda o, p, m: o[p.decode(m["key"])],
    "set_item": lambda o, p, m: o.__setitem__(*p.take_arguments(m)[0]),
    "del_item": lambda o, p, m: o.__delitem__(p.decode(m["key"])),
    "iter": lambda o, p, m: iter(o),
    "len": lambda o, p, m: len(o),
    "truth": lambda o, p, m: bool(o),
    "int": lambda o, p, m: int(o),
    "index": lambda o, p, m: o.__index__(),
    "float": lambda o, p, m: float(o),
    "repr": lambda o, p, m: repr(o),
    "str": lambda o, p, m: str(o),
    "format": lambda o, p, m: format(o, m["spec"]),
    "enter": lambda o, p, m: o.__enter__(),
    "exit": lambda o, p, m: o.__exit__(None, None, None),
}


def mock_of(value: Any) -> Any:
    """The mock that a value is, or that stands behind a function made with `autospec`; None if there is none."""
    mock = sys.modules.get("unittest.mock")
    if mock is None:
        return None
    if issubclass(type(value), mock.NonCallableMock):
        return value
    behind = value.__dict__.get("mock") if type(value).__name__ == "function" else None
    return behind if issubclass(type(behind), mock.NonCallableMock) else None


def perform(endpoint: Any, value: Any, message: dict[str, Any], may_call: Callable[[Any], bool]) -> Any:
    """Do what the program asks with a stand-in. Raises TypeError for an operation that is not lent."""
    op = message["op"]
    if op == "await" and hasattr(value, "send"):
        return run_through(endpoint, value)
    if isinstance(value, io.IOBase):
        return of_file(endpoint, value, message)
    check(endpoint, value, message, may_call)
    if op == "call":
        args, named = endpoint.take_arguments(message)
        return value(*args, **named)
    if op not in OPERATIONS:
        raise TypeError(f"the tests do not lend {op!r} of a mock")
    return OPERATIONS[op](value, endpoint, message)


def check(endpoint: Any, value: Any, message: dict[str, Any], may_call: Callable[[Any], bool]) -> None:
    """Whether the program may do this with a mock. Raises AttributeError, or Unsplittable for one that passes on."""
    mock, op = mock_of(value), message["op"]
    if mock is None:
        return
    if op == "call":
        for inner in (mock._mock_wraps, mock.side_effect):
            if not harmless(inner, may_call):
                raise endpoint.fail(Unsplittable(f"a mock that calls {inner!r:.80} for the program"))
    name = message.get("name", message.get("method"))
    if type(name) is str and (name in MAKERS or name.startswith(("_mock", "_spec", "assert_"))):
        raise AttributeError(f"the tests do not lend {name!r} of a mock")
    if op in ("attr", "set_attr", "del_attr") and str(name).startswith("_"):
        raise AttributeError(f"the tests do not lend {name!r} of a mock")


def of_file(endpoint: Any, value: Any, message: dict[str, Any]) -> Any:
    op = message["op"]
    if op == "attr" and message["name"] in FILE_METHODS:
        return getattr(value, message["name"])
    if op in ("iter", "truth", "enter", "exit"):
        return OPERATIONS[op](value, endpoint, message)
    if op == "next":
        line = value.readline()
        return (line,) if line else None
    if op in ("repr", "str"):
        return f"<{type(value).__name__} of the tests>"
    if op == "attr":
        raise AttributeError(f"{type(value).__name__!r} object has no attribute {message['name']!r} over the wire")
    raise TypeError(f"the tests do not lend {op!r} of a {type(value).__name__}")


def harmless(inner: Any, may_call: Callable[[Any], bool]) -> bool:
    """Whether the program may cause this to be called with arguments of its choice."""
    if inner is None or is_stand_in(inner) or not callable(inner) or mock_of(inner) is not None:
        return True
    if isinstance(inner, type) and issubclass(inner, BaseException):
        return True
    if may_call(inner):
        return True
    if type(inner).__name__ == "function" and inner.__globals__.get("__name__") == "unittest.mock":
        return True
    module, name = getattr(inner, "__module__", None), getattr(inner, "__name__", "")
    if module is None and type(getattr(inner, "__self__", None)).__module__ in PURE:  # random.randint and its like
        module = type(inner.__self__).__module__
    return module in PURE and name not in NOT_PURE


def run_through(endpoint: Any, coroutine: Any) -> Any:
    """The value of a coroutine of the tests that waits for nothing outside of itself."""
    for _ in range(MAX_STEPS):
        try:
            waits_for = coroutine.send(None)
        except StopIteration as end:
            return end.value
        if waits_for is not None:  # `asyncio.sleep(0)` yields None, a future itself
            break
    raise endpoint.fail(Unsplittable("the program awaits a coroutine of the tests that waits itself"))
