"""What tests and program share besides values: the folder they work in, the environment, streams, and what is patched.

In one process a test that writes a file, replaces `sys.stdin` or patches `time.sleep` changes the program's world with
its own. Here each end keeps a world, and every message between them carries what has changed in the sender's since the
last one. From the tests to the program goes all that can be told; from the program to the tests only files, variables,
the working folder, and what it printed, warned and logged while the tests were listening. The tests' generators of
random numbers, their decimal context and their modules are out of its reach: it would choose its own examination.

The program's end begins to speak when the tests' end has spoken: another judge on the wire never hears of a world.
What the program's end says may be anything; it is checked here, and what it has written the tests neither import,
start nor unpickle (`Guard`).
"""

from __future__ import annotations

import builtins
import functools
import io
import re
import sys
from posix import chdir, getcwd, listdir

from sandbox.inside.argument_forms import is_stand_in
from sandbox.inside.file_guard import Guard
from sandbox.inside.framing import BeyondValues, Unsplittable, attempt
from sandbox.inside.shared_folder import Folder, Refused, TooMuch, go_below

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MAX_TEXT = 1 << 20  # characters printed, in one message
MAX_SAID = 20_000  # writes, warnings or records in one message
MAX_VARIABLES = 1_000
MAX_VARIABLE = 128 * 1024
CLOSED = ("LD_", "PYTHON")  # variables that decide what is run; the program may not set them for the tests
STREAMS = ("stdout", "stderr")
MISSING: Any = object()
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


