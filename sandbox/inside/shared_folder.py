"""Keeps the working folders of two jails in sync: one end sends its changes, the other repeats them.

- Both ends run this file in their own jail. `changes` finds what is new since the last call, by the kernel's time
  stamps; `repeat` makes the same changes below its own folder.
- The other end may send anything. So names are walked one component at a time without following links, only plain files
  and folders are made, and sizes and numbers are bounded.
- Links, devices, pipes, and what lies outside the folder are not carried.

The functions of `posix` are bound here once: tests replace those of `os`.
"""

from __future__ import annotations

from posix import (
    O_CLOEXEC,
    O_CREAT,
    O_DIRECTORY,
    O_NOFOLLOW,
    O_NONBLOCK,
    O_RDONLY,
    O_TRUNC,
    O_WRONLY,
    chmod,
    close,
    fchdir,
    fchmod,
    fstat,
    listdir,
    lstat,
    mkdir,
    read,
    rmdir,
    scandir,
    unlink,
    utime,
    write,
)
from posix import open as open_fd
from time import clock_gettime_ns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

MAX_ENTRIES = 2_000  # files and folders
MAX_BYTES = 4 * 1024 * 1024  # of contents, in one message
MAX_NAME = 4_096
MAX_DEPTH = 40
HARNESS_FILES = frozenset({"main.py"})  # what the harness has put there
MAIN_ONLY = [*HARNESS_FILES]
CACHES = frozenset({"__pycache__", ".pytest_cache"})
COARSE = 5  # CLOCK_REALTIME_COARSE, by which the kernel dates files
KIND, REGULAR, MODE = 0o170000, 0o100000, 0o777
SEARCH = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC
PUT = O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC


class InvalidChange(Exception):
    """The other end has sent a change that its real folder cannot have."""


class FolderTooLarge(Exception):
    """The folder holds more than is carried; the message says what."""


