"""The candidate's side of a jail: loads the program as `__main__` or as a module, and runs it or serves its functions.

- This runs in the judged process, after it has given up every privilege. Nothing here is trusted: the program may
  patch, read or replace all of it, and still produces only bytes, an exit status and values.
- `script` behaves like `python3 main.py` (module `__main__`, `__file__`, tracebacks, exit code, threads and atexit).
- `serve` loads the program and then serves the test side's requests on descriptor 3 until that side closes it.
- `shared` runs the program and one test in this process, if the request asks for that. The program could write
  everything to descriptor 3 that this file writes.
- The `audited` roles do the same, and `audit` observes them on the next descriptor.
"""

from __future__ import annotations

import _socket
import builtins
import os
import sys

from sandbox.inside import in_process, interpreter_exit
from sandbox.inside.exit_marks import is_plain
from sandbox.inside.framing import Lost, attempt, describe_error, send_frame
from sandbox.inside.operations import OPERATIONS
from sandbox.inside.program_state import ProgramState
from sandbox.inside.proxy import endpoints
from sandbox.inside.rpc import Endpoint
from sandbox.inside.warmup import WarmupExit, exit_warmup
from sandbox.judge import codec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from sandbox.inside.audit import ProgramAudit

MAIN = "/tmp/main.py"
PLAIN: bool | None = None  # whether the end of the program's objects is invisible; None: decided by the text
NAME = "__main__"  # or another, where the program is loaded as a module: its `__main__` guard is not run then
HARNESS = "/harness"
TEST_FILE = "/test_suite.py"
WIRE_FD = 3

_exit = os._exit


staged: dict[str, Any] = {}  # the program's module by its names, where it was made before the fork


def stage() -> None:
    """Prepare what programs get, in the process that is forked, after its last garbage collection."""
    staged.update((name, new_main(name)) for name in ("__main__", "main"))


def new_main(name: str) -> Any:
    """The program's module; site's builtins are there already."""
    main = type(sys)(name)
    main.__loader__ = sys.modules["_frozen_importlib_external"].SourceFileLoader(name, MAIN)
    main.__annotations__ = {}
    main.__builtins__ = builtins  # type: ignore[attr-defined]
    main.__file__ = MAIN
    main.__cached__ = None  # type: ignore[attr-defined]
    return main


PRELUDE = b"\0prelude "  # judge/prelude.py
given: dict[str, Any] = {}  # what the prelude has defined: not the program's, unless it binds the name again
asked_names: list[str] = []  # the entry point where there is a prelude


def parted(source: bytes) -> tuple[bytes, bytes]:
    """The suite's prelude, mostly empty, and the program."""
    if not source.startswith(PRELUDE):
        return b"", source
    head, _, rest = source.partition(b"\n")
    words = head[len(PRELUDE) :].decode().split(" ")
    asked_names[:] = words[1:]
    return rest[: int(words[0])], rest[int(words[0]) :]


def load(source: bytes, namespace: dict[str, Any]) -> None:
    """Run the module code, after the prelude's in the same namespace."""
    prelude, program = parted(source)
    if prelude:
        before = set(namespace)
        exec(compile(prelude, "<prelude>", "exec", dont_inherit=True), namespace)
        given.update((name, value) for name, value in namespace.items() if name not in before)
    exec(compile(program, MAIN, "exec", dont_inherit=True), namespace)


def start_audit(source: bytes, fd: int) -> ProgramAudit:
    """Start to observe this process; words are written to `fd`."""
    sys.path.insert(0, HARNESS)
    from sandbox.inside import audit

    sys.path.pop(0)
    for name in list(sys.modules):
        if name.partition(".")[0] == "sandbox":
            del sys.modules[name]
    audit_of_program: ProgramAudit = audit.ProgramAudit(fd, parted(source)[1])
    return audit_of_program


def run_main(source: bytes) -> tuple[Any, BaseException | None]:
    """Run the program's module code. Returns its module, and the exception that ended it, if one did."""
    main = staged.pop(NAME) if staged else new_main(NAME)
    staged.clear()
    sys.modules["__main__"] = main  # also to be imported as that
    if NAME != "__main__":
        sys.modules[NAME] = main
    _, error = attempt(lambda: load(source, main.__dict__))
    return main, error


def warm_up() -> None:
    """Run what every program runs: code that has run is already specialised, so its pages stay shared after a fork."""
    own_main = sys.modules["__main__"]
    for _ in range(20):
        stage()
        run_main(b"pass\n")
        interpreter_exit.flush_quietly("stderr", "stdout")
        interpreter_exit.flush_streams()
        warm_up_serving()
    sys.modules["__main__"] = own_main
    endpoints.clear()


