"""The files of a run by name: where they lie in the jail, and what names, sizes and arguments are allowed.

Names are checked outside the jail: they are plain relative paths. Files that are read back lie in the working folder
itself, so that no link made by the program can redirect them.
"""

from __future__ import annotations

from sandbox.errors import InvalidSuite
from sandbox.judge.streams import encoded
from sandbox.limits import (
    MAX_ARGUMENTS,
    MAX_ARGUMENTS_BYTES,
    MAX_FETCHED,
    MAX_FILES,
    MAX_FILES_BYTES,
)
from sandbox.types import RunSuite

File = tuple[str, bytes]

FOLDER = "/tmp/"
MAIN = FOLDER + "main.py"  # where a Python program itself lies, unless a file of the request has that name
MAX_NAME_BYTES = 200


def path_of(name: str, *, flat: bool = False) -> str:
    """Where a file of this name lies in the jail. Raises InvalidSuite for one that would lie elsewhere."""
    relative = name.removeprefix(FOLDER)
    parts = relative.split("/")
    if not relative or "\0" in relative or any(part in ("", ".", "..") for part in parts):
        raise InvalidSuite(f"file {name!r}: the name must be a plain relative path below the working folder")
    if flat and len(parts) > 1:
        raise InvalidSuite(f"file {name!r}: only files in the working folder itself can be fetched")
    if len(encoded(relative, "a file's name")) > MAX_NAME_BYTES:
        raise InvalidSuite(f"file {name[:50]!r}…: the name is longer than {MAX_NAME_BYTES} bytes")
    return FOLDER + relative


def check_run(suite: RunSuite) -> None:
    """Raises InvalidSuite, naming the limit."""
    if len(suite.files) > MAX_FILES or len(suite.fetch) > MAX_FETCHED:
        raise InvalidSuite(f"at most {MAX_FILES} files can be given and {MAX_FETCHED} fetched")
    check_arguments(suite.args)
    size = sum(len(content) for _, content in suite.files)
    if size > MAX_FILES_BYTES:
        raise InvalidSuite(f"the files take {size} bytes; at most {MAX_FILES_BYTES} are allowed")
    names = [path_of(name) for name, _ in suite.files]
    for name in suite.fetch:
        path_of(name, flat=True)
    if len(set(names)) != len(names):
        raise InvalidSuite("two files have the same name")
    for name in names:
        if any(other.startswith(f"{name}/") for other in names):
            raise InvalidSuite(f"file {name!r} is also a folder of another")


def check_arguments(args: tuple[str, ...]) -> None:
    """Raises InvalidSuite for arguments that no program can be started with."""
    if len(args) > MAX_ARGUMENTS:
        raise InvalidSuite(f"args: {len(args)} of them; at most {MAX_ARGUMENTS} can be given")
    size = sum(len(encoded(argument, "an argument")) for argument in args)
    if size > MAX_ARGUMENTS_BYTES:
        raise InvalidSuite(f"args: {size} bytes; at most {MAX_ARGUMENTS_BYTES} can be given")
    if any("\0" in argument for argument in args):
        raise InvalidSuite("args: an argument cannot hold a NUL character")


def given_files(suite: RunSuite) -> tuple[File, ...]:
    """The files of a run by their names in the working folder."""
    return tuple((path_of(name).removeprefix(FOLDER), content) for name, content in suite.files)


def placed(files: tuple[File, ...]) -> tuple[File, ...]:
    """The files by their paths in the jail."""
    return tuple((FOLDER + name, content) for name, content in files)
