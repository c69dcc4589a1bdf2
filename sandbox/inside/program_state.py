"""The program's half of the shared state. It does nothing before the tests' end has sent something.

- Whatever the tests replace (a stream, an attribute of a module, the filters of warnings) is replaced here by a proxy,
  and restored when the tests restore it.
- What the program prints, warns and logs meanwhile is recorded for the tests.
"""

from __future__ import annotations

import io
import re
import sys

from sandbox.inside.argument_forms import in_form
from sandbox.inside.framing import attempt
from sandbox.inside.patched_names import resolve
from sandbox.inside.shared_state import MAX_PRINTED, MAX_TEXT, MISSING, STREAMS, SharedState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class ProgramState(SharedState):
    """The program's half: what the tests have changed in this process, and what they record."""

    def __init__(self, root: str, namespace: dict[str, Any]) -> None:
        super().__init__(root)
        self.namespace = namespace
        self.active = False
        self.printed: list[list[Any]] = []
        self.size = 0
        self.is_cut = False
        self.recorders: dict[str, Any] = {}
        self.previous: dict[str, Any] = {}  # what stood where the tests have put something else
        self.patched: dict[Any, tuple[Any, str, Any]] = {}
        self.globals: dict[str, Any] = {}
        self.originals: dict[tuple[int, str], tuple[Any, str, Any]] = {}
        self.input: Any = None
        self.num_read = 0
        self.warned: list[Any] = []
        self.logged: list[Any] = []
        self.listener: Any = None
        self.levels: dict[str, Any] = {}
        self.disabled_level = 0

    def changes(self, endpoint: Any) -> dict[str, Any] | None:
        if not self.active:
            return None
        has_output = self.printed or self.is_cut or self.warned or self.logged
        if not has_output and self.input is None and self.is_unchanged():
            return None
        changes, error = attempt(self.common_changes)
        if error is not None:  # of its own making
            self.folder.leave_out(str(error))
            changes = {}
        if self.printed:
            changes["said"], self.printed, self.size = self.printed, [], 0
        if self.is_cut:
            self.folder.leave_out(f"more than {MAX_TEXT} characters of printed text; the tests saw the first of it")
            self.is_cut = False
        if type(self.input) is io.StringIO and (at := position(self.input)) != self.num_read:
            changes["read"], self.num_read = max(at - self.num_read, 0), at
        if self.warned:
            changes["warned"] = [
                [endpoint.encode(kind), text, file, line] for kind, text, file, line in self.warned[:MAX_PRINTED]
            ]
            self.warned.clear()
        if self.logged:
            changes["logged"] = self.logged[:MAX_PRINTED]
            self.logged.clear()
        if self.folder.left_out:
            changes["left_out"] = list(self.folder.left_out)
            self.folder.left_out.clear()
        return changes or None

    def apply(self, endpoint: Any, tree: Any) -> None:
        if type(tree) is not dict:
            return
        if not self.active:
            self.active = True
            variables, place = tree.get("hello", (False, False))
            self.variables = {} if variables else None  # so that variables set at the start are sent as well
            self.working_folder = self.root if place else None
        if "files" in tree:
            self.folder.repeat(tree["files"])
            finders: list[Any] = list(sys.path_importer_cache.values())
            for finder in finders:
                if hasattr(finder, "invalidate_caches"):
                    finder.invalidate_caches()
        if "env" in tree:
            self.set_variables(tree["env"])
        if "place" in tree:
            self.change_folder(tree["place"])
        if "path" in tree:
            added = self.previous.get("path", [])
            sys.path[:] = [*tree["path"], *(entry for entry in sys.path if entry not in added)]
            self.previous["path"] = tree["path"]
        if "argv" in tree:
            self.previous.setdefault("argv", list(sys.argv))
            sys.argv[:] = self.previous["argv"] if tree["argv"] is None else tree["argv"]
        if "depth" in tree:
            sys.setrecursionlimit(tree["depth"])
        if "decimal" in tree and tree["decimal"] is not None:
            import decimal

            now = decimal.getcontext()
            now.prec, now.rounding, now.Emin, now.Emax, now.capitals, now.clamp = tree["decimal"]
        for name, state in (tree.get("numbers") or {}).items():
            set_random_state(name, endpoint.decode(state))
        for name in STREAMS:
            if name in tree:
                self.capture_stream(name, tree[name])
        if "stdin" in tree:
            self.replace_stdin(endpoint, tree["stdin"])
        if "warnings" in tree:
            self.set_warnings(endpoint, tree["warnings"])
        if "logs" in tree:
            self.set_logging(tree["logs"])
        if "modules" in tree:
            self.replace_modules(endpoint, tree["modules"])
        for module, qualname, name, how, *value in tree.get("slots") or ():
            self.patch_name(endpoint, (module, qualname, name), how, *value)

    def capture_stream(self, name: str, how: str | None) -> None:
        """Record what the program prints on a stream, or let it print as before."""
        recorder = self.recorders.pop(name, None)
        if recorder is not None and getattr(sys, name) is recorder:
            setattr(sys, name, self.previous[name])
        if how is not None:
            self.previous[name] = getattr(sys, name)
            self.recorders[name] = (BytesRecorder if how == "bytes" else Recorder)(self, name)
            setattr(sys, name, self.recorders[name])

    def record(self, name: str, text: str) -> None:
        if self.is_cut or len(self.printed) >= MAX_PRINTED:
            self.is_cut = True
            return
        if self.size + len(text) > MAX_TEXT:
            self.is_cut = True
            text = text[: MAX_TEXT - self.size]
        self.size += len(text)
        self.printed.append([name, text])

    def replace_stdin(self, endpoint: Any, source: Any) -> None:
        """Another stdin, or the one from before."""
        if source is None:
            if sys.stdin is self.input:
                sys.stdin = self.previous["stdin"]
            self.input = None
            return
        if self.input is None:
            self.previous["stdin"] = sys.stdin
        how, value = source
        self.num_read = 0
        if how == "text":
            self.input = io.StringIO(value)
        elif how == "bytes":
            self.input = io.TextIOWrapper(io.BytesIO(value.encode("utf-8", "surrogateescape")), "utf-8")
        else:
            self.input = endpoint.decode(value)
        sys.stdin = self.input

    def set_warnings(self, endpoint: Any, tree: Any) -> None:
        import warnings

        module: Any = warnings
        if "warnings" not in self.previous:
            self.previous["warnings"] = (list(module.filters), module._showwarnmsg_impl, module.showwarning)
        if tree is None:
            module.filters[:], module._showwarnmsg_impl, module.showwarning = self.previous.pop("warnings")
        else:
            listening, filters = tree
            module.filters[:] = [
                (
                    action,
                    None if message is None else re.compile(message, re.IGNORECASE),
                    endpoint.decode(category),
                    None if place is None else re.compile(place),
                    line,
                )
                for action, message, category, place, line in filters
            ]
            if listening:
                module._showwarnmsg_impl = self.record_warning
                module.showwarning = module._showwarning_orig
            else:
                module._showwarnmsg_impl, module.showwarning = self.previous["warnings"][1:]
        module._filters_mutated()

    def record_warning(self, message: Any) -> None:
        self.warned.append((message.category, str(message.message), str(message.filename), int(message.lineno)))

    def set_logging(self, tree: Any) -> None:
        import logging

        root: Any = logging.root
        if self.listener is None:
            self.listener = listener(logging, self.logged)
            self.disabled_level = root.manager.disable
        for name, (level, propagate, disabled, handled) in self.levels.items():
            logger = logging.getLogger(name or None)
            logger.setLevel(level)
            logger.propagate, logger.disabled = propagate, disabled
            if handled:
                logger.removeHandler(self.listener)
        self.levels = {}
        root.manager.disable = self.disabled_level
        if tree is None:
            return
        listening, root.manager.disable, about = tree
        for name, level, propagate, disabled in [["root", root.level, True, False], *about]:
            key = "" if name == "root" else name
            logger = logging.getLogger(key or None)
            handled = listening and (not key or not propagate)
            if key not in self.levels:
                self.levels[key] = (logger.level, logger.propagate, logger.disabled, handled)
                if handled:
                    logger.addHandler(self.listener)
            logger.setLevel(level)
            logger.propagate, logger.disabled = propagate, disabled

    def replace_modules(self, endpoint: Any, items: Any) -> None:
        for name, value in self.previous.get("modules", {}).items():
            if value is MISSING:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = value
        self.previous["modules"] = {name: sys.modules.get(name, MISSING) for name, _ in items}
        for name, tree in items:
            sys.modules[name] = endpoint.decode(tree)

    def patch_name(self, endpoint: Any, key: tuple[str, str, str], how: str, *value: Any) -> None:
        """Put the tests' object in the place that they have replaced, or restore the original."""
        module, qualname, name = key
        target, error = attempt(lambda: resolve(module, qualname))
        if error is not None:
            return  # a module that the program cannot have met either
        if how == "back":
            if key in self.patched:
                restore_attribute(*self.patched.pop(key))
            return
        if key not in self.patched:
            self.patched[key] = (target, name, target.__dict__.get(name, MISSING))
        if how == "gone":
            delattr(target, name)
        else:
            setattr(target, name, in_form(how, endpoint.decode(*value)))

    def save_original(self, target: Any, name: str) -> None:
        """Save what a class of the program has before the tests replace it."""
        self.originals.setdefault((id(target), name), (target, name, target.__dict__.get(name, MISSING)))

    def restore_original(self, target: Any, name: str) -> None:
        if (id(target), name) in self.originals:
            restore_attribute(*self.originals.pop((id(target), name)))

    def set_global(self, endpoint: Any, message: dict[str, Any]) -> bool:
        """Set, or give back, a name of the program's module; whether it had one of that name."""
        name = message["name"]
        had = name in self.namespace
        if "value" in message:
            if had or message["create"]:
                self.globals.setdefault(name, self.namespace.get(name, MISSING))
                self.namespace[name] = endpoint.decode(message["value"])
        elif name in self.globals:
            before = self.globals.pop(name)
            if before is MISSING:
                self.namespace.pop(name, None)
            else:
                self.namespace[name] = before
        else:
            self.namespace.pop(name, None)
        return had