class World:
    """One end's world, and what of it the other end knows."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.folder = Folder(root)
        self.variables: Any = None  # the environment as the other end knows it; None while nobody looks at it
        self.place: Any = None  # the working folder, likewise

    def keeps_still(self) -> bool:
        """Whether `common_news` would certainly be none."""
        folder = self.folder
        return self.variables is None and self.place is None and not folder.left_out and folder.untouched()

    def common_news(self) -> dict[str, Any]:
        """Files, environment and working folder, as far as they have changed. Raises TooMuch."""
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
        if self.place is not None and (place := here()) != self.place:
            self.place = place
            below = place == self.root or place.startswith(self.root + "/")
            news["place"] = [below, place[len(self.root) + 1 :] if below else place]
        return news

    def set_variables(self, items: Any) -> None:
        os = sys.modules["os"]
        if type(items) is not list or len(items) > MAX_VARIABLES:
            raise Refused("an environment that is no list")
        for item in items:
            if type(item) is not list or len(item) != 2:
                raise Refused("a variable without name and value")
            name, value = item
            if type(name) is not str or not 0 < len(name) <= 1_000 or "=" in name or "\0" in name:
                raise Refused(f"a variable of the name {name!r:.80}")
            if value is None:
                os.environ.pop(name, None)
            elif type(value) is not str or len(value) > MAX_VARIABLE or "\0" in value:
                raise Refused(f"the value of the variable {name!r:.80}")
            else:
                try:
                    os.environ[name] = value
                except (OSError, ValueError) as error:
                    raise Refused(f"the variable {name!r:.80}: {error}") from None
            if name == "TZ":
                sys.modules["time"].tzset()
        if self.variables is not None:
            self.variables = dict(environment())

    def go(self, target: Any) -> None:
        """To the folder where the other end now works."""
        if type(target) is not list or len(target) != 2 or type(target[1]) is not str or "\0" in target[1]:
            raise Refused("a working folder that is no name")
        _, error = attempt(lambda: chdir(f"{self.root}/{target[1]}" if target[0] is True else target[1]))
        if isinstance(error, OSError):
            self.folder.leave_out(f"the working folder {target[1]!r:.80}: {error.strerror}")
        self.place = here()


def here() -> str:
    """The working folder; nothing where it has been removed."""
    place, error = attempt(getcwd)
    return "" if error is not None else str(place)


def environment() -> Any:
    """`os.environ` as it is stored, which is cheap to compare; of another mapping in its place, the same."""
    variables: Any = sys.modules["os"].environ
    if type(variables).__name__ == "_Environ":
        return variables._data
    found, error = attempt(lambda: {encoded(name): encoded(value) for name, value in dict(variables).items()})
    return found if error is None else {}


def encoded(text: Any) -> Any:
    return text.encode("utf-8", "surrogateescape")


def decoded(value: Any) -> Any:
    return value if value is None else value.decode("utf-8", "surrogateescape")


class Tests(World):
    """The tests' world. What their texts never mention is not looked at."""

    def __init__(self, root: str, texts: list[str]) -> None:
        super().__init__(root)
        text = "\n".join(texts)
        self.greeted = False
        self.brought = frozenset(listdir(root)) if root != "/" else frozenset()  # the suite's own files
        self.swayed = False  # whether the program has changed them, or where the tests look for files
        self.guard = Guard(root)
        self.streams = {name: getattr(sys, name) for name in ("stdin", *STREAMS)}
        self.told: dict[str, Any] = dict.fromkeys(STREAMS)  # how the program's streams are to be
        self.input: Any = None  # the replaced stdin that the program has, and where it stood
        self.argv = list(sys.argv)
        self.path = list(sys.path)
        self.sent: dict[str, Any] = {"argv": None, "path": [], "depth": sys.getrecursionlimit()}
        self.slots: dict[tuple[str, str, str], Slot] = {}
        self.problems: list[str] = []  # why the tests may have met another world than the program made
        self.watches: list[Callable[[Any, dict[str, Any]], None]] = []
        if speaks_of(text, "environ", "getenv", "putenv", "setenv", "delenv", "tzset"):
            self.variables = dict(environment())
        if speaks_of(text, "cwd", "chdir", "path", "Path", "open", "tmp"):
            self.place = here()
        self.warnings: Warned | None = None
        if speaks_of(text, "warn"):
            self.warnings = Warned()
            self.watches.append(self.see_warnings)
        self.logs: Any = None
        self.numbers: dict[str, Any] = {}
        if speaks_of(text, "seed", "setstate", "set_state"):
            self.watches.append(self.see_numbers)
            self.hook_numbers("random", ("seed", "setstate"))
            if "numpy" in text:
                self.hook_numbers("numpy.random", ("seed", "set_state"))
            self.look_at_numbers()
        if speaks_of(text, "decimal", "getcontext"):
            self.watches.append(self.see_decimal)
            self.sent["decimal"] = decimal_state()
        if speaks_of(text, "assertLogs", "assertNoLogs", "caplog", "logging"):
            import logging

            self.logs = Logged(logging)
            self.watches.append(self.see_logs)
        if "sys.modules" in text:
            self.modules = dict(sys.modules)
            self.watches.append(self.see_modules)
        for name in ("input", "print", "open"):
            if name in text:
                self.watch(builtins, name)
        if speaks_of(text, "mock", "patch"):
            self.hook_mock()
        if speaks_of(text, "monkeypatch", "MonkeyPatch"):
            self.hook_monkeypatch()
        for target, name in assigned(text):
            self.watch(target, name)

    # patches

    def watch(self, target: Any, name: str) -> None:
        """Look from now on whether the tests have replaced `name` of a module or class that both ends have."""
        key = place_of(target)
        if key is not None and (key[0], name) not in APART and (*key, name) not in self.slots:
            self.slots[(*key, name)] = Slot(target, name)

    def hook_numbers(self, name: str, setters: tuple[str, ...]) -> None:
        """Have a generator say when it is seeded: with the same number as before, it stands where it stood."""
        module, missing = attempt(lambda: resolve(name, ""))
        if missing is None:
            for setter in setters:
                setattr(module, setter, self.noting(name, getattr(module, setter)))

    def noting(self, name: str, work: Any) -> Any:
        def noted(*args: Any, **kwargs: Any) -> Any:
            self.numbers.pop(name, None)
            return work(*args, **kwargs)

        return noted

    def hook_mock(self) -> None:
        """Have every `patch` say what it is about to replace."""
        import unittest.mock

        mock: Any = unittest.mock
        kind = mock._patch
        enter, is_async = kind.__enter__, mock._is_async_obj

        def noted(patch: Any) -> Any:
            target, error = attempt(patch.getter)
            if error is None:
                self.watch(target, patch.attribute)
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
                    self.watch(where, attribute)
                return work(patch, target, *rest, **more)

            return noted

        for work in ("setattr", "delattr"):
            setattr(module.MonkeyPatch, work, noting(getattr(module.MonkeyPatch, work)))

    # what goes out

    def is_still(self) -> bool:
        """Whether there is certainly no news: watched is only what any test might change, and none of it has been."""
        if not self.greeted or self.slots or self.watches or not self.keeps_still():
            return False
        streams, told, sent = self.streams, self.told, self.sent
        if sys.stdin is not streams["stdin"] or self.input is not None:
            return False
        if sys.stdout is not streams["stdout"] or sys.stderr is not streams["stderr"]:
            return False
        if told["stdout"] is not None or told["stderr"] is not None or sent["argv"] is not None or sent["path"]:
            return False
        return sys.argv == self.argv and sys.path == self.path and sys.getrecursionlimit() == sent["depth"]

    def news(self, peer: Any) -> dict[str, Any] | None:
        if self.is_still():
            return None
        try:
            news = self.common_news()
        except TooMuch as error:
            raise peer.fail(self.beyond(f"the tests' own folder holds {error}")) from None
        if self.folder.left_out:
            raise peer.fail(self.beyond(f"the tests' own file {self.folder.left_out[0]}"))
        self.see_streams(peer, news)
        if sys.argv != self.argv or self.sent["argv"] is not None:
            self.send(news, "argv", None if sys.argv == self.argv else texts_only(sys.argv))
        if sys.path != self.path or self.sent["path"]:
            self.send(news, "path", [entry for entry in texts_only(sys.path) if entry not in self.path])
        self.send(news, "depth", sys.getrecursionlimit())
        for key, slot in self.slots.items():
            value = slot.now()
            if value is not slot.told:
                slot.told = value
                news.setdefault("slots", []).append([*key, *slot.tree(peer)])
        for watch in self.watches:
            watch(peer, news)
        if not self.greeted:
            self.greeted = True
            news["hello"] = [self.variables is not None, self.place is not None]
        return news or None

    def beyond(self, what: str) -> BaseException:
        """What the tests ask is too much; where the program has written among their files, that is its doing."""
        error: BaseException = (BeyondValues if self.guard.peer is None else Unsplittable)(what)
        return error

    def send(self, news: dict[str, Any], name: str, value: Any) -> None:
        if value != self.sent[name]:
            self.sent[name] = value
            news[name] = value

    def see_streams(self, peer: Any, news: dict[str, Any]) -> None:
        for name in STREAMS:
            stream = getattr(sys, name)
            how = None if stream is self.streams[name] else "bytes" if hasattr(stream, "buffer") else "text"
            if how != self.told[name]:
                self.told[name] = how
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
            tree = peer.encode(stream)
            if type(tree) is dict:
                tree.pop("stream", None)  # not whatever the program has there
            news["stdin"] = ["object", tree]

    def see_warnings(self, peer: Any, news: dict[str, Any]) -> None:
        if self.warnings is not None and self.warnings.changed():
            news["warnings"] = self.warnings.tree(peer)

    def see_logs(self, peer: Any, news: dict[str, Any]) -> None:
        state = self.logs.state()
        if state != self.logs.told:
            self.logs.told = state
            news["logs"] = None if state == self.logs.first else state

    def see_decimal(self, peer: Any, news: dict[str, Any]) -> None:
        self.send(news, "decimal", decimal_state())

    def look_at_numbers(self) -> dict[str, Any]:
        found = {}
        for name, state in number_states().items():
            if not same_numbers(self.numbers.get(name), state):
                self.numbers[name] = found[name] = state
        return found

    def see_numbers(self, peer: Any, news: dict[str, Any]) -> None:
        if found := self.look_at_numbers():
            news["numbers"] = {name: peer.encode(state) for name, state in found.items()}

    def see_modules(self, peer: Any, news: dict[str, Any]) -> None:
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
            news["modules"] = [[name, peer.encode(module)] for name, module in made.items()]

    # what comes in

    def enter(self, peer: Any, tree: Any) -> None:
        """Take over what the program's end tells. Raises Unsplittable for what it cannot honestly tell."""
        if tree is None:
            return
        try:
            self.take(peer, tree)
        except Refused as error:
            raise peer.fail(Unsplittable(f"the program's end tells of {error}")) from None

    def take(self, peer: Any, tree: Any) -> None:
        if type(tree) is not dict:
            raise Refused("a world that is no object")
        if "files" in tree:
            if self.folder.repeat(tree["files"]):
                self.guard.stand(peer)
            self.swayed = self.swayed or bool(self.folder.touched & self.brought)
        if "env" in tree:
            items = tree["env"]
            if type(items) is list:
                items = [one for one in items if type(one) is not list or not self.has(one)]
            if items:
                self.set_variables(items)
                self.guard.stand(peer)  # some make a shell run what they hold
        if "place" in tree:
            self.follow(tree["place"])
        if "read" in tree:
            self.advance(tree["read"])
        if "said" in tree:
            self.say(tree["said"])
        if "warned" in tree and self.warnings is not None:
            self.warnings.repeat(peer, tree["warned"])
        if "logged" in tree and self.logs is not None:
            self.logs.repeat(tree["logged"])
        left_out = tree.get("left_out", [])
        if type(left_out) is not list or len(left_out) > 10:
            raise Refused("what it left out, which is no list")
        self.problems += [f"{why!s:.300}" for why in left_out if len(self.problems) < 5]
        if self.folder.left_out:
            self.problems = [*self.problems, *self.folder.left_out][:10]
            self.folder.left_out.clear()

    def has(self, item: list[Any]) -> bool:
        """Whether a variable is as the program has it, or none that it may set."""
        name, value = item if len(item) == 2 else (None, None)
        if type(name) is not str:
            return False
        return name.startswith(CLOSED) or sys.modules["os"].environ.get(name) == value

    def follow(self, target: Any) -> None:
        """Only to a folder below the common one, and through no link."""
        if type(target) is not list or len(target) != 2 or type(target[1]) is not str:
            raise Refused("a working folder that is no name")
        if target[0] is not True:
            self.problems.append(f"the program went to {target[1]!r:.80}, where the tests do not follow")
            return
        if any(part in (".", "..") for part in target[1].split("/")) or "\0" in target[1]:
            raise Refused(f"a working folder {target[1]!r:.80}")
        self.swayed = self.swayed or bool(self.brought)
        _, error = attempt(lambda: go_below(self.root, target[1]))
        if error is not None:
            self.problems.append(f"the working folder {target[1]!r:.80}: {error}")
        self.place = here()

    def advance(self, count: Any) -> None:
        """The program has read so many characters of the tests' own stdin."""
        if type(count) is not int or not 0 <= count <= 1 << 40:
            raise Refused("how much of stdin it read, which is no number")
        if self.input is not None and self.input[1] is not None:
            stream, at = self.input
            stream.seek(at)
            stream.read(count)
            self.input = (stream, stream.tell())

    def say(self, items: Any) -> None:
        """Write what the program printed to the streams that the tests have put in place."""
        if type(items) is not list or len(items) > MAX_SAID:
            raise Refused("printed text that is no list")
        size = 0
        for item in items:
            if type(item) is not list or len(item) != 2 or item[0] not in STREAMS or type(item[1]) is not str:
                raise Refused("printed text that is none")
            name, text = item
            size += len(text)
            if size > MAX_TEXT:
                raise Refused(f"more than {MAX_TEXT} characters of printed text")
            stream = getattr(sys, name)
            if self.told[name] is not None and stream is not self.streams[name] and stream is not None:
                stream.write(text)


