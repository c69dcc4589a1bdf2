"""One end of the connection between the test process and the candidate: requests and replies.

- Both ends run this file, each in its own jail. Only trees of `codec` travel, each message in a frame of its own.
- An end that waits for its reply serves the other end's requests meanwhile, in the same thread; so the program can
  call a test's key function in the middle of a call.
- One thread at a time holds the connection (`lock`). It releases it while it works for the other end.
- `handles` says how objects are written and read; `shared_containers` keeps containers that both ends hold in step.

Messages
  {"op": O, "id": N, "h": H, ...}     do O with the object that you have lent under H (`operations.OPERATIONS`)
  {"op": "get", "id": N, "name": S}   the program's object of that name; `call` takes a name instead of a handle as well
  {"op": "call", "id": N, "h": H, "method": S, "args": [...], "names": [...], "sync": [...]}
                                      the last arguments are by name; `sync` are proxies whose content may change
  {"id": N, "ok": TREE, "content": [[H, TREE]...]}   the value
  {"id": N, "error": {...}}           an exception: its text for the judge, and under "it" the exception itself
  {"id": N, "wall": S}                what was asked for cannot cross, and why

Shared containers
  {"t": "h", "live": K} is the container under the key K. In every message "live" holds what its sender has changed;
  "first" is the key of the first container of "args", in the order of `codec.Lender`, or of "ok", where "held" says
  which. After the message is read, the keys in "gone" are forgotten. The judge itself calls by name, and neither sends
  nor gets "live".
"""

from __future__ import annotations

import _thread
import sys

from sandbox.inside import proxy
from sandbox.inside.framing import (
    BeyondValues,
    Frames,
    Lost,
    Unsplittable,
    attempt,
    builtin_exception,
    describe_error,
    send_frame,
)
from sandbox.inside.handles import HandleTable
from sandbox.inside.proxy import (
    NUMBER,
    SYNCED,
    instance_entry,
    is_proxy,
)
from sandbox.inside.shared_containers import release_frames
from sandbox.judge import bounds, codec

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable
    from typing import Any, NoReturn

# What asks an object of itself, and what may change one.
LOOKING = frozenset({"attr", "item", "str", "repr", "format", "len", "int", "index", "float", "contains", "bytes"})
ANSWERING = frozenset({"get", "poll", "complete"})
CHANGING = frozenset({"set_attr", "del_attr", "set_item", "del_item", "set_content", "enter", "exit"})


