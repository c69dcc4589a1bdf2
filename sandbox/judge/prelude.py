"""A suite's prelude: text that is run or put before a program.

- Python: the prelude is a text of its own, which runs first in the program's namespace. So the program keeps its line
  numbers, its docstring and its imports from `__future__`. Both travel in one text, the prelude first, behind a NUL;
  no Python program begins with one. The prelude's definitions are not the program's: an entry point that only the
  prelude has is not defined.
- Most other languages: the prelude is put before the program's text. Go (imports must follow a package clause), PHP,
  Racket and Rust (the text begins with a marker) take no prelude.
- A prelude that does not run is the suite's fault. To find that out it is run once, without the program.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import lru_cache
from typing import TYPE_CHECKING

from sandbox.errors import InvalidSuite
from sandbox.language_specs import BY_NAME

if TYPE_CHECKING:
    from collections.abc import Callable

MARK = b"\0prelude "  # candidate.py knows it, too
BEFORE = {  # languages whose programs are concatenated → what makes the compiler count the program's lines from one
    "c": '#line 1 "main.c"\n',
    "cpp": '#line 1 "main.cpp"\n',
    "csharp": '#line 1 "main.cs"\n',
    "perl": '# line 1 "main.pl"\n',
    "java": "",
    "javascript": "",
    "typescript": "",
    "ruby": "",
    "lua": "",
    "r": "",
    "bash": "",
}
MAX_KNOWN = 64
MAX_PRELUDE = 256 * 1024
_faults: OrderedDict[str, str] = OrderedDict()  # prelude → why it does not run, "" where it does


def joined(language: str, prelude: str, source: bytes, entry_point: str = "") -> bytes:
    """Prelude and program as one text; `entry_point` is what the program itself has to define.

    Raises InvalidSuite for a language without preludes, and for text that is not code.
    """
    if len(prelude) > MAX_PRELUDE:
        raise InvalidSuite(f"prelude: {len(prelude)} characters; at most {MAX_PRELUDE} are allowed")
    if language == "python":
        if not prelude and not source.startswith(MARK):
            return source
        check_syntax(prelude)
        text = prelude.encode("utf-8", "surrogatepass")
        return MARK + f"{len(text)} {entry_point}\n".encode("utf-8", "surrogatepass") + text + source
    if not prelude:
        return source
    name = BY_NAME[language].name
    if name not in BEFORE:
        known = ", ".join(("python", *BEFORE))
        raise InvalidSuite(f"prelude: {language} programs take none; there are preludes for {known}")
    line_mark = "" if prelude.endswith("\n") else "\n"
    return (prelude + line_mark + BEFORE[name]).encode("utf-8", "surrogatepass") + source


def parted(source: bytes) -> tuple[bytes, bytes]:
    """Prelude and program of a joined Python text."""
    if not source.startswith(MARK):
        return b"", source
    head, _, rest = source.partition(b"\n")
    size = int(head[len(MARK) :].split(b" ")[0])
    return rest[:size], rest[size:]


def prompted(prompt: str, source: bytes) -> bytes:
    """The program after the beginning that a prompt gives it, and both after the prelude if there is one."""
    _, program = parted(source)
    return source[: len(source) - len(program)] + prompt.encode("utf-8", "surrogatepass") + program


@lru_cache(maxsize=64)
def check_syntax(prelude: str) -> None:
    try:
        compile(prelude, "<prelude>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InvalidSuite(f"prelude: {type(error).__name__}: {error}") from None


def check_run(prelude: str, run: Callable[[bytes], str]) -> None:
    """Raises InvalidSuite for a prelude that does not run by itself. `run` is called once per prelude."""
    if prelude not in _faults:
        _faults[prelude] = run(prelude.encode("utf-8", "surrogatepass"))
        while len(_faults) > MAX_KNOWN:
            _faults.popitem(last=False)
    if _faults[prelude]:
        raise InvalidSuite(f"prelude: it does not run by itself: {_faults[prelude]}")