def set_in_program(peer: Any, name: str, value: Any, *, create: bool = True) -> None:
    """Set a name of the program's module; one that it lacks only where `create` says so."""
    peer.request("global", name=name, value=peer.encode(value), create=create)


def give_back_in_program(peer: Any, name: str) -> None:
    """Undo the first `set_in_program` of a name since the last time; without one, delete it."""
    peer.request("global", name=name)


class Slot:
    """An attribute of a module or class that both ends have, and what the tests have made of it."""

    def __init__(self, target: Any, name: str) -> None:
        self.target, self.name = target, name
        self.first = self.told = self.now()

    def now(self) -> Any:
        return self.target.__dict__.get(self.name, MISSING)

    def tree(self, peer: Any) -> list[Any]:
        if self.told is self.first:
            return ["back"]
        if self.told is MISSING:
            return ["gone"]
        value = self.told
        if type(value) in (staticmethod, classmethod):
            value = value.__func__
            return ["static", peer.encode(value)]
        if type(value) is property:
            return ["getter", peer.encode(value.fget)]
        return [way_of(self.target, value), peer.encode(value)]


def way_of(target: Any, value: Any) -> str:
    """How the other end has to put a stand-in of `value` in place, so that it is met there as here."""
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
    found, error = attempt(lambda: resolve(*key))
    return key if error is None and found is target else None


