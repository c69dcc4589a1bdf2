"""A program's stdin: encodes text, and puts bytes into a pipe or a file in memory."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from sandbox.errors import InvalidSuite
from sandbox.limits import MAX_STDIN_BYTES
from sandbox.memory_files import memory_file, reopen_read_only

PIPE_BYTES = 1 << 16  # the default capacity of a pipe on Linux


def piped(data: bytes) -> int | None:
    """The reading end of a pipe that holds all of `data`; None if this host refuses a pipe of that size."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        os.fchmod(reader, 0o644)  # so that programs of another uid can open /dev/stdin
        if data:
            os.set_blocking(writer, False)
            if len(data) > PIPE_BYTES:
                fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, len(data))
            if os.write(writer, data) < len(data):
                raise BlockingIOError
    except (BlockingIOError, PermissionError):
        os.close(reader)
        return None
    finally:
        os.close(writer)
    return reader


@contextmanager
def readable(data: bytes, *, pipe: bool = False) -> Iterator[int]:
    """A descriptor to read `data` from, with a position of its own, or as a pipe if it can be had."""
    reader = piped(data) if pipe else None
    if reader is not None:
        try:
            yield reader
        finally:
            os.close(reader)
        return
    if not data:
        fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)
        return
    written = memory_file("stdin", data)
    try:
        fd = reopen_read_only(written)
    finally:
        os.close(written)
    try:
        yield fd
    finally:
        os.close(fd)


def encoded(text: str, what: str) -> bytes:
    """`text` as bytes. Raises InvalidSuite with `what` it is, if it cannot be written or is too long."""
    try:
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise InvalidSuite(f"{what} cannot be written as bytes: {error}") from None
    if len(data) > MAX_STDIN_BYTES:
        raise InvalidSuite(f"{what} takes {len(data)} bytes; at most {MAX_STDIN_BYTES} are allowed")
    return data
