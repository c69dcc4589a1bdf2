"""AceCoder's test-filter ablation in form: the same programs paired by raw generated tests, by filtered ones, by truth.

The samples of the training problems carry three pass rates each: over the model-written tests as they came, over those
that the reference solution passes (AceCoder's filter: problems that keep fewer than five are dropped), and over the
problem's own tests. From each the pairs of AceCoder's rule are made, all other things equal; their precision is the
share whose order the problem's own tests confirm. One reward model is fitted per source, from the same pretrained
language model, by Bradley-Terry alone, and asked about the same unseen problems. Those are few, so a linear ranker
(hashed tokens, their pairs and triples; Bradley-Terry) is fitted as well, in five folds over all sampled problems.

Raw tests of a small generator are so often wrong that hardly a program reaches a pass rate of 0.8. The row "raw,
rescaled" therefore divides by the best rate seen in the problem, which needs no reference solution either.

`--base` is a run folder of the mini recipe in which the stages up to `pretrain` have finished (they are run if not).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import random
import shutil
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks_path import ROOT
from overhead import machine

from training.data.folds import cluster
from training.data.preferences import Preference, preferences
from training.data.public_data import data_file
from training.data.tokens import CODE
from training.evaluation.diagnostics import discrimination
from training.evaluation.evaluate import samples_by_problem
from training.pipeline import config
from training.pipeline.config import Recipe, read_recipe
from training.pipeline.files import read_jsonl, write_jsonl
from training.pipeline.metrics import best_of_n, bootstrap, mean, pass_at_n
from training.pipeline.records import ProgramRecord, as_row, read_problems, read_programs
from training.pipeline.run import Run
from training.pipeline.stages import run_stage

SOURCES = ("raw", "raw, rescaled", "filtered", "ground truth")
RULE = config.PairConfig(min_chosen=0.8, min_gap=0.4, rejected_above_zero=True, max_per_problem=2000)
LEAST_KEPT = 5
SIZES = (1, 4, 16, 64)
FEATURES = 1 << 17


@dataclass(frozen=True, slots=True)
class Rates:
    """Pass rates of one program: over its problem's own tests, the raw generated and the filtered ones."""

    truth: float
    raw: float
    filtered: float | None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", type=Path, default=ROOT / "runs" / "mini")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "labels", help="where the fits go; resumable")
    parser.add_argument("--seeds", type=int, default=2, help="fits per source")
    parser.add_argument("--sources", nargs="*", default=SOURCES)
    flags = parser.parse_args()
    recipe = read_recipe(ROOT / "training" / "recipes" / "mini.toml", environ=os.environ)
    base = Run(flags.base)
    if not base.path("pretrained/model.safetensors").is_file():
        for stage in ("collect", "tokenize", "pretrain"):
            run_stage(stage, recipe, base)
    rates = program_rates(recipe, base)
    print(f"{datetime.now(UTC):%Y-%m-%d}, {machine()}; {flags.seeds} fits a source\n")
    print("| pairs by | problems with pairs | pairs | order confirmed by the problem's tests | chosen pass them all |")
    print("|---|---:|---:|---:|---:|")
    made = {source: pairs_by(source, base, rates, recipe.seed, ("train",)) for source in SOURCES}
    for source in SOURCES:
        print(pair_row(source, made[source], rates), flush=True)
    linear(made_all(base, rates, recipe.seed), base, recipe)
    print("\n| pairs by | seed | pair accuracy | AUC | " + " | ".join(f"best of {n}" for n in SIZES) + " |")
    print("|---|---|---|---|" + "---:|" * len(SIZES))
    for seed in range(recipe.seed, recipe.seed + flags.seeds):
        for source in flags.sources:
            if not made[source]:
                print(f"| {source} | {seed} | no pairs, no model |" + " |" * (len(SIZES) + 1), flush=True)
                continue
            folder = flags.work / f"{source.replace(', ', '-').replace(' ', '-')}-{seed}"
            print(fitted_row(source, seed, result(folder, base, recipe, seed, made[source])), flush=True)


def program_rates(recipe: Recipe, base: Run) -> dict[str, Rates]:
    """program_id → its three rates, for sampled programs whose problem has generated tests."""
    by_sample = {r["sample_id"]: r for r in read_jsonl(data_file(recipe.data, "labels.jsonl.gz"))}
    found = {}
    for program in read_programs(base.path("programs.jsonl")):
        labels = next((by_sample[s] for s in program.sample_ids if by_sample[s].get("n_gen")), None)
        if labels is not None and program.pass_rate is not None:
            kept = labels.get("n_gen_filtered") or 0
            filtered = float(labels["gen_filtered_rate"]) if kept >= LEAST_KEPT else None
            found[program.program_id] = Rates(program.pass_rate, float(labels["gen_rate"]), filtered)
    return found


