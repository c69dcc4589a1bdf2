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

    from sandbox.inside import fakes
    from sandbox.inside.peer import Peer, import_module
    from sandbox.inside.wire import Lost, Unsplittable, attempt, receive_frame, send_frame
    from sandbox.inside.world import Tests, give_back_in_program, set_in_program
    from sandbox.judge import codec
else:
    import codec
    import fakes
    from peer import Peer, import_module
    from wire import Lost, Unsplittable, attempt, receive_frame, send_frame
    from world import Tests, give_back_in_program, set_in_program

MAIN = "/tmp/main.py"  # where the program would lie
WIRE_FD, HOST_FD = 3, 4
OWN_MODULES = {name: name for name in sys.stdlib_module_names} | {"np": "numpy", "numpy": "numpy"}
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
    if fakes.is_lent(value):
        return fakes.perform(peer, value, message, callable_from_outside)
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
    if ours and op in ("enter", "exit", "set_item", "del_item"):
        return fakes.OPERATIONS[op](value, peer, message)
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
        self.__dict__["_before"] = {}  # names of the tests that they have replaced

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_namespace"][name]
        except KeyError:
            raise AttributeError(f"module '__main__' has no attribute {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        namespace = self.__dict__["_namespace"]
        ours = name in namespace
        if ours:
            self.__dict__["_before"].setdefault(name, namespace[name])
            namespace[name] = value
        set_in_program(namespace.peer, name, value, create=not ours)

    def __delattr__(self, name: str) -> None:
        namespace = self.__dict__["_namespace"]
        namespace.pop(name, None)
        give_back_in_program(namespace.peer, name)
        if name in self.__dict__["_before"]:
            namespace[name] = self.__dict__["_before"].pop(name)


class Suite:
    """The compiled tests, their namespace and the wire to the program."""

    def __init__(self, plan: dict[str, Any], peer: Any) -> None:
        self.peer = peer
        self.namespace = Namespace(peer, [plan["setup"], plan["helpers"], *plan["tests"]])
        self.entry_point: str = plan["entry_point"]
        self.kind: str = plan["kind"]
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


def judge(peer: Any, text: str, work: Any) -> tuple[str, str]:
    """Do `work` and put what comes of it into a verdict and a reason."""
    peer.world.problems.clear()
    _, error = attempt(work)
    if peer.broken is not None:  # whatever the test made of it
        return ("lost" if isinstance(peer.broken, Lost) else "invalid_result"), str(peer.broken)
    if error is None:
        return "passed", ""
    if peer.world.problems:
        unseen = "; ".join(peer.world.problems)
        return "invalid_result", f"the test did not see all that the program did: {unseen}"[:2000]
    printed, _ = attempt(lambda: str(error))
    reason = f"{type(error).__name__}: {printed}"[:2000]
    if isinstance(error, codec.CodecError):
        return "invalid_result", str(error)
    if peer.is_foreign(error):
        if isinstance(error, SystemExit):
            return "no_result", "the program exits instead of answering"
        return "runtime_error", reason
    if isinstance(error, (ImportError, Unusable)):
        return "invalid", reason
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
    wire = _socket.socket(fileno=WIRE_FD)
    peer = Peer(wire, perform)

    def tell(**fields: Any) -> None:
        send_frame(host, codec.dumps(fields))

    plan = codec.loads(source)
    # The end of an iterator, raised where none was asked, would end an `all(map(f, ...))` of the tests early.
    peer.lends_stop = any("StopIteration" in text for text in (plan["setup"], plan["helpers"], *plan["tests"]))
    sys.modules[MODULE] = type(sys)(MODULE)  # dataclasses and typing look a class's module up
    try:
        suite = Suite(plan, peer)
        sys.modules["__main__"] = Main(suite.namespace)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        tell(invalid=f"{type(error).__name__}: {error}")
        os._exit(0)
    if any("random" in text for text in (plan["setup"], *suite.texts)):
        import random

        random.seed(0)  # a report must not depend on the luck of the tests
    root = os.path.dirname(MAIN)
    sys.path[:] = [entry for entry in sys.path if entry != root]  # where the program's files will appear
    peer.world = Tests(root, suite.namespace.texts)
    try:
        hello = peer.receive()
    except Lost as error:
        tell(lost=str(error))
        os._exit(0)
    if hello.get("hello") is not True:
        tell(lost="no greeting")
        os._exit(0)
    if "exit" in hello:
        tell(failed=["no_result", f"the program exits with {hello['exit']!r:.20} while it is loaded"])
        os._exit(0)
    if "error" in hello:
        described = hello["error"]
        tell(failed=["runtime_error", f"{described.get('name')}: {described.get('message')}"[:2000]])
        os._exit(0)
    verdict, reason = judge(peer, "", suite.prepare)
    if verdict == "lost":
        tell(lost=reason)
    elif verdict == "invalid":
        tell(invalid=f"in the setup: {reason}")
    elif verdict != "passed":
        tell(failed=[verdict, f"in the setup: {reason}"])
    else:
        tell(ready=True)
        while True:
            number = codec.loads(receive_frame(host))["run"]
            peer.foreign.clear()
            peer.broken = None
            verdict, reason = judge(peer, suite.texts[number], functools.partial(suite.run, number))
            if verdict == "lost":
                tell(lost=reason)
                break
            if verdict == "invalid":
                tell(invalid=f"test {number}: {reason}")
                break
            tell(done=[verdict, reason])
    os._exit(0)