class SharedFolder:
    """One end's copy of the folder, and what of it the other end knows."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.files: dict[str, tuple[Any, int | None]] = {}  # name → how it was, and its contents' hash while young
        self.folders: dict[str, Any] = {"": None}
        self.dates: list[tuple[str, int]] = []  # of all that is known, and meant to be as it was
        self.young = True  # whether a change could have left no trace in the times
        self.left_out: list[str] = []  # why something that has changed was not carried, for a person

    def path(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    def untouched(self) -> bool:
        """Whether nothing has changed since the last call: one `stat` per known file and folder."""
        if self.young:
            return False
        try:
            for path, date in self.dates:
                if lstat(path).st_ctime_ns != date:
                    return False
        except OSError:
            return False  # gone, for one
        return True

    def look(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The files and folders as they are now. Raises FolderTooLarge."""
        files: dict[str, Any] = {}
        folders: dict[str, Any] = {}
        waiting = [""]
        while waiting:
            name = waiting.pop()
            try:
                about = lstat(self.path(name))
                children = []
                if about.st_size:  # of an empty folder in memory it is 0
                    with scandir(self.path(name)) as entries:
                        children = list(entries)
            except OSError:
                continue  # it has gone meanwhile, or may not be read
            folders[name] = about
            for entry in children:
                child = f"{name}/{entry.name}" if name else entry.name
                if child in HARNESS_FILES or entry.name in CACHES:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(child)
                elif entry.is_file(follow_symlinks=False):
                    try:
                        files[child] = lstat(self.path(child))
                    except FileNotFoundError:
                        continue
            if len(files) + len(folders) + len(waiting) > MAX_ENTRIES:
                raise FolderTooLarge(f"more than {MAX_ENTRIES} files and folders")
        return files, folders

    def has_only_harness_files(self, now: int) -> bool:
        """Whether the folder has only the harness's files. That is the usual case, and quick to find out."""
        try:
            about = lstat(self.root)
            if about.st_size and listdir(self.root) not in ([], MAIN_ONLY):
                return False
        except OSError:
            return False
        date = about.st_ctime_ns
        self.folders[""], self.dates, self.young = mark_of(about), [(self.root, date)], date >= now
        return True

    def changes(self) -> dict[str, Any] | None:
        """What has changed since the last call, or None. Raises FolderTooLarge."""
        if self.untouched():
            return None
        now = clock_gettime_ns(COARSE)  # what is as young as this may change once more without a new date
        if not self.files and len(self.folders) == 1 and self.has_only_harness_files(now):
            return None
        files, folders = self.look()
        gone = [name for name in (*self.files, *self.folders) if name and name not in files and name not in folders]
        gone += [name for name in self.files if name in folders] + [name for name in self.folders if name in files]
        new = [
            [name, about.st_mode & MODE]
            for name, about in folders.items()
            if name and mode_in(self.folders.get(name)) != about.st_mode
        ]
        known, self.files = self.files, {}
        self.folders = {name: mark_of(about) for name, about in folders.items()}
        self.young = any(about.st_ctime_ns >= now for about in folders.values())
        put: list[Any] = []
        room = MAX_BYTES
        for name, about in files.items():
            mark, (before, before_hash) = mark_of(about), known.get(name, (None, None))
            if mark == before and before_hash is None:
                self.files[name] = (mark, None)
                continue
            if about.st_size > room:
                self.leave_out(f"{name!r:.80} takes {about.st_size} bytes; at most {MAX_BYTES} are carried at a time")
                self.files[name] = (mark, None)
                continue
            try:
                data = contents(self.path(name), room)
                mark = mark_of(lstat(self.path(name)))
            except OSError as error:
                self.leave_out(f"{name!r:.80}: {error.strerror}")
                self.files[name] = (mark, None)
                continue
            fresh = about.st_ctime_ns >= now
            self.young = self.young or fresh
            self.files[name] = (mark, hash(data) if fresh else None)
            if mark != before or hash(data) != before_hash:
                room -= len(data)
                put.append([name, about.st_mode & MODE, about.st_mtime_ns, *written(data)])
        if not self.young:
            known_marks = [*self.folders.items(), *((name, mark) for name, (mark, _) in self.files.items())]
            self.dates = [(self.path(name), mark[0]) for name, mark in known_marks]
        if not (gone or new or put):
            return None
        return {"gone": gone, "new": new, "put": put}

    def leave_out(self, why: str) -> None:
        if len(self.left_out) < 3:
            self.left_out.append(why)

    def repeat(self, tree: Any) -> int:
        """Make the other end's changes here. Returns how many files were written. Raises InvalidChange."""
        gone, new, put = read_changes(tree)
        self.touched = {str(name).partition("/")[0] for name in (*gone, *(entry[0] for entry in (*new, *put)))}
        top = open_fd(self.root, SEARCH)
        try:
            for name in sorted(gone, key=len, reverse=True):
                self.remove(top, name)
            for name, mode in sorted(new):
                self.make(top, name, mode)
            for name, mode, time, data in put:
                self.put(top, name, mode, time, data)
        finally:
            close(top)
        self.young = True
        return len(put)

    def remove(self, top: int, name: str) -> None:
        known = self.files.pop(name, None) is not None
        try:
            with OpenFolder(top, name) as (folder, last):
                if known:
                    unlink(last, dir_fd=folder)
                else:
                    rmdir(last, dir_fd=folder)
        except FileNotFoundError:
            pass  # this end has removed it as well
        except OSError as error:
            self.leave_out(f"{name!r:.80} is not removed: {error.strerror}")
        self.folders.pop(name, None)

    def make(self, top: int, name: str, mode: int) -> None:
        try:
            with OpenFolder(top, name) as (folder, last):
                try:  # its mode may have changed, or this end have made it as well
                    fd = open_fd(last, SEARCH, dir_fd=folder)
                except FileNotFoundError:
                    mkdir(last, 0o700, dir_fd=folder)
                    fd = open_fd(last, SEARCH, dir_fd=folder)
                try:
                    fchmod(fd, mode)
                    self.folders[name] = mark_of(fstat(fd))
                finally:
                    close(fd)
        except OSError as error:
            self.leave_out(f"{name!r:.80} is not made: {error.strerror}")

    def put(self, top: int, name: str, mode: int, time: int, data: bytes) -> None:
        try:
            with OpenFolder(top, name) as (folder, last):
                try:
                    fd = open_fd(last, PUT, 0o600, dir_fd=folder)
                except PermissionError:  # of our own uid, and not writable
                    unlink(last, dir_fd=folder)
                    fd = open_fd(last, PUT, 0o600, dir_fd=folder)
                try:
                    if fstat(fd).st_mode & KIND != REGULAR:
                        raise OSError(0, "no plain file stands there")
                    view = memoryview(data)
                    while view:
                        view = view[write(fd, view) :]
                    fchmod(fd, mode)
                    utime(fd, ns=(time, time))
                    self.files[name] = (mark_of(fstat(fd)), hash(data))
                finally:
                    close(fd)
        except OSError as error:
            self.leave_out(f"{name!r:.80} is not written: {error.strerror}")


