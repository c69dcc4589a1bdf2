"""Names of modules and classes that the tests replace."""

from __future__ import annotations

import functools
import re
import sys

from sandbox.inside.framing import attempt
from sandbox.inside.shared_state import MISSING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ASSIGNED = re.compile(r"(?m)^[ \t]*([A-Za-z_][\w.]*)\.([A-Za-z_]\w*)\s*=(?!=)")


SET = re.compile(r"\bsetattr\(\s*([A-Za-z_][\w.]*)\s*,\s*['\"]([A-Za-z_]\w*)['\"]")


SET_DOTTED = re.compile(r"\bsetattr\(\s*['\"]([A-Za-z_][\w.]*)['\"]")


IMPORT_AS = re.compile(r"(?m)^[ \t]*import\s+([\w.]+)(?:\s+as\s+(\w+))?")


IMPORTS = re.compile(r"(?m)^[ \t]*import\s+([\w., ]+)$")


FROM = re.compile(r"(?m)^[ \t]*from\s+([\w.]+)\s+import\s+([\w, ]+)")


APART = {  # what has a way of its own
    ("sys", "stdin"),
    ("sys", "stdout"),
    ("sys", "stderr"),
    ("sys", "argv"),
    ("sys", "path"),
    ("sys", "modules"),
    ("os", "environ"),
}


class PatchedName:
    """An attribute of a module or class that both ends have, and the value that the tests have put there."""

    def __init__(self, target: Any, name: str) -> None:
        self.target, self.name = target, name
        self.first = self.sent = self.now()

    def now(self) -> Any:
        return self.target.__dict__.get(self.name, MISSING)

    def tree(self, endpoint: Any) -> list[Any]:
        if self.sent is self.first:
            return ["back"]
        if self.sent is MISSING:
            return ["gone"]
        value = self.sent
        if type(value) in (staticmethod, classmethod):
            value = value.__func__
            return ["static", endpoint.encode(value)]
        if type(value) is property:
            return ["getter", endpoint.encode(value.fget)]
        return [form_of(self.target, value), endpoint.encode(value)]


def form_of(target: Any, value: Any) -> str:
    """The form in which the other end must put a stand-in of `value` in place, so that it works as it does here."""
    kind = type(value)
    if kind.__name__ == "PropertyMock":
        return "property"
    return "method" if isinstance(target, type) and kind.__name__ == "function" else "value"


def place_of(target: Any) -> tuple[str, str] | None:
    """Module and name by which the other end finds the same module or class; None where it has none of its own."""
    if type(target) is type(sys):
        key = (target.__name__, "")
    elif isinstance(target, type):
        key = (target.__module__, target.__qualname__)
    else:
        return None
    if key[0] in ("__main__", "test_suite"):
        return None
    resolved, error = attempt(lambda: resolve(*key))
    return key if error is None and resolved is target else None


def resolve(module: str, qualname: str) -> Any:
    __import__(module)
    value: Any = sys.modules[module]
    for name in filter(None, qualname.split(".")):
        value = getattr(value, name)
    return value


def assigned(text: str) -> list[tuple[Any, str]]:
    """Attributes of modules that the tests' text assigns to, or passes to `setattr`."""
    places: list[tuple[str, str]] = ASSIGNED.findall(text) if "." in text else []
    if "setattr" in text:
        places += SET.findall(text)
        places += [dotted.rpartition(".")[::2] for dotted in SET_DOTTED.findall(text)]
    if not places:
        return []
    names = {"builtins": ("builtins", "")}
    for module, name in IMPORT_AS.findall(text):
        names[name or module] = (module, "")
        names.setdefault(module.partition(".")[0], (module.partition(".")[0], ""))
    for more in IMPORTS.findall(text):
        for module in more.replace(" ", "").split(","):
            names.setdefault(module, (module, ""))
    for module, imported in FROM.findall(text):
        for clause in imported.split(","):
            words = clause.split()
            if words:
                names[words[-1]] = (module, words[0])
    assignments = []
    for base, attribute in places:
        first, _, rest = base.partition(".")
        key = names.get(base) or names.get(first) or (base, "")
        tail = "" if base in names else rest
        target, error = attempt(functools.partial(follow_names, key, tail))
        if error is None and place_of(target) is not None:
            assignments.append((target, attribute))
    return assignments


def follow_dotted(dotted: str) -> Any:
    """What `a.b.C` means, of which as much as possible is a module."""
    module, rest = dotted, ""
    while True:
        value, missing = attempt(functools.partial(resolve, module, rest))
        if missing is None or "." not in module:
            return value
        module, _, last = module.rpartition(".")
        rest = f"{last}.{rest}" if rest else last


def follow_names(key: tuple[str, str], tail: str) -> Any:
    value = resolve(key[0], "")
    for name in filter(None, f"{key[1]}.{tail}".split(".")):
        value = getattr(value, name)
    return value
