"""Mining from the service's log of scored and executed candidates (`candidates_dir`).

- A group is a prompt with its tests. The sandbox has judged its candidates, so nothing is run again.
- Only groups in which reranker and tests disagree are learnt from: a failing candidate scores as high as a passing one,
  by the rule of `mining`. The current reranker's score decides, not the logged one.
- Groups whose prompt is a held-out prompt, or shares `split.ngram` consecutive tokens with one, are left out.
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
class LoggedGroups:
    """Groups of the log as problems of the training fold, and their judged programs, by task id.

    `held_out`: number of groups left out.
    """

    problems: dict[str, Problem]
    programs: dict[str, list[ProgramRecord]]
    held_out: int


def read_logged_groups(folder: str, known: Iterable[Problem], ngram: int) -> LoggedGroups:
    """Everything logged in this folder.

    Args:
        folder: of `candidates-*.jsonl`.
        known: the problems of the run; those outside the training fold are held out.
        ngram: consecutive tokens shared with a held-out problem from which a group is left out.

    Raises:
        UsageError: the folder does not exist.
    """
    if not Path(folder).is_dir():
        raise UsageError(f"iterate.seen: no folder {folder}")
    known = list(known)
    held_out = HeldOut(known, ngram)
    prompts = {problem.prompt.strip() for problem in known if problem.fold != "train"}
    problems: dict[str, Problem] = {}
    programs: dict[str, dict[str, ProgramRecord]] = {}
    dropped: set[str] = set()
    for path in sorted(Path(folder).glob("candidates-*.jsonl")):
        for line in read_jsonl(path):
            prompt = prompt_text(line["prompt"])
            task_id = f"seen/{content_key(prompt, line['tests'], line['language'])}"
            if prompt.strip() in prompts or held_out.touches(prompt):
                dropped.add(task_id)
                continue
            problem = problems.setdefault(task_id, logged_problem(task_id, prompt, line["tests"]))
            _add(programs.setdefault(task_id, {}), problem, line)
    return LoggedGroups(problems, {name: list(group.values()) for name, group in programs.items()}, len(dropped))


def _add(group: dict[str, ProgramRecord], problem: Problem, line: Mapping[str, Any]) -> None:
    """Count the logged candidate. Of two verdicts on one text (one cut by its time limit) the better one counts."""
    text, rate = line["completion"], float(line["pass_rate"])
    program = program_of(problem, text, "sample", SOURCE, LICENSE, completion=text, pass_rate=rate)
    before = group.get(program.program_id)
    best = program if before is None else max(before, program, key=lambda p: p.pass_rate or 0.0)
    copies = 1 if before is None else before.copies + 1
    group[program.program_id] = dataclasses.replace(best, copies=copies, label="sandbox")


def logged_problem(task_id: str, prompt: str, tests: Mapping[str, Any]) -> Problem:
    """A problem whose verdicts are known. Its tests are kept as text, for the record."""
    return Problem(
        task_id=task_id,
        base_id=task_id,
        prompt=prompt,
        entry_point=str(tests.get("entry_point") or ""),
        canonical=None,
        test_setup="",
        tests=(json.dumps(tests, sort_keys=True),),
        source=SOURCE,
        license=LICENSE,
        fold="train",
    )


def prompt_text(prompt: Any) -> str:
    """The prompt as text: messages of a conversation are joined by blank lines, as text templates join them."""
    return prompt if isinstance(prompt, str) else "\n\n".join(message["content"] for message in prompt)
