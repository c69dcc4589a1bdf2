"""`crossval`: the recipe's fit, measured on every sampled problem, each by a model that has not seen it.

- The sampled problems are cut into parts between clusters of near-duplicates. For each part and seed a model is fitted
  on all other problems, from the run's one language model, whose text holds none of the sampled problems.
- Scores are those of `RewardModel.score`, as served. What is kept of a fit are the numbers of its problems, not its
  weights.
- A problem's number is the mean over the seeds. Intervals are bootstraps over problems; seeds are shown apart. Two
  recipes are compared problem by problem (`compare`).
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from plaudit.errors import UsageError
from training.data.folds import assign_folds
from training.data.preferences import build_pairs
from training.evaluation.diagnostics import discrimination
from training.evaluation.evaluate import samples_by_problem
from training.evaluation.instruct_pairs import by_base, by_language, instruct_answers
from training.evaluation.rankers import SampledProblem, estimate
from training.evaluation.report import format_interval
from training.pipeline.config import Recipe
from training.pipeline.digests import content_key
from training.pipeline.files import write_jsonl, write_text
from training.pipeline.metrics import best_of_n, bootstrap, mean
from training.pipeline.progress import StageProgress
from training.pipeline.records import Problem, ProgramRecord, as_row, read_problems, read_programs
from training.pipeline.run import Run

if TYPE_CHECKING:
    from service.scoring.reward_model import RewardModel

Numbers = dict[str, Any]  # of one part and seed: pair_accuracy, auc, best_of_n and instruct, each by problem


def cross_validate(recipe: Recipe, run: Run) -> dict[str, object]:
    """Write `crossval.json` and `crossval.md`. A killed run goes on with the next part and seed.

    Raises `UsageError` without independent samples or parts, and for a language model that may have read the problems.
    """
    settings = recipe.crossval
    if settings.parts < 2 or not settings.seeds:
        raise UsageError("crossval.parts must be 2 or more, and crossval.seeds name at least one seed")
    if not recipe.fit.base and not recipe.tokenize.without_sampled:
        raise UsageError(
            "the language model may have read the sampled problems: run tokenize and pretrain again with "
            "tokenize.without_sampled = true"
        )
    problems = list(read_problems(run.path("problems.jsonl")).values())
    programs = read_programs(run.path("verified.jsonl"))
    if not any(program.iid_copies for program in programs):
        raise UsageError("no problem has independent samples: there is nothing to cross-validate on")
    found: dict[int, list[Numbers]] = defaultdict(list)
    progress = StageProgress(run, "crossval: fits", len(settings.seeds) * settings.parts, every_s=0.0)
    progress.at(0)
    for seed in settings.seeds:
        for part in range(settings.parts):
            found[seed].append(_part(recipe, run, problems, programs, part, seed))
            progress.at(sum(map(len, found.values())))
    by_task = {problem.task_id: problem for problem in problems}
    report = summarize({seed: _joined(parts) for seed, parts in found.items()}, by_task, recipe)
    write_text(run.path("crossval.json"), json.dumps(report, indent=1) + "\n")
    write_text(run.path("crossval.md"), crossval_markdown(report))
    return {"fits": len(settings.seeds) * settings.parts, "pair_accuracy": round(report["pair_accuracy"]["value"], 4)}


def _part(
    recipe: Recipe, run: Run, problems: Sequence[Problem], programs: Sequence[ProgramRecord], part: int, seed: int
) -> Numbers:
    """Fit without this part and measure on it, unless that has been done."""
    from service.scoring.reward_model import RewardModel
    from training.reward_model.finalize import finish_checkpoint
    from training.reward_model.fit import trainer_of

    split = dataclasses.replace(
        recipe.split, parts=recipe.crossval.parts, part=part, validation=0, validation_other=0, validation_share=0.0
    )
    changed = dataclasses.replace(recipe, seed=seed, split=split)
    key = content_key("crossval", changed.fit, changed.pair, split, seed, [p.task_id for p in problems], len(programs))
    path = run.path(f"crossval/part-{part}-seed-{seed}.json")
    if path.is_file() and (kept := json.loads(path.read_text(encoding="utf-8")))["key"] == key:
        return dict(kept)
    own = Run(path.with_suffix(""), quiet=run.quiet)
    python = [problem for problem in problems if problem.language == "python"]
    folds = {problem.base_id: problem.fold for problem in assign_folds(python, split, recipe.seed)}
    cut = {p.task_id: dataclasses.replace(p, fold=folds[p.base_id]) for p in problems}
    write_jsonl(own.path("problems.jsonl"), map(as_row, cut.values()))
    write_jsonl(own.path("verified.jsonl"), map(as_row, programs))
    run.path("states/states.pt")  # the head loop's, one set for all parts
    for name in ("tokenizer", "pretrained", "states"):
        link = own.path(name)
        if not link.exists() and run.path(name).exists():
            link.symlink_to(run.path(name).resolve(), target_is_directory=True)
    run.say(f"crossval: part {part + 1} of {recipe.crossval.parts}, seed {seed}")
    build_pairs(changed, own)
    trained = trainer_of(changed)(changed, own)
    if trained is None:
        raise UsageError("crossval runs as one process")
    finish_checkpoint(own, cut, programs, recipe=changed)
    model = RewardModel.load(own.path("checkpoint/config.json").parent)
    held = [p for p in programs if p.iid_copies and p.pass_rate is not None and cut[p.task_id].fold == "test"]
    sampled = _scored(model, cut, held)
    asked, answers = instruct_answers(cut, programs)
    numbers: Numbers = {
        "key": key,
        "summary": trained.summary,
        "problems": discrimination(sampled, recipe.evaluate, recipe.pair, seed)["by_problem"],
        "best_of_n": {
            problem.task_id: {n: best_of_n(problem.scores, problem.passed, n) for n in recipe.evaluate.num_candidates}
            for problem in sampled
        },
        "instruct": discrimination(_scored(model, asked, answers), recipe.evaluate, recipe.pair, seed)["by_problem"],
    }
    write_text(path, json.dumps(numbers) + "\n")
    shutil.rmtree(own.folder)
    return dict(json.loads(path.read_text(encoding="utf-8")))


def _scored(
    model: RewardModel, problems: Mapping[str, Problem], programs: Sequence[ProgramRecord]
) -> list[SampledProblem]:
    from training.reward_model.finalize import score_programs

    scores = score_programs(model, problems, programs)
    return samples_by_problem(programs, dict(zip([p.program_id for p in programs], scores, strict=True)))


def _joined(parts: Sequence[Numbers]) -> Numbers:
    """The numbers of all parts of one seed, by problem."""
    return {
        name: {task_id: value for part in parts for task_id, value in part[name].items()}
        for name in ("problems", "best_of_n", "instruct")
    }


def summarize(by_seed: dict[int, Numbers], problems: Mapping[str, Problem], recipe: Recipe) -> dict[str, Any]:
    """Means over seeds with intervals over problems, each seed's own mean, and the numbers of every problem.

    Args:
        by_seed: the numbers of all problems, by seed.
        problems: by task id.
        recipe: names the seed and the resamples of the bootstrap.
    """
    report: dict[str, Any] = {"name": recipe.name, "seeds": sorted(by_seed), "by_problem": {}}
    for name in ("pair_accuracy", "auc"):
        values = _mean_over_seeds([{t: v[name] for t, v in n["problems"].items()} for n in by_seed.values()])
        report[name] = _estimate(values, recipe)
        report["by_problem"][name] = values
        report[name]["seeds"] = [
            mean([v[name] for v in by_seed[seed]["problems"].values() if v[name] is not None])
            for seed in report["seeds"]
        ]
    report["best_of_n"] = {}
    for count in next(iter(next(iter(by_seed.values()))["best_of_n"].values())):
        values = _mean_over_seeds([{t: v[count] for t, v in n["best_of_n"].items()} for n in by_seed.values()])
        report["best_of_n"][count] = _estimate(values, recipe)
        report["by_problem"][f"best_of_{count}"] = values
    instruct = _mean_over_seeds([{t: v["pair_accuracy"] for t, v in n["instruct"].items()} for n in by_seed.values()])
    report["instruct"] = by_language(instruct, problems, recipe.evaluate, recipe.seed)
    report["by_problem"]["instruct"] = by_base(instruct, problems)
    return report


def _estimate(values: dict[str, float], recipe: Recipe) -> dict[str, Any]:
    return estimate(list(values.values()), recipe.evaluate, recipe.seed)


def _mean_over_seeds(by_seed: Sequence[dict[str, float | None]]) -> dict[str, float]:
    """The mean over seeds of each problem that has a number under every seed."""
    names = [name for name in by_seed[0] if all(values.get(name) is not None for values in by_seed)]
    return {name: mean([float(values[name] or 0.0) for values in by_seed]) for name in names}


def compare(before: dict[str, Any], after: dict[str, Any], resamples: int = 10_000, seed: int = 1) -> dict[str, Any]:
    """The differences of two cross-validations, after less before, with 95 % intervals paired by problem.

    Args:
        before: the contents of a `crossval.json`.
        after: of another one.
        resamples: of the bootstrap over the problems that both have.
        seed: of the bootstrap.
    """
    differences = {}
    for name, old in before["by_problem"].items():
        new = after["by_problem"].get(name, {})
        values = [new[task_id] - old[task_id] for task_id in old if task_id in new]
        if values:
            low, high = bootstrap(values, resamples=resamples, seed=seed)
            differences[name] = {"value": mean(values), "low": low, "high": high, "problems": len(values)}
    return differences


def crossval_markdown(report: dict[str, Any]) -> str:
    """The report as a table."""
    rows = [
        f"# {report['name']}: cross-validation\n",
        f"Every sampled problem is scored by models that have not seen it, of {len(report['seeds'])} seeds. Mean over "
        "the seeds; in brackets 95 % intervals, bootstrap over problems.\n",
        "| | mean | seed by seed | problems |",
        "|---|---|---|---:|",
    ]
    for name, title in (("pair_accuracy", "pair accuracy"), ("auc", "AUC inside a problem")):
        seeds = ", ".join(f"{value:.3f}" for value in report[name]["seeds"])
        rows.append(f"| {title} | {format_interval(report[name])} | {seeds} | {report[name]['problems']} |")
    for count, value in report["best_of_n"].items():
        rows.append(f"| best of {count}, % | {format_interval(value, 100, 1)} | | {value['problems']} |")
    for name, value in report["instruct"].items():
        rows.append(f"| pairs of assistants' answers: {name} | {format_interval(value)} | | {value['problems']} |")
    return "\n".join(rows) + "\n"
