"""What the program may do with the objects that the tests lend it (callbacks, instances of classes that they define).

It can call them, and read and write their attributes, except Python's own names with two underscores. Nothing else of
the test process can be reached through them.
"""

from __future__ import annotations

import sys

from sandbox.inside import mocks
from sandbox.inside.operations import OPERATIONS
from sandbox.inside.program_modules import TestNamespace
from sandbox.inside.proxy import RemoteMethod, is_proxy
from sandbox.inside.test_runners import MODULE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FUNCTION: Any = type(lambda: 0)


BUILTIN: Any = type(len)


METHOD: Any = type(FUNCTION.__get__(lambda self: self, 0))


def perform(endpoint: Any, message: dict[str, Any]) -> Any:
    """Do what the program asks with a lent object: nearly everything if the tests define its class, else little."""
    op, value = message["op"], endpoint.local(message)
    kind = type(value)
    of_tests = is_of_tests(value)
    mocks.check(endpoint, value, message, callable_from_outside)
    if op == "call" and mocks.mock_of(value) is not None:
        args, named = endpoint.take_arguments(message)
        return (value if "method" not in message else getattr(value, message["method"]))(*args, **named)
    if mocks.mock_of(value) is not None and op in OPERATIONS:
        return OPERATIONS[op](value, endpoint, message)
    if op == "call":
        if "method" in message:
            if not (of_tests or kind.__module__ in LENDABLE) or not is_lent_name(message["method"]):
                raise TypeError(f"the tests do not lend {message['method']!r} of a {kind.__name__}")
            value = getattr(value, message["method"])
        if not (of_tests or callable_from_outside(value)):
            raise TypeError(f"the tests do not lend 'call' of a {kind.__name__}")
        args, named = endpoint.take_arguments(message)
        return value(*args, **named)
    if op in ("attr", "set_attr", "del_attr"):
        if op == "attr" and message["name"] in PLAIN_NAMES and (of_tests or isinstance(value, (FUNCTION, METHOD))):
            return getattr(value, message["name"])
        if not (of_tests or (op == "attr" and kind.__module__ in LENDABLE)) or not is_lent_name(message["name"]):
            raise AttributeError(f"the tests do not lend {message['name']!r} of a {kind.__name__}")
        return OPERATIONS[op](value, endpoint, message)
    if op in ("repr", "str", "format") and not of_tests and kind.__module__ != "builtins":
        return f"<{kind.__name__} of the tests>"
    if op == "describe" and isinstance(value, type):
        return OPERATIONS[op](value, endpoint, message)
    if op in ("repr", "str", "truth", "iter", "next", "hash", *AWAITED) or (op in GENERATOR and kind is GENERATED):
        return OPERATIONS[op](value, endpoint, message)
    if of_tests and op in OPERATIONS and op not in ("extend", "shadow", "revive", "pickle"):
        return OPERATIONS[op](value, endpoint, message)
    if op in ("enter", "exit", "len", "item", "set_item", "contains") and kind.__module__ in LENDABLE:
        return OPERATIONS[op](value, endpoint, message)
    if op == "binary" and message["name"] in ("eq", "ne") and kind in (BUILTIN, METHOD):
        other = endpoint.decode(message["other"])  # two bound methods are equal by their objects' identity
        return (type(other) is kind and value == other) is (message["name"] == "eq")
    raise TypeError(f"the tests do not lend {op!r} of a {kind.__name__}")


AWAITED = ("begin", "poll", "cancel", "complete", "aiter")


GENERATOR = ("pieces",)


GENERATED: Any = type(_ for _ in ())


PLAIN_NAMES = ("__name__", "__qualname__", "__doc__", "__module__", "__dict__", "__annotations__", "__wrapped__")


LENDABLE = frozenset(
    {  # instances of these modules' classes do nothing but what they are for
        "_io",
        "io",
        "_thread",
        "threading",
        "queue",
        "_queue",
        "random",
        "_random",
        "decimal",
        "datetime",
        "collections",
        "itertools",
        "unittest.mock",
        "tempfile",
        "array",
    }
)


def is_of_tests(value: Any) -> bool:
    """Whether something is a class that the tests define, or an instance of one."""
    return (value if isinstance(value, type) else type(value)).__module__ == MODULE


def is_lent_name(name: Any) -> bool:
    """Whether the program may read and write an attribute: all names except Python's own with two underscores."""
    closed = ("configure_mock", "reset_mock", "attach_mock", "mock_add_spec")
    return type(name) is str and name not in closed and not (name.startswith("__") and name.endswith("__"))


def callable_from_outside(value: Any) -> bool:
    """Whether the program may call it: what the tests define, bound methods of values, and key functions over those.

    Functions of the standard library are never lent, `eval` among them: the program uses its own.
    """
    if isinstance(value, type):
        return bool(value.__module__ == MODULE)
    if type(value) is METHOD:
        if type(value.__self__).__module__ in LENDABLE or is_of_tests(value.__self__):
            return True
        value = value.__func__
    if type(value) is FUNCTION:
        return isinstance(value.__globals__, TestNamespace)
    if type(value) is BUILTIN:
        return value.__self__ is not None and type(value.__self__) is not type(sys)
    if type(value).__module__ == "functools" and type(value).__name__ == "partial":
        return is_proxy(value.func) or type(value.func) is RemoteMethod or callable_from_outside(value.func)
    return type(value).__module__ == "operator"
