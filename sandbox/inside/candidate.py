"""The candidate's side of a jail: loads the program as a real `__main__` and runs it, or serves its functions.

This runs in the process that is judged, after every privilege is gone. Nothing here is trusted by anybody: the program
may patch, read or replace all of it, and what it can produce that way is still only bytes, an exit status and values.

`script` behaves like `python3 main.py` (module `__main__`, `__file__`, tracebacks, exit code, threads and atexit).
`serve` loads the program and then answers the test side's requests on descriptor 3 until that side hangs up.
`shared` runs the program and one test of it in this very process, for those who ask for that: what it says on
descriptor 3 the program could say as well. The `audited` roles do the same watched by `audit`, on the next descriptor.
"""

from __future__ import annotations

import _socket
import atexit
import builtins
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from sandbox.inside import awaited, together
    from sandbox.inside.audit import Watch
    from sandbox.inside.peer import Peer
    from sandbox.inside.remote import BASES
    from sandbox.inside.wire import Lost, attempt, describe_error, send_frame
    from sandbox.judge import codec
else:
    import awaited
    import codec
    import together
    from peer import Peer
    from remote import BASES
    from wire import Lost, attempt, describe_error, send_frame

MAIN = "/tmp/main.py"
HARNESS = "/harness"
TEST_FILE = "/test_suite.py"
WIRE_FD = 3

_exit = os._exit


def new_main() -> Any:
    """A fresh `__main__`; the site builtins that `python3` would have are there already."""
    main = type(sys)("__main__")
    main.__file__ = MAIN
    main.__builtins__ = builtins  # type: ignore[attr-defined]
    sys.modules["__main__"] = main
    return main


def own_frames(error: BaseException) -> Any:
    """The traceback from the program's first frame on; None when no frame of it is there (a syntax error)."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename != MAIN:
        trace = trace.tb_next
    return trace


def show(error: BaseException) -> None:
    sys.excepthook(type(error), error.with_traceback(own_frames(error)), error.__traceback__)


def exit_code(error: SystemExit) -> int:
    code = error.code
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)
    return 1


def watch_over(source: bytes, fd: int) -> Watch:
    """Begin to watch this process; what is seen is said on `fd`."""
    sys.path.insert(0, HARNESS)
    import audit  # type: ignore[import-not-found]

    sys.path.pop(0)
    sys.modules.pop("audit")
    watch: Watch = audit.Watch(fd, source)
    return watch


def finish(code: int, watch: Watch | None = None) -> NoReturn:
    """End as the interpreter would: wait for threads, run atexit handlers, flush."""
    threading = sys.modules.get("threading")
    if threading is not None:
        attempt(threading._shutdown)
    attempt(atexit._run_exitfuncs)
    if not flush():
        code = 120  # what the interpreter says when its last flush fails
    if watch is not None:
        watch.end()
    _exit(code)


def run_main(source: bytes) -> tuple[Any, int | None, BaseException | None]:
    """Run the program's module code: (module, exit code it asked for, what it died of)."""
    main = new_main()
    _, error = attempt(lambda: exec(compile(source, MAIN, "exec", dont_inherit=True), main.__dict__))
    if isinstance(error, SystemExit):
        return main, exit_code(error), None
    return main, None, error


def script(source: bytes, watch: Watch | None = None) -> NoReturn:
    main, code, error = run_main(source)
    if watch is not None:
        watch.look(main.__dict__)
    if error is not None:
        show(error)
        code = 1
    finish(code or 0, watch)


def audited_script(source: bytes) -> NoReturn:
    script(source, watch_over(source, WIRE_FD))


def audited_serve(source: bytes) -> NoReturn:
    serve(source, watch_over(source, WIRE_FD + 1))


def audited_shared(source: bytes) -> NoReturn:
    shared(source, watch_over(program_of(codec.loads(source)), WIRE_FD + 1))


def program_of(plan: Any) -> bytes:
    program: str = plan["program"]
    return program.encode("latin-1")


def serve(source: bytes, watch: Watch | None = None) -> NoReturn:
    wire = _socket.socket(fileno=WIRE_FD)
    os.set_inheritable(WIRE_FD, False)
    main, code, error = run_main(source)
    flush()
    if watch is not None:
        watch.look(main.__dict__)
    hello: dict[str, Any] = {"hello": True}
    if error is not None:
        show(error)
        hello["error"] = describe_error(error)
    elif code is not None:
        hello["exit"] = code
    send_frame(wire, codec.dumps(hello))
    if error is not None or code is not None:
        finish(1 if code is None else code, watch)

    def ahead() -> None:
        flush()
        if watch is not None:
            watch.look()

    peer = Peer(
        wire, lambda peer, message: perform(main.__dict__, peer, message), follows_refs=True, before_reply=ahead
    )
    try:
        while True:
            peer.answer(peer.receive())
    except (Lost, OSError):
        flush()
        _exit(0)


