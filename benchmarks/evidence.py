"""What the evidence in a prompt is worth for best-of-N: examples, behavior, consensus, the model, and generated tests.

CodeT's samples of the public HumanEval problems (100 per problem) are observed once: each different program on the
prompt's examples, on mutated inputs, and on model-written tests, in rounds within a budget as a request has it. Every
drawn subset of N is then ranked on its own, as a request would be, and held against the labels. Outcomes are kept in a
file (`--cache`), so that a second run only ranks.

- Rankers: best-of-N with a 95 % interval over problems, the value in each of five folds by problem, and the problems
  without an example apart. Draws of three seeds.
- Held out: the constants of `behavior` and the number of inputs are chosen on four folds, by what behavior solves
  behind examples and without any, and measured on the fifth. Differences to every single part are paired: a bootstrap
  over problems.
- Margin: how often the best is right, by what `margin` says.
- Cost: one group of 32 per problem is observed as `/rank` does it; CPU time of programs, of their jails on their
  behalf, and of the judge. Starting a jail, once per some thousand programs, is not in it.

The shipped model has seen some of the problems in training.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import os
import random
import sys
import time
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox.open import open_sandbox
from sandbox.sandbox import Sandbox
from service.agreement import agreement, consensus
from service.evidence.behavior import SHIPPED, Formula, behavior, confidence
from service.evidence.examples import read_examples
from training.evaluation.evidence import PromptEvidence
from training.evaluation.rankers import SampledProblem
from training.pipeline.metrics import bootstrap, mean, pass_at_n

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("PLAUDIT_DATA", ROOT / ".." / "shared" / "data"))
MODEL = ROOT / "models" / "plaudit-mini"
SEEDS, FOLDS, RESAMPLES = (1, 2, 3), 5, 1000
GENERATED_TESTS = 40  # of a problem
GRID = [Formula(0.02, exponent, factor) for exponent, factor in itertools.product((1.0, 2.0), (1.0, 0.5, 0.25))]
NUM_INPUTS = (16, 32, 64)


@dataclass(slots=True)
class Observed(SampledProblem):
    """A problem with what its programs answered: to its examples, to further inputs, and to generated tests."""

    prompt: str = ""
    base_id: str = ""
    num_examples: int = 0
    generated: list[list[bool]] = field(default_factory=list)  # by sample, whether it passes each generated test
    group_cpu_s: float = 0.0  # of observing one group of N


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


def observe(
    problem: dict[str, Any],
    samples: Sequence[dict[str, Any]],
    tests: Sequence[str],
    arguments: argparse.Namespace,
    sandbox: Sandbox,
) -> dict[str, Any]:
    """What was observed of every different program of a problem."""
    entry_point, completions = problem["entry_point"], [sample["completion"] for sample in samples]

    def evidence_for(chosen: Sequence[str]) -> PromptEvidence:
        return PromptEvidence.of(
            problem["prompt"],
            entry_point,
            chosen,
            num_inputs=max(NUM_INPUTS),
            use_examples=not arguments.without_examples,
        )

    evidence = evidence_for(completions)
    generated = PromptEvidence(entry_point, read_examples("\n".join(tests) + "\n", entry_point=entry_point), ())
    solutions = [sample["solution"] for sample in samples]
    observed = evidence.observe(solutions, sandbox)
    tested = generated.observe(solutions, sandbox)
    programs = {
        solution: {
            "rate": observed[solution].example_rate,
            "answers": observed[solution].answers,
            "generated": tested[solution].passes,
        }
        for solution in dict.fromkeys(solutions)
    }
    group = evidence_for(completions[: arguments.n]).observe(solutions[: arguments.n], sandbox, complete=False)
    return {
        "task_id": problem["task_id"],
        "num_examples": len(evidence.reading.examples),
        "samples": {sample["sample_id"]: programs[sample["solution"]] for sample in samples},
        "group_cpu_s": sum(one.cpu_ms for one in group.values()) / 1000,
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
        tests = {row["task_id"]: row["tests"][:GENERATED_TESTS] for row in rows("generated_tests.jsonl.gz")}
        with open_sandbox() as sandbox, gzip.open(path, "at", encoding="utf-8") as cache:
            for problem, samples in missing:
                row = observe(problem, samples, tests.get(problem["task_id"], ()), arguments, sandbox)
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
                generated=[run["generated"] for run in runs],
                group_cpu_s=row["group_cpu_s"],
            )
        )
    return collected_problems


def score(observed: Sequence[Observed]) -> float:
    """Put the shipped model's scores in place. Returns CPU-seconds per completion."""
    from plaudit.errors import TooLong
    from service.scoring.reward_model import RewardModel

    model = RewardModel.load(MODEL)
    try:
        began = time.process_time()
        for problem in observed:
            encoded = model.encode_group(problem.prompt, problem.completions, "truncate_left")
            assert not any(isinstance(one, TooLong) for one in encoded)
            problem.scores = model.score([one for one in encoded if not isinstance(one, TooLong)])
        return (time.process_time() - began) / sum(len(problem.completions) for problem in observed)
    finally:
        model.close()


