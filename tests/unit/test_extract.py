"""Code is taken out of completions by one rule: the last fenced block with anything in it."""

from __future__ import annotations

import pytest

from service.extract import fences, last_fence


@pytest.mark.parametrize(
    ("completion", "code"),
    [
        ("```\nx = 1\n```", "x = 1\n"),
        ("Sure!\n```python\nx = 1\n```\nDone.", "x = 1\n"),
        ("```py\nfirst\n```\ntext\n```py\nlast\n```", "last\n"),
        ("~~~\nx = 1\n~~~", "x = 1\n"),
        ("````\n```\ninner\n```\n````", "```\ninner\n```\n"),
        ("```\nx = 1\n````", "x = 1\n"),
        ("```python\nx = 1", "x = 1"),
        ("```python\nx = 1\n", "x = 1\n"),
        ("  ```python\n  x = 1\n  ```", "  x = 1\n"),
        ("```c++ {.numbers}\nint x;\n```", "int x;\n"),
        ("```python\r\nx = 1\r\n```\r\n", "x = 1\r\n"),
        ("```\nx = 1\n```\n```\n\n```", "x = 1\n"),
        ("```\ns = '```'\n```", "s = '```'\n"),
        ("```\nx = 1\n```\n```", "x = 1\n"),
    ],
)
def test_the_last_block_with_anything_in_it(completion: str, code: str) -> None:
    assert last_fence(completion) == code


@pytest.mark.parametrize("completion", ["", "x = 1", "`x = 1`", "```\n```", "```\n \n```", "``\nx\n``", "a ```b``` c"])
def test_no_block_is_none_and_not_the_text(completion: str) -> None:
    assert last_fence(completion) is None


def test_all_blocks_in_order() -> None:
    assert fences("```\na\n```\n```\n```\n~~~\nb\n~~~") == ["a\n", "", "b\n"]


def test_a_long_text_of_backticks_does_not_take_long() -> None:
    assert last_fence("```\n" * 20_001) is None
    assert last_fence("`" * 200_000) is None
