"""The test side of a split: runs the tests' own text and nothing of the program, in a jail of its own.

A name that the tests do not define is asked of the candidate's process and arrives as a value or a proxy (`peer`).
The verdict of each test goes to the host on descriptor 4; the candidate is reached on descriptor 3. Because no line of
the program ever runs in this process, an `assert` that passes here has passed.

What the tests lend to the program (callbacks, instances of classes that the tests define) can be called and, but for
Python's own underlined names, read and written by it; nothing else of this process can be reached through them.
"""

from __future__ import annotations

import _socket
import builtins
import functools
import os
import sys

from sandbox.inside import mocks, test_runners
from sandbox.inside.control_run import ControlPeer, Refused
from sandbox.inside.framing import BeyondValues, Lost, Unsplittable, attempt, receive_frame, send_frame
from sandbox.inside.name_resolution import Names
from sandbox.inside.operations import OPERATIONS
from sandbox.inside.proxy import Method, is_foreign, peers, revive_object
from sandbox.inside.rpc import Peer
from sandbox.inside.shared_state import Tests, give_back_in_program, set_in_program
from sandbox.judge import bounds, codec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

MAIN = "/tmp/main.py"  # where the program would lie
WIRE_FD, HOST_FD = 3, 4
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
MODULE = "test_suite"  # the name of the tests' own module; what they define carries it
FUNCTION: Any = type(lambda: 0)
BUILTIN: Any = type(len)
METHOD: Any = type(FUNCTION.__get__(lambda self: self, 0))


class Unusable(Exception):
    """The tests themselves cannot be used, whatever the program does."""


class Namespace(dict):  # type: ignore[type-arg]  # no dict[...] here: this class is made inside the jail
    """The tests' globals: their own names first, then the builtins, then whatever the program calls by that name."""

    def __init__(self, peer: Any, names: Names) -> None:
        super().__init__(__name__=MODULE, __builtins__=builtins)
        self.peer = peer
        self.names = names

    def __missing__(self, name: str) -> Any:
        if hasattr(builtins, name) or (name.startswith("__") and name.endswith("__")):
            raise KeyError(name)
        return self.names.find(self.peer, name)


def perform(peer: Any, message: dict[str, Any]) -> Any:
    """Answer the program about something lent to it: about what the tests define, nearly all; about others, little."""
    op, value = message["op"], peer.local(message)
    kind = type(value)
    ours = is_ours(value)
    mocks.check(peer, value, message, callable_from_outside)
    if op == "call" and mocks.mock_of(value) is not None:
        args, named = peer.take_arguments(message)
        return (value if "method" not in message else getattr(value, message["method"]))(*args, **named)
    if mocks.mock_of(value) is not None and op in OPERATIONS:
        return OPERATIONS[op](value, peer, message)
    if op == "call":
        if "method" in message:
            if not (ours or kind.__module__ in LENDABLE) or not open_name(message["method"]):
                raise TypeError(f"the tests do not lend {message['method']!r} of a {kind.__name__}")
            value = getattr(value, message["method"])
        if not (ours or callable_from_outside(value)):
            raise TypeError(f"the tests do not lend 'call' of a {kind.__name__}")
        args, named = peer.take_arguments(message)
        return value(*args, **named)
    if op in ("attr", "set_attr", "del_attr"):
        if op == "attr" and message["name"] in PLAIN_NAMES and (ours or isinstance(value, (FUNCTION, METHOD))):
            return getattr(value, message["name"])
        if not (ours or (op == "attr" and kind.__module__ in LENDABLE)) or not open_name(message["name"]):
            raise AttributeError(f"the tests do not lend {message['name']!r} of a {kind.__name__}")
        return OPERATIONS[op](value, peer, message)
    if op in ("repr", "str", "format") and not ours and kind.__module__ != "builtins":
        return f"<{kind.__name__} of the tests>"
    if op == "describe" and isinstance(value, type):
        return OPERATIONS[op](value, peer, message)
    if op in ("repr", "str", "truth", "iter", "next", "hash", *AWAITED) or (op in GENERATOR and kind is GENERATED):
        return OPERATIONS[op](value, peer, message)
    if ours and op in OPERATIONS and op not in ("extend", "shadow", "revive", "pickle"):
        return OPERATIONS[op](value, peer, message)
    if op in ("enter", "exit", "len", "item", "set_item", "contains") and kind.__module__ in LENDABLE:
        return OPERATIONS[op](value, peer, message)
    if op == "binary" and message["name"] in ("eq", "ne") and kind in (BUILTIN, METHOD):
        other = peer.decode(message["other"])  # two bound methods are equal by their objects' identity
        return (type(other) is kind and value == other) is (message["name"] == "eq")
    raise TypeError(f"the tests do not lend {op!r} of a {kind.__name__}")


