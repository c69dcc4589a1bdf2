"""The test side of a split: runs the tests' own text and nothing of the program, in a jail of its own.

A name that the tests do not define is asked of the candidate's process and arrives as a value or a proxy (`peer`).
The verdict of each test goes to the host on descriptor 4; the candidate is reached on descriptor 3. Because no line of
the program ever runs in this process, an `assert` that passes here has passed.

What the tests lend to the program (callbacks, instances of classes that the tests define) can be called and, without
underscore names, read and written by it; nothing else of this process can be reached through them.
"""

from __future__ import annotations

import _socket
import builtins
import functools
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from sandbox.inside import cases
    from sandbox.inside.control import ControlPeer, Refused
    from sandbox.inside.peer import Peer, import_module
    from sandbox.inside.wire import Lost, Unsplittable, attempt, receive_frame, send_frame
    from sandbox.judge import codec
else:
    import cases
    import codec
    from control import ControlPeer, Refused
    from peer import Peer, import_module
    from wire import Lost, Unsplittable, attempt, receive_frame, send_frame

WIRE_FD, HOST_FD = 3, 4
OWN_MODULES = {name: name for name in sys.stdlib_module_names} | {"np": "numpy", "numpy": "numpy"}
PROGRAM_MODULES = (  # what tests call the program's module when they import from it
    "solution", "solutions", "main", "program", "submission", "candidate", "your_module", "my_module", "answer",
)  # fmt: skip
REASON_CHARS = 2_000
MODULE = "test_suite"  # the name of the tests' own module; what they define carries it
FUNCTION: Any = type(lambda: 0)
BUILTIN: Any = type(len)
METHOD: Any = type(FUNCTION.__get__(lambda self: self, 0))


class Unusable(Exception):
    """The tests themselves cannot be used, whatever the program does."""


class Namespace(dict):  # type: ignore[type-arg]  # no dict[...] here: this class is made inside the jail
    """The tests' globals: their own names first, then the builtins, then whatever the program calls by that name."""

    def __init__(self, peer: Any, texts: list[str]) -> None:
        super().__init__(__name__=MODULE, __builtins__=builtins)
        self.peer = peer
        self.texts = texts

    def __missing__(self, name: str) -> Any:
        if hasattr(builtins, name) or (name.startswith("__") and name.endswith("__")):
            raise KeyError(name)
        try:
            found = self.peer.request("get", name=name)
        except NameError:
            raise KeyError(name) from None
        if name in OWN_MODULES and (own := self.own_module(name)) is not None:
            return own
        return found

    def own_module(self, name: str) -> Any:
        """Our own `math` for tests that lean on the program's `import math`: its `math.isclose` may be anything."""
        import re

        wanted = {found for text in self.texts for found in re.findall(rf"\b{name}\.(\w+)", text)}
        own, missing = attempt(lambda: import_module(OWN_MODULES[name]))
        return own if wanted and missing is None and all(hasattr(own, attribute) for attribute in wanted) else None


def perform(peer: Any, message: dict[str, Any]) -> Any:
    """Answer the program about something lent to it. Attribute names with an underscore in front stay closed."""
    op, value = message["op"], peer.local(message)
    ours = type(value).__module__ == MODULE  # an instance of a class that the tests define
    if op == "call" and (ours or callable_from_outside(value)):
        values = [peer.decode(tree) for tree in message["args"]]
        split = len(values) - len(message["names"])
        return value(*values[:split], **dict(zip(message["names"], values[split:], strict=True)))
    if op == "iter":
        return value if hasattr(value, "__next__") else iter(value)
    if op == "next" and hasattr(value, "__next__"):
        for item in value:
            return (item,)
        return None
    if op in ("repr", "str"):
        return f"<{type(value).__name__} of the tests>" if not ours else (repr if op == "repr" else str)(value)
    if op == "truth":
        return bool(value)
    if ours and op in ("attr", "set_attr") and not str(message["name"]).startswith("_"):
        if op == "attr":
            return getattr(value, message["name"])
        setattr(value, message["name"], peer.decode(message["value"]))
        return None
    if ours and op == "len":
        return len(value)
    if op in ("await", "aiter", "anext", "aenter", "aexit"):
        raise peer.fail(Unsplittable("the program awaits something of the tests"))
    if ours and op == "item":
        return value[peer.decode(message["key"])]
    raise TypeError(f"the tests do not lend {op!r} of a {type(value).__name__}")


def callable_from_outside(value: Any) -> bool:
    """Whether the program may call it: what the tests define, bound methods of values, and key functions over those.

    Functions of the standard library never get here, the program uses its own; `eval` and its like thus stay away.
    """
    if isinstance(value, type):
        return bool(value.__module__ == MODULE)
    if type(value) is METHOD:
        value = value.__func__
    if type(value) is FUNCTION:
        return isinstance(value.__globals__, Namespace)
    if type(value) is BUILTIN:
        return value.__self__ is not None and type(value.__self__) is not type(sys)
    if type(value).__module__ == "functools" and type(value).__name__ == "partial":
        return callable_from_outside(value.func)
    return type(value).__module__ == "operator"


