"""What the last lines on stderr say about how a program ended, where its exit status is ambiguous.

Python exits with 1 both for a text that it cannot parse and for any exception. Most runtimes exit with 1 or SIGABRT
when they get no more memory. Both have a verdict of their own. A program can print the same lines; it then only chooses
between two failures.
"""

from __future__ import annotations

import re

TAIL_BYTES = 4096
TRACEBACK = b"Traceback (most recent call last)"
NOT_PARSED = re.compile(rb"(?:SyntaxError|IndentationError|TabError): ")
NO_MEMORY_IN_PYTHON = re.compile(rb"(?:[A-Za-z_.]*\._Array)?MemoryError(?::|$)")
NO_MEMORY = re.compile(
    rb"terminate called after throwing an instance of 'std::bad_alloc'"
    rb"|java\.lang\.OutOfMemoryError|System\.OutOfMemoryException|JavaScript heap out of memory"
    rb"|memory allocation of \d+ bytes failed|fatal error: (?:runtime: )?(?:out of memory|cannot allocate memory)"
    rb"|failed to allocate memory \(NoMemoryError\)|Allowed memory size of \d+ bytes exhausted"
    rb"|^Out of memory!|: not enough memory$|cannot allocate vector of size",
    re.MULTILINE,
)


def last_line(stderr: bytes) -> bytes:
    return stderr[-TAIL_BYTES:].rstrip().rpartition(b"\n")[2]


def not_parsed(stderr: bytes) -> bool:
    """Whether Python reports that the text does not parse: without a traceback, because nothing of it has run."""
    return NOT_PARSED.match(last_line(stderr)) is not None and TRACEBACK not in stderr


def no_memory(stderr: bytes) -> bool:
    """Whether the runtime says that it was given no more memory."""
    return bool(NO_MEMORY_IN_PYTHON.match(last_line(stderr)) or NO_MEMORY.search(stderr[-TAIL_BYTES:]))
