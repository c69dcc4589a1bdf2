"""`evaluate`: what the checkpoint does on problems it has never seen, as `report.json`, `report.md` and its plots.

- Every number is of the test fold's independent samples (in the public data 100 per problem from one model).
- Every interval is a bootstrap over problems, because problems are few and samples are not.
- The scores are those of `RewardModel.score`, as served, or of a running service (`scorers`).
- No N is chosen by its result: the table has them all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from plaudit.errors import HostLacks, UsageError
from training.data.judge_task import MUTANT_CPU_S, JudgeTask, task_of
from training.data.judging import judge_all, judge_of
from training.data.programs import GREEDY
from training.data.public_data import data_file
from training.evaluation import diagnostics
from training.evaluation.diagnostics import agreement_with_tests, calibration, discrimination, length_bias
from training.evaluation.evidence import EvidenceRequest, evidence_sandbox
from training.evaluation.instruct_pairs import by_language, instruct_answers
from training.evaluation.pair_sets import pair_set_report
from training.evaluation.rankers import SampledProblem, best_of_n_curves
from training.evaluation.report import write_report
from training.evaluation.scorers import ProgramScorer, recipe_scorer
from training.pipeline import config
from training.pipeline.config import Recipe
from training.pipeline.files import read_jsonl, write_text
from training.pipeline.metrics import mean
from training.pipeline.progress import StageProgress
from training.pipeline.ray_executors import chunked, ordered_on_ray
from training.pipeline.records import Problem, ProgramRecord, each_program, read_problems
from training.pipeline.run import Run

GENERATED_TESTS = "generated_tests.jsonl.gz"
MEASURED = ("collect", "synthesize", "tokenize", "pretrain", "sample", "mutate", "verify", "pair", "fit")


def evaluate(recipe: Recipe, run: Run) -> dict[str, object]:
    """Write `report.json`, `report.md` and the plots beside it.

    Raises `UsageError` without independent samples of test problems.
    """
    settings, rule, seed = recipe.evaluate, recipe.pair, recipe.seed
    model = recipe_scorer(recipe, run)
    problems = read_problems(run.path("problems.jsonl"))
    held = [
        p
        for p in each_program(run.path("verified.jsonl"))
        if problems[p.task_id].fold == "test" and p.origin == "sample" and p.pass_rate is not None
    ]
    scores = dict(zip([p.program_id for p in held], model.score(problems, held), strict=True))
    sampled = samples_by_problem([p for p in held if p.iid_copies], scores)
    if not sampled:
        raise UsageError(
            "no problem of the test fold has independent samples: nothing to report on; split.test takes problems of "
            "HumanEval into the fold, split.test_share = 1.0 all problems of any set"
        )
    add_greedy(sampled, held)
    for problem in sampled:
        problem.language = problems[problem.task_id].language
    if settings.generated_tests and has_generated_tests(recipe, run):
        add_generated_tests(recipe, run, problems, held, sampled)
    if settings.evidence_inputs:
        add_evidence(
            run,
            sampled,
            problems,
            {p.program_id: p.solution for p in held},
            num_inputs=settings.evidence_inputs,
            cluster=recipe.ray if recipe.engine == "ray" else None,
        )

    report: dict[str, Any] = {
        "name": recipe.name,
        "set": set_name(recipe),
        "reward_model": model_name(recipe),
        "seed": seed,
        "revision": model.revision,
        "parameters": model.parameters,
        "folds": {fold: sum(p.fold == fold for p in problems.values()) for fold in ("train", "validation", "test")},
        "own_checkpoint": not settings.checkpoint and not settings.service,
        "problems": len(sampled),
        "shared_process": sum(problems[p.task_id].kind == "script" for p in sampled),
        "samples": sum(len(p.scores) for p in sampled),
        "samplers": sorted({p.source for p in held if p.iid_copies}),
        "discrimination": discrimination(sampled, settings, rule, seed),
        "discrimination_other_models": discrimination(
            samples_by_problem([p for p in held if not p.iid_copies and not is_greedy(p)], scores), settings, rule, seed
        ),
        "answers": answers_report(model, problems, held, recipe),
        "best_of_n": best_of_n_curves(sampled, settings, seed),
        "evidence_cpu_s": evidence_cost(sampled),
        "languages": diagnostics.by_language(sampled, settings.num_candidates),
        "calibration": calibration(sampled, model.probability),
        "length": length_bias(sampled, settings, rule, seed),
        "tests": agreement_with_tests(sampled, model.probability),
        "pair_sets": [
            pair_set_report(model, entry, settings, seed, whole=whole)
            for entry in settings.pairs
            for whole in (False, True)
        ],
        "stages": {name: run.record(name) for name in MEASURED},
    }
    write_text(run.path("report.json"), json.dumps(report, indent=1) + "\n")
    write_report(report, run.path("report.md"))
    numbers = report["discrimination"]
    return {name: numbers[name]["value"] for name in ("pair_accuracy", "auc")} | {"problems": len(sampled)}


def answers_report(
    model: ProgramScorer, problems: Mapping[str, Problem], programs: Sequence[ProgramRecord], recipe: Recipe
) -> dict[str, Any]:
    """Pair accuracy on the test problems' programs of other models as assistants' answers, by language; {} without."""
    asked, answers = instruct_answers(problems, programs)
    if not answers:
        return {}
    scores = dict(zip([p.program_id for p in answers], model.score(asked, answers), strict=True))
    sampled = samples_by_problem(answers, scores)
    found = discrimination(sampled, recipe.evaluate, recipe.pair, recipe.seed)["by_problem"]
    accuracies = {name: v["pair_accuracy"] for name, v in found.items() if v["pair_accuracy"] is not None}
    return by_language(accuracies, problems, recipe.evaluate, recipe.seed)


def set_name(recipe: Recipe) -> str:
    """The data set by its adapter's name, `-hard` where its path says so; `public` for the public data."""
    name = recipe.hub.adapter or "public"
    return f"{name}-hard" if "hard" in Path(recipe.hub.path).name.lower() and "hard" not in name else name