def warm_up_serving() -> None:
    """Serve a judge and a test whose messages were all written beforehand."""
    global WIRE_FD, _exit
    wire, exit_now = WIRE_FD, _exit
    peer, own_end = _socket.socketpair()
    hello = {"hello": [False, False], "depth": sys.getrecursionlimit()}
    call = {"op": "call", "args": [1], "names": []}
    for message in (
        {**call, "id": 1, "name": "f"},
        {"op": "get", "id": 2, "name": "f", "world": hello},
        {**call, "id": 3, "h": 0},
        {**call, "id": 4, "h": 0, "args": [[1, 2]]},
    ):
        send_frame(peer, codec.dumps(message))
    peer.shutdown(_socket.SHUT_WR)
    WIRE_FD, _exit = own_end.detach(), exit_warmup
    try:
        _, end = attempt(lambda: serve(b"def f(x): return x\n"))
    finally:
        WIRE_FD, _exit = wire, exit_now
    peer.close()
    if not isinstance(end, WarmupExit):
        raise OSError(0, f"the warm-up fails: {end!r}")


def script(source: bytes, audit_of_program: ProgramAudit | None = None) -> NoReturn:
    main, error = run_main(source)
    if audit_of_program is not None:
        audit_of_program.look(main.__dict__)
    code = 0 if error is None else interpreter_exit.uncaught(error, MAIN)
    del main, error  # what is held here would not be finalized
    interpreter_exit.finish(code, audit_of_program, plain=is_plain(source) if PLAIN is None else PLAIN)


def audited_script(source: bytes) -> NoReturn:
    script(source, start_audit(source, WIRE_FD))


def audited_serve(source: bytes) -> NoReturn:
    serve(source, start_audit(source, WIRE_FD + 1))


def audited_shared(source: bytes) -> NoReturn:
    shared(source, start_audit(program_of(codec.loads(source)), WIRE_FD + 1))


def program_of(plan: Any) -> bytes:
    program: str = plan["program"]
    return program.encode("latin-1")


def serve(source: bytes, audit_of_program: ProgramAudit | None = None) -> NoReturn:
    wire = _socket.socket(fileno=WIRE_FD)
    os.set_inheritable(WIRE_FD, False)
    main, error = run_main(source)
    flush()
    if audit_of_program is not None:
        audit_of_program.look(main.__dict__)
    hello: dict[str, Any] = {"hello": True}
    if error is not None:
        parsed = interpreter_exit.own_frames(error, MAIN) is not None
        code = interpreter_exit.uncaught(error, MAIN)
        if isinstance(error, SystemExit):
            hello["exit"] = code
        else:
            hello |= {"error": describe_error(error), "parsed": parsed}
        send_frame(wire, codec.dumps(hello))
        main = error = None
        interpreter_exit.finish(code, audit_of_program)
    send_frame(wire, codec.dumps(hello))

    def ahead() -> None:
        flush()
        if audit_of_program is not None:
            audit_of_program.look()

    endpoint = Endpoint(
        wire, lambda endpoint, message: perform(main.__dict__, endpoint, message), follows_refs=True, before_reply=ahead
    )
    endpoint.state = ProgramState(os.path.dirname(MAIN), main.__dict__)
    try:
        endpoint.serve()
    except (Lost, OSError):
        flush()
        _exit(0)


def shared(source: bytes, audit_of_program: ProgramAudit | None = None) -> NoReturn:
    """Run program, setup and one test in one module, and report the outcome."""
    wire = _socket.socket(fileno=WIRE_FD)
    os.set_inheritable(WIRE_FD, False)
    plan = codec.loads(source)
    plan["runner"] = f"{HARNESS}/lib"

    def tell(**fields: Any) -> None:
        flush()
        if audit_of_program is not None:
            audit_of_program.look(main.__dict__)
        send_frame(wire, codec.dumps(fields))

    try:
        codes = in_process.prepare(plan)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as fault:
        send_frame(wire, codec.dumps({"invalid": f"{type(fault).__name__}: {fault}"}))
        _exit(0)
    send_frame(wire, codec.dumps({"ready": True}))  # before the program's first line: so it cannot be forged
    main, error = run_main(program_of(plan))
    parsed = error is None or interpreter_exit.own_frames(error, MAIN) is not None
    if error is None:
        _, error = attempt(lambda: in_process.take(main, codes, plan, resolve))
    if error is None:
        tell(done=["passed", ""])
    else:
        whose = verdict_of_error(error) if parsed else "compile_error"
        text = f"{type(error).__name__}: {describe_error(error)['message']}"
        code = interpreter_exit.uncaught(error, MAIN)
        if isinstance(error, SystemExit):
            whose, text = "no_result", f"the program exits with {code} instead of answering"
        tell(done=[whose, text[:2000]])
    main = error = None
    interpreter_exit.finish(0, audit_of_program)


