"""What the evidence in a prompt is worth for best-of-N: examples, behavior, consensus and the model.

CodeT's samples of the public HumanEval problems (100 per problem) are observed once: each different program on the
prompt's examples and on mutated inputs, in one run. Every drawn subset of N is then ranked on its own, as a request
would be, and held against the labels. Outcomes are kept in a file (`--cache`), so that a second run only ranks.

The table has, for each ranker, best-of-N with a 95 % interval over problems, the value in each of five folds by
problem, and the problems without an example apart. CPU time is that of the judge and of the programs; what starting the
jails costs is not in it (some milliseconds per program). The shipped model has seen some of the problems in training.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import resource
import sys
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox.open import open_sandbox
from sandbox.sandbox import Sandbox
from service.agreement import consensus
from training.evaluation.evidence import PromptEvidence
from training.evaluation.rankers import (
    SampledProblem,
    SetRanker,
    by_behavior,
    by_behavior_alone,
    by_examples,
    drawn_best_of_n,
    in_order,
)
from training.pipeline.metrics import bootstrap, mean, pass_at_n

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("PLAUDIT_DATA", ROOT / ".." / "shared" / "data"))
MODEL = ROOT / "models" / "plaudit-mini"
SEED, FOLDS, RESAMPLES = 20_261_129, 5, 1000


@dataclass(slots=True)
class Observed(SampledProblem):
    """A problem with what its programs answered: to its examples, and to further inputs."""

    prompt: str = ""
    base_id: str = ""
    num_examples: int = 0
    cpu_s: list[float] = field(default_factory=list)  # of each sample's run; copies of a program have its time


def rows(name: str) -> Iterator[dict[str, Any]]:
    with gzip.open(DATA / name, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def problems(num_samples: int) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """The sampled problems, each with its first samples."""
    by_id = {row["task_id"]: row for row in rows("problems.python.jsonl.gz")}
    samples: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows("samples.python.jsonl.gz"):
        if row["source"].startswith("microsoft/CodeT") and len(samples[row["task_id"]]) < num_samples:
            samples[row["task_id"]].append(row)
    return [(by_id[task_id], given) for task_id, given in sorted(samples.items())]


def cpu_s() -> float:
    """CPU time of this process and of the jails that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def observe(
    problem: dict[str, Any], samples: Sequence[dict[str, Any]], arguments: argparse.Namespace, sandbox: Sandbox
) -> dict[str, Any]:
    """What was observed of every different program of a problem."""
    evidence = PromptEvidence.of(
        problem["prompt"],
        problem["entry_point"],
        [sample["completion"] for sample in samples],
        num_inputs=arguments.inputs,
        use_examples=not arguments.without_examples,
    )
    programs: dict[str, dict[str, Any]] = {}
    for solution in dict.fromkeys(sample["solution"] for sample in samples):
        began = cpu_s()
        (observation,) = evidence.observe([solution], sandbox).values()
        spent_s = cpu_s() - began + observation.cpu_ms / 1000
        programs[solution] = {"rate": observation.example_rate, "answers": observation.answers, "cpu_s": spent_s}
    return {
        "task_id": problem["task_id"],
        "num_examples": len(evidence.reading.examples),
        "samples": {sample["sample_id"]: programs[sample["solution"]] for sample in samples},
    }


