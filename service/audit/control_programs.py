"""Python programs that a good suite rejects: one that answers nothing, and one that knows only what is visible."""

from __future__ import annotations

from collections.abc import Sequence

from plaudit.schemas import InlineTests, StdioTests
from service.audit.suite_texts import entry_point_of, shown_answers
from service.evidence.examples import read_examples

LOOK_UP = """\
def _key(*args, **kwargs):
    return args, kwargs


_SHOWN = [
{shown}
]


def {name}({self}*args, **kwargs):
    for shown in _SHOWN:
        try:
            known, value = shown()
            if known == (args, kwargs):
                return value
        except Exception:
            continue
    return _SHOWN[0]()[1]
"""
LOOK_UP_STDIN = """\
import sys

SHOWN = {shown}
given = sys.stdin.read().split()
print(next((answer for text, answer in SHOWN if text.split() == given), SHOWN[0][1]), end="")
"""


def silent_program(tests: InlineTests) -> str:
    """A program that answers nothing: of a function None, of a program no output."""
    name = entry_point_of(tests)
    return "pass\n" if name is None else _defined(name, "def {name}({self}*args, **kwargs):\n    return None\n")


def special_casing_program(tests: InlineTests, prompt: str, visible: int) -> str | None:
    """A look-up table of the visible examples, which answers everything else like the first of them.

    Visible is what the prompt shows; where it shows nothing that can be read, the first tests of the suite.

    Args:
        tests: the suite.
        prompt: of its problem, or empty.
        visible: how many of the suite's tests count as visible.

    Returns:
        Python source; None where there is nothing to learn by heart.
    """
    name = entry_point_of(tests)
    reading = read_examples(prompt, entry_point=None if isinstance(tests, StdioTests) else name)
    if isinstance(tests, StdioTests):
        samples = [(e.stdin, e.stdout) for e in reading.examples if e.stdin is not None and e.stdout is not None]
        cases = [(c.stdin, c.stdout if isinstance(c.stdout, str) else c.stdout[0]) for c in tests.cases[:visible]]
        shown_texts = samples or cases
        return LOOK_UP_STDIN.format(shown=repr(shown_texts)) if shown_texts else None
    calls = [(e.arguments, e.expected) for e in reading.examples if e.arguments is not None and e.expected is not None]
    shown = calls or shown_answers(tests, name)[:visible]
    return _look_up(name or reading.entry_point, shown)


def _look_up(name: str | None, shown: Sequence[tuple[str, str]]) -> str | None:
    if name is None or not shown:
        return None
    lines = "\n".join(f"    lambda: (_key({arguments}), {value})," for arguments, value in shown)
    return _defined(name, LOOK_UP.replace("{shown}", lines))


def _defined(name: str, template: str) -> str:
    """A template's function as a function, or as a method of a class, as the name says."""
    owner, _, function = name.rpartition(".")
    text = template.replace("{name}", function).replace("{self}", "self, " if owner else "")
    if not owner:
        return text
    head, definition = text[: text.index(f"def {function}(")], text[text.index(f"def {function}(") :]
    body = "".join(f"    {line}\n" for line in definition.splitlines())
    return f"{head}class {owner.split('.')[0]}:\n{body}"