class Main(type(sys)):  # type: ignore[misc]
    """What the tests find as `__main__`: their own names and the program's, of which they may change their own."""

    def __init__(self, namespace: Namespace) -> None:
        super().__init__("__main__")
        self.__dict__["_namespace"] = namespace

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_namespace"][name]
        except KeyError:
            raise AttributeError(f"module '__main__' has no attribute {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        namespace = self.__dict__["_namespace"]
        if name not in namespace:
            raise namespace.peer.fail(Unsplittable(f"the test sets {name!r} in the program's module"))
        namespace[name] = value


class ProgramModule(type(sys)):  # type: ignore[misc]
    """What the tests import as `solution` and its like: the program's names, each asked for when it is used."""

    def __init__(self, name: str, peer: Any) -> None:
        super().__init__(name)
        self.__dict__["_peer"] = peer

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        try:
            return self.__dict__["_peer"].request("get", name=name)
        except NameError:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        raise self.__dict__["_peer"].fail(Unsplittable(f"the test sets {name!r} in the program's module"))

    def __delattr__(self, name: str) -> None:
        raise self.__dict__["_peer"].fail(Unsplittable(f"the test deletes {name!r} in the program's module"))


def install_program(peer: Any, hidden: Any = ()) -> None:
    """Let the tests import the program by its usual names, but for those that the suite's own files have."""
    for name in PROGRAM_MODULES:
        if f"{name}.py" not in hidden:
            sys.modules[name] = ProgramModule(name, peer)


class Stage:
    """What programs meet besides their arguments; tests that replace it in this process do so in vain."""

    def __init__(self) -> None:
        self.found = self.look()
        self.replaced: set[str] = set()  # when the program was called

    def look(self) -> dict[str, Any]:
        found = {f"sys.{name}": getattr(sys, name) for name in ("stdin", "stdout", "stderr")}
        return found | {name: getattr(builtins, name) for name in ("input", "print", "open")}

    def note(self) -> None:
        self.replaced |= {name for name, value in self.look().items() if value is not self.found[name]}


class Suite:
    """The compiled tests, their namespace and the wire to the program."""

    def __init__(self, plan: dict[str, Any], peer: Any) -> None:
        self.peer = peer
        self.namespace = Namespace(peer, [plan["setup"], plan["helpers"], *plan["tests"]])
        self.entry_point: str = plan["entry_point"]
        self.kind: str = plan["kind"]
        self.spoilt = False
        self.setup = compile(plan["setup"], "<setup>", "exec", dont_inherit=True)
        self.helpers = compile_or_none(plan["helpers"])
        self.texts: list[str] = plan["tests"]
        self.codes = [
            compile(text, f"<test {number}>", "exec", dont_inherit=True) for number, text in enumerate(self.texts)
        ]

    def prepare(self) -> None:
        """Run the helpers and the setup. Whatever they define, the entry point stays the program's."""
        if self.helpers is not None:
            exec(self.helpers, self.namespace)
        self.bind()
        exec(self.setup, self.namespace)
        self.bind()

    def bind(self) -> None:
        try:
            self.namespace[self.entry_point] = self.peer.request("get", name=self.entry_point)
        except NameError:
            self.namespace.pop(self.entry_point, None)
        else:
            self.namespace.setdefault("candidate", self.namespace[self.entry_point])

    def serve(self, serve: Any, judged: Any) -> None:
        serve([], [], lambda number: judged(number, self.texts[number], functools.partial(self.run, number)))

    def run(self, number: int) -> None:
        exec(self.codes[number], self.namespace)
        if self.kind == "check":
            if "check" not in self.namespace:  # and asked for it, the program would gladly have one
                raise Unusable("the test does not define `check`")
            self.bind()
            if self.entry_point not in self.namespace:
                raise NameError(f"name {self.entry_point!r} is not defined")
            self.namespace["check"](self.namespace[self.entry_point])


def compile_or_none(text: str) -> Any:
    """The helpers of a prompt; a prompt that is no program by itself has none."""
    try:
        return compile(text, "<prompt>", "exec", dont_inherit=True) if text else None
    except SyntaxError:
        return None


def imports(texts: list[str]) -> set[str]:
    """The modules that the tests name in import statements: whether those are here no program can decide."""
    import ast

    found: set[str] = set()
    for text in texts:
        tree, _ = attempt(functools.partial(ast.parse, text))
        for node in ast.walk(tree or ast.Module([], [])):
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module)
    return found | {name.partition(".")[0] for name in found}


def judge(peer: Any, text: str, work: Any, texts: list[str]) -> tuple[str, str]:
    """Do `work` and put what comes of it into a verdict and a reason, which is cut here."""
    verdict, reason = weigh(peer, text, work, texts)
    return verdict, reason[:REASON_CHARS]


