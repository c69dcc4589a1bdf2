"""Mining from what the service has seen: its log of scored and executed candidates (`candidates_dir`).

A group is a prompt with its tests; its candidates were judged by the sandbox already, so their verdicts are labels and
nothing is run again. Groups in which reranker and tests disagree, and only those, are the next training set: a failing
candidate that scores as high as a passing one, by the mining rule of `iterate`. The score that decides is the present
reranker's, not the logged one, which may be an older model's.

Held-out problems may have been asked about: a group whose prompt is a held-out prompt, or shares a run of `split.ngram`
tokens with one, is left out.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plaudit.errors import UsageError
from training.data.decontaminate import HeldOut
from training.data.programs import program_of
from training.pipeline.digests import content_key
from training.pipeline.files import read_jsonl
from training.pipeline.records import Problem, ProgramRecord

SOURCE = "service"
LICENSE = "the callers' own"


@dataclass(frozen=True, slots=True)
class Seen:
    """Groups of the log as problems of the training fold, with their judged programs, and how many were left out."""

    problems: dict[str, Problem]
    programs: dict[str, list[ProgramRecord]]
    held_out: int


def read_seen(folder: str, known: Iterable[Problem], ngram: int) -> Seen:
    """Everything logged in this folder. Raises `UsageError` where there is no such folder."""
    if not Path(folder).is_dir():
        raise UsageError(f"iterate.seen: no folder {folder}")
    known = list(known)
    held = HeldOut(known, ngram)
    prompts = {problem.prompt.strip() for problem in known if problem.fold != "train"}
    problems: dict[str, Problem] = {}
    programs: dict[str, dict[str, ProgramRecord]] = {}
    dropped: set[str] = set()
    for path in sorted(Path(folder).glob("candidates-*.jsonl")):
        for line in read_jsonl(path):
            prompt = text_of(line["prompt"])
            name = f"seen/{content_key(prompt, line['tests'], line['language'])}"
            if prompt.strip() in prompts or held.touches(prompt):
                dropped.add(name)
                continue
            problem = problems.setdefault(name, problem_of(name, prompt, line["tests"]))
            made = program_of(
                problem,
                line["completion"],
                "sample",
                SOURCE,
                LICENSE,
                completion=line["completion"],
                pass_rate=float(line["pass_rate"]),
            )
            group = programs.setdefault(name, {})
            before = group.get(made.program_id)
            # Verdicts of one text differ when a run was cut by its time limit: the better one counts.
            best = made if before is None else max(before, made, key=lambda p: p.pass_rate or 0.0)
            copies = 1 if before is None else before.copies + 1
            group[made.program_id] = dataclasses.replace(best, copies=copies, label="sandbox")
    return Seen(problems, {name: list(group.values()) for name, group in programs.items()}, len(dropped))


def problem_of(name: str, prompt: str, tests: Mapping[str, Any]) -> Problem:
    """A problem whose verdicts are known; its tests are kept as text, for the record."""
    return Problem(
        task_id=name,
        base_id=name,
        prompt=prompt,
        entry_point=str(tests.get("entry_point") or ""),
        canonical=None,
        test_setup="",
        tests=(json.dumps(tests, sort_keys=True),),
        source=SOURCE,
        license=LICENSE,
        fold="train",
    )


def text_of(prompt: Any) -> str:
    """A conversation as the text templates join it: by blank lines."""
    return prompt if isinstance(prompt, str) else "\n\n".join(message["content"] for message in prompt)