AWAITED = ("begin", "poll", "cancel", "complete", "aiter")
GENERATOR = ("pieces",)
GENERATED: Any = type(_ for _ in ())
PLAIN_NAMES = ("__name__", "__qualname__", "__doc__", "__module__", "__dict__", "__annotations__", "__wrapped__")
LENDABLE = frozenset(
    {  # instances of these modules' classes do nothing but what they are for
        "_io",
        "io",
        "_thread",
        "threading",
        "queue",
        "_queue",
        "random",
        "_random",
        "decimal",
        "datetime",
        "collections",
        "itertools",
        "unittest.mock",
        "tempfile",
        "array",
    }
)


def is_ours(value: Any) -> bool:
    """Whether something is a class that the tests define, or an instance of one."""
    return (value if isinstance(value, type) else type(value)).__module__ == MODULE


def open_name(name: Any) -> bool:
    """Whether an attribute may be read and written by the program: all but the underlined ones of Python's own."""
    closed = ("configure_mock", "reset_mock", "attach_mock", "mock_add_spec")
    return type(name) is str and name not in closed and not (name.startswith("__") and name.endswith("__"))


def callable_from_outside(value: Any) -> bool:
    """Whether the program may call it: what the tests define, bound methods of values, and key functions over those.

    Functions of the standard library never get here, the program uses its own; `eval` and its like thus stay away.
    """
    if isinstance(value, type):
        return bool(value.__module__ == MODULE)
    if type(value) is METHOD:
        if type(value.__self__).__module__ in LENDABLE or is_ours(value.__self__):
            return True
        value = value.__func__
    if type(value) is FUNCTION:
        return isinstance(value.__globals__, Namespace)
    if type(value) is BUILTIN:
        return value.__self__ is not None and type(value.__self__) is not type(sys)
    if type(value).__module__ == "functools" and type(value).__name__ == "partial":
        return is_foreign(value.func) or type(value.func) is Method or callable_from_outside(value.func)
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


class ProgramModule(type(sys)):  # type: ignore[misc]
    """What the tests import as `solution` and its like: the program's names, each asked for when it is used."""

    def __init__(self, name: str, peer: Any, names: Names) -> None:
        super().__init__(name)
        self.__dict__["_peer"] = peer
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


def install_program(peer: Any, names: Names, hidden: Any = ()) -> None:
    """Let the tests import the program by its usual names, but for those that the suite's own files have."""
    for name in PROGRAM_MODULES:
        if f"{name}.py" not in hidden:
            sys.modules[name] = ProgramModule(name, peer, names)


