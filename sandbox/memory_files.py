"""Unnamed files in memory: what a jail reads or writes without a name on the host."""

from __future__ import annotations

import fcntl
import os


def memory_file(name: str, data: bytes, *, sealed: bool = True) -> int:
    """A descriptor of an unnamed file in memory with `data`, at its start."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    if sealed:
        seal(fd)
    return fd


def seal(fd: int) -> None:
    """Make a file in memory unchangeable, through every descriptor of it."""
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)


def reopen_read_only(fd: int) -> int:
    """The same file through a new descriptor that can only be read and has its own position."""
    return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