def pairs_by(source: str, base: Run, rates: dict[str, Rates], seed: int, folds: Sequence[str]) -> list[Preference]:
    """The pairs of these folds' samples by this source of pass rates."""
    problems = read_problems(base.path("problems.jsonl"))
    by_task: dict[str, list[str]] = defaultdict(list)
    for program in read_programs(base.path("programs.jsonl")):
        if program.program_id in rates and problems[program.task_id].fold in folds and program.iid_copies:
            by_task[program.task_id].append(program.program_id)
    found: list[Preference] = []
    for task_id, names in by_task.items():
        rated = [(name, rate) for name in names if (rate := rate_by(source, rates[name])) is not None]
        if source == "raw, rescaled":
            best = max((rate for _, rate in rated), default=0.0) or 1.0
            rated = [(name, rate / best) for name, rate in rated]
        found += preferences(task_id, rated, RULE, seed)
    return found


def rate_by(source: str, rates: Rates) -> float | None:
    if source == "filtered":
        return rates.filtered
    return rates.truth if source == "ground truth" else rates.raw


def made_all(base: Run, rates: dict[str, Rates], seed: int) -> dict[str, list[Preference]]:
    """The pairs of all sampled problems, by source."""
    return {source: pairs_by(source, base, rates, seed, ("train", "validation", "test")) for source in SOURCES}


def linear(made: dict[str, list[Preference]], base: Run, recipe: Recipe) -> None:
    """Print what a linear ranker learns from each source, cross-validated by cluster of problems."""
    problems = read_problems(base.path("problems.jsonl"))
    programs = [p for p in read_programs(base.path("programs.jsonl")) if p.iid_copies]
    clusters = cluster(list(problems.values()), recipe.split.near_duplicate)
    part = {task_id: clusters[task_id] % 5 for task_id in problems}
    features = {p.program_id: hashed(p.completion) for p in programs}
    size = len({p.task_id for p in programs})
    print(f"\nA linear ranker, five folds, {size} problems; in brackets: less `raw, rescaled`, paired by problem\n")
    print("| pairs by | pair accuracy | AUC | " + " | ".join(f"best of {n}" for n in SIZES) + " |")
    print("|---|---|---|" + "---:|" * len(SIZES))
    columns: dict[str, dict[str, dict[str, float]]] = {}
    for source in SOURCES:
        scores: dict[str, float] = {}
        for fold in range(5):
            weights = linear_fit([pair for pair in made[source] if part[pair.task_id] != fold], features)
            scores |= {
                p.program_id: float(weights[features[p.program_id]].mean()) for p in programs if part[p.task_id] == fold
            }
        sampled = samples_by_problem(programs, scores)
        found = discrimination(sampled, recipe.evaluate, recipe.pair, recipe.seed)["by_problem"]
        columns[source] = {
            name: {task: one[name] for task, one in found.items() if one[name] is not None}
            for name in ("pair_accuracy", "auc")
        }
        columns[source] |= {str(n): {p.task_id: best_of_n(p.scores, p.passed, n) for p in sampled} for n in SIZES}
    for source in SOURCES:
        cells = []
        for name, values in columns[source].items():
            scale, digits = (1, 3) if name in ("pair_accuracy", "auc") else (100, 1)
            gains = [value - columns["raw, rescaled"][name][task] for task, value in values.items()]
            low, high = bootstrap(gains, resamples=recipe.evaluate.resamples, seed=recipe.seed)
            less = f" ({scale * low:+.{digits}f} to {scale * high:+.{digits}f})" if source != "raw, rescaled" else ""
            cells.append(f"{scale * mean(list(values.values())):.{digits}f}{less}")
        print(f"| {source} | {' | '.join(cells)} |", flush=True)


def hashed(text: str) -> np.ndarray:
    """Places of a program's tokens, pairs and triples of them among `FEATURES` hashed ones, each once."""
    tokens = CODE.findall(text)
    runs = {"\0".join(tokens[at : at + n]) for n in (1, 2, 3) for at in range(len(tokens) - n + 1)} or {""}
    return np.array(sorted({zlib.crc32(run.encode()) % FEATURES for run in runs}))


