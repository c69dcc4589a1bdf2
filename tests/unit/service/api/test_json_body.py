"""A large body parsed piece by piece: the same as `json.loads`, and never larger in memory than was promised."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import pytest

from plaudit.errors import TooLarge
from service.api import json_body

TEXTS = ("", "a", 'é😀"\\\n' * 9, "x" * 70, "\\u", "[{,", "\ud83d")
NOISE = (b",", b"[", b"]", b"{", b"}", b'"', b"\\", b" ", b"1", b"\xff", b"null", b'"a":1,')


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_body, "PIECE_BYTES", 24)
    pattern = json_body._STRING.pattern.replace(b"8192", b"3").replace(b"{0,64}", b"{0,3}")
    monkeypatch.setattr(json_body, "_STRING", re.compile(pattern, re.DOTALL))


def value(source: random.Random, depth: int = 0) -> Any:
    kind = source.random()
    if depth > 5 or kind < 0.3:
        return source.choice([1, -2.5e3, None, True, 12345678901234567890, *TEXTS])
    if kind < 0.65:
        return [value(source, depth + 1) for _ in range(source.randint(0, 5))]
    return {source.choice(["a", "b", 'k"y', "é"]): value(source, depth + 1) for _ in range(source.randint(0, 4))}


def outcome(load: Any, text: bytes) -> Any:
    try:
        return repr(load(text))
    except ValueError:
        return "error"


@pytest.mark.parametrize("seed", range(4))
def test_pieces_make_the_value_that_json_loads_makes(seed: int) -> None:
    source = random.Random(seed)
    for _ in range(300):
        text = json.dumps(value(source), ensure_ascii=True, indent=source.choice([None, 1])).encode()
        assert outcome(json_body.load, text) == outcome(json.loads, text), text


@pytest.mark.parametrize("seed", range(4))
def test_a_broken_text_is_an_error_in_pieces_too(seed: int) -> None:
    source = random.Random(seed)
    for _ in range(300):
        text = bytearray(json.dumps(value(source)).encode())
        at = source.randrange(len(text))
        text[at : at + source.randint(0, 1)] = source.choice(NOISE)
        if re.search(rb'"[^"]{20,}" *:', text):
            continue  # a name longer than a piece is not read
        assert outcome(json_body.load, bytes(text)) == outcome(json.loads, bytes(text)), bytes(text)


@pytest.mark.parametrize("part", [b"[]", b"[1]", b"{}", b'{"a":1}', b'"ab"'])
def test_many_small_values_are_rejected_before_they_take_memory(monkeypatch: pytest.MonkeyPatch, part: bytes) -> None:
    monkeypatch.setattr(json_body, "GROWTH_FLOOR_BYTES", 1000)
    text = b"[" + b",".join([part] * 5000) + b"]"
    with pytest.raises(TooLarge, match="more than"):
        json_body.load(text)


def test_more_values_than_the_bound_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_body, "MAX_VALUES", 100)
    assert json_body.load(json.dumps([1] * 90).encode()) == [1] * 90
    with pytest.raises(TooLarge, match="100 values"):
        json_body.load(json.dumps([1] * 200).encode())
