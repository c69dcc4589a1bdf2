"""Reads in a program's text whether its exit needs finalization. The host does that, before the program runs."""

from __future__ import annotations

# What a program must write to hold something at its end whose finalization shows: a class with `__del__`,
# a suspended generator, a file, a weak reference, or a way to get at any of these by another name.
MARKS = (
    b"__del__",
    b"yield",
    b"async",
    b"open",
    b"IO",
    b"file",
    b"riter",
    b"uffer",
    b"stdout",
    b"stderr",
    b"detach",
    b"weakref",
    b"finalize",
    b"eval",
    b"exec",
    b"compile",
    b"attr",
    b"dict__",
    b"globals",
    b"vars",
    b"builtins",
    b"import_",
    b"importlib",
    b"ctypes",
    b"coding",
    b"thread",
    b"os.close",
    b"dup",
)


def is_plain(source: bytes) -> bool:
    """Whether the end of this program's objects is invisible, provided that it only imports loaded modules."""
    return source.isascii() and not any(map(source.__contains__, MARKS))
