"""The reader of examples: what it reads, what it leaves, and what it costs."""

from __future__ import annotations

import ast
import random
import time

import pytest

from service.evidence.examples import Example, Parameter, as_assert, as_case, explain, read_examples
from service.evidence.examples.source import MAX_EXAMPLES
from support.example_prompts import call_values, prompts, tallies, wrong_name

PROMPT = '''from typing import List


def largest_gap(values: List[int], floor: int = 0) -> int:
    """The largest difference of two neighbours.

    >>> largest_gap([1, 4,
    ...              9])
    5
    >>> largest_gap([], floor=3)
    3
    >>> largest_gap(None)
    Traceback (most recent call last):
    TypeError: no values
    """
'''


def test_doctests_are_read_with_their_place_and_the_signature() -> None:
    reading = read_examples(PROMPT)
    assert (reading.kind, reading.entry_point) == ("function", "largest_gap")
    assert reading.parameters == (Parameter("values", "List[int]"), Parameter("floor", "int", "0"))
    first, second = reading.examples
    assert (first.arguments, first.expected, first.style) == ("[1, 4, 9]", "5", "doctest")
    assert (second.arguments, second.expected) == ("[], floor=3", "3")
    assert PROMPT[first.start : first.end].startswith("largest_gap([1, 4,")
    assert PROMPT[second.start : second.end].split() == ["largest_gap([],", "floor=3)", "3"]
    assert isinstance(first, Example)


def test_the_corpus_is_read_with_precision_and_recall_by_style() -> None:
    by_style, differences = tallies("example_prompts.txt")
    read, right = (sum(getattr(tally, name) for tally in by_style.values()) for name in ("read", "right"))
    assert right >= 0.98 * read, differences
    for style, tally in by_style.items():
        assert tally.right >= 0.95 * tally.gold, (style, tally, differences)


def test_prompts_that_the_reader_was_not_written_with_are_read() -> None:
    by_style, differences = tallies("held_out_prompts.txt")
    gold, read, right = (sum(getattr(tally, name) for tally in by_style.values()) for name in ("gold", "read", "right"))
    assert right >= 0.98 * read, differences
    assert right >= 0.9 * gold, differences


@pytest.mark.parametrize(
    "name", ["stranger_prompts.txt", "fresh_prompts.txt", "third_prompts.txt", "sentence_prompts.txt"]
)
def test_styles_that_others_bring_are_read(name: str) -> None:
    """Before the reader was mended for them, recall was 0.33, 0.78, 0.57 and 0.06, precision 0.91, 1, 1 and 1."""
    by_style, differences = tallies(name)
    gold, read, right = (sum(getattr(tally, key) for tally in by_style.values()) for key in ("gold", "read", "right"))
    assert right >= 0.98 * read, differences
    assert right >= 0.95 * gold, differences


@pytest.mark.parametrize(("name", "recall"), [("stdin_prompts.txt", 0.6), ("function_prompts.txt", 0.6)])
def test_strange_examples_are_left_rather_than_misread(name: str, recall: float) -> None:
    """Before the reader was mended for them, precision was 0.71 and 0.70; a third of each file are traps."""
    by_style, differences = tallies(name)
    gold, read, right = (sum(getattr(tally, key) for tally in by_style.values()) for key in ("gold", "read", "right"))
    assert right >= 0.96 * read, differences
    assert right >= recall * gold, differences


@pytest.mark.parametrize(
    ("example", "tolerance"),
    [
        (">>> round(f(1), 2)\n    1.25", 0.005),
        ("assert round(f(1), 1) == 1.2", 0.05),
        ("assert abs(f(1) - 1.2) < 1e-3", 1e-3),
        ("assert math.isclose(f(1), 1.2, abs_tol=0.1)", 0.1),
        ("assert math.isclose(f(1), 2.0, rel_tol=0.1)", 0.2),
        ("assert f(1) == pytest.approx(1.2, abs=0.01)", 0.01),
        ("self.assertAlmostEqual(f(1), 1.2, places=3)", 5e-4),
        ("self.assertAlmostEqual(f(1), 1.2, delta=0.5)", 0.5),
        ("assert math.isclose(f(1), 1.2)", None),
        ("f(1) == 1.2", None),
    ],
)
def test_nearly_equal_values_have_a_tolerance(example: str, tolerance: float | None) -> None:
    (found,) = read_examples(f'def f(x):\n    """\n    {example}\n    """\n').examples
    assert found.tolerance == pytest.approx(tolerance)
    assert ("abs(f(1) - " if tolerance else "assert f(1) ==") in as_assert(found, "f")


@pytest.mark.parametrize(
    "example",
    ["round(f(1), 2) == 'a'", "round(f(g(1)), 2) == 3", "abs(f(1) - 1.2) > 1", "round(f(1)) == 3", "abs(f(1)) == 3"],
)
def test_what_is_not_near_a_number_is_left(example: str) -> None:
    assert read_examples(f'def f(x):\n    """\n    assert {example}\n    """\n').examples == ()


