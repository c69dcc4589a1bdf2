"""The test side of an isolated run: executes the tests' own text and nothing of the program, in a jail of its own.

- A name that the tests do not define is asked of the candidate's process and arrives as a value or a proxy (`rpc`).
- The verdict of each test goes to the host on descriptor 4; the candidate is reached on descriptor 3.
- No line of the program ever runs in this process, so an `assert` that passes here has passed.
- What the program may do with objects of the tests is in `lending_rules`.
"""

from __future__ import annotations

import _socket
import functools
import os
import sys

from sandbox.inside import test_runners
from sandbox.inside.control_run import ControlEndpoint
from sandbox.inside.framing import BeyondValues, Lost, attempt, receive_frame, send_frame
from sandbox.inside.lending_rules import perform
from sandbox.inside.name_resolution import ProgramNames
from sandbox.inside.program_modules import (
    PROGRAM_MODULES,
    MainModule,
    TestNamespace,
    install_program,
)
from sandbox.inside.proxy import endpoints, revive_object
from sandbox.inside.rpc import Endpoint
from sandbox.inside.test_runners import MODULE
from sandbox.inside.test_verdicts import Unusable, judge, not_loaded
from sandbox.inside.tests_state import TestsState
from sandbox.inside.warmup import WarmupExit, exit_warmup
from sandbox.judge import bounds, codec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

MAIN = "/tmp/main.py"  # where the program would lie
WIRE_FD, HOST_FD = 3, 4


class AssertRunner:
    """The compiled tests, their namespace and the wire to the program."""

    def __init__(self, plan: dict[str, Any], endpoint: Any, namespace: TestNamespace) -> None:
        self.endpoint = endpoint
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
        """Run the helpers and the setup. Whatever they define, the entry point is the program's."""
        if self.helpers is not None:
            exec(self.helpers, self.namespace)
        self.bind()
        if self.setup is not None:
            exec(self.setup, self.namespace)
            self.bind()

    def bind(self) -> None:
        try:
            self.namespace[self.entry_point] = self.names.entry_point(self.endpoint)
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
    """The code of a prompt's helpers; None if the prompt does not compile by itself."""
    try:
        return compile(text, "<prompt>", "exec", dont_inherit=True) if text else None
    except SyntaxError:
        return None


def warm_up() -> None:
    """Run what every suite runs: code that has run is already specialised, so its pages stay shared after a fork."""
    path, modules, module = list(sys.path), dict(sys.modules), revive_object.__module__
    exit_now = os._exit
    try:
        os._exit = exit_warmup
        for _ in range(20):
            warm_up_suite()
    finally:
        os._exit = exit_now
        sys.path[:] = path
        for name in (*PROGRAM_MODULES, MODULE):
            sys.modules.pop(name, None)
        sys.modules.update(modules)
        revive_object.__module__ = module
        endpoints.clear()


def warm_up_suite() -> None:
    """Run the role against a host and a program whose messages were all written beforehand."""
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
        "executing": [False],
        "mentions": [True],
        "attributes": {},
        "roles": [],
    }
    WIRE_FD, HOST_FD = program_end.detach(), host_end.detach()
    try:
        _, end = attempt(lambda: tests(codec.dumps(plan)))
    finally:
        WIRE_FD, HOST_FD = numbers
    answer = host.recv(1 << 16)
    host.close()
    program.close()
    if not isinstance(end, WarmupExit) or b'"passed"' not in answer:
        raise OSError(0, f"the warm-up fails: {end!r}, {answer!r}")


