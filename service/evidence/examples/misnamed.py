"""Examples that call the function by another name than the prompt's signature: `list_sort` for `sorted_list_sum`."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Collection

from service.evidence.examples.signature import BUILTINS

MAX_CALLS = 2_000
STEM = 4  # letters that two words share at least

# A call that begins a line, as examples do; in the middle of a sentence another function may be meant.
_CALL = re.compile(
    r"^[ \t]{0,80}(?:[*•#/+-]{1,3}[ \t]{1,4}|\d{1,3}[.)][ \t]{1,4})?"
    r"(?:>>>[ \t]{0,4})?(?:assert[ \t(]{1,4})?(?:print\()?`?"
    r"(?P<name>[^\W\d]\w{1,100})[ \t]?\(",
    re.MULTILINE,
)
_IMPORTED = re.compile(
    r"^[ \t]{0,40}(?:from[ \t]{1,9}[\w.]{1,100}[ \t]{1,9})?import[ \t]{1,9}([^\n]{1,400})", re.MULTILINE
)
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|\d+")
_STANDS_FOR_ANY = frozenset(
    [
        "candidate",
        "solution",
        "solve",
        "func",
        "function",
        "foo",
        "fn",
        "my_func",
        "my_function",
        "your_function",
        "task_func",
    ]
)
_SAYS_LITTLE = frozenset(
    [
        "get",
        "set",
        "make",
        "find",
        "check",
        "count",
        "list",
        "string",
        "str",
        "num",
        "number",
        "int",
        "word",
        "words",
        "the",
    ]
)


def misnamed(text: str, name: str, defined: Collection[str]) -> str | None:
    """The one other name that the prompt calls and that can mean the function; None where there is none, or several.

    Args:
        text: of the prompt.
        name: the function's.
        defined: what the prompt defines: these are functions of their own, as is what it imports.
    """
    known = {*defined, name, *BUILTINS}
    for imported in itertools.islice(_IMPORTED.finditer(text), 100):
        known.update(re.findall(r"\w+", imported[1]))
    calls = Counter(match["name"] for match in itertools.islice(_CALL.finditer(text), MAX_CALLS))
    alike = [other for other in calls if other not in known and (other in _STANDS_FOR_ANY or _are_alike(other, name))]
    return alike[0] if len(alike) == 1 else None


def _are_alike(first: str, second: str) -> bool:
    """Whether two names share a word, or the stem of one."""
    words = _words(first), _words(second)
    return any(
        one == other or (min(len(one), len(other)) >= STEM and one[:STEM] == other[:STEM])
        for one in words[0]
        for other in words[1]
    )


def _words(name: str) -> list[str]:
    words = [word.lower() for word in _WORD.findall(name)]
    return [word for word in words if len(word) > 2 and word not in _SAYS_LITTLE]