class Suite:
    """The compiled tests, their namespace and the wire to the program."""

    def __init__(self, plan: dict[str, Any], peer: Any, namespace: Namespace) -> None:
        self.peer = peer
        self.names = namespace.names
        self.namespace = namespace
        self.entry_point: str = plan["entry_point"]
        self.kind: str = plan["kind"]
        self.lost = False
        self.setup = None if not plan["setup"].strip() else compile(plan["setup"], "<setup>", "exec", dont_inherit=True)
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
        if self.setup is not None:
            exec(self.setup, self.namespace)
            self.bind()

    def bind(self) -> None:
        try:
            self.namespace[self.entry_point] = self.names.entry_point(self.peer)
        except NameError:
            self.namespace.pop(self.entry_point, None)
        else:
            self.namespace.setdefault("candidate", self.namespace[self.entry_point])

    def serve(self, serve: Any, judged: Any) -> None:
        serve([], [], lambda number: judged(number, self.texts[number], functools.partial(self.run, number)))

    def run(self, number: int) -> None:
        self.names.begin(number)
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
    if peer.world is not None:
        peer.world.problems.clear()
    _, error = attempt(work)
    if peer.broken is not None:  # whatever the test made of it
        return ("lost" if isinstance(peer.broken, Lost) else "invalid_result"), bounds.text(str(peer.broken))
    if error is None and peer.failed is not None:
        error = peer.failed  # in a function of the test's that the program called, and that it got no further with
    if error is None:
        return "passed", ""
    if isinstance(error, Refused):
        return "refused", bounds.text(str(error))
    if isinstance(error, (Unsplittable, BeyondValues)) and not peer.is_foreign(error):
        return "invalid_result", bounds.text(str(error))
    if isinstance(error, test_runners.Skipped):
        return "skipped", bounds.text(str(error))
    if peer.world is not None and peer.world.problems:
        unseen = bounds.text("; ".join(peer.world.problems))
        return "invalid_result", f"the test did not see all that the program did: {unseen}"
    printed = bounds.text(attempt(lambda: str(error))[0] or "", bounds.MAX_ERROR)
    reason = f"{bounds.text(type(error).__name__, bounds.MAX_NAME)}: {printed}"
    if isinstance(error, codec.CodecError):
        return "invalid_result", bounds.text(printed)
    if peer.is_foreign(error):
        if isinstance(error, SystemExit):
            return "no_result", "the program exits instead of answering"
        return ("memory_limit" if isinstance(error, MemoryError) else "runtime_error"), reason
    if isinstance(error, ImportError):
        if error.name in PROGRAM_MODULES and isinstance(sys.modules.get(error.name), ProgramModule):
            return "runtime_error", reason
        absent = isinstance(error, ModuleNotFoundError) or printed.startswith("cannot import name")
        fault = isinstance(peer, ControlPeer) or (absent and error.name in imports(texts))
        return ("invalid" if fault else "invalid_result"), reason
    if isinstance(error, Unusable):
        return ("invalid" if isinstance(peer, ControlPeer) else "invalid_result"), reason
    if isinstance(error, AssertionError):
        return "wrong_answer", (printed or text.strip())[: bounds.MAX_REASON]
    if isinstance(error, NameError):
        return "runtime_error", reason
    return "wrong_answer", f"the test stumbles over the answer: {reason}"


class Rehearsed(BaseException):
    """Raised where a rehearsed role would end its process."""


def rehearse() -> None:
    """Run what every suite runs: code that has run adapts itself no more, and its pages stay shared after a fork."""
    path, modules, module = list(sys.path), dict(sys.modules), revive_object.__module__
    exit_now = os._exit
    try:
        os._exit = leave_rehearsal
        for _ in range(20):
            rehearse_suite()
    finally:
        os._exit = exit_now
        sys.path[:] = path
        for name in (*PROGRAM_MODULES, MODULE):
            sys.modules.pop(name, None)
        sys.modules.update(modules)
        revive_object.__module__ = module
        peers.clear()


def rehearse_suite() -> None:
    """Play the role to a host and a program that have said all their lines beforehand."""
    global WIRE_FD, HOST_FD
    numbers = WIRE_FD, HOST_FD
    (host, host_end), (program, program_end) = _socket.socketpair(), _socket.socketpair()
    send_frame(host, codec.dumps({"run": 0}))
    function = {"t": "h", "mine": True, "id": 0, "type": "function", "native": "function"}
    for word in ({"hello": True}, {"id": 1, "ok": function}, {"id": 2, "ok": 2}):
        send_frame(program, codec.dumps(word))
    host.shutdown(_socket.SHUT_WR)
    plan = {
        "kind": "assert",
        "setup": "",
        "helpers": "",
        "entry_point": "f",
        "tests": ["y = f(1)\nassert y == 2"],
        "files": [],
        "lonely": [False],
        "mentions": [True],
        "attributes": {},
        "roles": [],
    }
    WIRE_FD, HOST_FD = program_end.detach(), host_end.detach()
    try:
        _, end = attempt(lambda: tests(codec.dumps(plan)))
    finally:
        WIRE_FD, HOST_FD = numbers
    said = host.recv(1 << 16)
    host.close()
    program.close()
    if not isinstance(end, Rehearsed) or b'"passed"' not in said:
        raise OSError(0, f"a rehearsal fails: {end!r}, {said!r}")


def leave_rehearsal(status: int) -> NoReturn:
    raise Rehearsed(status)


def not_loaded(hello: dict[str, Any]) -> list[str]:
    """The verdict on a program that fails before it has been asked anything."""
    described = hello["error"] if type(hello["error"]) is dict else {}
    name = bounds.text(described.get("name"), bounds.MAX_NAME)
    reason = f"{name}: {bounds.text(described.get('message'), bounds.MAX_ERROR)}"
    if hello.get("parsed") is False:
        return ["compile_error", reason]
    return ["memory_limit" if described.get("base") == "MemoryError" else "runtime_error", reason]