@pytest.mark.parametrize(
    ("text", "called"),
    [
        ("list_sort([2, 1]) == [1, 2]", 1),
        ("candidate([2, 1]) == [1, 2]", 1),
        ("see list_sort([2, 1]) == [1, 2]", 0),
        ("other([2, 1]) == [1, 2]", 0),
        ("sorted([2, 1]) == [1, 2]", 0),
        ("list_sort([2, 1]) == [1, 2]\n    sorted_by(1) == 2", 0),
        ("list_sort(1, 2) == [1, 2]", 0),
        ("list_sort([2, 1]) == [1, 2]\n    sorted_list([1]) == [1]", 1),
    ],
)
def test_a_call_by_another_name_is_read_if_only_it_can_be_meant(text: str, called: int) -> None:
    assert len(read_examples(f'def sorted_list(xs):\n    """\n    {text}\n    """\n').examples) == called


def test_a_helper_that_the_prompt_imports_or_defines_is_another_function() -> None:
    tail = 'def sorted_list(xs):\n    """\n    list_sort([2, 1]) == [1, 2]\n    """\n'
    assert read_examples(f"from tools import list_sort\n\n{tail}").examples == ()
    assert read_examples(f"def list_sort(xs):\n    return xs\n\n\n{tail}").examples == ()


@pytest.mark.parametrize(
    ("block", "read"),
    [
        ("Input: text = ab\nOutput: ba", True),
        ("Input: ab\nOutput: ba", True),
        ("Input: a text\nOutput: the same reversed", False),
        ("Input: text\nOutput: string", False),
        ("Input: ab...\nOutput: ...ba", False),
        ("Input: the word\nOutput: ba", False),
    ],
)
def test_texts_without_quotes_are_read_and_descriptions_are_not(block: str, read: bool) -> None:
    prompt = f'def reverse(text: str) -> str:\n    """Reverse a text.\n\n{block}\n"""\n'
    expected = [("'ab'", "'ba'")] if read else []
    assert [(e.arguments, e.expected) for e in read_examples(prompt).examples] == expected


def test_entry_points_of_the_corpus_are_found() -> None:
    wrong = [p.entry_point for p in prompts("example_prompts.txt") if wrong_name(p, read_examples(p.text))]
    assert wrong == []


def test_an_examples_place_is_where_its_text_stands() -> None:
    for prompt in prompts("example_prompts.txt"):
        shift = "é" * 7 + "\n\n"
        for example, moved in zip(
            read_examples(prompt.text).examples, read_examples(shift + prompt.text).examples, strict=True
        ):
            text = prompt.text[example.start : example.end]
            assert text.strip()
            assert moved.start - example.start == len(shift)
            shown = explain(example, prompt.text, prompt.entry_point)
            assert shown["text"] == text[:400]
            if example.expected is not None and example.expected.isdigit():
                assert example.expected in text or "**" in text


def test_examples_are_written_as_asserts_and_cases() -> None:
    call = Example(0, 1, "equality", arguments="[1], k=2", expected="3")
    assert as_assert(call, "f") == "assert f([1], k=2) == 3"
    assert as_assert(call, "Solution.f") == "assert Solution().f([1], k=2) == 3"
    assert as_case(Example(0, 1, "sample", stdin="1\n", stdout="2\n")) == ("1\n", "2\n")
    with pytest.raises(ValueError, match="as_assert"):
        as_case(call)


@pytest.mark.parametrize(
    "value", ["{[1]: 2}", "{{1}: 2}", "{[1]}", "[{(1, [2])}]", "9**99999", "{[1]: 2} * 2", "[1] * 10**9"]
)
def test_what_has_no_value_is_not_an_example(value: str) -> None:
    prompt = f"def f(x):\n    # f({value}) == 1\n    # f(2) == {value}\n    # f(3) == 4\n"
    assert [(e.arguments, e.expected) for e in read_examples(prompt).examples] == [("3", "4")]