def shared(source: bytes, watch: Watch | None = None) -> NoReturn:
    """Run program, setup and one test in one module, and say how that went."""
    wire = _socket.socket(fileno=WIRE_FD)
    os.set_inheritable(WIRE_FD, False)
    plan = codec.loads(source)
    plan["runner"] = f"{HARNESS}/lib"

    def tell(**fields: Any) -> None:
        flush()
        if watch is not None:
            watch.look(main.__dict__)
        send_frame(wire, codec.dumps(fields))

    try:
        codes = together.prepare(plan)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as fault:
        send_frame(wire, codec.dumps({"invalid": f"{type(fault).__name__}: {fault}"}))
        _exit(0)
    send_frame(wire, codec.dumps({"ready": True}))  # before the program's first line: nobody but us can have said it
    main, code, error = run_main(program_of(plan))
    if error is None and code is None:
        _, error = attempt(lambda: together.take(main, codes, plan, resolve))
        if isinstance(error, SystemExit):
            code, error = exit_code(error), None
    if code is not None:
        tell(done=["no_result", f"the program exits with {code} instead of answering"])
    elif error is not None:
        whose = blame(error)
        show(error)
        tell(done=[whose, f"{type(error).__name__}: {describe_error(error)['message']}"[:2000]])
    else:
        tell(done=["passed", ""])
    finish(0, watch)


def blame(error: BaseException) -> str:
    """Whose exception it is, by the innermost frame that is the program's or the test's."""
    if type(error).__name__ == "Skipped":
        return "skipped"
    place, trace = "", error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        place = name if name in (MAIN, "<setup>", "<test>") or name.endswith(TEST_FILE) else place
        trace = trace.tb_next
    if not place and isinstance(error, AssertionError):  # in the runner's own words
        return "wrong_answer"
    if place == MAIN or not place:
        return "runtime_error"
    if isinstance(error, ImportError):
        return "invalid_result"  # a test that needs what is not here; the program may pretend so, and gains nothing
    return "runtime_error" if isinstance(error, NameError) else "wrong_answer"


def flush() -> bool:
    """Flush whatever the program has left as stdout and stderr; False if that fails."""
    errors = [attempt(stream.flush)[1] for stream in (sys.stdout, sys.stderr) if hasattr(stream, "flush")]
    return not any(errors)


def resolve(namespace: dict[str, Any], name: str) -> Any:
    """A name of the program; `Class.method` is bound to a fresh instance, the way judges of methods mean it."""
    first, *rest = name.split(".")
    if first not in namespace:
        raise NameError(f"name {first!r} is not defined")
    value = namespace[first]
    for part in rest:
        if isinstance(value, type) and callable(getattr(value, part, None)):
            value = value()
        value = getattr(value, part)
    return value


def perform(namespace: dict[str, Any], peer: Any, message: dict[str, Any]) -> Any:
    op = message["op"]
    if op == "get":
        return resolve(namespace, message["name"])
    if op == "call":
        function = resolve(namespace, message["name"]) if "name" in message else peer.local(message)
        return call(function, peer, message)
    return OPERATIONS[op](peer.local(message), peer, message)


def call(function: Any, peer: Any, message: dict[str, Any]) -> Any:
    """Call with the decoded arguments; those that the call has changed in place are noted for the way back."""
    trees, names = message["args"], message["names"]
    values = [peer.decode(tree) for tree in trees]
    split = len(values) - len(names)
    result = function(*values[:split], **dict(zip(names, values[split:], strict=True)))
    for position, (tree, value) in enumerate(zip(trees, values, strict=True)):
        if type(tree) is list or (type(tree) is dict and tree.get("t") not in ("h", "int", "float", "bytes")):
            after = peer.encode(value)
            if after != tree:
                message["changed"].append([position, after])
    return result


def next_of(iterator: Any) -> Any:
    for item in iterator:
        return (item,)
    return None


def base_of(value: Any) -> Any:
    """The builtin value that an instance of a subclass extends, past every method of the subclass."""
    base: Any
    for base in BASES:
        if isinstance(value, base):
            if base in (list, tuple, set, frozenset):
                return base(base.__iter__(value))
            if base is dict:
                return {key: dict.__getitem__(value, key) for key in dict.__iter__(value)}
            if base in (str, bytes, bytearray):
                return base.__getitem__(value, slice(None))
            return base.__add__(value, base(0))
    raise TypeError("not a builtin value")


OPERATIONS: dict[str, Any] = {
    "attr": lambda o, p, m: getattr(o, m["name"]),
    "set_attr": lambda o, p, m: setattr(o, m["name"], p.decode(m["value"])),
    "del_attr": lambda o, p, m: delattr(o, m["name"]),
    "item": lambda o, p, m: o[p.decode(m["key"])],
    "set_item": lambda o, p, m: o.__setitem__(p.decode(m["key"]), p.decode(m["value"])),
    "del_item": lambda o, p, m: o.__delitem__(p.decode(m["key"])),
    "instance": lambda o, p, m: isinstance(p.decode(m["value"]), o),
    "subclass": lambda o, p, m: issubclass(p.decode(m["value"]), o),
    "iter": lambda o, p, m: iter(o),
    "reversed": lambda o, p, m: reversed(o),
    "next": lambda o, p, m: next_of(o),
    "len": lambda o, p, m: len(o),
    "truth": lambda o, p, m: bool(o),
    "repr": lambda o, p, m: repr(o),
    "str": lambda o, p, m: str(o),
    "format": lambda o, p, m: format(o, m["spec"]),
    "int": lambda o, p, m: int(o),
    "index": lambda o, p, m: o.__index__(),
    "float": lambda o, p, m: float(o),
    "abs": lambda o, p, m: abs(o),
    "neg": lambda o, p, m: -o,
    "enter": lambda o, p, m: o.__enter__(),
    "exit": lambda o, p, m: o.__exit__(None, None, None),
    "base": lambda o, p, m: base_of(o),
    **awaited.OPERATIONS,
}
