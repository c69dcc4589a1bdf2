"""Forbids the tests to import, start or unpickle files that the program has written, in their own process.

That would run the program where the verdict is made. The guard is active from the first such file on.
"""

from __future__ import annotations

import sys

from sandbox.inside.framing import Unsplittable, attempt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

STARTS = frozenset(
    {
        "subprocess.Popen",
        "os.system",
        "os.exec",
        "os.posix_spawn",
        "os.spawn",
        "os.fork",
        "os.forkpty",
        "pty.spawn",
    }
)
HARMLESS = frozenset(
    {  # modules whose classes only hold values
        "builtins",
        "collections",
        "datetime",
        "decimal",
        "fractions",
        "uuid",
        "pathlib",
        "array",
        "zoneinfo",
        "_datetime",
        "_decimal",
        "test_suite",
        "pandas.core.frame",
        "pandas.core.series",
    }
)
HARMLESS_BELOW = ("pandas.core.indexes.", "pandas.core.internals.", "pandas.core.arrays.", "pandas._libs.")
ARRAYS = frozenset({"ndarray", "dtype", "matrix"})
MAKERS = frozenset(
    {  # functions that pickles of values name, and that make values only
        ("copyreg", "_reconstructor"),
        ("copyreg", "__newobj__"),
        ("_codecs", "encode"),
        ("array", "_array_reconstructor"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy.core.multiarray", "scalar"),
        ("numpy.core.numeric", "_frombuffer"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "scalar"),
        ("numpy._core.numeric", "_frombuffer"),
        ("pandas._libs.internals", "_unpickle_block"),
        ("pandas.core.indexes.base", "_new_Index"),
        ("pandas._libs.arrays", "__pyx_unpickle_NDArrayBacked"),
    }
)


class FileGuard:
    """Forbids to run what lies below `root`, once it is active."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.endpoint: Any = None

    def activate(self, endpoint: Any) -> None:
        if self.endpoint is None:
            self.endpoint = endpoint
            sys.path_hooks.insert(0, self.finder)
            sys.path_importer_cache.clear()
            sys.addaudithook(self.on_event)

    def refuse(self, what: str) -> BaseException:
        error: BaseException = self.endpoint.fail(Unsplittable(f"the test {what} where the program has written"))
        return error

    def is_inside(self, path: Any) -> bool:
        """Whether a path leads into the folder. A relative path always counts as leading there."""
        text, error = attempt(lambda: sys.modules["posix"].fspath(path))
        if error is not None:
            return False
        if isinstance(text, bytes):
            text = text.decode("utf-8", "surrogateescape")
        real, error = attempt(lambda: sys.modules["posixpath"].realpath(text))
        return bool(error is not None or real == self.root or real.startswith(self.root + "/"))

    def finder(self, path: str) -> Any:
        """A path hook that finds nothing in the common folder."""
        about, error = attempt(lambda: sys.modules["posix"].stat(path or "."))
        if not self.is_inside(path or ".") or (error is None and about.st_mode & 0o170000 != 0o040000):
            raise ImportError("not in the common folder")  # for the next hook; `on_event` sees archives
        return BlockedFinder(self, path or ".")

    def on_event(self, event: str, args: Any) -> None:
        if event in STARTS:
            raise self.refuse("starts a process")
        if event == "pickle.find_class" and not self.harmless(*args[:2]):
            raise self.refuse(f"unpickles {args[0]!s:.60}.{args[1]!s:.60}")
        if event == "exec" and self.is_file(getattr(args[0], "co_filename", "<")):
            raise self.refuse("runs a file")
        if event == "marshal.loads":
            self.check_marshal(sys._getframe(1))
        if event == "ctypes.dlopen" and args and args[0] and self.is_inside(args[0]):
            raise self.refuse("loads a library")
        if event == "import" and args[1] and self.is_inside(args[1]):
            raise self.refuse("imports a library")

    def is_file(self, name: str) -> bool:
        """Whether code comes from a file in the folder; code without one has a name in brackets."""
        return not name.startswith("<") and self.is_inside(name)

    def check_marshal(self, frame: Any) -> None:
        """Only the importer may read compiled code, from a file."""
        path = frame.f_locals.get("bytecode_path") if frame.f_code.co_name == "_compile_bytecode" else "."
        if path is not None and self.is_inside(path):
            raise self.refuse("reads compiled code")

    def harmless(self, module: Any, name: Any) -> bool:
        if (module, name) in MAKERS:
            return True
        if type(module) is not str or type(name) is not str or "." in name:
            return False
        kind, error = attempt(lambda: getattr(sys.modules[module], name))
        if error is not None or not isinstance(kind, type):
            return False
        if module == "numpy" or module.startswith("numpy.dtypes"):
            numpy = sys.modules["numpy"]
            return name in ARRAYS or issubclass(kind, (numpy.generic, numpy.dtype))
        return all(entry in HARMLESS or entry.startswith(HARMLESS_BELOW) for entry in (module, kind.__module__))


class BlockedFinder:
    """A finder for a folder in which the program has written."""

    def __init__(self, guard: FileGuard, path: str) -> None:
        self.guard, self.path = guard, path

    def find_spec(self, name: str, target: Any = None) -> Any:
        last = name.rpartition(".")[2]
        entries, error = attempt(lambda: sys.modules["posix"].listdir(self.path))
        if error is None and any(entry.partition(".")[0] == last for entry in entries):
            raise self.guard.refuse(f"imports {name!r}")
        return None

    def invalidate_caches(self) -> None:
        """It keeps none."""