def outcomes(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """What `observe` found, by problem: from the cache where it has it."""
    known: dict[str, dict[str, Any]] = {}
    if arguments.cache and arguments.cache.is_file():
        with gzip.open(arguments.cache, "rt", encoding="utf-8") as lines:
            known = {row["task_id"]: row for row in map(json.loads, lines)}
    missing = [pair for pair in problems(arguments.samples) if pair[0]["task_id"] not in known]
    if missing:
        path = arguments.cache or os.devnull
        with open_sandbox() as sandbox, gzip.open(path, "at", encoding="utf-8") as cache:
            for problem, samples in missing:
                row = observe(problem, samples, arguments, sandbox)
                cache.write(json.dumps(row) + "\n")
                known[row["task_id"]] = row
    return known


def collected(arguments: argparse.Namespace) -> list[Observed]:
    labels = {row["sample_id"]: row for row in rows("labels.jsonl.gz")}
    found = outcomes(arguments)
    collected_problems = []
    for problem, samples in problems(arguments.samples):
        row = found[problem["task_id"]]
        num_examples, runs = row["num_examples"], [row["samples"][sample["sample_id"]] for sample in samples]
        collected_problems.append(
            Observed(
                task_id=problem["task_id"],
                base_id=problem["base_id"],
                prompt=problem["prompt"],
                completions=[sample["completion"] for sample in samples],
                rates=[float(labels[sample["sample_id"]]["gt_pass"]) for sample in samples],
                scores=[0.0] * len(samples),
                example_rates=[run["rate"] for run in runs],
                answers=[run["answers"] for run in runs],
                num_examples=num_examples,
                cpu_s=[run["cpu_s"] for run in runs],
            )
        )
    return collected_problems


def score(observed: Sequence[Observed]) -> None:
    """Put the shipped model's scores in place."""
    from plaudit.errors import TooLong
    from service.scoring.reward_model import RewardModel

    model = RewardModel.load(MODEL)
    try:
        for problem in observed:
            encoded = model.encode_group(problem.prompt, problem.completions, "truncate_left")
            assert not any(isinstance(one, TooLong) for one in encoded)
            problem.scores = model.score([one for one in encoded if not isinstance(one, TooLong)])
    finally:
        model.close()


def by_consensus(problem: SampledProblem, subset: list[int]) -> list[float]:
    return consensus([problem.completions[at] for at in subset])


def by_model(problem: SampledProblem, subset: list[int]) -> list[float]:
    return [problem.scores[at] for at in subset]


RANKERS: dict[str, SetRanker] = {
    "model": by_model,
    "consensus": by_consensus,
    "behavior alone": by_behavior_alone,
    "behavior, weighted by examples": by_behavior,
    "examples": by_examples,
    "examples, model": in_order(by_examples, by_model),
    "examples, behavior": in_order(by_examples, by_behavior),
    "examples, behavior, consensus": in_order(by_examples, by_behavior, by_consensus),
    "examples, behavior, model": in_order(by_examples, by_behavior, by_model),
    "examples, behavior, consensus, model": in_order(by_examples, by_behavior, by_consensus, by_model),
}


def fold_of(problem: Observed) -> int:
    return zlib.crc32(problem.base_id.encode()) % FOLDS


def table(observed: Sequence[Observed], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    n = arguments.n
    rates: dict[str, Callable[[Observed], float]] = {
        "mean (no choice)": lambda problem: problem.pass_at_1,
        **{
            name: lambda problem, ranker=ranker: drawn_best_of_n(problem, n, ranker, arguments.draws, SEED)  # type: ignore[misc]
            for name, ranker in RANKERS.items()
        },
        "oracle (pass@N)": lambda problem: pass_at_n(problem.passed, n),
    }
    lines = []
    for name, rate in rates.items():
        values = [rate(problem) for problem in observed]
        low, high = bootstrap(values, resamples=RESAMPLES, seed=SEED)
        by_fold: dict[int, list[float]] = defaultdict(list)
        for problem, value in zip(observed, values, strict=True):
            by_fold[fold_of(problem)].append(value)
        unread = [value for problem, value in zip(observed, values, strict=True) if not problem.num_examples]
        lines.append(
            {
                "ranker": name,
                "value": mean(values),
                "low": low,
                "high": high,
                "folds": [mean(by_fold[fold]) for fold in sorted(by_fold)],
                "without_examples": mean(unread) if unread else None,
            }
        )
        folds = " ".join(f"{value:.2f}" for value in lines[-1]["folds"])
        rest = "" if not unread else f"{mean(unread):.3f}"
        print(f"{name:38} {mean(values):.3f}  [{low:.2f}, {high:.2f}]  {folds}  {rest}", flush=True)
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cache", type=Path, help="file of observed outcomes (.jsonl.gz), for another run; outside git"
    )
    parser.add_argument("--n", type=int, default=32, help="candidates of a group")
    parser.add_argument("--draws", type=int, default=50, help="drawn groups per problem")
    parser.add_argument("--samples", type=int, default=100, help="samples of each problem that are observed")
    parser.add_argument("--inputs", type=int, default=30, help="mutated inputs per problem")
    parser.add_argument("--without-examples", action="store_true", help="as if no prompt had any; needs its own cache")
    parser.add_argument("--no-model", action="store_true", help="do not load the model: its scores are 0")
    parser.add_argument("--output", type=Path, help="also write the table as JSON")
    arguments = parser.parse_args()
    began = time.perf_counter()
    observed = collected(arguments)
    if not arguments.no_model:
        score(observed)
    groups = sorted(arguments.n * mean(problem.cpu_s) for problem in observed)
    quarters = [groups[int(share * (len(groups) - 1))] for share in (0.25, 0.5, 0.75, 0.9)]
    print(f"{len(observed)} problems, {sum(p.num_examples > 0 for p in observed)} with examples; best of {arguments.n}")
    print("CPU-seconds per group (quartiles, 90 %): " + ", ".join(f"{value:.2f}" for value in quarters))
    lines = table(observed, arguments)
    print(f"{time.perf_counter() - began:.0f} s")
    if arguments.output:
        result = {"n": arguments.n, "problems": len(observed), "cpu_s_per_group": quarters, "rankers": lines}
        arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
