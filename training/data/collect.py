"""`collect`: problems and programs from the public data or from a data set of the hub, each problem in one fold.

Every later stage takes the folds from this stage's files. Nothing that the model learns from (tokenizer,
language-model text, pairs) may come from a held-out cluster.
"""

from __future__ import annotations

from collections import Counter

from training.data.folds import assign_folds
from training.data.generated_inputs import generated_problems
from training.data.hub import collect_from_hub
from training.data.other_languages import other_languages
from training.data.public_data import public_problems, public_programs, with_extra_tests
from training.pipeline.config import Recipe
from training.pipeline.files import write_jsonl
from training.pipeline.records import as_row
from training.pipeline.run import Run


def collect_problems(recipe: Recipe, run: Run) -> dict[str, object]:
    """Write `problems.jsonl` (with folds) and `programs.jsonl` (distinct programs, shipped pass rates)."""
    if recipe.hub.adapter:
        return collect_from_hub(recipe, run)
    settings = recipe.collect
    public = public_problems(recipe.data)
    programs = list(public_programs(recipe.data, {problem.task_id: problem for problem in public}))
    if settings.extra_tests:
        public, programs = with_extra_tests(recipe.data, public, programs)
    generated = list(generated_problems(recipe, run, public)) if settings.generated else []
    problems = assign_folds([*public, *generated], recipe.split, recipe.seed)
    if settings.languages:
        others, theirs = other_languages(recipe.data, settings.languages, problems)
        problems += others
        programs += theirs
    write_jsonl(run.path("problems.jsonl"), map(as_row, problems))
    write_jsonl(run.path("programs.jsonl"), map(as_row, programs))
    folds = Counter(str(problem.fold) for problem in problems)
    return {"problems": len(problems), "programs": len(programs), **folds}
