"""The rules by which code is taken out of a completion."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plaudit.extract import Code, answer, code_of, fences, last_fence

F = "```"


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        (f"Here:\n{F}python\na = 1\n{F}\nDone.", "a = 1\n"),
        (f"{F}\na = 1\n{F}", "a = 1\n"),
        (f"{F}py\none\n{F}\ntext\n{F}py\ntwo\n{F}", "two\n"),
        (f"{F}python\none\n{F}\nIt prints\n{F}\n42\n{F}", "one\n"),
        (f"{F}\none\n{F}\nor in C++\n{F}cpp\nint x;\n{F}", "one\n"),
        (f"{F}text\n42\n{F}", "42\n"),
        (f"{F}python3\none\n{F}\n{F}python\n\n{F}", "one\n"),
        (f"~~~python\nprint('''\n{F}\n''')\n~~~", f"print('''\n{F}\n''')\n"),
        (f"````python\n{F}\ninner\n{F}\n````", f"{F}\ninner\n{F}\n"),
        (f"  {F}python\n  a = 1\n  {F}", "a = 1\n"),
        (f"   {F}python\n   if a:\n       b\n  c\n   {F}", "if a:\n    b\nc\n"),
        (f"1. So:\n\n   {F}python\n   if a:\n       b\n   {F}\n2. Done", "if a:\n    b\n"),
        (f"10. So:\n\n    {F}python\n    if a:\n\n        b\n    {F}", "if a:\n\n    b\n"),
        (f"- a\n  - b\n\n      {F}python\n      x = 1\n      {F}\n", "x = 1\n"),
        (f"- {F}python\n  x = 1\n  {F}\n", "x = 1\n"),
        (f"1. So:\n   {F}python\nx = 1\n{F}\n", "x = 1\n"),
        (f"- a\n\t{F}python\n\tif x:\n\t\ty\n\t{F}\n", "if x:\n\ty\n"),
        (f"> {F}python\n> if a:\n>     b\n> {F}\n", "if a:\n    b\n"),
        (f"{F}python\r\nprint(8)\r\n{F}\r\n", "print(8)\n"),
        ("Text\r\n\r\n~~~py\r\nif a:\r\n    b\r\n~~~\r\nmore\r\n", "if a:\n    b\n"),
        (f"{F}python\nprint(8)\n{F}\r\n", "print(8)\n"),
        ("~~~~ python `x`\none\n~~~\n~~~~~", "one\n~~~\n"),
        (f'{F}python title="a.py" {{linenos=true}}\none\n{F}\n{F}text\n1\n{F}', "one\n"),
        (f"{F}{{#it .python .numberLines}}\none\n{F}\n{F}{{.text}}\n1\n{F}", "one\n"),
        (f"{F}Python,linenos\none\n{F}\n{F}text\n1\n{F}", "one\n"),
        (f"{F}python:main.py\none\n{F}\n{F}json\n1\n{F}", "one\n"),
        (f"{F}language-python\none\n{F}\n{F}json\n1\n{F}", "one\n"),
        (f"{F}python\ndef f():\n    '''\n    {F}\n    '''\n{F}\n", f"def f():\n    '''\n    {F}\n    '''\n"),
        (f"{F}{{.python}}\none\n{F}\n{F}json\n1\n{F}", "one\n"),
    ],
)
def test_the_last_fence_of_the_language_counts(completion: str, expected: str) -> None:
    code = code_of(completion, "python")
    assert code is not None
    assert (code.text, code.kind) == (expected, "fenced")


def test_a_tag_is_any_spelling_of_the_language() -> None:
    completion = f"{F}c++\none\n{F}\n{F}python\ntwo\n{F}"
    assert code_of(completion, "cpp") == Code("one\n", "fenced", "c++")
    assert code_of(completion, "py3") == Code("two\n", "fenced", "python")


def test_a_fence_that_is_never_closed_ends_with_the_completion() -> None:
    code = code_of(f"{F}python\nwhile True:\n    pa", "python")
    assert code == Code("while True:\n    pa", "incomplete_fenced", "python")


@pytest.mark.parametrize(
    "completion",
    [
        "",
        "def f(): pass",
        "use `x`",
        f"{F}python\n \n{F}",
        f"a {F}python\nb\n",
        f"    {F}python\n    b\n    {F}\n",
        "``\nb\n``",
        f"{F}python b {F}\n",
        f"- a\n\nb\n\n    {F}python\n    c\n    {F}",
    ],
)
def test_no_fence_no_code(completion: str) -> None:
    assert code_of(completion, "python") is None
    assert last_fence(completion) is None


@pytest.mark.parametrize("token", ["<|im_end|>", "</s>", "<|eot_id|>", "<|endoftext|>", "<|im_end|>\n<|endoftext|>"])
def test_closing_tokens_of_templates_are_no_text(token: str) -> None:
    code = code_of(f"{F}python\na = 1\n{F}{token}", "python")
    assert code == Code("a = 1\n", "fenced", "python")


def test_a_closing_token_inside_a_program_stays() -> None:
    assert last_fence(f"{F}\nprint('</s>')\n{F}") == "print('</s>')\n"


def test_thoughts_do_not_answer() -> None:
    draft = f"{F}python\ndraft\n{F}"
    final = f"{F}python\nfinal\n{F}"
    assert last_fence(f"<think>\n{draft}\n</think>\n{final}") == "final\n"
    assert last_fence(f"so\n{draft}\n</think>\n\n{final}") == "final\n"
    assert last_fence(f"<think>\n{draft}\n</think>\nNo code.") is None
    assert last_fence(f"<think>\n{draft}\n") is None


def test_a_program_about_thoughts_keeps_its_text() -> None:
    program = "s = '<think>' + x + '</think>'\nprint(s)\n"
    assert last_fence(f"{F}python\n{program}{F}") == program


def test_answer_is_the_text_itself_where_nothing_is_to_be_taken() -> None:
    assert answer("plain") == "plain"


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "piece",
    [
        " ",
        "`",
        "```\n",
        "- ",
        "> ",
        "\t",
        "1. ",
        "\r\n",
        "</think> ",
        "<think>",
        "<|im_end|>",
        "~~~ \n```",
        "``` \t",
    ],
)
def test_no_text_takes_long(piece: str) -> None:
    code_of(piece * (400_000 // len(piece)) + "x", "python")
    code_of(piece * (400_000 // len(piece)), "python")


@given(st.text())
def test_any_text_is_read_without_error(text: str) -> None:
    code = code_of(text, "python")
    assert code is None or code.text.strip()
    lines = {line.replace(">", " ").strip() for line in text.split("\n")}
    assert all(line.replace(">", " ").strip() in lines for block in fences(text) for line in block.split("\n")[:-1])


def test_a_block_that_defines_what_is_asked_for_goes_before_one_that_uses_it() -> None:
    text = "```python\ndef f(x):\n    return x\n```\nUse it:\n```python\nprint(f(2))\n```\n"
    defines = re.compile(r"^def f\b", re.MULTILINE)
    code = code_of(text, "python", defines)
    assert code is not None
    assert code.text == "def f(x):\n    return x\n"
    assert code_of(text, "python", re.compile("^def g", re.MULTILINE)) == code_of(text, "python")
