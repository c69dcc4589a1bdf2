"""State that tests and program share besides values: files, the environment, the working folder.

In one process a test that writes a file, replaces `sys.stdin` or patches `time.sleep` changes the program's state too.
- Each end has a state, and every message carries what has changed in the sender's state since its last message.
- The tests' end sends everything that can be described (`tests_state`).
- The program's end sends only files, variables, the working folder, and what it printed, warned and logged while the
  tests recorded it (`program_state`). It cannot change the tests' random generators, decimal context and modules:
  otherwise the program could choose its own test inputs.
- The program's end sends changes only after the tests' end has; the judge itself gets none.
- The program's end may send anything. It is checked here, and the tests neither import, start nor unpickle files that
  the program has written (`file_guard`).
"""

from __future__ import annotations

import sys
from posix import chdir, getcwd

from sandbox.inside.framing import attempt
from sandbox.inside.shared_folder import InvalidChange, SharedFolder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_TEXT = 1 << 20  # characters printed, in one message
MAX_PRINTED = 20_000  # writes, warnings or records in one message
MAX_VARIABLES = 1_000
MAX_VARIABLE = 128 * 1024
CLOSED = ("LD_", "PYTHON")  # variables that decide what is run; the program may not set them for the tests
STREAMS = ("stdout", "stderr")
MISSING: Any = object()


class SharedState:
    """One end's state, and what of it the other end knows."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.folder = SharedFolder(root)
        self.variables: Any = None  # the environment as the other end knows it; None while it is not watched
        self.working_folder: Any = None  # the working folder, likewise

    def is_unchanged(self) -> bool:
        """Whether `common_changes` would certainly be none."""
        folder = self.folder
        return self.variables is None and self.working_folder is None and not folder.left_out and folder.untouched()

    def common_changes(self) -> dict[str, Any]:
        """Files, environment and working folder, as far as they have changed. Raises FolderTooLarge."""
        news: dict[str, Any] = {}
        changes = self.folder.changes()
        if changes is not None:
            news["files"] = changes
        if self.variables is not None and (now := environment()) != self.variables:
            news["env"] = [
                [decoded(name), decoded(now.get(name))]
                for name in {**self.variables, **now}
                if now.get(name) != self.variables.get(name)
            ]
            self.variables = dict(now)
        if self.working_folder is not None and (place := current_folder()) != self.working_folder:
            self.working_folder = place
            below = place == self.root or place.startswith(self.root + "/")
            news["place"] = [below, place[len(self.root) + 1 :] if below else place]
        return news

    def set_variables(self, items: Any) -> None:
        os = sys.modules["os"]
        if type(items) is not list or len(items) > MAX_VARIABLES:
            raise InvalidChange("an environment that is not a list")
        for item in items:
            if type(item) is not list or len(item) != 2:
                raise InvalidChange("a variable without name and value")
            name, value = item
            if type(name) is not str or not 0 < len(name) <= 1_000 or "=" in name or "\0" in name:
                raise InvalidChange(f"a variable of the name {name!r:.80}")
            if value is None:
                os.environ.pop(name, None)
            elif type(value) is not str or len(value) > MAX_VARIABLE or "\0" in value:
                raise InvalidChange(f"the value of the variable {name!r:.80}")
            else:
                try:
                    os.environ[name] = value
                except (OSError, ValueError) as error:
                    raise InvalidChange(f"the variable {name!r:.80}: {error}") from None
            if name == "TZ":
                sys.modules["time"].tzset()
        if self.variables is not None:
            self.variables = dict(environment())

    def change_folder(self, target: Any) -> None:
        """Change to the folder where the other end now works."""
        if type(target) is not list or len(target) != 2 or type(target[1]) is not str or "\0" in target[1]:
            raise InvalidChange("a malformed name of the working folder")
        _, error = attempt(lambda: chdir(f"{self.root}/{target[1]}" if target[0] is True else target[1]))
        if isinstance(error, OSError):
            self.folder.leave_out(f"the working folder {target[1]!r:.80}: {error.strerror}")
        self.working_folder = current_folder()


def current_folder() -> str:
    """The working folder; empty if it has been removed."""
    place, error = attempt(getcwd)
    return "" if error is not None else str(place)


def environment() -> Any:
    """The stored form of `os.environ`, or of a mapping in its place, which is cheap to compare."""
    variables: Any = sys.modules["os"].environ
    if type(variables).__name__ == "_Environ":
        return variables._data
    stored, error = attempt(lambda: {encoded(name): encoded(value) for name, value in dict(variables).items()})
    return stored if error is None else {}


def encoded(text: Any) -> Any:
    return text.encode("utf-8", "surrogateescape")


def decoded(value: Any) -> Any:
    return value if value is None else value.decode("utf-8", "surrogateescape")
