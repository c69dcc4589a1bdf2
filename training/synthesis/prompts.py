"""What the writer and the oracle of `synthesize` are asked, and what is made of their answers."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Any

from plaudit.extract import code_of
from training.synthesis.json_repair import object_of

SYSTEM = "You are a careful Python teacher who writes programming exercises together with their tests."
REQUEST = """\
Here is some Python code that may serve as inspiration.{instruction}

```python
{program}
```

Write one exercise inspired by it, and its tests. The exercise
- asks for exactly one Python function, names it, and says what goes in and what comes out, as a LeetCode task does;
- can be solved with the standard library alone: no files, no network, no clock, no randomness, no input or printing;
- is understood without the code above, does not show it, and contains no test and no remark on complexity.

Then write {tests} tests. Each is one Python assert statement that calls the function with literal arguments and
compares the result with a literal expected value; it stands alone, needs no import, and its expected value is right.
Cover ordinary inputs, edge cases, and the mistakes that a hasty solution would make.

Answer with one JSON object: {{"question": "...", "tests": ["assert ...", "..."]}}
"""
MORE = """\
Here is a programming exercise with tests.

{question}

{tests}

These wrong programs pass all of them:

{survivors}

Write {count} further tests, each of which a right solution passes and at least one of these programs fails: one Python
assert statement with literal arguments and a literal expected value. Do not repeat a test.

Answer with one JSON object: {{"tests": ["assert ...", "..."]}}
"""
SOLVE = """\
{question}

The function must pass tests like these:

{examples}

Answer with one complete Python program in a single ```python code block, and nothing else.
"""


@dataclass(frozen=True, slots=True)
class Written:
    """A question with its tests as the writer gave them; `dropped`: tests that are no assert, or that stood twice."""

    question: str
    tests: tuple[str, ...]
    repaired: bool
    dropped: int


def seed_messages(seed: dict[str, Any], tests: int) -> tuple[tuple[str, str], ...]:
    """The writer's messages for a seed. Lines that print are taken out: they tempt to ask for output."""
    kept = [line for line in seed["program"].splitlines() if not line.startswith("print")]
    told = seed.get("instruction")
    instruction = f"\nIt was written for this task:\n\n{told.strip()}" if told else ""
    return ("system", SYSTEM), (
        "user",
        REQUEST.format(instruction=instruction, program="\n".join(kept).strip(), tests=tests),
    )


def more_messages(question: str, tests: tuple[str, ...], survivors: list[str]) -> tuple[tuple[str, str], ...]:
    """The writer's messages for a suite that lets these wrong programs through."""
    shown = "\n\n".join(f"```python\n{program.strip()}\n```" for program in survivors[:3])
    text = MORE.format(question=question, tests="\n".join(tests), survivors=shown, count=10)
    return ("system", SYSTEM), ("user", text)


def oracle_messages(question: str, tests: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """The oracle's messages: the question and its first two tests, which show how the function is called."""
    return (("user", SOLVE.format(question=question, examples="\n".join(tests[:2]))),)


def written_of(text: str, *, question: str | None = None) -> Written | None:
    """A reply's question (or the known one) and tests; None where there is no such object in it."""
    found = object_of(text)
    if found is None:
        return None
    value, repaired = found
    asked = value.get("question") if question is None else question
    tests = value.get("tests")
    if not isinstance(asked, str) or not asked.strip() or not isinstance(tests, list):
        return None
    kept = list(dict.fromkeys(plain for test in tests if (plain := assert_of(test)) is not None))
    return Written(asked.strip(), tuple(kept), repaired, len(tests) - len(kept))


def assert_of(test: object) -> str | None:
    """The test in one spelling if it is a single assert that calls something; None otherwise."""
    if not isinstance(test, str):
        return None
    try:
        module = ast.parse(test.strip())
    except (SyntaxError, ValueError, RecursionError):
        return None
    if len(module.body) != 1 or not isinstance(module.body[0], ast.Assert):
        return None
    if not any(isinstance(node, ast.Call) for node in ast.walk(module)):
        return None
    return ast.unparse(module)


def oracle_program(text: str) -> str | None:
    """The program of the oracle's answer, None where it gave none."""
    code = code_of(text, "python")
    return None if code is None else code.text