class OpenFolder:
    """The folder in which a name below `top` lies, open, and the last part of the name; no link is followed."""

    def __init__(self, top: int, name: str) -> None:
        self.parts = name.split("/")
        self.top = self.fd = top

    def __enter__(self) -> tuple[int, str]:
        for part in self.parts[:-1]:
            above, self.fd = self.fd, -1
            try:
                self.fd = open_fd(part, SEARCH, dir_fd=above)
            finally:
                if above != self.top:
                    close(above)
        return self.fd, self.parts[-1]

    def __exit__(self, *error: object) -> None:
        if self.fd != self.top:
            close(self.fd)


def mark_of(about: Any) -> Any:
    """The attributes of which one differs after any change of a file or folder, except within one clock tick."""
    return (about.st_ctime_ns, about.st_size, about.st_ino, about.st_mode)


def mode_in(mark: Any) -> Any:
    return None if mark is None else mark[3]


def go_below(root: str, name: str) -> None:
    """Make a folder below `root` the working folder; no link is followed."""
    top = open_fd(root, SEARCH)
    try:
        if name:
            with OpenFolder(top, f"{name}/.") as (folder, _):
                fchdir(folder)
        else:
            fchdir(top)
    finally:
        close(top)


def contents(path: str, most: int) -> bytes:
    how = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC
    try:
        fd = open_fd(path, how)
    except PermissionError:  # taken from its owner by its owner
        mode = lstat(path).st_mode & MODE
        chmod(path, mode | 0o400)
        try:
            fd = open_fd(path, how)
        finally:
            chmod(path, mode)
    try:
        parts: list[bytes] = []
        size = 0
        while size <= most:
            part = read(fd, 1 << 20)
            if not part:
                return b"".join(parts)
            parts.append(part)
            size += len(part)
        raise OSError(0, "it grows while it is read")
    finally:
        close(fd)


def written(data: bytes) -> tuple[str, str]:
    """Contents as text, or as hexadecimal digits if they are not text, and which of the two."""
    try:
        return "text", data.decode()
    except UnicodeDecodeError:
        return "hex", data.hex()


def read_changes(tree: Any) -> tuple[list[str], list[tuple[str, int]], list[tuple[str, int, int, bytes]]]:
    """The three lists of a message, each part of the right type and within bounds. Raises InvalidChange."""
    if type(tree) is not dict:
        raise InvalidChange("files that are not an object")
    lists = [tree.get(name, []) for name in ("gone", "new", "put")]
    if not all(type(entry) is list for entry in lists) or sum(map(len, lists)) > 2 * MAX_ENTRIES:
        raise InvalidChange("more files than there can be")
    gone, new, put = lists
    return [safe(name) for name in gone], list(read_new(new)), list(read_put(put))


def read_new(items: list[Any]) -> Iterator[tuple[str, int]]:
    for item in items:
        if type(item) is not list or len(item) != 2 or type(item[1]) is not int:
            raise InvalidChange("a folder without name and mode")
        yield safe(item[0]), item[1] & MODE


def read_put(items: list[Any]) -> Iterator[tuple[str, int, int, bytes]]:
    room = MAX_BYTES
    for item in items:
        if type(item) is not list or len(item) != 5:
            raise InvalidChange("a file without name, mode, time and contents")
        name, mode, time, how, text = item
        if type(mode) is not int or type(time) is not int or not 0 <= time < 1 << 62 or type(text) is not str:
            raise InvalidChange("a file with a malformed mode, time or contents")
        try:
            data = bytes.fromhex(text) if how == "hex" else text.encode()
        except ValueError:
            raise InvalidChange("contents that are not text") from None
        room -= len(data)
        if room < 0:
            raise InvalidChange(f"more than {MAX_BYTES} bytes of files")
        yield safe(name), mode & MODE, time, data


def safe(name: Any) -> str:
    """A name below the folder. Raises InvalidChange if it leads elsewhere, or is the harness's."""
    if type(name) is not str or not 0 < len(name) <= MAX_NAME or "\0" in name or name in HARNESS_FILES:
        raise InvalidChange(f"a file of the name {name!r:.80}")
    parts = name.split("/")
    if len(parts) > MAX_DEPTH or any(part in ("", ".", "..") for part in parts):
        raise InvalidChange(f"a file of the name {name!r:.80}")
    try:
        name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise InvalidChange(f"a file of the name {name!r:.80}") from None
    return name