def resolve(module: str, qualname: str) -> Any:
    __import__(module)
    value: Any = sys.modules[module]
    for name in filter(None, qualname.split(".")):
        value = getattr(value, name)
    return value


def assigned(text: str) -> list[tuple[Any, str]]:
    """Attributes of modules that the tests' text assigns to, or hands to `setattr`."""
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
        for one in imported.split(","):
            words = one.split()
            if words:
                names[words[-1]] = (module, words[0])
    found = []
    for base, attribute in places:
        first, _, rest = base.partition(".")
        key = names.get(base) or names.get(first) or (base, "")
        tail = "" if base in names else rest
        target, error = attempt(functools.partial(follow_names, key, tail))
        if error is None and place_of(target) is not None:
            found.append((target, attribute))
    return found


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


def speaks_of(text: str, *words: str) -> bool:
    return any(word in text for word in words)


def texts_only(values: Any) -> list[str]:
    return [value for value in values if type(value) is str]


def decimal_state() -> Any:
    decimal = sys.modules.get("decimal")
    if decimal is None:
        return None
    now = decimal.getcontext()
    return [now.prec, now.rounding, now.Emin, now.Emax, now.capitals, now.clamp]


def number_states() -> dict[str, Any]:
    """Where the generators of random numbers stand that both ends have."""
    found: dict[str, Any] = {}
    if "random" in sys.modules:
        found["random"] = sys.modules["random"].getstate()
    if "numpy.random" in sys.modules:
        found["numpy.random"] = sys.modules["numpy.random"].get_state()
    return found


