"""State of library modules that tests change: warnings, logging, decimal, random."""

from __future__ import annotations

import functools
import sys

from sandbox.inside.framing import attempt
from sandbox.inside.shared_folder import InvalidChange
from sandbox.inside.shared_state import MAX_PRINTED, MAX_TEXT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def decimal_state() -> Any:
    decimal = sys.modules.get("decimal")
    if decimal is None:
        return None
    now = decimal.getcontext()
    return [now.prec, now.rounding, now.Emin, now.Emax, now.capitals, now.clamp]


def random_states_now() -> dict[str, Any]:
    """Where the generators of random numbers stand that both ends have."""
    states: dict[str, Any] = {}
    if "random" in sys.modules:
        states["random"] = sys.modules["random"].getstate()
    if "numpy.random" in sys.modules:
        states["numpy.random"] = sys.modules["numpy.random"].get_state()
    return states


def same_random_state(before: Any, after: Any) -> bool:
    if before is None or len(before) != len(after):
        return False
    return all(bool((a == b).all() if hasattr(a, "all") else a == b) for a, b in zip(before, after, strict=True))


class WarningState:
    """The tests' warnings: their filters, and whether they record warnings."""

    def __init__(self) -> None:
        import warnings

        self.module: Any = warnings
        self.first = self.sent = self.state()

    def state(self) -> Any:
        module = self.module
        return [list(module.filters), module._showwarnmsg_impl, module.showwarning]

    def changed(self) -> bool:
        module, (filters, impl, show) = self.module, self.sent
        if module._showwarnmsg_impl == impl and module.showwarning is show and module.filters == filters:
            return False
        self.sent = self.state()
        return True

    def listening(self) -> bool:
        return bool(self.sent[1] is not self.first[1] or self.sent[2] is not self.first[2])

    def tree(self, endpoint: Any) -> Any:
        """The filters and whether to record; None if both are as at the start."""
        if not self.listening() and self.sent[0] == self.first[0]:
            return None
        filters = [
            [action, pattern_of(message), endpoint.encode(category), pattern_of(module), line]
            for action, message, category, module, line in self.sent[0]
        ]
        return [self.listening(), filters]

    def repeat(self, endpoint: Any, items: Any) -> None:
        if type(items) is not list or len(items) > MAX_PRINTED:
            raise InvalidChange("warnings that are not a list")
        for item in items:
            if type(item) is not list or len(item) != 4 or type(item[1]) is not str or type(item[3]) is not int:
                raise InvalidChange("a malformed warning")
            tree, text, file, line = item
            kind = endpoint.decode(tree)
            if type(kind) is not type or not issubclass(kind, Warning):
                raise InvalidChange("a warning whose class is not a Warning")
            if self.listening():
                message, error = attempt(functools.partial(kind, text))
                if error is not None:
                    raise InvalidChange(f"a warning that cannot be made: {error}")
                show = self.module._showwarnmsg
                show(self.module.WarningMessage(message, kind, f"{file!s:.200}", line))


def pattern_of(pattern: Any) -> Any:
    return pattern if pattern is None or type(pattern) is str else pattern.pattern


class LoggingState:
    """The tests' loggers: levels, and whether anything records them."""

    def __init__(self, logging: Any) -> None:
        self.logging = logging
        self.first = self.sent = self.state()

    def loggers(self) -> list[Any]:
        root = self.logging.root
        return [
            root,
            *(logger for logger in list(root.manager.loggerDict.values()) if isinstance(logger, self.logging.Logger)),
        ]

    def state(self) -> list[Any]:
        """[whether anybody listens, what is disabled, [[name, level, propagate, disabled], ...]]"""
        loggers = self.loggers()
        about = [
            [logger.name, logger.level, bool(logger.propagate), bool(logger.disabled)]
            for logger in loggers
            if logger.level or not logger.propagate or logger.disabled
        ]
        return [any(logger.handlers for logger in loggers), self.logging.root.manager.disable, about]

    def repeat(self, items: Any) -> None:
        if type(items) is not list or len(items) > MAX_PRINTED:
            raise InvalidChange("log records that are not a list")
        for item in items:
            if type(item) is not list or len(item) != 7 or type(item[1]) is not int:
                raise InvalidChange("a malformed log record")
            name, level, text, path, line, function, trace = item
            if not all(type(field) is str and len(field) <= MAX_TEXT for field in (name, text, path, function, trace)):
                raise InvalidChange("a log record whose texts are not strings")
            logger = self.logging.getLogger(None if name == "root" else name)
            if logger.isEnabledFor(level):
                record = logger.makeRecord(name, level, path, line, text, (), None, function)
                record.exc_text = trace or None
                logger.handle(record)
