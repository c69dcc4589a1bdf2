"""What an adapter makes of a row, and what adapters of sets with labels have in common."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from plaudit.errors import Invalid
from plaudit.graders import Grader
from plaudit.labels import required_tests
from plaudit.schemas import Tests
from training.data.programs import SampledText, distinct_programs
from training.pipeline.records import Problem, ProgramRecord

STARTER = "\n\nBegin with this code:\n\n"


@dataclass(frozen=True, slots=True)
class DatasetEntry:
    """A problem with what the data set has of programs; `pairs`: (chosen, rejected) by program_id.

    `unusable`: why its tests cannot be used; such a problem is counted and left out.
    """

    problem: Problem
    programs: tuple[ProgramRecord, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
    unusable: str = ""


def suite_json(label: Any, field: str, language: str = "python") -> str:
    """The tests of a label (`plaudit.labels`) as a text of `Problem.tests`, graded as their data set's graders do.

    Raises `Invalid`, naming the field, for a label without tests that can be read.
    """
    tested = required_tests(label, field)
    return as_json(tested.graded(tested.language or language, Grader()))


def as_json(tests: Tests) -> str:
    """Tests of the contract as one text, without what they have by default."""
    return json.dumps({"kind": tests.kind, **tests.model_dump(mode="json", exclude_defaults=True)})


def labelled_entry(
    task_id: str,
    prompt: str,
    label: Any,
    field: str,
    *,
    source: str,
    license_: str,
    right: Sequence[str] = (),
    wrong: Sequence[str] = (),
    entry_point: str = "",
    language: str = "python",
) -> DatasetEntry:
    """A problem whose tests are a label.

    Args:
        task_id: of the problem, and its base.
        prompt: the question.
        label: in any form that `plaudit.labels` reads.
        field: the row's field that the label comes from.
        source: the data set.
        license_: of the problem and its programs.
        right: programs that the data set calls right; the first is the reference.
        wrong: programs that it calls wrong.
        entry_point: what the tests call, where the data set says it.
        language: of the programs.
    """
    unusable, tests = "", tuple[str, ...]()
    try:
        tests = (suite_json(label, field, language),)
    except Invalid as error:
        unusable = error.detail
    problem = Problem(
        task_id=task_id,
        base_id=task_id,
        prompt=prompt,
        entry_point=entry_point,
        canonical=right[0] if right else None,
        test_setup="",
        tests=tests,
        source=source,
        license=license_,
        language=language,
        kind="suite",
    )
    texts = [("right", text) for text in right[1:]] + [("wrong", text) for text in wrong]
    samples = [SampledText(text, text, f"{task_id}#{side}-{at}", source) for at, (side, text) in enumerate(texts)]
    programs = distinct_programs(problem, samples, license_, independent=False)
    return DatasetEntry(problem, tuple(programs), unusable=unusable)


def question(text: str, starter: str | None) -> str:
    """A question with the code that its answer begins with."""
    return f"{text}{STARTER}{starter}\n" if starter and starter.strip() else text