def tests(source: bytes) -> NoReturn:
    """The role: read the plan from the host, load the program, then run the tests that the host names, one by one."""
    host = _socket.socket(fileno=HOST_FD)
    plan = codec.loads(source)
    mode = plan.get("control")
    endpoint: Any = ControlEndpoint(mode) if mode else Endpoint(_socket.socket(fileno=WIRE_FD), perform, guarded=True)

    def send_to_host(**fields: Any) -> None:
        """Send a message to the host, made of our own verdicts and of texts that have been cut."""
        send_frame(host, codec.dumps(fields))

    texts = [plan["setup"], plan["helpers"], *plan["tests"]]
    # The end of an iterator, raised where none was asked, would end an `all(map(f, ...))` of the tests early.
    endpoint.raises_stop_iteration = any("StopIteration" in text for text in texts)
    sys.modules[MODULE] = type(sys)(MODULE)  # dataclasses and typing look a class's module up
    revive_object.__module__ = MODULE  # where a pickle finds it
    sys.modules[MODULE].__dict__["revive_object"] = revive_object
    names = ProgramNames(plan)
    install_program(endpoint, names, plan.get("files", ()))
    namespace = TestNamespace(endpoint, names)
    try:
        suite: Any = (test_runners.ModuleTests if plan["kind"] in test_runners.KINDS else AssertRunner)(
            plan, endpoint, namespace
        )
        sys.modules["__main__"] = MainModule(suite.namespace)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        send_to_host(invalid=f"{type(error).__name__}: {bounds.text(str(error), bounds.MAX_ERROR)}")
        os._exit(0)
    if any("random" in text for text in texts):
        import random

        random.seed(0)  # a report must not depend on the luck of the tests
    root = os.path.dirname(MAIN)
    if not plan.get(
        "files"
    ):  # files of the suite are imported from there, until the program writes a file (`FileGuard`)
        sys.path[:] = [entry for entry in sys.path if entry != root]
    if not mode:
        endpoint.state = TestsState(root, texts)
    try:
        hello = endpoint.receive()
    except Lost as error:
        send_to_host(lost=bounds.text(str(error)))
        os._exit(0)
    if hello.get("hello") is not True:
        send_to_host(lost="no greeting")
        os._exit(0)
    if "exit" in hello:
        send_to_host(
            failed=["no_result", f"the program exits with {bounds.text(hello['exit'], 20)} while it is loaded"]
        )
        os._exit(0)
    if "error" in hello:
        send_to_host(failed=not_loaded(hello))
        os._exit(0)
    verdict, reason = judge(endpoint, "", suite.prepare, texts)
    if verdict == "lost":
        send_to_host(lost=reason)
    elif verdict == "invalid":
        send_to_host(invalid=f"in the setup: {reason}")
    elif verdict != "passed":
        send_to_host(failed=[verdict, f"in the setup: {reason}"])
    else:

        def serve(test_names: list[str], skips: list[int], take: Any) -> None:
            """Run the tests that the host names, one after the other; `skips` are decorated to be skipped."""
            send_to_host(ready=True, names=test_names, skips=skips)
            while True:
                number = codec.loads(receive_frame(host))["run"]
                endpoint.remote_errors.clear()
                endpoint.broken = endpoint.failed_assertion = None
                endpoint.num_messages = 0
                endpoint.answers_seen.clear()
                if mode:
                    endpoint.echoes = 0
                endpoint.relied_on_program = names.relied_on_program = False
                verdict, reason = take(number)
                if verdict == "lost":
                    send_to_host(lost=reason)
                    os._exit(0)
                if verdict == "invalid":
                    send_to_host(invalid=f"test {test_names[number] if test_names else number}: {reason}")
                    os._exit(0)
                beyond = isinstance(endpoint.broken, BeyondValues)  # what the test asks, whatever the program answers
                last = {"last": True} if suite.lost else {}
                files_replaced = endpoint.state is not None and endpoint.state.files_replaced
                send_to_host(
                    done=[verdict, reason],
                    leaned=endpoint.relied_on_program or names.relied_on_program or files_replaced,
                    beyond=beyond,
                    **last,
                )
                if suite.lost:
                    os._exit(0)

        def judged(number: int, text: str, work: Any) -> tuple[str, str]:
            return judge(endpoint, text, work, texts)

        _, end = attempt(lambda: suite.serve(serve, judged))
        if isinstance(end, Lost):
            os._exit(0)  # the host wants no more
        reason = f"the tests cannot be collected: {bounds.text(str(end), bounds.MAX_ERROR)}"
        if isinstance(endpoint, ControlEndpoint) and "ControlRefusal" not in reason:
            send_to_host(invalid=reason)
        else:  # what the program has answered, or would have to
            send_to_host(failed=["invalid_result", reason])
    os._exit(0)
