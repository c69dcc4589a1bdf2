"""`collect` from a data set of the hub: the adapter's entries become the files that later stages read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from plaudit.errors import Invalid
from training.data.adapters import entries, evaluation_texts
from training.data.adapters.base import DatasetEntry
from training.data.decontaminate import ContaminationIndex
from training.data.folds import assign_folds
from training.data.test_formats import wire_suite
from training.pipeline.config import Recipe
from training.pipeline.files import write_jsonl
from training.pipeline.progress import StageProgress
from training.pipeline.records import Problem, as_row
from training.pipeline.run import Run


def collect_from_hub(recipe: Recipe, run: Run) -> dict[str, object]:
    """Write `problems.jsonl` and `programs.jsonl`; from a set of pairs `verified.jsonl` and `pairs.jsonl` too.

    A problem whose tests cannot be used, or that touches an evaluation set (`hub.evaluation`), is left out, counted,
    and named with the reason in `unusable.jsonl`.
    """
    by_id: dict[str, Problem] = {}
    seen: set[str] = set()
    pairs: list[tuple[str, str, str]] = []
    unusable: list[dict[str, str]] = []
    index = ContaminationIndex(
        (pair for entry in recipe.hub.evaluation for pair in evaluation_texts(entry)), recipe.hub.ngram
    )
    progress = StageProgress(run, "collect", recipe.hub.most or 0)

    def programs() -> Iterator[dict[str, Any]]:
        for at, entry in enumerate(_entries(recipe)):
            hit = index.hit(entry.problem.prompt)
            touched = f"the same text as {hit.task_id} ({hit.how}): {hit.run}" if hit else ""
            if reason := entry.unusable or unusable_tests(entry.problem) or touched:
                unusable.append({"task_id": entry.problem.task_id, "reason": reason})
                continue
            known = by_id.setdefault(entry.problem.task_id, entry.problem)
            if known.prompt != entry.problem.prompt:
                reason = "the data set has another problem of this id"
                unusable.append({"task_id": entry.problem.task_id, "reason": reason})
                continue
            pairs.extend((entry.problem.task_id, *pair) for pair in entry.pairs)
            for program in entry.programs if recipe.hub.programs else ():
                if program.program_id not in seen:  # rows of one problem need not stand together
                    seen.add(program.program_id)
                    yield as_row(program)
            progress.at(at + 1)

    count = write_jsonl(run.path("programs.jsonl"), programs())
    write_jsonl(run.path("unusable.jsonl"), unusable)
    folded = assign_folds(list(by_id.values()), recipe.split, recipe.seed)
    write_jsonl(run.path("problems.jsonl"), map(as_row, folded))
    folds = {problem.task_id: problem.fold for problem in folded}
    summary: dict[str, object] = {"problems": len(folded), "programs": count, **Counter(folds.values())}
    if unusable:
        summary["unusable"] = len(unusable)
    if pairs:
        by_problem = Counter(task_id for task_id, _, _ in pairs)
        write_jsonl(
            run.path("pairs.jsonl"),
            (
                {
                    "fold": folds[task_id],
                    "task_id": task_id,
                    "chosen": chosen,
                    "rejected": rejected,
                    "weight": 1 / by_problem[task_id] if recipe.pair.weighted else 1.0,
                }
                for task_id, chosen, rejected in pairs
                if folds[task_id] != "test"
            ),
        )
        run.path("verified.jsonl").write_bytes(run.path("programs.jsonl").read_bytes())
        summary["pairs"] = len(pairs)
    return summary


def unusable_tests(problem: Problem) -> str:
    """Why the tests of a problem cannot be used by any judge; "" for usable ones, and for a problem without tests."""
    if not problem.tests:
        return ""
    try:
        wire_suite(problem.kind, problem.tests, problem.test_setup, problem.entry_point)
    except Invalid as error:
        return error.detail
    return ""


def _entries(recipe: Recipe) -> Iterator[DatasetEntry]:
    for at, entry in enumerate(entries(recipe.hub)):
        if recipe.hub.most and at >= recipe.hub.most:
            return
        yield entry