class Endpoint(HandleTable):
    """One end of the wire. `policy` answers the other end's requests; `before_reply` runs before each answer."""

    def __init__(
        self,
        sock: _socket.socket,
        policy: Callable[[Endpoint, dict[str, Any]], Any],
        *,
        follows_refs: bool = False,
        guarded: bool = False,
        before_reply: Callable[[], object] = bool,
    ) -> None:
        super().__init__(guarded=guarded, follows_refs=follows_refs)
        self.sock = sock
        self.frames = Frames(sock)
        self.policy = policy
        self.before_reply = before_reply
        self.depth = 0  # requests of the other end that are being done
        self.send_lock: Any = _thread.RLock()
        self.remote_errors: list[BaseException] = []  # exceptions that came from the other end
        self.failed_assertion: BaseException | None = None  # an assertion that failed in a function the program called
        self.state: Any = None  # what this end shares with the other besides values
        self.next_id = 0
        self.num_messages = 0  # messages in this test
        self.raises_stop_iteration = True  # whether a StopIteration of the other end is raised here as one
        self.relied_on_program = False  # whether a verdict would rest on methods of the program's objects
        self.named_classes: set[int] = set()  # numbers of the classes that the tests use by name
        self.entry_class: int | None = None  # the number of the entry point, where it is a class
        self.answers_seen: dict[str, int] = {}  # hashes of what objects have answered, by the question
        self.changes_made = 0  # how often anything was done that may change an object
        self.lock = _thread.allocate_lock()
        proxy.endpoints[:] = [self]

    def is_remote_error(self, error: BaseException) -> bool:
        return any(error is other for other in self.remote_errors)

    def may_swallow(self, error: BaseException) -> bool:
        """Whether a context of the program may swallow an exception: the program's own, or one raised on purpose."""
        if not self.guarded:
            return True
        if self.is_remote_error(error):  # but for what a wrong answer makes of the test's next step
            return not isinstance(error, (AttributeError, NameError, TypeError))
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        if isinstance(error, AssertionError) or trace is None:
            return False
        return bool(trace.tb_frame.f_code.co_code[trace.tb_lasti] == RAISE)

    # requests and replies

    def request(self, op: str, /, given: Any = None, **fields: Any) -> Any:
        """Ask the other end and wait; raises its exception here. `given`: values that it may keep."""
        reply = self.raise_error_of(self.exchange(op, fields, given))
        value = self.read_value(reply, answering=op in ANSWERING)
        if self.guarded:
            self.check_consistent(op, fields, reply.get("ok"))
        return value

    def check_consistent(self, op: str, fields: dict[str, Any], tree: Any) -> None:
        """Mark the test if an object has answered one question in two ways without being changed in between."""
        if op in CHANGING:
            self.answers_seen.clear()
            self.changes_made += 1
        elif op in LOOKING:
            if type(tree) is dict and tree.get("t") == "h" and "native" in tree:
                tree = True  # a method, a generator: a new one each time
            encoded, error = attempt(lambda: codec.dumps(tree))
            if encoded is not None and b'"live":' in encoded:
                return  # a container that both ends hold: its changes are sent, and mark the test
            question = codec.dumps({**fields, "sync": None, "op": op}).decode()
            if error is not None or self.answers_seen.setdefault(question, hash(encoded)) != hash(encoded):
                self.relied_on_program = True

    def exchange(self, op: str, fields: dict[str, Any], values: Any = None) -> dict[str, Any]:
        """Send a request and wait for its reply; with each goes what its sender has changed. `values`: arguments."""
        reply = self.send_and_wait(op, fields, values)
        self.apply_changes(reply)
        if "world" in reply and self.state is not None:
            self.state.apply(self, reply["world"])
        return reply

    def request_fields(self, fields: dict[str, Any], values: Any) -> dict[str, Any]:
        """What a request says besides what it asks."""
        message = {**fields, "live": self.containers.changes(self.lend)}
        if "of" in message["live"] or "home" in message["live"]:  # the tests have changed what the program holds
            self.answers_seen.clear()
            self.changes_made += 1
        if values is not None:
            lender = self.containers.lender(self.lend)
            self.containers.since = self.containers.next
            message["args"] = [codec.encode(value, lender) for value in values]
            if lender.kept:
                message["first"] = self.containers.commit(lender.kept)
        if self.state is not None and (changes := self.state.changes(self)) is not None:
            message["world"] = changes
        return message

    def send_and_wait(self, op: str, fields: dict[str, Any], values: Any) -> dict[str, Any]:
        check_stack()
        self.send_lock.acquire()  # until it is sent: the next thread relies on the changes that this one announces
        has_wire = False
        try:
            message = self.request_fields(fields, values)
            self.lock.acquire()
            has_wire = True
            self.next_id += 1
            number = self.next_id
            send_frame(self.sock, codec.dumps({"op": op, "id": number, **message}))
        except BaseException as error:
            if has_wire:
                self.lock.release()
            if isinstance(error, OSError):  # the other end has been killed, which is no answer of its own
                raise self.fail(Lost(str(error))) from None
            if isinstance(error, codec.CodecError):
                raise self.fail(Unsplittable(str(error))) from None
            raise
        finally:
            self.send_lock.release()
        try:
            while True:
                reply = self.receive()
                self.num_messages += 1
                if self.num_messages > bounds.MAX_MESSAGES:
                    raise self.fail(Unsplittable(f"more than {bounds.MAX_MESSAGES} messages for one test"))
                if "op" in reply:
                    self.dispatch(reply)
                elif reply.get("id") == number:
                    return reply
                else:
                    raise self.fail(Lost("a reply to no request"))
        finally:
            self.lock.release()

    def apply_changes(self, message: dict[str, Any]) -> None:
        """Make the changes of the other end in the containers that both hold."""
        if "live" not in message:
            return
        try:
            for changed in self.containers.apply(message["live"], self.borrow):
                object.__setattr__(changed.value, SYNCED, self.content(changed.value, changed.base))
            self.relied_on_program = self.relied_on_program or (self.guarded and self.containers.relied_on_program)
            self.containers.relied_on_program = False
        except (codec.CodecError, TypeError, ValueError) as error:
            raise self.fail(Unsplittable(bounds.text(str(error)))) from None

    def read_value(self, reply: dict[str, Any], *, answering: bool = False) -> Any:
        """The value that a reply brings, and which of its containers the other end holds on to.

        `answering`: it is what the program was asked for, so the functions in it may be called as a part of the answer.
        """
        borrower = codec.Borrower(self.borrow, [])
        try:
            self.answering = answering
            try:
                value = codec.decode(reply.get("ok"), borrower)
            finally:
                self.answering = False
            held = self.containers.held(reply.get("held"), borrower.built)
            self.containers.adopt(reply.get("first"), held)
            self.finish_reply(reply)
        except (codec.CodecError, TypeError, ValueError) as error:
            raise self.fail(Unsplittable(bounds.text(str(error)))) from None
        return value

    def raise_error_of(self, reply: dict[str, Any]) -> dict[str, Any]:
        if "wall" in reply:
            raise self.fail(Unsplittable(bounds.text(reply["wall"])))
        if "error" in reply:
            error = self.rebuild_error(reply["error"])
            self.finish_reply(reply)
            raise error
        return reply

    def finish_reply(self, reply: dict[str, Any]) -> None:
        """Refresh and forget what a reply names, after its value has been read."""
        try:
            self.refresh_all(reply)
            self.containers.forget(reply.get("gone", []))
        except codec.CodecError as error:
            raise self.fail(Unsplittable(bounds.text(str(error)))) from None

    def call(self, target: dict[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any], owner: Any = None) -> Any:
        """Call something of the other end. Arguments that it changes are changed here too, even if it raises."""
        values = [*args, *kwargs.values()]
        fields = {**target, "names": list(kwargs)}
        alive = [
            value
            for value in (owner, *values)
            if type(type(value)) is not type and instance_entry(value, SYNCED) is not None
        ]
        if alive:
            for value in alive:
                proxy.push_content(value)
            fields["sync"] = [instance_entry(value, NUMBER) for value in alive]
        reply = self.exchange("call", fields, values)
        self.changes_made += 1
        if self.answers_seen and (owner is not None or any(is_proxy(value) for value in values)):
            self.answers_seen.clear()
        return self.read_value(self.raise_error_of(reply), answering=True)

    def rebuild_error(self, tree: Any) -> BaseException:
        if type(tree) is not dict:
            raise self.fail(Lost("an error without a description"))
        if tree.get("it") is not None:
            result = self.decode(tree["it"])
            if not isinstance(result, BaseException):
                raise self.fail(Lost("an error that is not an exception"))
            error: BaseException = result
            if id(error) not in self.error_numbers and instance_entry(error, NUMBER) is None:
                if not isinstance(error, AssertionError):  # an AssertionError fails the test, wherever it was raised
                    self.remote_errors.append(error)
                return error  # our own comes home, through the other end, which has let it pass
        else:
            error = builtin_exception(tree.get("base"))(bounds.text(tree.get("message"), bounds.MAX_ERROR))
        if isinstance(error, (StopIteration, StopAsyncIteration)) and not self.raises_stop_iteration:
            error = RuntimeError(f"{type(error).__name__} raised by the program")
        self.remote_errors.append(error)
        return error

    def receive(self) -> dict[str, Any]:
        try:
            message = codec.loads(self.frames.next())
        except (Lost, codec.CodecError, OSError) as error:
            raise self.fail(Lost(str(error))) from None
        if type(message) is not dict:
            raise self.fail(Lost("a message that is not an object"))
        return message

    def serve(self) -> NoReturn:
        """Do what the other end asks, until it has ended."""
        self.lock.acquire()
        while True:
            self.dispatch(self.receive())

    def with_state_changes(self, data: bytes, number: Any) -> bytes:
        """A reply, and what has changed in this end's state."""
        if self.state is None or (changes := self.state.changes(self)) is None:
            return data
        try:
            return codec.dumps({**codec.loads(data), "world": changes})
        except codec.CodecError as error:
            return codec.dumps({"id": number, "wall": bounds.text(str(error))})

    def dispatch(self, message: dict[str, Any]) -> None:
        """Do what the other end asks and reply; anything the work raises becomes the reply. Called with the lock."""
        number = message.get("id")
        result: list[Any] = []
        has_send_lock = False
        self.lock.release()
        try:
            _, error = attempt(lambda: result.append(self.perform(message)))
            if isinstance(error, Lost):
                raise error
            self.send_lock.acquire()
            has_send_lock = True
            data = self.reply(message, result, error)
            self.before_reply()
            data, fault = attempt(lambda: self.with_state_changes(data, number))
            if fault is not None:
                if not isinstance(fault, (codec.CodecError, Unsplittable, BeyondValues)):
                    raise fault
                data = codec.dumps({"id": number, "wall": bounds.text(str(fault))})
        except BaseException:
            if has_send_lock:
                self.send_lock.release()
            raise
        finally:
            self.lock.acquire()
        try:
            send_frame(self.sock, data)
        except OSError as fault:
            raise self.fail(Lost(str(fault))) from None
        finally:
            self.send_lock.release()

    def perform(self, message: dict[str, Any]) -> Any:
        if self.state is not None:
            self.state.apply(self, message.get("world"))
        self.apply_changes(message)
        self.depth += 1
        try:
            return self.policy(self, message)
        finally:
            self.depth -= 1

    def reply(self, message: dict[str, Any], result: list[Any], error: BaseException | None) -> bytes:
        """The reply that says what work has returned, which is in `result`, or what it has raised."""
        number = message.get("id")
        if error is None:
            data, error = attempt(lambda: codec.dumps(self.value_reply(message, result)))
            if error is None:
                return bytes(data)
        if isinstance(error, Lost):
            raise error
        if isinstance(error, (codec.CodecError, Unsplittable, BeyondValues)):
            return codec.dumps({"id": number, "wall": bounds.text(str(error))})
        return self.error_reply(message, error)

    def value_reply(self, message: dict[str, Any], result: list[Any]) -> dict[str, Any]:
        """The reply for a value. Nothing else holds the value here, so only the program's own references count."""
        reply: dict[str, Any] = {"id": message.get("id")}
        if "live" not in message:  # the judge itself, who keeps nothing
            return reply | {"ok": codec.encode(result.pop(), self.lend)}
        reply["live"] = self.containers.changes(self.lend, forget=False)
        lender = self.containers.lender(self.lend)
        reply["ok"] = codec.encode(result.pop(), lender)
        return reply | self.containers.held_in(lender) | self.contents(message) | self.gone()

    def gone(self) -> dict[str, Any]:
        """The keys that both ends may forget once this reply has been read."""
        gone = self.containers.prune() if self.containers.by_key else []
        if not self.guarded and not self.depth and self.containers.by_key:
            gone += self.containers.evict()
        return {"gone": gone} if gone else {}

    def contents(self, message: dict[str, Any]) -> dict[str, Any]:
        """The current content of containers of ours that have a stand-in with content at the other end."""
        numbers = message.get("sync") or ()
        return {"content": [[number, self.content(self.lent[number])] for number in numbers]} if numbers else {}

    def error_reply(self, message: dict[str, Any], error: BaseException) -> bytes:
        if self.guarded and isinstance(error, AssertionError) and not self.is_remote_error(error):
            self.failed_assertion = self.failed_assertion or error
        if not self.guarded:
            release_frames(error)
        described = describe_error(error)
        reply = {"id": message.get("id"), "error": described}
        if "live" not in message:
            it, _ = attempt(lambda: codec.encode(error, self.lend))
            data, fault = attempt(lambda: codec.dumps(reply | {"error": described | {"it": it}}))
            return codec.dumps(reply) if fault is not None else bytes(data)

        def whole() -> bytes:
            live = self.containers.changes(self.lend, forget=False)
            it, _ = attempt(lambda: codec.encode(error, self.lend))
            return codec.dumps(reply | {"error": described | {"it": it}, "live": live} | self.gone())

        data, fault = attempt(whole)
        if fault is not None:
            self.containers.lose()
            return codec.dumps(reply)
        return bytes(data)

    def take_arguments(self, message: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """The decoded arguments of a request."""
        borrower = codec.Borrower(self.borrow, [])
        values = [codec.decode(tree, borrower) for tree in message["args"]]
        if "live" in message:
            self.containers.adopt(message.get("first"), borrower.built)
        names = message.get("names") or []
        split = len(values) - len(names)
        return values[:split], dict(zip(names, values[split:], strict=True))


RAISE = compile("raise E", "", "exec").co_code[-2]  # the instruction; the module that names it costs each fork


def has_stack_for(calls: int) -> bool:
    """Raise RecursionError before anything is sent, if the stack has no room for the handling of an answer."""
    return calls == 0 or has_stack_for(calls - 1)


def check_stack() -> None:
    """`has_stack`, except on a shallow stack, where counting frames (without a call each) shows it."""
    try:
        sys._getframe(sys.getrecursionlimit() // 4)
    except ValueError:
        return
    has_stack_for(STACK_RESERVE)


STACK_RESERVE = 60
