"""The exit of a program: what `python3 main.py` does between its last line and its exit status, in CPython's order.

1. Wait for threads, run atexit handlers, flush the standard streams.
2. Collect garbage, remove the program's modules and what it added to standard ones. Their objects are finalized:
   `__del__`, the `finally` of suspended generators, the buffers of open files.
3. Flush the streams again and exit.

If the program's text names nothing that needs finalization (`exit_marks`), the second step is skipped: it would make a
run of a few milliseconds 5 % longer.

The interpreter is not torn down: it holds what the zygote has imported, and freeing that takes longer than most
programs. docs/sandbox.md lists the visible differences, and a differential test checks them.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _weakref
import atexit
import builtins
import gc
import os
import sys

from sandbox.inside.framing import attempt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

LOST_FLUSH = 120  # the exit code of an interpreter whose last flush fails
SIGINT = 2
# What the interpreter takes from `sys` before it takes the modules (finalize_modules_delete_special).
TAKEN = ("path", "argv", "path_hooks", "path_importer_cache", "meta_path")
TAKEN_IF_THERE = ("ps1", "ps2", "last_type", "last_value", "last_traceback", "__interactivehook__")
LATE_BUILTINS = ("open", "exit", "quit", "copyright", "credits", "license", "help")  # which it has not from its birth
STREAMS = (("stdin", "__stdin__"), ("stdout", "__stdout__"), ("stderr", "__stderr__"))

_exit, _kill, _getpid = os._exit, os.kill, os.getpid
Module = type(sys)


class Baseline:
    """What was there before the program: names of modules and of builtins."""

    modules: frozenset[str] = frozenset()
    last_module = ""
    builtins: frozenset[str] = frozenset()
    flush_c: Callable[[None], Any] | None = None  # the C library's fflush


def remember(flush_c: Callable[[None], Any] | None = None) -> None:
    """Record the current state as the baseline of every program. The collector has only frozen objects."""
    Baseline.modules = frozenset(sys.modules)
    Baseline.last_module = next(reversed(sys.modules))
    Baseline.builtins = frozenset(builtins.__dict__)
    Baseline.flush_c = flush_c
    if flush_c is not None:
        flush_c(None)


def own_frames(error: BaseException, path: str) -> Any:
    """The traceback from the program's first frame on; None when no frame of it is there (a syntax error)."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename != path:
        trace = trace.tb_next
    return trace


def uncaught(error: BaseException, path: str) -> int:
    """Print an uncaught exception as `python3` does. Returns the exit code; -SIGINT for an interrupt."""
    flush_quietly("stderr", "stdout")
    if isinstance(error, SystemExit):
        return asked_code(error)
    trace = own_frames(error, path)
    show(error, trace, path)
    return -SIGINT if type(error) is KeyboardInterrupt else 1


def show(error: BaseException, trace: Any, path: str) -> None:
    """Let the program's own hook, or the interpreter's, print an exception."""
    kind = type(error)
    error.__traceback__ = trace
    sys.last_type, sys.last_value, sys.last_traceback = kind, error, trace
    if not hasattr(sys, "excepthook"):
        print_to_stderr("sys.excepthook is missing\n")
        sys.__excepthook__(kind, error, trace)
        return
    _, second = attempt(lambda: sys.excepthook(kind, error, trace))
    if isinstance(second, SystemExit):
        finish(asked_code(second))
    if second is not None:
        print_to_stderr("Error in sys.excepthook:\n")
        sys.__excepthook__(type(second), second, own_frames(second, path))
        print_to_stderr("\nOriginal exception was:\n")
        sys.__excepthook__(kind, error, trace)


def print_to_stderr(text: str) -> None:
    stream = getattr(sys, "stderr", None)
    if stream is not None:
        attempt(lambda: stream.write(text))


def asked_code(error: SystemExit) -> int:
    """The exit code that a SystemExit asks for; a message is printed."""
    code = error.code
    if code is None:
        return 0
    if isinstance(code, int):
        return int(code) & 0xFF if -(2**63) <= code < 2**63 else 0xFF
    text, failed = attempt(lambda: str(code))
    if getattr(sys, "stderr", None) is None:
        os.write(2, f"{text}\n".encode("utf-8", "backslashreplace"))
    else:
        if failed is None:
            print_to_stderr(text)
        print_to_stderr("\n")
    return 1