Columns = Mapping[str, Sequence[float]]


def columns_of(
    problem: Observed, subset: Sequence[int], formula: Formula = SHIPPED, num_inputs: int = max(NUM_INPUTS)
) -> Columns:
    """What each kind of evidence says of the members of a drawn group."""
    rates = [problem.example_rates[at] for at in subset]
    answers = [problem.answers[at][:num_inputs] for at in subset]
    passes = [problem.generated[at] for at in subset]
    return {
        "examples": rates,
        "behavior": behavior(answers, rates, formula),
        "behavior alone": behavior(answers, None, formula),
        "consensus": consensus([problem.completions[at] for at in subset]),
        "model": [problem.scores[at] for at in subset],
        "generated tests": [sum(one) / len(one) if one else 0.0 for one in passes],
        "agreement": agreement(passes),
    }


AUTO = ("examples", "behavior", "consensus", "model")
WITH_TESTS = ("examples", "behavior", "agreement", "consensus", "model")
SINGLE = ("examples", "behavior alone", "consensus", "model", "generated tests", "agreement")
RANKERS: tuple[tuple[str, ...], ...] = (
    ("generated tests",),
    ("model",),
    ("consensus",),
    ("agreement",),
    ("behavior alone",),
    ("behavior",),
    ("examples",),
    ("examples", "agreement"),
    ("examples", "model"),
    ("examples", "behavior"),
    ("examples", "behavior", "consensus"),
    AUTO,
    WITH_TESTS,
)


def drawn(problem: Observed, n: int, draws: int) -> Iterator[list[int]]:
    """The drawn groups of a problem, of all seeds."""
    for seed in SEEDS:
        draw = random.Random(f"{seed}:{problem.task_id}:{n}")
        for _ in range(draws):
            yield draw.sample(range(len(problem.scores)), n)


def solved(problem: Observed, subset: Sequence[int], columns: Columns, order: Sequence[str]) -> float:
    """Whether the best of a group passes, where each column decides among what those before it find equal."""
    keys = list(zip(*([round(value, 9) for value in columns[name]] for name in order), strict=True))
    best = max(keys)
    return mean([float(problem.passed[at]) for at, key in zip(subset, keys, strict=True) if key == best])


def fold_of(problem: Observed) -> int:
    return zlib.crc32(problem.base_id.encode()) % FOLDS


def interval(values: Sequence[float]) -> tuple[float, float]:
    return bootstrap(values, resamples=RESAMPLES, seed=SEEDS[0])


