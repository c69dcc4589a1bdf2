"""The tests' half of the shared state: what their texts mention is watched, and changes are sent to the program.

What the texts do not mention is not watched. Changes from the program are checked before they are applied.
"""

from __future__ import annotations

import builtins
import functools
import io
import sys
from posix import listdir

from sandbox.inside.argument_forms import is_stand_in
from sandbox.inside.file_guard import FileGuard
from sandbox.inside.framing import BeyondValues, Unsplittable, attempt
from sandbox.inside.library_state import LoggingState, WarningState, decimal_state, random_states_now, same_random_state
from sandbox.inside.patched_names import APART, PatchedName, assigned, follow_dotted, place_of, resolve
from sandbox.inside.shared_folder import FolderTooLarge, InvalidChange, SharedFolder, go_below
from sandbox.inside.shared_state import (
    CLOSED,
    MAX_PRINTED,
    MAX_TEXT,
    MISSING,
    STREAMS,
    SharedState,
    current_folder,
    environment,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class TestsState(SharedState):
    """The tests' half of the shared state."""

    def __init__(self, root: str, texts: list[str]) -> None:
        super().__init__(root)
        text = "\n".join(texts)
        self.has_greeted = False
        self.suite_files = frozenset(listdir(root)) if root != "/" else frozenset()  # the suite's own files
        self.files_replaced = False  # whether the program has changed them, or where the tests look for files
        self.guard = FileGuard(root)
        self.streams = {name: getattr(sys, name) for name in ("stdin", *STREAMS)}
        self.stream_forms: dict[str, Any] = dict.fromkeys(STREAMS)  # how the program's streams are to be
        self.input: Any = None  # the replaced stdin that the program has, and where it stood
        self.argv = list(sys.argv)
        self.path = list(sys.path)
        self.sent: dict[str, Any] = {"argv": None, "path": [], "depth": sys.getrecursionlimit()}
        self.slots: dict[tuple[str, str, str], PatchedName] = {}
        self.problems: list[str] = []  # why the tests may have met another world than the program made
        self.watches: list[Callable[[Any, dict[str, Any]], None]] = []
        if mentions_name(text, "environ", "getenv", "putenv", "setenv", "delenv", "tzset"):
            self.variables = dict(environment())
        if mentions_name(text, "cwd", "chdir", "path", "Path", "open", "tmp"):
            self.working_folder = current_folder()
        self.warnings: WarningState | None = None
        if mentions_name(text, "warn"):
            self.warnings = WarningState()
            self.watches.append(self.add_warnings)
        self.logs: Any = None
        self.random_states: dict[str, Any] = {}
        if mentions_name(text, "seed", "setstate", "set_state"):
            self.watches.append(self.add_random_states)
            self.hook_random("random", ("seed", "setstate"))
            if "numpy" in text:
                self.hook_random("numpy.random", ("seed", "set_state"))
            self.changed_random_states()
        if mentions_name(text, "decimal", "getcontext"):
            self.watches.append(self.add_decimal)
            self.sent["decimal"] = decimal_state()
        if mentions_name(text, "assertLogs", "assertNoLogs", "caplog", "logging"):
            import logging

            self.logs = LoggingState(logging)
            self.watches.append(self.add_logs)
        if "sys.modules" in text:
            self.modules = dict(sys.modules)
            self.watches.append(self.add_modules)
        for name in ("input", "print", "open"):
            if name in text:
                self.watch_name(builtins, name)
        if mentions_name(text, "mock", "patch"):
            self.hook_mock()
        if mentions_name(text, "monkeypatch", "MonkeyPatch"):
            self.hook_monkeypatch()
        for target, name in assigned(text):
            self.watch_name(target, name)

    # patches

    def watch_name(self, target: Any, name: str) -> None:
        """Watch from now on whether the tests replace `name` of a module or class that both ends have."""
        key = place_of(target)
        if key is not None and (key[0], name) not in APART and (*key, name) not in self.slots:
            self.slots[(*key, name)] = PatchedName(target, name)

    def hook_random(self, name: str, setters: tuple[str, ...]) -> None:
        """Record when a generator is seeded: with the same number as before, its state is the same."""
        module, missing = attempt(lambda: resolve(name, ""))
        if missing is None:
            for setter in setters:
                setattr(module, setter, self.noting(name, getattr(module, setter)))

    def noting(self, name: str, work: Any) -> Any:
        def noted(*args: Any, **kwargs: Any) -> Any:
            self.random_states.pop(name, None)
            return work(*args, **kwargs)

        return noted

    def hook_mock(self) -> None:
        """Record what every `patch` is about to replace."""
        import unittest.mock

        mock: Any = unittest.mock
        kind = mock._patch
        enter, is_async = kind.__enter__, mock._is_async_obj

        def noted(patch: Any) -> Any:
            target, error = attempt(patch.getter)
            if error is None:
                self.watch_name(target, patch.attribute)
            return enter(patch)

        def is_async_function(value: Any) -> Any:  # every stand-in can be awaited
            return mock.iscoroutinefunction(value) if is_stand_in(value) else is_async(value)

        kind.__enter__ = noted
        mock._is_async_obj = is_async_function

    def hook_monkeypatch(self) -> None:
        """The same of pytest's own way to patch."""
        module, missing = attempt(functools.partial(resolve, "_pytest.monkeypatch", ""))
        if missing is not None:
            return

        def noting(work: Any) -> Any:
            def noted(patch: Any, target: Any, *rest: Any, **more: Any) -> Any:
                where, attribute = target, rest[0] if rest else more.get("name")
                if type(target) is str:
                    dotted, _, attribute = target.rpartition(".")
                    where, _ = attempt(functools.partial(follow_dotted, dotted))
                if where is not None and type(attribute) is str:
                    self.watch_name(where, attribute)
                return work(patch, target, *rest, **more)

            return noted

        for work in ("setattr", "delattr"):
            setattr(module.MonkeyPatch, work, noting(getattr(module.MonkeyPatch, work)))

    # what goes out

    def is_still(self) -> bool:
        """Whether there is certainly no change: a quick check of what any test might change."""
        if not self.has_greeted or self.slots or self.watches or not self.is_unchanged():
            return False
        streams, forms, sent = self.streams, self.stream_forms, self.sent
        if sys.stdin is not streams["stdin"] or self.input is not None:
            return False
        if sys.stdout is not streams["stdout"] or sys.stderr is not streams["stderr"]:
            return False
        if forms["stdout"] is not None or forms["stderr"] is not None or sent["argv"] is not None or sent["path"]:
            return False
        return sys.argv == self.argv and sys.path == self.path and sys.getrecursionlimit() == sent["depth"]

    def changes(self, endpoint: Any) -> dict[str, Any] | None:
        if self.is_still():
            return None
        try:
            news = self.common_changes()
        except FolderTooLarge as error:
            raise endpoint.fail(self.limit_error(f"the tests' own folder holds {error}")) from None
        if self.folder.left_out:
            raise endpoint.fail(self.limit_error(f"the tests' own file {self.folder.left_out[0]}"))
        self.add_streams(endpoint, news)
        if sys.argv != self.argv or self.sent["argv"] is not None:
            self.add_if_changed(news, "argv", None if sys.argv == self.argv else texts_only(sys.argv))
        if sys.path != self.path or self.sent["path"]:
            self.add_if_changed(news, "path", [entry for entry in texts_only(sys.path) if entry not in self.path])
        self.add_if_changed(news, "depth", sys.getrecursionlimit())
        for key, slot in self.slots.items():
            value = slot.now()
            if value is not slot.sent:
                slot.sent = value
                news.setdefault("slots", []).append([*key, *slot.tree(endpoint)])
        for watch_name in self.watches:
            watch_name(endpoint, news)
        if not self.has_greeted:
            self.has_greeted = True
            news["hello"] = [self.variables is not None, self.working_folder is not None]
        return news or None

    def limit_error(self, what: str) -> BaseException:
        """The error for more than can be carried: the tests', or the program's if it has written among their files."""
        error: BaseException = (BeyondValues if self.guard.endpoint is None else Unsplittable)(what)
        return error

    def add_if_changed(self, news: dict[str, Any], name: str, value: Any) -> None:
        if value != self.sent[name]:
            self.sent[name] = value
            news[name] = value

    def add_streams(self, endpoint: Any, news: dict[str, Any]) -> None:
        for name in STREAMS:
            stream = getattr(sys, name)
            how = None if stream is self.streams[name] else "bytes" if hasattr(stream, "buffer") else "text"
            if how != self.stream_forms[name]:
                self.stream_forms[name] = how
                news[name] = how
        stream = sys.stdin
        if stream is self.streams["stdin"]:
            if self.input is not None:
                self.input = None
                news["stdin"] = None
            return
        if isinstance(stream, io.TextIOBase) and stream.seekable():
            at = stream.tell()
            if self.input is None or self.input[0] is not stream or self.input[1] != at:
                rest = stream.read()
                stream.seek(at)
                self.input = (stream, at)
                news["stdin"] = ["bytes" if hasattr(stream, "buffer") else "text", rest]
        elif self.input is None or self.input[0] is not stream:
            self.input = (stream, None)
            tree = endpoint.encode(stream)
            if type(tree) is dict:
                tree.pop("stream", None)  # not whatever the program has there
            news["stdin"] = ["object", tree]

    def add_warnings(self, endpoint: Any, news: dict[str, Any]) -> None:
        if self.warnings is not None and self.warnings.changed():
            news["warnings"] = self.warnings.tree(endpoint)

    def add_logs(self, endpoint: Any, news: dict[str, Any]) -> None:
        state = self.logs.state()
        if state != self.logs.sent:
            self.logs.sent = state
            news["logs"] = None if state == self.logs.first else state

    def add_decimal(self, endpoint: Any, news: dict[str, Any]) -> None:
        self.add_if_changed(news, "decimal", decimal_state())

    def changed_random_states(self) -> dict[str, Any]:
        changed = {}
        for name, state in random_states_now().items():
            if not same_random_state(self.random_states.get(name), state):
                self.random_states[name] = changed[name] = state
        return changed

    def add_random_states(self, endpoint: Any, news: dict[str, Any]) -> None:
        if states := self.changed_random_states():
            news["numbers"] = {name: endpoint.encode(state) for name, state in states.items()}

    def add_modules(self, endpoint: Any, news: dict[str, Any]) -> None:
        """Modules that the tests have put into `sys.modules` themselves, or hidden with None."""
        made: dict[str, Any] = {
            name: module
            for name, module in sys.modules.items()
            if name not in self.modules and (module is None or getattr(module, "__spec__", None) is None)
        }
        made |= {name: None for name in self.modules if sys.modules.get(name, MISSING) is None}
        before = self.sent.setdefault("modules", {})
        if made.keys() != before.keys() or any(made[name] is not before[name] for name in made):
            self.sent["modules"] = made
            news["modules"] = [[name, endpoint.encode(module)] for name, module in made.items()]

    # what comes in

    def apply(self, endpoint: Any, tree: Any) -> None:
        """Take over the changes of the program's end. Raises Unsplittable for malformed or impossible ones."""
        if tree is None:
            return
        try:
            self.apply_checked(endpoint, tree)
        except InvalidChange as error:
            raise endpoint.fail(Unsplittable(f"the program's end sent {error}")) from None

    def apply_checked(self, endpoint: Any, tree: Any) -> None:
        if type(tree) is not dict:
            raise InvalidChange("a state that is not an object")
        if "files" in tree:
            if self.folder.repeat(tree["files"]):
                self.guard.activate(endpoint)
            self.files_replaced = self.files_replaced or bool(self.folder.touched & self.suite_files)
        if "env" in tree:
            items = tree["env"]
            if type(items) is list:
                items = [item for item in items if type(item) is not list or not self.has_variable(item)]
            if items:
                self.set_variables(items)
                self.guard.activate(endpoint)  # some make a shell run what they hold
        if "place" in tree:
            self.follow_program(tree["place"])
        if "read" in tree:
            self.skip_stdin(tree["read"])
        if "said" in tree:
            self.write_printed(tree["said"])
        if "warned" in tree and self.warnings is not None:
            self.warnings.repeat(endpoint, tree["warned"])
        if "logged" in tree and self.logs is not None:
            self.logs.repeat(tree["logged"])
        left_out = tree.get("left_out", [])
        if type(left_out) is not list or len(left_out) > 10:
            raise InvalidChange("a malformed list of what it left out")
        self.problems += [f"{why!s:.300}" for why in left_out if len(self.problems) < 5]
        if self.folder.left_out:
            self.problems = [*self.problems, *self.folder.left_out][:10]
            self.folder.left_out.clear()

    def has_variable(self, item: list[Any]) -> bool:
        """Whether a variable is as the program has it, or one that the program may not set."""
        name, value = item if len(item) == 2 else (None, None)
        if type(name) is not str:
            return False
        return name.startswith(CLOSED) or sys.modules["os"].environ.get(name) == value

    def follow_program(self, target: Any) -> None:
        """Change to the program's folder, if it lies below the common folder and is reached without a link."""
        if type(target) is not list or len(target) != 2 or type(target[1]) is not str:
            raise InvalidChange("a malformed name of the working folder")
        if target[0] is not True:
            self.problems.append(f"the program went to {target[1]!r:.80}, where the tests do not follow")
            return
        if any(part in (".", "..") for part in target[1].split("/")) or "\0" in target[1]:
            raise InvalidChange(f"a working folder {target[1]!r:.80}")
        self.files_replaced = self.files_replaced or bool(self.suite_files)
        _, error = attempt(lambda: go_below(self.root, target[1]))
        if error is not None:
            self.problems.append(f"the working folder {target[1]!r:.80}: {error}")
        self.working_folder = current_folder()

    def skip_stdin(self, count: Any) -> None:
        """Skip the characters of the tests' own stdin that the program has read."""
        if type(count) is not int or not 0 <= count <= 1 << 40:
            raise InvalidChange("a malformed count of characters read from stdin")
        if self.input is not None and self.input[1] is not None:
            stream, at = self.input
            stream.seek(at)
            stream.read(count)
            self.input = (stream, stream.tell())

    def write_printed(self, items: Any) -> None:
        """Write what the program printed to the streams that the tests have put in place."""
        if type(items) is not list or len(items) > MAX_PRINTED:
            raise InvalidChange("printed text that is not a list")
        size = 0
        for item in items:
            if type(item) is not list or len(item) != 2 or item[0] not in STREAMS or type(item[1]) is not str:
                raise InvalidChange("malformed printed text")
            name, text = item
            size += len(text)
            if size > MAX_TEXT:
                raise InvalidChange(f"more than {MAX_TEXT} characters of printed text")
            stream = getattr(sys, name)
            if self.stream_forms[name] is not None and stream is not self.streams[name] and stream is not None:
                stream.write(text)


def mentions_name(text: str, *words: str) -> bool:
    return any(word in text for word in words)


def texts_only(values: Any) -> list[str]:
    return [value for value in values if type(value) is str]


def warm_up() -> None:
    """Run once what every test runs, so that its code is specialised before this process is forked."""
    for _ in range(10):
        state = TestsState("/", ["y = f(1)"])
        state.folder = SharedFolder("/dev/fd/nowhere")
        for _ in range(3):
            state.changes(None)
            state.apply(None, {})
            attempt(lambda: None)