def finish(code: int, audit: Any = None, *, plain: bool = False) -> NoReturn:
    """End as the interpreter would. The caller must not hold any object of the program."""
    plain = plain and next(reversed(sys.modules)) == Baseline.last_module
    if plain and audit is None and code >= 0 and not atexit._ncallbacks() and attempt(sys.stdout.flush)[1] is None:
        _exit(code)
    flush_quietly("stderr", "stdout")
    threading = sys.modules.get("threading")
    if threading is not None:
        _, error = attempt(threading._shutdown)
        if error is not None:
            ignored(threading, error)
    attempt(atexit._run_exitfuncs)
    whole = flush_streams()
    if audit is not None:
        audit.end()
    if not plain:
        finalize_program()
        flush_quietly("__stdout__", "__stderr__")
        if Baseline.flush_c is not None:
            Baseline.flush_c(None)
    leave(code if whole else LOST_FLUSH)


def leave(code: int) -> NoReturn:
    if code == -SIGINT:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
        _kill(_getpid(), SIGINT)
        code = 128 + SIGINT
    _exit(code & 0xFF)


def flush_quietly(*names: str) -> None:
    for name in names:
        stream = getattr(sys, name, None)
        attempt(lambda stream=stream: stream.flush())  # type: ignore[misc]


def flush_streams() -> bool:
    """Flush stdout and stderr as the interpreter does at its end; False if that fails."""
    whole = True
    out, err = getattr(sys, "stdout", None), getattr(sys, "stderr", None)
    for stream in (out, err):
        if stream is None or attempt(lambda stream=stream: bool(stream.closed))[0]:  # type: ignore[misc]
            continue
        _, error = attempt(lambda stream=stream: stream.flush())  # type: ignore[misc]
        if error is not None:
            whole = False
            if stream is out:
                ignored(stream, error)
    return whole


def ignored(where: Any, error: BaseException) -> None:
    """Print what the interpreter prints for an exception that it cannot raise."""
    text, _ = attempt(lambda: repr(where))
    print_to_stderr(f"Exception ignored in: {text}\n")
    attempt(lambda: sys.__excepthook__(type(error), error, foreign_frames(error)))


def foreign_frames(error: BaseException) -> Any:
    """A traceback without the leading frames of this package."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename in ("interpreter_exit.py", "framing.py"):
        trace = trace.tb_next
    return trace


# A full collection also frees what the interpreter keeps in store, which is all the zygote's and shared: it is left out
# where no object has grown old. A warning out of a finalizer names the place where it came up, here as in CPython.
COLLECT = compile("gc.collect(2 if gc.get_objects(2) else 1)", "sys", "exec")
NO_PLACE = {"gc": gc, "__name__": "sys", "__builtins__": dict(vars(builtins))}


def collect() -> None:
    """Collect all garbage."""
    exec(COLLECT, NO_PLACE)


def finalize_program() -> None:
    """Finalize what is left of the program."""
    if gc.isenabled():
        collect()
    names, modules, builtin_names = sys.__dict__, sys.modules, builtins.__dict__
    for name in TAKEN:
        names[name] = None
    for name, origin in STREAMS:
        names[name] = names.get(origin)
    own = ["__main__"]
    if next(reversed(modules)) != Baseline.last_module:
        own += [name for name in modules if name not in Baseline.modules and type(name) is str]
    living = [take_module(name) for name in own]
    for name in own:
        modules.pop(name, None)
    for name in [*LATE_BUILTINS, *(name for name in builtin_names if name not in Baseline.builtins)]:
        builtin_names.pop(name, None)
    builtin_names["__import__"] = no_import
    for name in TAKEN_IF_THERE:
        names.pop(name, None)
    collect()
    for reference in reversed(living):
        module = reference() if reference is not None else None
        if module is not None:
            clear(module.__dict__)


def take_module(name: str) -> Any:
    """Remove a module from `sys.modules`. The returned weak reference shows whether anything else holds it."""
    module = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]
    return _weakref.ref(module) if isinstance(module, Module) else None


def no_import(name: str, *_: Any, **__: Any) -> Any:
    raise ImportError("sys.meta_path is None, Python is likely shutting down")


def clear(names: dict[str, Any]) -> None:
    """Set the names of a module to None, as the interpreter does if something still holds the module."""
    for name in list(names):
        if type(name) is str and name[:1] == "_" and name[1:2] != "_":
            names[name] = None
    for name in list(names):
        if name != "__builtins__":
            names[name] = None