def table(observed: Sequence[Observed], arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Best-of-N of every ranker, by problem; printed."""
    by_ranker: dict[str, list[float]] = {"mean (no choice)": [problem.pass_at_1 for problem in observed]}
    by_ranker |= {", ".join(order): [] for order in RANKERS}
    for problem in observed:
        groups = [(subset, columns_of(problem, subset)) for subset in drawn(problem, arguments.n, arguments.draws)]
        for order in RANKERS:
            by_ranker[", ".join(order)].append(mean([solved(problem, *group, order) for group in groups]))
    by_ranker["oracle (pass@N)"] = [pass_at_n(problem.passed, arguments.n) for problem in observed]
    print(f"{'best of ' + str(arguments.n):50} value   95 %          by fold                        no example read")
    for name, values in by_ranker.items():
        low, high = interval(values)
        folds = " ".join(
            f"{mean([value for problem, value in zip(observed, values, strict=True) if fold_of(problem) == fold]):.2f}"
            for fold in range(FOLDS)
        )
        unread = [value for problem, value in zip(observed, values, strict=True) if not problem.num_examples]
        rest = f"{mean(unread):.3f}" if unread else ""
        print(f"{name:50} {mean(values):.3f}  [{low:.2f}, {high:.2f}]  {folds}  {rest}", flush=True)
    return by_ranker


def held_out(
    observed: Sequence[Observed], by_ranker: Mapping[str, Sequence[float]], arguments: argparse.Namespace
) -> dict[str, Any]:
    """`auto` with constants chosen on the other folds, and its paired differences to each part; printed."""
    configurations = list(itertools.product(GRID, NUM_INPUTS))
    short, alone, whole = ([[0.0] * len(observed) for _ in configurations] for _ in range(3))
    for at, problem in enumerate(observed):
        groups = list(drawn(problem, arguments.n, arguments.choose_draws))
        for number, (formula, num_inputs) in enumerate(configurations):
            columns = [columns_of(problem, subset, formula, num_inputs) for subset in groups]
            pairs = list(zip(groups, columns, strict=True))
            short[number][at] = mean([solved(problem, *pair, AUTO[:2]) for pair in pairs])
            alone[number][at] = mean([solved(problem, *pair, ("behavior alone",)) for pair in pairs])
            whole[number][at] = mean([solved(problem, *pair, AUTO) for pair in pairs])
    values, unaided, chosen = [0.0] * len(observed), [0.0] * len(observed), []
    for fold in range(FOLDS):
        train = [at for at, problem in enumerate(observed) if fold_of(problem) != fold]
        best = max(
            range(len(configurations)),
            key=lambda number: mean([short[number][at] + alone[number][at] for at in train]),
        )
        chosen.append(configurations[best])
        for at, problem in enumerate(observed):
            if fold_of(problem) == fold:
                values[at], unaided[at] = whole[best][at], alone[best][at]
    low, high = interval(values)
    print(f"\nauto, constants chosen on the other folds: {mean(values):.3f} [{low:.2f}, {high:.2f}]")
    print(f"  behavior alone: {mean(unaided):.3f} [{interval(unaided)[0]:.2f}, {interval(unaided)[1]:.2f}]")
    for fold, (formula, num_inputs) in enumerate(chosen):
        print(f"  fold {fold}: {formula}, {num_inputs} inputs")
    for name, column in (("examples, behavior", short), ("behavior alone", alone)):
        spread = [mean(one) for one in column]
        print(f"  {name} over all {len(spread)} configurations: {min(spread):.3f} to {max(spread):.3f}")
    differences = {}
    for name, other in [("auto, held out", values), ("with generated tests", by_ranker[", ".join(WITH_TESTS)])]:
        for part in SINGLE:
            gaps = [value - single for value, single in zip(other, by_ranker[part], strict=True)]
            differences[f"{name} less {part}"] = (mean(gaps), *interval(gaps))
            print(f"  {name} less {part}: {mean(gaps):+.3f} [{interval(gaps)[0]:+.3f}, {interval(gaps)[1]:+.3f}]")
    return {"value": mean(values), "low": low, "high": high, "differences": differences}


def margins(observed: Sequence[Observed], arguments: argparse.Namespace) -> list[tuple[float, float, float, float]]:
    """How often the best is right, by the margin: lower and upper end, share of the groups, share that is right."""
    pairs = []
    for problem in observed:
        for subset in drawn(problem, arguments.n, arguments.draws):
            columns = columns_of(problem, subset)
            keys = list(zip(*([round(value, 9) for value in columns[name]] for name in AUTO), strict=True))
            best = keys.index(max(keys))
            rates = columns["examples"] if problem.num_examples else None
            sure = confidence([problem.answers[at] for at in subset], rates, best)
            pairs.append((sure, problem.passed[subset[best]]))
    ends = (0.0, 0.05, 0.25, 0.5, 0.75, 1.01)
    lines = []
    print("\nmargin: share of the groups, share of them whose best is right")
    for low, high in itertools.pairwise(ends):
        right = [ok for sure, ok in pairs if low <= sure < high]
        if right:
            lines.append((low, high, len(right) / len(pairs), mean([float(ok) for ok in right])))
            print(f"  {low:.2f} to {min(high, 1.0):.2f}: {lines[-1][2]:.2f}  {lines[-1][3]:.2f}")
    return lines


def costs(model_cpu_s: float, arguments: argparse.Namespace) -> dict[str, float]:
    """CPU-seconds of one group of N by kind of evidence, the mean over some problems; printed."""
    chosen = problems(arguments.n)[:: arguments.cost_every]
    tests = {row["task_id"]: row["tests"][:GENERATED_TESTS] for row in rows("generated_tests.jsonl.gz")}
    spent: dict[str, list[float]] = defaultdict(list)
    with open_sandbox() as sandbox:
        for problem, samples in chosen:
            name, completions = problem["entry_point"], [sample["completion"] for sample in samples]
            solutions = [sample["solution"] for sample in samples]
            whole = PromptEvidence.of(problem["prompt"], name, completions, num_inputs=max(NUM_INPUTS))
            shown = read_examples("\n".join(tests.get(problem["task_id"], ())) + "\n", entry_point=name)
            kinds = {
                "examples": PromptEvidence(name, whole.reading, ()),
                "examples, behavior": whole,
                f"{GENERATED_TESTS} generated tests": PromptEvidence(name, shown, ()),
            }
            for kind, evidence in kinds.items():
                runs = evidence.observe(solutions, sandbox, complete=False).values()
                spent[kind].append(sum(one.cpu_ms for one in runs) / 1000)
            began = time.process_time()
            consensus(completions)
            spent["consensus"].append(time.process_time() - began)
    if model_cpu_s:
        spent["model, on the CPU"].append(model_cpu_s * arguments.n)
    print("\nCPU-seconds of a group: mean, median, most")
    for kind, values in spent.items():
        ordered = sorted(values)
        print(f"  {kind:24} {mean(values):.3f}  {ordered[len(ordered) // 2]:.3f}  {ordered[-1]:.3f}")
    return {kind: mean(values) for kind, values in spent.items()}


SHOWN: tuple[tuple[str, str, tuple[str, ...]], ...] = (  # ranker, its name in the picture, what it costs
    ("generated tests", "generated tests, their pass rate", ("40 generated tests",)),
    ("consensus", "consensus: like the other texts", ("consensus",)),
    ("model", "the shipped model", ("model, on the CPU",)),
    ("agreement", "agreement on generated tests", ("40 generated tests",)),
    ("behavior alone", "behavior, without examples", ("examples, behavior",)),
    ("examples", "examples", ("examples",)),
    ("examples, behavior", "examples, then behavior", ("examples, behavior",)),
    (", ".join(AUTO), "auto", ("examples, behavior", "consensus", "model, on the CPU")),
    (
        ", ".join(WITH_TESTS),
        "auto with generated tests",
        ("examples, behavior", "40 generated tests", "consensus", "model, on the CPU"),
    ),
)


def draw_picture(result: Mapping[str, Any], path: Path) -> None:
    """Share solved with its interval for each kind of evidence, and what a group of it costs."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.hashsalt": "plaudit", "svg.fonttype": "none", "font.size": 9})
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7.6, 3.8))
    for at, (name, label, kinds) in enumerate(SHOWN):
        value, low, high = result["rankers"][name]
        colour = "#0072b2" if label.startswith("auto") else "#555555"
        axes.plot([100 * low, 100 * high], [at, at], color=colour, linewidth=1.6, alpha=0.5)
        axes.plot([100 * value], [at], "o", color=colour, markersize=5)
        axes.text(100 * value, at + 0.2, f"{100 * value:.0f}", color=colour, fontsize=8, ha="center")
        spent = sum(result["costs"].get(kind, 0.0) for kind in kinds)
        axes.text(82.5, at, f"{spent:.2f} s", fontsize=8, va="center", ha="right", color="#333333")
    for name, label in (("mean (no choice)", "no choice"), ("oracle (pass@N)", "one is right")):
        value = 100 * result["rankers"][name][0]
        axes.axvline(value, color="#999999", linestyle=":", linewidth=1)
        axes.text(value, len(SHOWN) - 0.3, f"{label}, {value:.0f}", fontsize=8, ha="center", color="#777777")
    axes.text(82.5, len(SHOWN) - 0.3, "CPU", fontsize=8, ha="right", color="#333333")
    axes.set_yticks(range(len(SHOWN)), [label for _, label, _ in SHOWN])
    axes.set_xlim(10, 84)
    axes.set_ylim(-0.6, len(SHOWN) + 0.2)
    axes.set_xlabel(f"problems solved by the best of {result['n']}, %, with 95 % intervals over problems")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cache", type=Path, help="file of observed outcomes (.jsonl.gz), for another run; outside git"
    )
    parser.add_argument("--n", type=int, default=32, help="candidates of a group")
    parser.add_argument("--draws", type=int, default=15, help="drawn groups per problem and seed")
    parser.add_argument("--choose-draws", type=int, default=5, help="the same where constants are chosen; 0: do not")
    parser.add_argument("--cost-every", type=int, default=6, help="costs are those of each such problem's group")
    parser.add_argument("--samples", type=int, default=100, help="samples of each problem that are observed")
    parser.add_argument("--without-examples", action="store_true", help="as if no prompt had any; needs its own cache")
    parser.add_argument("--no-model", action="store_true", help="do not load the model: its scores are 0")
    parser.add_argument("--output", type=Path, help="also write the numbers as JSON")
    parser.add_argument("--picture", type=Path, help="also draw them (.svg); needs the model")
    parser.add_argument("--numbers", type=Path, help="draw the picture of these numbers, and measure nothing")
    arguments = parser.parse_args()
    if arguments.numbers:
        draw_picture(json.loads(arguments.numbers.read_text("utf-8")), arguments.picture)
        return 0
    began = time.perf_counter()
    observed = collected(arguments)
    model_cpu_s = 0.0 if arguments.no_model else score(observed)
    group_costs = sorted(problem.group_cpu_s for problem in observed)
    quantiles = {share: group_costs[int(share * (len(group_costs) - 1))] for share in (0.25, 0.5, 0.75, 0.9, 1.0)}
    print(f"{len(observed)} problems, {sum(p.num_examples > 0 for p in observed)} with examples; {len(SEEDS)} seeds")
    shown = ", ".join(f"{share:.0%}: {value:.2f}" for share, value in quantiles.items())
    print(f"CPU-seconds of a group, of the N that filled the cache: {shown}\n")
    by_ranker = table(observed, arguments)
    chosen = held_out(observed, by_ranker, arguments) if arguments.choose_draws else None
    by_margin = margins(observed, arguments)
    by_kind = costs(model_cpu_s, arguments)
    print(f"{time.perf_counter() - began:.0f} s")
    if arguments.output or arguments.picture:
        rankers = {name: (mean(values), *interval(values)) for name, values in by_ranker.items()}
        result = {"n": arguments.n, "problems": len(observed), "cpu_s": quantiles, "rankers": rankers}
        result |= {"held_out": chosen, "margins": by_margin, "costs": by_kind}
        if arguments.output:
            arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        if arguments.picture:
            draw_picture(result, arguments.picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
