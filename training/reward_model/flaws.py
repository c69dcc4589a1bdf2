"""Flawed copies of a completion, for a task that needs no labels: tell what is wrong with a text, if anything is.

- A flaw is made of the text alone, so it is the same in every language and leaves the style as it was.
- What is made is not executed. A few copies are as right as before; the task tolerates that, labels would not. So this
  is for pretraining only, and mutants with verdicts (`mutate`) are what the reward model is fitted on.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

NAME = re.compile(r"\b[A-Za-z_]\w*\b")
KEYWORDS = frozenset(
    """
    and as assert async await auto bool boolean break case catch char class const continue def default
    del do double elif else end enum except false False final finally float for from function global if
    import in int is lambda let list local long new nil None nonlocal not null or pass private public
    raise return self static str string struct switch then this throw true True try var void while with
    yield
    """.split()  # noqa: SIM905
)
SYMBOL = re.compile(r"==|!=|<=|>=|<|>|\+|-|\*|//|%|\band\b|\bor\b|\b\d+\b")
SWAPS = {
    "==": ("!=",),
    "!=": ("==",),
    "<=": ("<", ">="),
    ">=": (">", "<="),
    "<": ("<=", ">"),
    ">": (">=", "<"),
    "+": ("-", "*"),
    "-": ("+",),
    "*": ("+", "//"),
    "//": ("/", "%"),
    "%": ("//",),
    "and": ("or",),
    "or": ("and",),
}
STUBS = ("pass", "return None", "# TODO", "raise NotImplementedError", "return", "...", "# your code here")


def truncated(text: str, draw: random.Random) -> str:
    """Cut somewhere behind its first fifth, in the middle of a line or at the end of one."""
    cut = draw.randrange(len(text) // 5, len(text))
    return text[:cut] if draw.random() < 0.5 else text[: text.rfind("\n", 0, cut) + 1]


def line_removed(text: str, draw: random.Random) -> str:
    """Without one of its lines."""
    lines = text.splitlines(keepends=True)
    full = [at for at, line in enumerate(lines) if line.strip()]
    del lines[draw.choice(full)]
    return "".join(lines)


def lines_exchanged(text: str, draw: random.Random) -> str:
    """Two neighbouring lines in the other order, each at the other's indentation."""
    lines = text.splitlines()
    full = [at for at, line in enumerate(lines) if line.strip()]
    at = draw.randrange(len(full) - 1)
    first, second = full[at], full[at + 1]
    indents = [lines[n][: len(lines[n]) - len(lines[n].lstrip())] for n in (first, second)]
    texts = lines[first].lstrip(), lines[second].lstrip()
    lines[first], lines[second] = indents[0] + texts[1], indents[1] + texts[0]
    return "\n".join(lines) + "\n"


def name_exchanged(text: str, draw: random.Random) -> str:
    """One use of a name is another name of the text."""
    uses = [match for match in NAME.finditer(text) if match.group() not in KEYWORDS]
    use = draw.choice(uses)
    others = sorted({match.group() for match in uses} - {use.group()})
    return text[: use.start()] + draw.choice(others) + text[use.end() :]


def symbol_exchanged(text: str, draw: random.Random) -> str:
    """One operator or number is another one."""
    symbol = draw.choice(list(SYMBOL.finditer(text)))
    found = symbol.group()
    others = (str(int(found[:9]) + 1), str(max(0, int(found[:9]) - 1))) if found.isdigit() else SWAPS[found]
    return text[: symbol.start()] + draw.choice(others) + text[symbol.end() :]


def repeated(text: str, draw: random.Random) -> str:
    """Some of its last lines once or twice more."""
    lines = text.splitlines(keepends=True)
    tail = lines[-draw.randint(1, min(6, len(lines))) :]
    return "".join(lines + tail * draw.randint(1, 2))


def stubbed(text: str, draw: random.Random) -> str:
    """From some line on a stub instead of code."""
    lines = text.splitlines(keepends=True)
    full = [at for at, line in enumerate(lines) if line.strip()]
    at = draw.choice([full[0], draw.choice(full)])
    indent = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
    return "".join(lines[:at]) + indent + draw.choice(STUBS) + "\n"


def returned_early(text: str, draw: random.Random) -> str:
    """A name is returned before some line."""
    lines = text.splitlines(keepends=True)
    full = [at for at, line in enumerate(lines) if line.strip()]
    at = draw.choice(full)
    names = sorted({name for name in NAME.findall(text) if name not in KEYWORDS})
    indent = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
    return "".join(lines[:at]) + f"{indent}return {draw.choice(names)}\n" + "".join(lines[at:])


FLAWS: tuple[Callable[[str, random.Random], str], ...] = (
    truncated,
    line_removed,
    lines_exchanged,
    name_exchanged,
    symbol_exchanged,
    repeated,
    stubbed,
    returned_early,
)
FOREIGN_NAME = len(FLAWS) + 1  # the kind of a name that comes from another completion
FOREIGN = FOREIGN_NAME + 1  # the kind of another prompt's completion
NUM_KINDS = FOREIGN + 1  # the kind 0 is without a flaw


def flawed(text: str, others: Sequence[str], draw: random.Random) -> tuple[str, int]:
    """A copy of a completion with one flaw of a drawn kind.

    Args:
        text: the completion.
        others: completions of other prompts, one of which may be taken instead.
        draw: draws the kind and the place.

    Returns:
        the copy, and its kind from 1; the text as it is and 0 where the drawn flaw cannot be made.
    """
    kind = draw.randint(1, FOREIGN)
    if kind == FOREIGN:
        return draw.choice(others), kind
    try:
        copy = _name_from(text, draw.choice(others), draw) if kind == FOREIGN_NAME else FLAWS[kind - 1](text, draw)
    except (IndexError, ValueError):  # nothing to choose from: no symbol, no second line
        return text, 0
    return (text, 0) if copy == text else (copy, kind)


def _name_from(text: str, other: str, draw: random.Random) -> str:
    """All uses of one name but its first are a name of another completion."""
    names = [name for name in NAME.findall(text) if name not in KEYWORDS]
    name, stranger = draw.choice(names), draw.choice([name for name in NAME.findall(other) if name not in KEYWORDS])
    uses = list(re.finditer(rf"\b{name}\b", text))
    start = uses[min(1, len(uses) - 1)].start()
    return text[:start] + re.sub(rf"\b{name}\b", stranger, text[start:])