def linear_fit(pairs: Sequence[Preference], features: dict[str, np.ndarray]) -> np.ndarray:
    """Weights by AdaGrad on the Bradley-Terry loss, every problem with the same weight; a score is their mean."""
    weights, squares = np.zeros(FEATURES), np.full(FEATURES, 1e-8)
    draw = random.Random(1)
    order = list(pairs)
    problems = len({pair.task_id for pair in pairs})
    for _ in range(3):
        draw.shuffle(order)
        for pair in order:
            high, low = features[pair.chosen], features[pair.rejected]
            wrong = 1 / (1 + math.exp(min(50.0, weights[high].mean() - weights[low].mean())))
            push = wrong * pair.weight * len(order) / problems
            for places, sign in ((high, 1.0), (low, -1.0)):
                step = sign * push / len(places)
                squares[places] += step * step
                weights[places] += 0.3 * step / np.sqrt(squares[places])
    return weights


def pair_row(source: str, pairs: Sequence[Preference], rates: dict[str, Rates]) -> str:
    """Counts, and what the problem's own tests say of the pairs."""
    if not pairs:
        return f"| {source} | 0 | 0 | – | – |"
    right = mean([float(rates[p.chosen].truth > rates[p.rejected].truth) for p in pairs])
    good = mean([float(rates[p.chosen].truth == 1.0) for p in pairs])
    return f"| {source} | {len({p.task_id for p in pairs})} | {len(pairs)} | {right:.1%} | {good:.1%} |"


def result(folder: Path, base: Run, recipe: Recipe, seed: int, pairs: Sequence[Preference]) -> dict[str, Any]:
    """What the model fitted on these pairs does on the test fold; kept in the folder, so that a killed run goes on."""
    path = folder / "result.json"
    if not path.is_file():
        recipe = replace(recipe, seed=seed, fit=replace(recipe.fit, pointwise=0.0))
        outcome = fit_and_ask(Run(folder, quiet=True), base, recipe, pairs)
        path.write_text(json.dumps(outcome))
    return dict(json.loads(path.read_text()))


def fit_and_ask(run: Run, base: Run, recipe: Recipe, pairs: Sequence[Preference]) -> dict[str, Any]:
    """Fit on these pairs (validation and calibration are by the truth for all sources), and score the test fold."""
    from service.scoring.reward_model import RewardModel
    from training.reward_model.finalize import score_programs
    from training.reward_model.fit import fit

    for name in ("tokenizer", "pretrained"):
        shutil.copytree(base.path(name), run.path(name), dirs_exist_ok=True)
    shutil.copyfile(base.path("problems.jsonl"), run.path("problems.jsonl"))
    problems = read_problems(base.path("problems.jsonl"))
    programs = [p for p in read_programs(base.path("programs.jsonl")) if p.iid_copies]
    write_jsonl(run.path("verified.jsonl"), map(as_row, programs))
    rows = [{"fold": "train", **dataclasses.asdict(pair)} for pair in pairs]
    rows += [{"fold": "validation", **dataclasses.asdict(pair)} for pair in validation_pairs(programs, problems)]
    write_jsonl(run.path("pairs.jsonl"), rows)
    fit(recipe, run)

    held = [p for p in programs if problems[p.task_id].fold == "test"]
    model = RewardModel.load(run.path("checkpoint/config.json").parent)
    scores = dict(zip([p.program_id for p in held], score_programs(model, problems, held), strict=True))
    sampled = samples_by_problem(held, scores)
    found = discrimination(sampled, recipe.evaluate, recipe.pair, recipe.seed)
    sizes = {}
    for n in SIZES:
        values = [best_of_n(p.scores, p.passed, n) for p in sampled]
        low, high = bootstrap(values, resamples=recipe.evaluate.resamples, seed=recipe.seed)
        oracle = mean([pass_at_n(p.passed, n) for p in sampled])
        sizes[str(n)] = {"value": mean(values), "low": low, "high": high, "oracle": oracle}
    return {"pair_accuracy": found["pair_accuracy"], "auc": found["auc"], "best_of_n": sizes}


def validation_pairs(programs: Sequence[ProgramRecord], problems: dict[str, Any]) -> list[Preference]:
    by_task: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for program in programs:
        if problems[program.task_id].fold == "validation" and program.pass_rate is not None:
            by_task[program.task_id].append((program.program_id, program.pass_rate))
    return [pair for task_id, rated in by_task.items() for pair in preferences(task_id, rated, RULE)]


def fitted_row(source: str, seed: int, found: dict[str, Any]) -> str:
    cells = [
        f"{found[name]['value']:.3f} ({found[name]['low']:.3f} to {found[name]['high']:.3f})"
        for name in ("pair_accuracy", "auc")
    ]
    cells += [
        f"{100 * point['value']:.1f} ({100 * point['low']:.0f} to {100 * point['high']:.0f})"
        for point in found["best_of_n"].values()
    ]
    return f"| {source} | {seed} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
