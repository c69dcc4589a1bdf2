"""`collect` from a data set of the hub: the adapter's entries become the files that later stages read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from plaudit.errors import Invalid
from training.data.adapters import entries
from training.data.adapters.base import DatasetEntry
from training.data.folds import assign_folds
from training.data.test_formats import wire_suite
from training.pipeline.config import Recipe
from training.pipeline.files import write_jsonl
from training.pipeline.progress import StageProgress
from training.pipeline.records import Problem, as_row
from training.pipeline.run import Run


def collect_from_hub(recipe: Recipe, run: Run) -> dict[str, object]:
    """Write `problems.jsonl` and `programs.jsonl`; from a set of pairs `verified.jsonl` and `pairs.jsonl` too.

    A problem whose tests cannot be used is left out, counted, and named with the reason in `unusable.jsonl`.
    """
    problems: list[Problem] = []
    pairs: list[tuple[str, str, str]] = []
    unusable: list[dict[str, str]] = []
    progress = StageProgress(run, "collect", recipe.hub.most or 0)

    def programs() -> Iterator[dict[str, Any]]:
        for at, entry in enumerate(_entries(recipe)):
            if reason := entry.unusable or unusable_tests(entry.problem):
                unusable.append({"task_id": entry.problem.task_id, "reason": reason})
                continue
            problems.append(entry.problem)
            pairs.extend((entry.problem.task_id, *pair) for pair in entry.pairs)
            yield from map(as_row, entry.programs if recipe.hub.programs else ())
            progress.at(at + 1)

    count = write_jsonl(run.path("programs.jsonl"), programs())
    write_jsonl(run.path("unusable.jsonl"), unusable)
    folded = assign_folds(problems, recipe.split, recipe.seed)
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