def verdict_of_error(error: BaseException) -> str:
    """The verdict by whose exception it is: the innermost frame that belongs to the program or to the test decides."""
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
        return "memory_limit" if isinstance(error, MemoryError) else "runtime_error"
    if isinstance(error, ImportError):
        return "invalid_result"  # a test that needs what is not here; the program may pretend so, and gains nothing
    return "runtime_error" if isinstance(error, NameError) else "wrong_answer"


def flush() -> bool:
    """Flush whatever the program has left as stdout and stderr; False if that fails."""
    errors = [attempt(stream.flush)[1] for stream in (sys.stdout, sys.stderr) if hasattr(stream, "flush")]
    return not any(errors)


def own_name(namespace: dict[str, Any], name: str) -> str:
    """The first of some names `a|b` that the program itself defines; the last where it defines none.

    Names from its prelude or from a star import do not count: a library's function would be judged.
    """
    *others, last = name.split("|")
    for other in others:
        first, _, rest = other.partition(".")
        value = namespace.get(first)
        if first in namespace and not is_foreign_name(namespace, first) and (not rest or hasattr(value, rest)):
            return other
    first = last.partition(".")[0]
    if first in namespace and is_foreign_name(namespace, first):
        raise NameError(f"name {first!r} is not defined by the program")
    return last


def is_foreign_name(namespace: dict[str, Any], name: str) -> bool:
    """Whether a global came from the prelude or from a star import of the program's."""
    value = namespace[name]
    if name in given and given[name] is value:
        return not bound(name)
    if getattr(value, "__globals__", None) is namespace or getattr(value, "__module__", None) == namespace["__name__"]:
        return False
    modules = [module for key, module in sys.modules.copy().items() if key != namespace["__name__"]]
    return any(getattr(module, "__dict__", {}).get(name) is value for module in modules) and not bound(name)


def bound(name: str) -> bool:
    """Whether the program's text binds a global by its name: a def, an assignment, an import of just this."""
    import _symtable  # type: ignore[import-not-found]

    with open(MAIN, "rb") as file:
        table = _symtable.symtable(file.read(), MAIN, "exec")
    return any(
        scope.symbols.get(name, 0) & (_symtable.DEF_LOCAL | _symtable.DEF_IMPORT)
        and (scope is table or scope.symbols[name] & _symtable.DEF_GLOBAL)
        for scope in scopes(table)
    )


def scopes(table: Any) -> Any:
    """All of a symbol table's scopes: its own and those of classes and functions in it."""
    left = [table]
    while left:
        scope = left.pop()
        left += scope.children
        yield scope


def resolve(namespace: dict[str, Any], name: str) -> Any:
    """A name of the program. `Class.method` is bound to a fresh instance, as judges of methods do."""
    if name in asked_names or "|" in name:
        name = own_name(namespace, name)
    first, *rest = name.split(".")
    solution = namespace.get("Solution")
    if not rest and isinstance(solution, type) and first in vars(solution) and not defines(namespace, first):
        return getattr(solution(), first)
    if first not in namespace:
        raise NameError(f"name {first!r} is not defined")
    value = namespace[first]
    for part in rest:
        if isinstance(value, type) and callable(getattr(value, part, None)):
            value = value()
        value = getattr(value, part)
    return value


def defines(namespace: dict[str, Any], name: str) -> bool:
    """Whether a name is the program's own rather than one that it has imported, with a star perhaps."""
    return name in namespace and getattr(namespace[name], "__module__", None) == namespace.get("__name__")


def perform(namespace: dict[str, Any], endpoint: Any, message: dict[str, Any]) -> Any:
    op = message["op"]
    if op == "get":
        return resolve(namespace, message["name"])
    if op == "call":
        function = resolve(namespace, message["name"]) if "name" in message else endpoint.local(message)
        if "method" in message:
            function = getattr(function, message["method"])
        args, named = endpoint.take_arguments(message)
        return function(*args, **named)
    if op == "global":
        return endpoint.state.set_global(endpoint, message)
    return OPERATIONS[op](None if op == "revive" else endpoint.local(message), endpoint, message)