def restore_attribute(target: Any, name: str, value: Any) -> None:
    if value is not MISSING:
        setattr(target, name, value)
    elif name in target.__dict__:
        delattr(target, name)


def set_random_state(name: str, state: Any) -> None:
    if name == "random":
        import random

        random.setstate(state)
        return
    numpy, missing = attempt(lambda: __import__("numpy.random"))
    if missing is None:
        numpy.random.set_state(state)


def position(stream: Any) -> int:
    at, error = attempt(stream.tell)  # it may be closed
    return at if error is None else 0


def listener(logging: Any, records: list[Any]) -> Any:
    """A handler that keeps each log record once."""

    class Listener(logging.Handler):  # type: ignore[misc]
        last: Any = None

        def emit(self, record: Any) -> None:
            if record is self.last:
                return
            self.last = record
            trace = logging.Formatter().formatException(record.exc_info) if record.exc_info else ""
            records.append(
                [
                    record.name,
                    record.levelno,
                    record.getMessage(),
                    str(record.pathname),
                    record.lineno,
                    str(record.funcName),
                    trace,
                ]
            )

    return Listener()


class Recorder(io.TextIOBase):
    """A stream of the program that is recorded for the tests."""

    encoding = "utf-8"
    errors = "strict"

    def __init__(self, state: ProgramState, name: str) -> None:
        self._state, self._name = state, name

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"string argument expected, got {type(text).__name__!r}")
        self._state.record(self._name, str(text))
        return len(text)


class BytesRecorder(Recorder):
    """One that takes bytes as well, as a real one does."""

    def __init__(self, state: ProgramState, name: str) -> None:
        super().__init__(state, name)
        self.buffer = Bytes(self)

    def reconfigure(self, **how: Any) -> None:
        """Accept any settings: text is recorded as text."""


class Bytes(io.RawIOBase):
    def __init__(self, text: Recorder) -> None:
        self._text = text

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        part = bytes(data)
        self._text.write(part.decode("utf-8", "replace"))
        return len(part)


def warm_up() -> None:
    """Run once what every program runs, so that its code is specialised before this process is forked."""
    for _ in range(10):
        state = ProgramState("/", {})
        state.folder.root = "/dev/fd/nowhere"
        for _ in range(3):
            state.apply(None, {})
            state.changes(None)
            attempt(lambda: None)