def tests(source: bytes) -> NoReturn:
    """The role: read the plan from the host, meet the program, then run the tests that the host names, one by one."""
    host = _socket.socket(fileno=HOST_FD)
    plan = codec.loads(source)
    mode = plan.get("control")
    peer: Any = ControlPeer(mode) if mode else Peer(_socket.socket(fileno=WIRE_FD), perform, guarded=True)

    def tell(**fields: Any) -> None:
        """A word to the host, made of our own verdicts and of texts that have been cut."""
        send_frame(host, codec.dumps(fields))

    texts = [plan["setup"], plan["helpers"], *plan["tests"]]
    # The end of an iterator, raised where none was asked, would end an `all(map(f, ...))` of the tests early.
    peer.lends_stop = any("StopIteration" in text for text in texts)
    sys.modules[MODULE] = type(sys)(MODULE)  # dataclasses and typing look a class's module up
    revive_object.__module__ = MODULE  # where a pickle finds it
    sys.modules[MODULE].__dict__["revive_object"] = revive_object
    names = Names(plan)
    install_program(peer, names, plan.get("files", ()))
    namespace = Namespace(peer, names)
    try:
        suite: Any = (test_runners.ModuleTests if plan["kind"] in test_runners.KINDS else Suite)(plan, peer, namespace)
        sys.modules["__main__"] = Main(suite.namespace)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        tell(invalid=f"{type(error).__name__}: {bounds.text(str(error), bounds.MAX_ERROR)}")
        os._exit(0)
    if any("random" in text for text in texts):
        import random

        random.seed(0)  # a report must not depend on the luck of the tests
    root = os.path.dirname(MAIN)
    if not plan.get("files"):  # files of the suite are imported from there, until the program writes a file (`Guard`)
        sys.path[:] = [entry for entry in sys.path if entry != root]
    if not mode:
        peer.world = Tests(root, texts)
    try:
        hello = peer.receive()
    except Lost as error:
        tell(lost=bounds.text(str(error)))
        os._exit(0)
    if hello.get("hello") is not True:
        tell(lost="no greeting")
        os._exit(0)
    if "exit" in hello:
        tell(failed=["no_result", f"the program exits with {bounds.text(hello['exit'], 20)} while it is loaded"])
        os._exit(0)
    if "error" in hello:
        tell(failed=not_loaded(hello))
        os._exit(0)
    verdict, reason = judge(peer, "", suite.prepare, texts)
    if verdict == "lost":
        tell(lost=reason)
    elif verdict == "invalid":
        tell(invalid=f"in the setup: {reason}")
    elif verdict != "passed":
        tell(failed=[verdict, f"in the setup: {reason}"])
    else:

        def serve(found: list[str], skips: list[int], take: Any) -> None:
            """Take one test after the other, as the host names them; `skips` are decorated to be skipped."""
            tell(ready=True, names=found, skips=skips)
            while True:
                number = codec.loads(receive_frame(host))["run"]
                peer.foreign.clear()
                peer.broken = peer.failed = None
                peer.heard = 0
                peer.looks.clear()
                if mode:
                    peer.echoes = 0
                peer.leaned = names.leaned = False
                verdict, reason = take(number)
                if verdict == "lost":
                    tell(lost=reason)
                    os._exit(0)
                if verdict == "invalid":
                    tell(invalid=f"test {found[number] if found else number}: {reason}")
                    os._exit(0)
                beyond = isinstance(peer.broken, BeyondValues)  # what the test asks, whatever the program answers
                last = {"last": True} if suite.lost else {}
                swayed = peer.world is not None and peer.world.swayed
                tell(done=[verdict, reason], leaned=peer.leaned or names.leaned or swayed, beyond=beyond, **last)
                if suite.lost:
                    os._exit(0)

        def judged(number: int, text: str, work: Any) -> tuple[str, str]:
            return judge(peer, text, work, texts)

        _, end = attempt(lambda: suite.serve(serve, judged))
        if isinstance(end, Lost):
            os._exit(0)  # the host wants no more
        reason = f"the tests cannot be collected: {bounds.text(str(end), bounds.MAX_ERROR)}"
        if isinstance(peer, ControlPeer) and "Refused" not in reason:
            tell(invalid=reason)
        else:  # what the program has answered, or would have to
            tell(failed=["invalid_result", reason])
    os._exit(0)
