"""The prompts of `synthesize` to the writer and the oracle, and how their answers are read."""

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
class WriterReply:
    """A question with its tests as the writer gave them. `dropped` counts duplicates and what is not an assert."""

    question: str
    tests: tuple[str, ...]
    repaired: bool
    dropped: int


def seed_messages(seed: dict[str, Any], tests: int) -> tuple[tuple[str, str], ...]:
    """The writer's messages for a seed. Lines that print are removed: they lead to questions about output."""
    kept = [line for line in seed["program"].splitlines() if not line.startswith("print")]
    task = seed.get("instruction")
    instruction = f"\nIt was written for this task:\n\n{task.strip()}" if task else ""
    return ("system", SYSTEM), (
        "user",
        REQUEST.format(instruction=instruction, program="\n".join(kept).strip(), tests=tests),
    )


def more_messages(question: str, tests: tuple[str, ...], survivors: list[str]) -> tuple[tuple[str, str], ...]:
    """The writer's messages for a suite that these wrong programs pass."""
    shown = "\n\n".join(f"```python\n{program.strip()}\n```" for program in survivors[:3])
    text = MORE.format(question=question, tests="\n".join(tests), survivors=shown, count=10)
    return ("system", SYSTEM), ("user", text)


def oracle_messages(question: str, tests: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """The oracle's messages: the question and its first two tests, which show how the function is called."""
    return (("user", SOLVE.format(question=question, examples="\n".join(tests[:2]))),)


def parse_writer_reply(text: str, *, question: str | None = None) -> WriterReply | None:
    """A reply's question (or the given one) and tests; None where the reply holds none."""
    read = object_of(text)
    if read is None:
        return None
    value, repaired = read
    asked = value.get("question") if question is None else question
    tests = value.get("tests")
    if not isinstance(asked, str) or not asked.strip() or not isinstance(tests, list):
        return None
    kept = list(dict.fromkeys(spelled for test in tests if (spelled := normal_assert(test)) is not None))
    return WriterReply(asked.strip(), tuple(kept), repaired, len(tests) - len(kept))


def normal_assert(test: object) -> str | None:
    """The test as `ast.unparse` spells it, if it is a single assert that calls something; None otherwise."""
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
    """The program in the oracle's answer; None where there is none."""
    code = code_of(text, "python")
    return None if code is None else code.text