HEAD = 'def f(x):\n    """'
HOSTILE = {
    "brackets": HEAD + "f([" * 350_000,
    "open strings": HEAD + 'f("a ' * 200_000,
    "newlines": HEAD + "\n" * 1_000_000,
    "prompts": HEAD + ">>> f(1)\n" * 120_000,
    "doctests": HEAD + "".join(f">>> f({n})\n1\n" for n in range(80_000)),
    "inputs and outputs": HEAD + "Input: 1 Output: 2 " * 55_000,
    "rows": HEAD + "| input | output |\n|---|---|\n" + "| 1 | 2 |\n" * 100_000,
    "definitions": 'def f(x): """\n' * 75_000,
    "negations": HEAD + "not " * 250_000 + "f(1) == 1",
    "samples": "Input\n1\nOutput\n2\n" * 60_000,
    "fences": "Sample Input\n" + "```\n" * 250_000,
    "sums": HEAD + "f(1) == " + "1 + " * 250_000,
    "sentences": HEAD + "For x = 1 the output should be 2\n" * 30_000,
    "records": HEAD + '{"input": 1, ' * 80_000,
    "parametrized": "@pytest.mark.parametrize('x, y', [" * 25_000,
    "quotes": "> Input: a\n" * 90_000,
    "labels": HEAD + "Input\n" * 160_000,
    "bare texts": 'def f(s: str) -> str:\n    """' + "Input: s = ab\nOutput: ba\n" * 40_000,
    "calls of many names": HEAD + "\n".join(f"f{n}(1) == 2" for n in range(70_000)),
    "rounds": HEAD + "round(" * 160_000 + "f(1), 2) == 3",
    "assignments": HEAD + "x = 1\n" * 160_000,
    "foreign": "public static int f(int x) { " * 35_000,
    "imports": "import a, b, c\n" * 70_000 + HEAD,
    "backslashes": HEAD + 'f("' + "\\" * 1_000_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_megabyte_is_read_within_seconds(name: str) -> None:
    began = time.process_time()
    reading = read_examples(HOSTILE[name], completions=["def f(x):\n    return x\n"])
    assert time.process_time() - began < 3.0  # 0.6 to 1 on a machine with nothing else on it
    assert len(reading.examples) <= MAX_EXAMPLES


def test_the_end_of_a_very_long_prompt_is_read_at_its_place() -> None:
    prompt = "words and words\n" * 60_000 + "def f(x):\n    '''\n    >>> f(1)\n    2\n    '''\n"
    (example,) = read_examples(prompt).examples
    assert prompt[example.start : example.end].split() == ["f(1)", "2"]


def test_damaged_prompts_give_only_values_and_true_places() -> None:
    texts = [prompt.text for prompt in prompts("example_prompts.txt")]
    rng = random.Random(14)
    for _ in range(500):
        text = rng.choice(texts) + rng.choice(texts)
        for _ in range(rng.randint(1, 8)):
            place = rng.randrange(len(text))
            text = (
                text[:place] + rng.choice(["", *"[](){}\"'`\\|:,.=->#\n \t*1e²é"]) + text[place + rng.randint(0, 6) :]
            )
        for example in read_examples(text, completions=[rng.choice(texts)]).examples:
            assert 0 <= example.start < example.end <= len(text)
            if example.arguments is not None and example.expected is not None:
                call_values(example.arguments)
                ast.literal_eval(example.expected)


SEVERAL = {
    "any order": 'def top(xs, k):\n    """The largest, in any order.\n    >>> top([1, 5, 3], 2)\n    [5, 3]\n    """\n',
    "no matter": "Write pairs(xs). Their order does not matter.\n\nassert pairs([1, 2]) == [(1, 2), (2, 1)]\n",
    "LeetCode": (
        'Return any of them.\n\nExample 1:\n\nInput: s = "babad"\nOutput: "bab"\n\n'
        "class Solution:\n    def longest(self, s: str) -> str:\n"
    ),
    "also valid": (
        'class Solution:\n    def longest(self, s: str) -> str:\n        """\n        Input: s = "babad"\n'
        '        Output: "bab"\n        Explanation: "aba" is also a valid answer.\n        """\n'
    ),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_of_several_right_answers_none_is_an_example(name: str) -> None:
    assert read_examples(SEVERAL[name]).examples == ()


def test_an_order_that_does_not_matter_leaves_numbers_and_sets() -> None:
    prompt = 'def count(xs):\n    """Pairs in any order.\n    >>> count([1, 2, 1])\n    2\n    """\n'
    assert [example.expected for example in read_examples(prompt).examples] == ["2"]


SESSIONS = {
    "an account": (
        'class Account:\n    """\n    >>> a = Account(100)\n    >>> a.add(50)\n    >>> a.balance()\n    150\n    """\n'
        "    def balance(self):\n        ...\n"
    ),
    "an object that was filled": (
        'class Stack:\n    """\n    >>> s = Stack()\n    >>> s.push(2)\n    >>> s.pop()\n    2\n    """\n'
        "    def pop(self):\n        ...\n"
    ),
    "del": 'def size(x):\n    """\n    >>> x = [1, 2, 3]\n    >>> del x[0]\n    >>> size(x)\n    2\n    """\n',
    "another name": (
        'def size(x):\n    """\n    >>> x = [1]\n    >>> y = x\n    >>> y.append(2)\n    >>> size(x)\n    2\n    """\n'
    ),
    "a loop": (
        'def size(x):\n    """\n    >>> x = []\n    >>> for i in range(3):\n    ...     x.append(i)\n'
        '    >>> size(x)\n    3\n    """\n'
    ),
}


@pytest.mark.parametrize("name", SESSIONS)
def test_what_a_session_has_changed_is_no_argument(name: str) -> None:
    assert read_examples(SESSIONS[name]).examples == ()


def test_a_call_may_have_changed_its_list_and_not_its_number() -> None:
    lists = 'def push(s, v):\n    """\n    >>> s = []\n    >>> push(s, 4)\n    1\n    >>> push(s, 5)\n    2\n    """\n'
    assert [example.arguments for example in read_examples(lists).examples] == ["[], 4"]
    numbers = 'def add(x, y):\n    """\n    >>> x = 3\n    >>> add(x, 4)\n    7\n    >>> add(x, 5)\n    8\n    """\n'
    assert [example.arguments for example in read_examples(numbers).examples] == ["3, 4", "3, 5"]
