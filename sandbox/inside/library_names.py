"""Names under which both ends find the same object of the library, each its own copy."""

from __future__ import annotations

import sys

from sandbox.inside.framing import attempt
from sandbox.judge import bounds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

KNOWN_MODULES = frozenset(sys.stdlib_module_names) | {
    "numpy",
    "scipy",
    "sympy",
    "networkx",
    "sortedcontainers",
    "pandas",
    "builtins",
}


STANDARD_STREAMS = ("stdin", "stdout", "stderr")


PLAIN_MODULES = frozenset(
    {  # whose classes do nothing with an object but what it is for
        "builtins",
        "collections",
        "_collections_abc",
        "_collections",
        "abc",
        "enum",
        "datetime",
        "decimal",
        "fractions",
        "numbers",
        "pathlib",
        "uuid",
        "ipaddress",
        "array",
        "io",
        "_io",
        "re",
        "typing",
        "types",
        "dataclasses",
        "queue",
        "_queue",
        "random",
        "_random",
        "zoneinfo",
        "time",
        "threading",
        "_thread",
        "itertools",
        "functools",
        "_functools",
        "json",
        "string",
        "numpy",
        "networkx",
        "sympy",
        "scipy",
        "sortedcontainers",
        "pandas",
        "contextlib",
        "heapq",
        "os",
        "asyncio",
        "_asyncio",
        "statistics",
        "weakref",
        "_weakref",
        "graphlib",
        "operator",
        "_operator",
        "logging",
        "argparse",
        "configparser",
        "csv",
        "_csv",
        "sqlite3",
        "hashlib",
        "_hashlib",
        "concurrent",
        "subprocess",
    }
)


def import_module(name: str) -> Any:
    """This end's own module of the name that the other end gave."""
    __import__(name)
    return sys.modules[name]


def follow(module: str, qualname: str) -> Any:
    value = import_module(module)
    for name in qualname.split("."):
        value = getattr(value, name)
    return value


def reference(value: Any) -> list[str] | None:
    """Module and name under which a function or class of the standard library is found again on the other side."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if module is None and isinstance(getattr(value, "__objclass__", None), type):  # str.upper and its like
        module = value.__objclass__.__module__
    if type(module) is not str or type(name) is not str or module.partition(".")[0] not in KNOWN_MODULES:
        return None
    same, error = attempt(lambda: follow(module, name))
    return [module, name] if error is None and same is value else None


def stream_name(value: Any) -> str | None:
    """The name of the standard stream that a value is; the other end uses its own."""
    return next((name for name in STANDARD_STREAMS if value is getattr(sys, name, None) and value is not None), None)


def logger_name(value: Any) -> str | None:
    """The name of a logger, by which the other end finds its own."""
    logging = sys.modules.get("logging")
    if logging is None or type(value) not in (logging.Logger, logging.RootLogger):
        return None
    name = value.name
    known = type(name) is str and len(name) <= bounds.MAX_NAME and logging.root.manager.loggerDict.get(name) is value
    return str(name) if known or value is logging.root else None
