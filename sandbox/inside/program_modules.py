"""The places where tests find the program's names: their own globals, `__main__`, and the modules that they import."""

from __future__ import annotations

import builtins
import sys

from sandbox.inside.test_runners import MODULE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sandbox.inside.name_resolution import ProgramNames

PROGRAM_MODULES = (  # what tests call the program's module when they import from it
    "solution",
    "solutions",
    "main",
    "program",
    "submission",
    "candidate",
    "your_module",
    "my_module",
    "answer",
)


class TestNamespace(dict):  # type: ignore[type-arg]  # no dict[...] here: this class is made inside the jail
    """The tests' globals: their own names first, then the builtins, then whatever the program calls by that name."""

    def __init__(self, endpoint: Any, names: ProgramNames) -> None:
        super().__init__(__name__=MODULE, __builtins__=builtins)
        self.endpoint = endpoint
        self.names = names

    def __missing__(self, name: str) -> Any:
        if hasattr(builtins, name) or (name.startswith("__") and name.endswith("__")):
            raise KeyError(name)
        return self.names.find(self.endpoint, name)


class MainModule(type(sys)):  # type: ignore[misc]
    """The `__main__` of the tests: their own names and the program's. They may change only their own."""

    def __init__(self, namespace: TestNamespace) -> None:
        super().__init__("__main__")
        self.__dict__["_namespace"] = namespace
        self.__dict__["_before"] = {}  # names of the tests that they have replaced

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_namespace"][name]
        except KeyError:
            raise AttributeError(f"module '__main__' has no attribute {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        namespace = self.__dict__["_namespace"]
        is_own = name in namespace
        if is_own:
            self.__dict__["_before"].setdefault(name, namespace[name])
            namespace[name] = value
        set_in_program(namespace.endpoint, name, value, create=not is_own)

    def __delattr__(self, name: str) -> None:
        namespace = self.__dict__["_namespace"]
        namespace.pop(name, None)
        give_back_in_program(namespace.endpoint, name)
        if name in self.__dict__["_before"]:
            namespace[name] = self.__dict__["_before"].pop(name)


class ProgramModule(type(sys)):  # type: ignore[misc]
    """The module that the tests import as `solution` and similar names: each program name is requested on use."""

    def __init__(self, name: str, endpoint: Any, names: ProgramNames) -> None:
        super().__init__(name)
        self.__dict__["_peer"] = endpoint
        self.__dict__["_names"] = names

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        try:
            return self.__dict__["_names"].imported(self.__dict__["_peer"], name)
        except NameError:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        set_in_program(self.__dict__["_peer"], name, value)

    def __delattr__(self, name: str) -> None:
        give_back_in_program(self.__dict__["_peer"], name)


def install_program(endpoint: Any, names: ProgramNames, hidden: Any = ()) -> None:
    """Let the tests import the program by its usual names, except names of the suite's own files."""
    for name in PROGRAM_MODULES:
        if f"{name}.py" not in hidden:
            sys.modules[name] = ProgramModule(name, endpoint, names)


def set_in_program(endpoint: Any, name: str, value: Any, *, create: bool = True) -> None:
    """Set a name of the program's module; one that it lacks only where `create` says so."""
    endpoint.request("global", name=name, value=endpoint.encode(value), create=create)


def give_back_in_program(endpoint: Any, name: str) -> None:
    """Undo the first `set_in_program` of a name since the last time; without one, delete it."""
    endpoint.request("global", name=name)
