"""Folders of judges, and answers of a server that judges by a rule a test can check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

GRADE = [
    {"role": "system", "content": "You grade answers."},
    {"role": "user", "content": "Question: {prompt}\nAnswer: {completion}\nGrade it from 0 to 10 as `Score: N`."},
]
COMPARE = [{"role": "user", "content": "Question: {prompt}\n[A] {first}\n[B] {second}\nSay [[A]], [[B]] or [[C]]."}]
NUMBER = {"type": "number", "pattern": r"Score: *(-?\d+(?:\.\d+)?)", "min": 0, "max": 10}
PAIRWISE = {"type": "pairwise", "pattern": r"\[\[([ABC])\]\]", "first": "A", "second": "B", "tie": "C"}


def judge(folder: Path, url: str, /, **spec: Any) -> Path:
    """Write the spec of a judge that gives numbers; `spec` changes it. Answers the folder."""
    values = {"kind": "generative", "url": url, "model": "m", "messages": GRADE, "method": NUMBER} | spec
    (folder / "reward_model.json").write_text(json.dumps(values))
    return folder


def between(text: str, start: str, stop: str) -> str:
    return text.split(start, 1)[1].rsplit(stop, 1)[0]


def grade_by_length(body: dict[str, Any]) -> list[str]:
    """The answer's length is its grade."""
    answer = between(body["messages"][-1]["content"], "Answer: ", "\nGrade it")
    return [f"I count its letters. Score: 0? No. Score: {len(answer)}"]


def prefer_longer(body: dict[str, Any]) -> list[str]:
    """The longer of the two wins, and among equals none."""
    asked = body["messages"][-1]["content"]
    first, second = between(asked, "[A] ", "\n[B] "), between(asked, "\n[B] ", "\nSay [[A]]")
    return ["[[C]]" if len(first) == len(second) else "[[A]]" if len(first) > len(second) else "[[B]]"]


def prefer_first(body: dict[str, Any]) -> list[str]:
    """A judge with nothing but a bias for the place."""
    return ["Thinking of it: [[A]]"]