def same_numbers(one: Any, other: Any) -> bool:
    if one is None or len(one) != len(other):
        return False
    return all(bool((a == b).all() if hasattr(a, "all") else a == b) for a, b in zip(one, other, strict=True))


class Warned:
    """The tests' way with warnings: their filters, and whether they listen."""

    def __init__(self) -> None:
        import warnings

        self.module: Any = warnings
        self.first = self.told = self.state()

    def state(self) -> Any:
        module = self.module
        return [list(module.filters), module._showwarnmsg_impl, module.showwarning]

    def changed(self) -> bool:
        module, (filters, impl, show) = self.module, self.told
        if module._showwarnmsg_impl == impl and module.showwarning is show and module.filters == filters:
            return False
        self.told = self.state()
        return True

    def listening(self) -> bool:
        return bool(self.told[1] is not self.first[1] or self.told[2] is not self.first[2])

    def tree(self, peer: Any) -> Any:
        """The filters and whether to listen; None when they are as the program's own once more."""
        if not self.listening() and self.told[0] == self.first[0]:
            return None
        filters = [
            [action, pattern_of(message), peer.encode(category), pattern_of(module), line]
            for action, message, category, module, line in self.told[0]
        ]
        return [self.listening(), filters]

    def repeat(self, peer: Any, items: Any) -> None:
        if type(items) is not list or len(items) > MAX_SAID:
            raise Refused("warnings that are no list")
        for item in items:
            if type(item) is not list or len(item) != 4 or type(item[1]) is not str or type(item[3]) is not int:
                raise Refused("a warning that is none")
            tree, text, file, line = item
            kind = peer.decode(tree)
            if type(kind) is not type or not issubclass(kind, Warning):
                raise Refused("a warning whose class is none")
            if self.listening():
                message, error = attempt(functools.partial(kind, text))
                if error is not None:
                    raise Refused(f"a warning that cannot be made: {error}")
                show = self.module._showwarnmsg
                show(self.module.WarningMessage(message, kind, f"{file!s:.200}", line))


def pattern_of(pattern: Any) -> Any:
    return pattern if pattern is None or type(pattern) is str else pattern.pattern


class Logged:
    """The tests' loggers: levels, and whether anything listens to them."""

    def __init__(self, logging: Any) -> None:
        self.logging = logging
        self.first = self.told = self.state()

    def loggers(self) -> list[Any]:
        root = self.logging.root
        return [root, *(one for one in list(root.manager.loggerDict.values()) if isinstance(one, self.logging.Logger))]

    def state(self) -> list[Any]:
        """[whether anybody listens, what is disabled, [[name, level, propagate, disabled], ...]]"""
        loggers = self.loggers()
        about = [
            [one.name, one.level, bool(one.propagate), bool(one.disabled)]
            for one in loggers
            if one.level or not one.propagate or one.disabled
        ]
        return [any(one.handlers for one in loggers), self.logging.root.manager.disable, about]

    def repeat(self, items: Any) -> None:
        if type(items) is not list or len(items) > MAX_SAID:
            raise Refused("log records that are no list")
        for item in items:
            if type(item) is not list or len(item) != 7 or type(item[1]) is not int:
                raise Refused("a log record that is none")
            name, level, text, path, line, function, trace = item
            if not all(type(one) is str and len(one) <= MAX_TEXT for one in (name, text, path, function, trace)):
                raise Refused("a log record whose texts are none")
            logger = self.logging.getLogger(None if name == "root" else name)
            if logger.isEnabledFor(level):
                record = logger.makeRecord(name, level, path, line, text, (), None, function)
                record.exc_text = trace or None
                logger.handle(record)


def rehearse() -> None:
    """Run once what every test runs, so that its code has adapted itself before this process is forked."""
    for _ in range(10):
        world = Tests("/", ["y = f(1)"])
        world.folder = Folder("/dev/fd/nowhere")
        for _ in range(3):
            world.news(None)
            world.enter(None, {})
            attempt(lambda: None)
