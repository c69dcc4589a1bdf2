"""`evaluate`: what the checkpoint does on problems it has never seen, as `report.json`, `report.md` and two plots.

The test fold's independent samples (100 a problem from one model) carry everything. Rankers that score a program
alone get the exact expectation over all N-subsets; rankers that look at the set (consensus, agreement) get the mean
over drawn subsets, scored inside the subset as the service would. Every interval is a bootstrap over problems, because
problems, not samples, are what there are few of. The scores are those of `RewardModel.score`, as served.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from service.scoring.agreement import agreement, consensus
from training.config import Recipe
from training.fit import score_programs
from training.metrics import (
    auc,
    best_of_n,
    bootstrap,
    calibration_error,
    correlation,
    mean,
    pair_accuracy,
    pass_at_n,
)
from training.pair import qualifies
from training.records import Problem, Program, data_file, read_problems, read_programs
from training.report import write_report
from training.run import Run, read_jsonl, write_text
from training.verify import Task, judge_all, task_of

MEASURED = ("collect", "tokenize", "pretrain", "mutate", "verify", "pair", "fit")


@dataclass(slots=True)
class Sampled:
    """One test problem with its samples, duplicates kept: scores[i], passed[i] and so on belong together."""

    task_id: str
    completions: list[str] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    programs: list[str] = field(default_factory=list)
    verdicts: list[tuple[bool, ...]] = field(default_factory=list)  # on the generated tests; empty where not run

    @property
    def passed(self) -> list[bool]:
        return [rate == 1.0 for rate in self.rates]


def evaluate(recipe: Recipe, run: Run) -> dict[str, object]:
    """Write `report.json`, `report.md`, `bestofn.svg` and `calibration.svg`."""
    from service.scoring.reward_model import RewardModel

    problems = read_problems(run.path("problems.jsonl"))
    held = [
        p for p in read_programs(run.path("verified.jsonl"))
        if problems[p.task_id].fold == "test" and p.origin == "sample" and p.pass_rate is not None
    ]  # fmt: skip
    model = RewardModel.load(run.path("checkpoint/config.json").parent)
    scores = dict(zip([p.program_id for p in held], score_programs(model, problems, held), strict=True))
    sampled = gather([p for p in held if p.iid_copies], scores)
    generated = run_generated_tests(recipe, run, problems, held) if recipe.evaluate.generated_tests else {}
    for problem in sampled:
        problem.verdicts = [generated[name] for name in problem.programs if name in generated]

    report: dict[str, Any] = {
        "name": recipe.name, "seed": recipe.seed, "revision": model.revision, "parameters": model.parameters,
        "folds": {fold: sum(p.fold == fold for p in problems.values()) for fold in ("train", "validation", "test")},
        "problems": len(sampled), "samples": sum(len(p.scores) for p in sampled),
        "discrimination": discrimination(sampled, recipe),
        "discrimination_other_models": discrimination(gather([p for p in held if not p.iid_copies], scores), recipe),
        "best_of_n": curves(sampled, recipe),
        "calibration": calibration(sampled, model.pass_probability),
        "length_correlation": mean(
            [correlation(p.scores, [float(len(c)) for c in p.completions]) for p in sampled if len(set(p.scores)) > 1]
        ),
        "stages": {name: run.record(name) for name in MEASURED},
    }  # fmt: skip
    write_text(run.path("report.json"), json.dumps(report, indent=1) + "\n")
    write_report(report, run.path("report.md"))
    found = report["discrimination"]
    return {name: found[name]["value"] for name in ("pair_accuracy", "auc")} | {"problems": len(sampled)}


def gather(programs: Sequence[Program], scores: dict[str, float]) -> list[Sampled]:
    """Programs by problem, each as often as it was sampled."""
    by_task: dict[str, Sampled] = {}
    for program in programs:
        entry = by_task.setdefault(program.task_id, Sampled(program.task_id))
        for _ in range(program.iid_copies or 1):
            entry.completions.append(program.completion)
            entry.rates.append(program.pass_rate or 0.0)
            entry.scores.append(scores[program.program_id])
            entry.programs.append(program.program_id)
    return list(by_task.values())


def discrimination(sampled: Sequence[Sampled], recipe: Recipe) -> dict[str, Any]:
    """Pair accuracy and AUC inside a problem, averaged over problems that have both kinds."""
    found = {problem.task_id: _one_problem(problem, recipe) for problem in sampled}
    return {
        name: _estimate([one[name] for one in found.values() if one[name] is not None], recipe)
        for name in ("pair_accuracy", "auc")
    } | {"by_problem": found}


def _one_problem(problem: Sampled, recipe: Recipe) -> dict[str, Any]:
    first = {name: at for at, name in reversed(list(enumerate(problem.programs)))}  # distinct programs
    pairs = [
        (i, j)
        for i in first.values()
        for j in first.values()
        if qualifies(problem.rates[i], problem.rates[j], recipe.pair)
    ]
    return {
        "pair_accuracy": pair_accuracy(problem.scores, pairs) if pairs else None,
        "auc": auc(problem.scores, problem.passed),
    }


def curves(sampled: Sequence[Sampled], recipe: Recipe) -> list[dict[str, Any]]:
    """Best-of-N of every ranker with its interval, and its gain over the mean (paired by problem)."""
    settings = recipe.evaluate
    sizes = [n for n in settings.num_candidates if n <= min(len(p.scores) for p in sampled)]
    alone: dict[str, Callable[[Sampled, int], float]] = {
        "mean (no choice)": lambda p, n: mean([float(ok) for ok in p.passed]),
        "shortest": lambda p, n: best_of_n([-len(c) for c in p.completions], p.passed, n),
        "reward model": lambda p, n: best_of_n(p.scores, p.passed, n),
        "consensus": lambda p, n: drawn(p, n, _consensus, recipe),
        "reward model + consensus": lambda p, n: drawn(p, n, _both, recipe),
        "oracle (pass@N)": lambda p, n: pass_at_n(p.passed, n),
    }
    if sampled and all(len(p.verdicts) == len(p.scores) for p in sampled):
        alone["agreement on raw generated tests"] = lambda p, n: drawn(p, n, _agreement, recipe)
        alone["reward model + agreement"] = lambda p, n: drawn(p, n, _agreement_and_model, recipe)
    base = [mean([float(ok) for ok in p.passed]) for p in sampled]
    rows = []
    for ranker, rate in alone.items():
        points = []
        for n in sizes:
            values = [rate(p, n) for p in sampled]
            gains = [value - plain for value, plain in zip(values, base, strict=True)]
            points.append({"n": n, **_estimate(values, recipe), "gain": _estimate(gains, recipe)})
        rows.append({"ranker": ranker, "points": points})
    return rows


def drawn(problem: Sampled, n: int, rank: Callable[[Sampled, list[int]], list[float]], recipe: Recipe) -> float:
    """Mean over drawn N-subsets of the best's pass chance, the subset ranked on its own, ties averaged."""
    if n == 1:
        return mean([float(ok) for ok in problem.passed])  # nothing to choose, nothing to draw
    draw = random.Random(f"{recipe.seed}:{problem.task_id}:{n}")
    total = 0.0
    for _ in range(recipe.evaluate.draws):
        subset = draw.sample(range(len(problem.scores)), n)
        values = [round(value, 9) for value in rank(problem, subset)]
        best = [at for at, value in zip(subset, values, strict=True) if value == max(values)]
        total += sum(problem.passed[at] for at in best) / len(best)
    return total / recipe.evaluate.draws


