"""Suites in the forms of KodCode, BigCodeBench and ClassEval, of our own writing (`suite_forms.jsonl`).

Each has a right program, and a wrong one that fails the tests named in `failing` and no others.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Example:
    """A suite's text, a program that is right, and one that is wrong in `failing` of its tests (by name)."""

    form: str
    name: str
    right: str
    wrong: str
    tests: str
    failing: list[str]


def examples(form: str) -> list[Example]:
    lines = Path(__file__).with_suffix(".jsonl").read_text("utf-8").splitlines()
    return [example for example in (Example(**json.loads(line)) for line in lines) if example.form == form]


KODCODE, BIGCODEBENCH, CLASSEVAL = (examples(form) for form in ("kodcode", "bigcodebench", "classeval"))