def model_name(recipe: Recipe) -> str:
    """The reward model that is reported on, without a path of this machine."""
    settings = recipe.evaluate
    if settings.service:
        return settings.model
    return Path(settings.checkpoint).name if Path(settings.checkpoint).is_dir() else settings.checkpoint or recipe.name


def samples_by_problem(programs: Sequence[ProgramRecord], scores: dict[str, float]) -> list[SampledProblem]:
    """Programs by problem, each as often as it was sampled."""
    by_task: dict[str, SampledProblem] = {}
    for program in programs:
        problem = by_task.setdefault(program.task_id, SampledProblem(program.task_id))
        for _ in range(program.iid_copies or 1):
            problem.completions.append(program.completion)
            problem.rates.append(program.pass_rate or 0.0)
            problem.scores.append(scores[program.program_id])
            problem.programs.append(program.program_id)
    return list(by_task.values())


def is_greedy(program: ProgramRecord) -> bool:
    """Whether a program is the greedy one of its problem and nothing else."""
    return bool(program.sample_ids) and all(name.endswith(GREEDY) for name in program.sample_ids)


def add_greedy(sampled: Sequence[SampledProblem], held: Sequence[ProgramRecord]) -> None:
    """Set the greedy program's pass rate, where there is one."""
    rates = {p.task_id: p.pass_rate for p in held if any(name.endswith(GREEDY) for name in p.sample_ids)}
    for problem in sampled:
        problem.greedy = rates.get(problem.task_id)