def weigh(peer: Any, text: str, work: Any, texts: list[str]) -> tuple[str, str]:
    stage = Stage()
    peer.before_call = stage.note
    _, error = attempt(work)
    if peer.broken is not None:  # whatever the test made of it
        return ("lost" if isinstance(peer.broken, Lost) else "invalid_result"), str(peer.broken)
    if error is None:
        return "passed", ""
    if isinstance(error, Refused):
        return "refused", str(error)
    if type(error).__name__ in ("Unsplittable", "BeyondValues") and not peer.is_foreign(error):
        return "invalid_result", str(error)
    if isinstance(error, cases.Skipped):
        return "skipped", str(error)
    if stage.replaced and not isinstance(peer, ControlPeer):
        return "invalid_result", f"the test replaces {', '.join(sorted(stage.replaced))}, which the program never sees"
    printed, _ = attempt(lambda: str(error))
    reason = f"{type(error).__name__}: {printed}"[:2000]
    if isinstance(error, codec.CodecError):
        return "invalid_result", str(error)
    if peer.is_foreign(error):
        if isinstance(error, SystemExit):
            return "no_result", "the program exits instead of answering"
        return "runtime_error", reason
    if isinstance(error, ImportError):
        if error.name in PROGRAM_MODULES and isinstance(sys.modules.get(error.name), ProgramModule):
            return "runtime_error", reason
        fault = error.name in imports(texts) or isinstance(peer, ControlPeer)
        return "invalid" if fault else "invalid_result", reason
    if isinstance(error, Unusable):
        return "invalid" if isinstance(peer, ControlPeer) else "invalid_result", reason
    if isinstance(error, AssertionError):
        return "wrong_answer", (printed or text.strip())[:500]
    if isinstance(error, NameError):
        return "runtime_error", reason
    if (isinstance(error, TypeError) and "'Remote'" in reason) or "got Remote" in reason:
        return "invalid_result", f"the test needs the program's object in its own process: {reason}"
    return "wrong_answer", f"the test stumbles over the answer: {reason}"


def tests(source: bytes) -> NoReturn:
    """The role: read the plan from the host, meet the program, then run the tests that the host names, one by one."""
    host = _socket.socket(fileno=HOST_FD)
    plan = codec.loads(source)
    mode = plan.get("control")
    peer: Any = ControlPeer(mode) if mode else Peer(_socket.socket(fileno=WIRE_FD), perform)

    def tell(**fields: Any) -> None:
        send_frame(host, codec.dumps(fields))

    texts = [plan["setup"], plan["helpers"], *plan["tests"]]
    # The end of an iterator, raised where none was asked, would end an `all(map(f, ...))` of the tests early.
    peer.lends_stop = any("StopIteration" in text for text in texts)
    sys.modules[MODULE] = type(sys)(MODULE)  # dataclasses and typing look a class's module up
    install_program(peer, plan.get("files", ()))
    try:
        suite: Any = cases.open_module(plan, peer, Namespace) if plan["kind"] in cases.KINDS else Suite(plan, peer)
        sys.modules["__main__"] = Main(suite.namespace)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        tell(invalid=f"{type(error).__name__}: {error}"[:REASON_CHARS])
        os._exit(0)
    if any("random" in text for text in texts):
        import random

        random.seed(0)  # a report must not depend on the luck of the tests
    try:
        hello = peer.receive()
    except Lost as error:
        tell(lost=str(error)[:REASON_CHARS])
        os._exit(0)
    if hello.get("hello") is not True:
        tell(lost="no greeting")
        os._exit(0)
    if "exit" in hello:
        tell(failed=["no_result", f"the program exits with {hello['exit']!r:.20} while it is loaded"])
        os._exit(0)
    if "error" in hello:
        described = hello["error"]
        tell(failed=["runtime_error", f"{described.get('name')}: {described.get('message')}"[:REASON_CHARS]])
        os._exit(0)
    verdict, reason = judge(peer, "", suite.prepare, texts)
    if verdict == "lost":
        tell(lost=reason)
    elif verdict == "invalid":
        tell(invalid=f"in the setup: {reason}")
    elif verdict != "passed":
        tell(failed=[verdict, f"in the setup: {reason}"])
    else:

        def serve(names: list[str], skips: list[int], take: Any) -> None:
            """Take one test after the other, as the host names them; `skips` are decorated to be skipped."""
            tell(ready=True, names=names, skips=skips)
            while True:
                number = codec.loads(receive_frame(host))["run"]
                peer.foreign.clear()
                peer.broken = None
                verdict, reason = take(number)
                if verdict == "lost":
                    tell(lost=reason)
                    os._exit(0)
                if verdict == "invalid":
                    tell(invalid=f"test {names[number] if names else number}: {reason}")
                    os._exit(0)
                if suite.spoilt:
                    tell(done=[verdict, reason], last=True)
                    os._exit(0)
                tell(done=[verdict, reason])

        def judged(number: int, text: str, work: Any) -> tuple[str, str]:
            return judge(peer, text, work, texts)

        _, end = attempt(lambda: suite.serve(serve, judged))
        if isinstance(end, Lost):
            os._exit(0)  # the host wants no more
        reason = f"the tests cannot be collected: {end}"[:REASON_CHARS]
        if isinstance(peer, ControlPeer) and "Refused" not in reason:
            tell(invalid=reason)
        else:  # what the program has answered, or would have to
            tell(failed=["invalid_result", reason])
    os._exit(0)
