"""What was read, as tests and as data for an answer."""

from __future__ import annotations

from typing import TypedDict

from service.evidence.examples.types import Example

MAX_SHOWN = 400  # characters of the prompt's text in an explanation


class ExplainedExample(TypedDict):
    """One example as an answer shows it: its form, its place in the prompt, the text there, and what it was read as."""

    style: str
    start: int
    end: int
    text: str
    test: str


def as_assert(example: Example, entry_point: str) -> str:
    """An example of a function as an assert.

    Args:
        example: with arguments and an expected value.
        entry_point: "f", or "Class.method", which is called on a new instance.

    Returns:
        One Python statement.

    Raises:
        ValueError: if the example is one of a program that reads stdin.
    """
    if example.arguments is None or example.expected is None:
        raise ValueError("an example of stdin and stdout is not an assert: use as_case")
    owner, _, name = entry_point.rpartition(".")
    called = f"{owner}().{name}" if owner else name
    if example.tolerance is not None:
        return f"assert abs({called}({example.arguments}) - {example.expected}) <= {example.tolerance:g}"
    return f"assert {called}({example.arguments}) == {example.expected}"


def as_case(example: Example) -> tuple[str, str]:
    """An example of a program as its stdin and the stdout that it has to print.

    Raises:
        ValueError: if the example is one of a function.
    """
    if example.stdin is None or example.stdout is None:
        raise ValueError("an example of a call is not a case of stdin and stdout: use as_assert")
    return example.stdin, example.stdout


def explain(example: Example, prompt: str, entry_point: str | None = None) -> ExplainedExample:
    """How an example is shown to whoever asks why a completion was preferred.

    Args:
        example: read from this prompt.
        prompt: the text that was read.
        entry_point: of the reading; None for stdin and stdout.

    Returns:
        At most `MAX_SHOWN` characters of the text, and of the test.
    """
    if entry_point is not None and example.arguments is not None:
        test = as_assert(example, entry_point)
    else:
        test = f"stdin {example.stdin!r} -> stdout {example.stdout!r}"
    text = prompt[example.start : min(example.end, example.start + MAX_SHOWN)]
    return {"style": example.style, "start": example.start, "end": example.end, "text": text, "test": test[:MAX_SHOWN]}