def add_evidence(
    run: Run,
    sampled: Sequence[SampledProblem],
    problems: dict[str, Problem],
    solutions: dict[str, str],
    *,
    num_inputs: int,
    cluster: config.RayConfig | None = None,
) -> None:
    """Observe the samples on their prompt's examples and on further inputs, in a sandbox of this process.

    Sets `example_rates` and `answers` of problems that are Python functions. If there are others, the report leaves out
    the rows of evidence. With `cluster` the sandboxes are those of its executors. Raises `HostLacks` where there is
    none.
    """
    functions = [
        (sample, problem)
        for sample in sampled
        if (problem := problems[sample.task_id]).language == "python" and problem.entry_point
    ]
    requests = [
        EvidenceRequest(
            problem.prompt,
            problem.entry_point,
            tuple(sample.completions),
            tuple(solutions[name] for name in sample.programs),
        )
        for sample, problem in functions
    ]
    opened = partial(evidence_sandbox, num_inputs)
    if cluster is not None:
        observed = [row for rows in ordered_on_ray(opened, chunked(requests, 1), cluster) for row in rows]
    else:
        progress, observed = StageProgress(run, "evaluate: evidence", len(requests)), []
        with opened() as observe:
            for at, request in enumerate(requests):
                progress.at(at)
                observed += observe([request])
    for (sample, _), samples in zip(functions, observed, strict=True):
        sample.example_rates, sample.answers, sample.evidence_cpu_s = samples


def has_generated_tests(recipe: Recipe, run: Run) -> bool:
    """Whether the data folder has model-written tests; sets of the hub come without."""
    try:
        data_file(recipe.data, GENERATED_TESTS)
    except HostLacks as error:
        if not recipe.hub.adapter:
            raise
        run.say(f"evaluate: no rows of generated tests, because there are none for this data set ({error.detail})")
        return False
    return True


def evidence_cost(sampled: Sequence[SampledProblem]) -> dict[str, float] | None:
    """CPU-seconds of one different program's observation: the mean, and the mean of the costliest problem."""
    costs = [mean(problem.evidence_cpu_s) for problem in sampled if problem.evidence_cpu_s]
    return {"mean": mean(costs), "most": max(costs)} if costs else None


def add_generated_tests(
    recipe: Recipe,
    run: Run,
    problems: dict[str, Problem],
    held: Sequence[ProgramRecord],
    sampled: Sequence[SampledProblem],
) -> None:
    """Judge in the sandbox which of their problem's first model-written tests the samples pass.

    Sets `verdicts` and `kept`. A problem without such tests has empty verdicts: the choice is random. If a program
    could not be judged, its problem has fewer verdicts than samples, and the report leaves out rankers that need them.
    """
    wanted = recipe.evaluate.generated_tests
    rows = {r["task_id"]: r for r in read_jsonl(data_file(recipe.data, GENERATED_TESTS))}
    tests = {task_id: tuple(r["tests"][:wanted]) for task_id, r in rows.items()}
    tasks: dict[str, JudgeTask] = {
        p.program_id: task_of(problems[p.task_id], p, MUTANT_CPU_S, tests[p.task_id])
        for p in held
        if p.iid_copies and tests.get(p.task_id)
    }
    results = judge_all(tasks.values(), run, judge_of(recipe), total=len(tasks))
    judged = {
        program_id: tuple(verdict == "passed" for verdict in result["verdicts"])
        for program_id, task in tasks.items()
        if (result := results[task.key])["status"] == "ok"
    }
    for problem in sampled:
        num_tests = len(tests.get(problem.task_id, ()))
        verdicts = [judged.get(name, () if not num_tests else None) for name in problem.programs]
        problem.verdicts = [_completed(passes, num_tests) for passes in verdicts if passes is not None]
        reference_passes = rows.get(problem.task_id, {}).get("passes_canonical") or ()
        problem.kept = tuple(at for at, passed in enumerate(reference_passes[:num_tests]) if passed)


def _completed(passes: tuple[bool, ...], num_tests: int) -> tuple[bool, ...]:
    """A program that did not reach its tests passes none of them."""
    return passes if len(passes) == num_tests else (False,) * num_tests