def _consensus(problem: Sampled, subset: list[int]) -> list[float]:
    return list(_consensus_once(tuple(problem.completions[at] for at in subset)))


@lru_cache(maxsize=1 << 16)
def _consensus_once(completions: tuple[str, ...]) -> tuple[float, ...]:
    # Two rankers ask about the same drawn subsets.
    return tuple(consensus(completions))


def _agreement(problem: Sampled, subset: list[int]) -> list[float]:
    return agreement([problem.verdicts[at] for at in subset])


def _both(problem: Sampled, subset: list[int]) -> list[float]:
    scores = _standard([problem.scores[at] for at in subset])
    return [a + b for a, b in zip(scores, _standard(_consensus(problem, subset)), strict=True)]


def _agreement_and_model(problem: Sampled, subset: list[int]) -> list[float]:
    scores = _standard([problem.scores[at] for at in subset])
    return [a + b for a, b in zip(scores, _standard(_agreement(problem, subset)), strict=True)]


def _standard(values: Sequence[float]) -> list[float]:
    """z-scores in the group: both parts of a sum weigh the same, and neither weight was tuned."""
    centre = mean(values)
    spread = mean([(value - centre) ** 2 for value in values]) ** 0.5
    return [(value - centre) / spread if spread > 1e-12 else 0.0 for value in values]


def calibration(sampled: Sequence[Sampled], probability: Callable[[float], float | None]) -> dict[str, Any]:
    """ECE of the shipped calibration on the test samples, and the bins behind the plot."""
    pairs = [(probability(s) or 0.0, ok) for p in sampled for s, ok in zip(p.scores, p.passed, strict=True)]
    bins: dict[int, list[tuple[float, bool]]] = defaultdict(list)
    for chance, ok in pairs:
        bins[min(int(chance * 10), 9)].append((chance, ok))
    return {
        "ece": calibration_error([chance for chance, _ in pairs], [ok for _, ok in pairs]),
        "bins": [
            {
                "predicted": mean([chance for chance, _ in part]),
                "passing": mean([float(ok) for _, ok in part]),
                "samples": len(part),
            }
            for _, part in sorted(bins.items())
        ],
    }


def run_generated_tests(
    recipe: Recipe, run: Run, problems: dict[str, Problem], programs: Sequence[Program]
) -> dict[str, tuple[bool, ...]]:
    """program_id → which of its problem's first model-written tests it passes, judged in the sandbox.

    A problem without such tests has an empty row: nothing to agree on, so the choice is random. A program that the
    sandbox could not judge has no row, and then the report has no `agreement`.
    """
    wanted = recipe.evaluate.generated_tests
    tests = {
        r["task_id"]: tuple(r["tests"][:wanted]) for r in read_jsonl(data_file(recipe.data, "generated_tests.jsonl.gz"))
    }
    tasks: list[Task] = []
    for program in programs:
        if program.iid_copies and tests.get(program.task_id):
            tasks.append(
                task_of(problems[program.task_id], program, recipe.verify.mutant_cpu_s, tests[program.task_id])
            )
    results = judge_all(tasks, run, recipe.verify.processes)
    judged = {
        r["program_id"]: tuple(verdict == "passed" for verdict in r["verdicts"])
        for r in results.values() if r["status"] == "ok"
    }  # fmt: skip
    return judged | {program.program_id: () for program in programs if not tests.get(program.task_id)}


def _estimate(values: Sequence[float], recipe: Recipe) -> dict[str, Any]:
    if not values:
        return {"value": None, "low": None, "high": None, "problems": 0}
    low, high = bootstrap(values, resamples=recipe.evaluate.resamples, seed=recipe.seed)
    return {"value": mean(values), "low": low, "high": high, "problems": len(values)}
