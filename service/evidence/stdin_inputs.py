"""Variants of a sample's stdin that keep its shape: numbers that count lines or items stay right."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence

MAX_CHARACTERS = 20_000  # of a sample that is varied
_INTEGER = re.compile(r"[+-]?\d{1,18}\Z")
_DECIMAL = re.compile(r"[+-]?\d{1,18}\.\d{1,18}\Z")


def mutated_stdin(samples: Sequence[str], draw: random.Random) -> Iterator[str]:
    """Yields variants without end; nothing where no sample can be varied.

    Args:
        samples: stdin texts of the prompt's examples.
        draw: the source of chance.
    """
    shapes = [[line.split(" ") for line in text.split("\n")] for text in samples if 0 < len(text) <= MAX_CHARACTERS]
    shapes = [shape for shape in shapes if any(_varies(shape, *place) for place in _places(shape))]
    if not shapes:
        return
    while True:
        shape = [list(line) for line in draw.choice(shapes)]
        places = [place for place in _places(shape) if _varies(shape, *place)]
        if draw.random() < 0.3:
            _resize(shape, draw)
            places = [place for place in _places(shape) if _varies(shape, *place)]
        for line, at in draw.sample(places, draw.randint(1, min(len(places), 6)) if places else 0):
            shape[line][at] = _token(shape[line][at], draw)
        yield "\n".join(" ".join(line) for line in shape)


def _places(shape: Sequence[Sequence[str]]) -> list[tuple[int, int]]:
    return [(line, at) for line, tokens in enumerate(shape) for at, token in enumerate(tokens) if token]


def _varies(shape: Sequence[Sequence[str]], line: int, at: int) -> bool:
    """Whether a token may change: not if it counts the lines that follow, or the items of one of them."""
    token = shape[line][at]
    if not _INTEGER.match(token):
        return True
    number, later = int(token), [tokens for tokens in shape[line + 1 :] if any(tokens)]
    if not later or number < 1:
        return True
    counts_lines = len(later) == number or (line == 0 and at == 0 and len(later) % number == 0 and number > 1)
    return not counts_lines and all(
        len(tokens) != number and len(tokens[0]) != number for tokens in (later[0], later[-1])
    )


def _resize(shape: list[list[str]], draw: random.Random) -> None:
    """Give one line an item more or less, and say so in the line before where that counts its items."""
    for line in draw.sample(range(1, len(shape)), len(shape) - 1):
        tokens, before = shape[line], shape[line - 1]
        places = [at for at, token in enumerate(before) if token == str(len(tokens))]
        if len(tokens) < 2 or len(places) != 1:
            continue
        if draw.random() < 0.5:
            del tokens[draw.randrange(len(tokens))]
        else:
            tokens.insert(draw.randrange(len(tokens) + 1), draw.choice(tokens))
        before[places[0]] = str(len(tokens))
        return


def _token(token: str, draw: random.Random) -> str:
    if _INTEGER.match(token):
        number = int(token)
        least = 0 if number == 0 else 1 if number > 0 else -2 * abs(number)
        return str(draw.choice((max(least, number - 1), number + 1, draw.randint(least, 2 * abs(number) + 3))))
    if _DECIMAL.match(token):
        digits = len(token.partition(".")[2])
        return f"{float(token) * draw.uniform(0.5, 2):.{digits}f}"
    letters = [draw.choice(token) if draw.random() < 0.4 and character.isalnum() else character for character in token]
    return "".join(letters)
