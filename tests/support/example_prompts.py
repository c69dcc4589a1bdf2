"""Prompts written by hand, each with the examples that a careful reader finds in it.

`example_prompts.txt` is the corpus that the reader was written with, `held_out_prompts.txt` one it was not. A prompt
begins with `=== style | entry point`; below its `---` stands one gold example per line, `arguments ==> value`, or the
source of stdin and stdout. The style is that of the prompt, "none" where a careful reader finds nothing.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.evidence.examples import Example, Reading, read_examples


@dataclass(frozen=True)
class GoldPrompt:
    style: str
    entry_point: str | None
    text: str
    gold: tuple[str, ...]


@dataclass
class Tally:
    """Examples of one style: how many there are, how many were read, and how many of those are right."""

    gold: int = 0
    read: int = 0
    right: int = 0


def prompts(name: str) -> list[GoldPrompt]:
    """The prompts of one of the two files, in order."""
    parts = re.split(r"^=== ", (Path(__file__).parent / name).read_text("utf-8"), flags=re.MULTILINE)[1:]
    return [_prompt(part) for part in parts]


def _prompt(part: str) -> GoldPrompt:
    head, _, body = part.partition("\n")
    style, entry_point = (word.strip() for word in head.split("|"))
    text, _, gold = body.rpartition("---\n")
    return GoldPrompt(style, None if entry_point == "-" else entry_point, text, tuple(gold.splitlines()))


def call_values(arguments: str) -> tuple[list[Any], dict[str | None, Any]]:
    """The values that a call is made with."""
    call = ast.parse(f"f({arguments})", mode="eval").body
    assert isinstance(call, ast.Call)
    return [ast.literal_eval(item) for item in call.args], {
        item.arg: ast.literal_eval(item.value) for item in call.keywords
    }


def is_right(example: Example, gold: str) -> bool:
    """Whether an example says what this gold line says."""
    given, _, expected = gold.partition(" ==> ")
    if example.stdin is not None:
        return (example.stdin, example.stdout) == (ast.literal_eval(given), ast.literal_eval(expected))
    assert example.arguments is not None
    assert example.expected is not None
    values = ast.literal_eval(example.expected), ast.literal_eval(expected)
    same_type = isinstance(values[0], tuple) == isinstance(values[1], tuple)
    return call_values(example.arguments) == call_values(given) and values[0] == values[1] and same_type


def tallies(name: str) -> tuple[dict[str, Tally], list[str]]:
    """What the reader reads of a file, by style, and one line per difference."""
    by_style: dict[str, Tally] = {}
    differences: list[str] = []
    for prompt in prompts(name):
        reading = read_examples(prompt.text)
        tally = by_style.setdefault(prompt.style, Tally())
        left = list(prompt.gold)
        tally.gold += len(left)
        for example in reading.examples:
            tally.read += 1
            match = next((gold for gold in left if is_right(example, gold)), None)
            if match is None:
                differences.append(f"{prompt.style} {prompt.entry_point}: read {_shown(example)}")
            else:
                left.remove(match)
                tally.right += 1
        differences += [f"{prompt.style} {prompt.entry_point}: left {gold}" for gold in left]
        if wrong_name(prompt, reading):
            differences.append(f"{prompt.style} {prompt.entry_point}: entry point {reading.entry_point}")
    return by_style, differences


def wrong_name(prompt: GoldPrompt, reading: Reading) -> bool:
    return reading.entry_point != prompt.entry_point


def _shown(example: Example) -> str:
    if example.stdin is not None:
        return f"{example.stdin!r} ==> {example.stdout!r} ({example.style})"
    return f"{example.arguments} ==> {example.expected} ({example.style})"
