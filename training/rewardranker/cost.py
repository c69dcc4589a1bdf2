"""`plaudit-train cost RUN`: what a solved problem costs, by best of N and by one answer, in tokens and CPU-seconds.

RewardRanker's abstract (arXiv 2504.09643) says that a generator of 6.7B with a reranker of 6.7B is three times as fast
as a generator of 33B. How that was measured is not said. This command measures the small models of a run after
`iterate` and computes the large ones, and keeps the two apart:

- Measured: for each N the run's generator writes N completions of a problem in one batch, and the last round's reranker
  scores them as the service does (the prompt once). Seconds are the process's CPU time; shares of solved problems are
  those of the executed candidates in the run.
- Computed: with the measured lengths, what models of other sizes do. Operations are 2 per parameter and token, a
  prompt's tokens once for all its completions, as servers with a prefix cache compute them. Weights
  read are the parameters once per decoding step (a batch of N shares a step) and once for a batch that is scored; they
  bound the time of one request on a GPU, whose decoding waits for memory.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from plaudit.errors import UsageError
from training.pipeline.config import Recipe, read_recipe
from training.pipeline.files import write_text
from training.pipeline.metrics import best_of_n, mean
from training.pipeline.records import Problem, ProgramRecord, read_problems, read_programs
from training.pipeline.run import Run
from training.rewardranker.iterate_report import candidate_counts, read_scores
from training.rewardranker.mining import by_task, mean_pass_rate


@dataclass(frozen=True, slots=True)
class Cost:
    """What one way of answering costs per problem. `solved`: share of problems, from the run's executed candidates."""

    way: str
    candidates: int
    solved: float
    prompt_tokens: float
    written_tokens: float
    generating_cpu_s: float
    scoring_cpu_s: float

    @property
    def cpu_s(self) -> float:
        return self.generating_cpu_s + self.scoring_cpu_s

    def per_solved(self, amount: float) -> float | None:
        """This amount over the share that is solved; None where nothing is."""
        return amount / self.solved if self.solved else None


def cost_command(arguments: Sequence[str]) -> None:
    """Run the command: writes `cost.md` and `cost.json` beside the report of `iterate`, and prints the first."""
    parser = argparse.ArgumentParser(
        prog="plaudit-train cost", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a run folder after `iterate`")
    parser.add_argument("--problems", type=int, default=12, help="held-out problems that are timed")
    parser.add_argument("--generator", type=float, default=6.7, help="billions of parameters, for the computed table")
    parser.add_argument("--reranker", type=float, default=6.7, help="billions of parameters")
    parser.add_argument("--against", type=float, default=33.0, help="billions of parameters of the one generator")
    options = parser.parse_args(arguments)
    for name in ("problems", "generator", "reranker", "against"):
        if getattr(options, name) <= 0:
            raise UsageError(f"--{name} must be above 0, and is {getattr(options, name):g}")
    report = report_folder(options.run)
    costs = measured_costs(options.run, report, options.problems)
    sizes = (options.generator, options.reranker, options.against)
    text = markdown(costs, sizes)
    write_text(report / "cost.json", json.dumps([asdict(cost) for cost in costs], indent=1) + "\n")
    write_text(report / "cost.md", text)
    print(text, end="")


def report_folder(run: Path) -> Path:
    """The folder of the run's one report of `iterate`. Raises `UsageError` where there is none, or several."""
    found = sorted(run.glob("iterate/seed-*/*/report.json"))
    if not found:
        raise UsageError(f"{run} has no report of iterate: run plaudit-train iterate first")
    if len(found) > 1:
        raise UsageError(f"{run} has several reports of iterate ({', '.join(str(path.parent) for path in found)})")
    return found[0].parent


def measured_costs(folder: Path, report: Path, num_problems: int) -> list[Cost]:
    """One row for the greedy answer, one for a sample, and one for each N up to the run's candidates."""
    from service.scoring.reward_model import RewardModel
    from training.reward_model.template import load_encoder
    from training.rewardranker import policy
    from training.rewardranker.generator_text import GeneratorText, OwnText, PretrainedText

    recipe, run = read_recipe(folder / "recipe.json"), Run(folder)
    last = max(
        (path for pattern in ("round-*", f"{report.name}/round-*") for path in report.parent.glob(pattern)),
        key=lambda path: int(path.name.rpartition("-")[2]),
    )
    rounds = Run(last, quiet=True)
    scores = read_scores(rounds, "sft")
    problems = [problem for name, problem in read_problems(folder / "problems.jsonl").items() if name in scores]
    timed = problems[:num_problems]
    generator = policy.load_generator(folder / "iterate" / "sft")
    text: GeneratorText = (
        PretrainedText(folder / "iterate" / "sft")
        if recipe.iterate.generator
        else OwnText(load_encoder(recipe, folder / "tokenizer"))
    )
    reranker = RewardModel.load(last / "checkpoint")
    most = min(map(len, scores.values()))
    greedy = by_task(read_programs(folder / "iterate" / "greedy.jsonl"))
    plain = {name: mean([float(ok) for _, ok in group]) for name, group in scores.items()}
    costs = [
        _timed("greedy", 1, _solved(greedy), timed, generator, text, None, recipe),
        _timed("one sample", 1, mean(list(plain.values())), timed, generator, text, None, recipe),
    ]
    for size in candidate_counts(most):
        solved = mean([best_of_n([s for s, _ in group], [ok for _, ok in group], size) for group in scores.values()])
        run.say(f"cost: best of {size}")
        costs.append(_timed(f"best of {size}", size, solved, timed, generator, text, reranker, recipe))
    return costs


def _timed(
    way: str,
    candidates: int,
    solved: float,
    problems: Sequence[Problem],
    generator: Any,
    text: Any,
    reranker: Any,
    recipe: Recipe,
) -> Cost:
    from training.rewardranker import policy
    from training.rewardranker.generator_text import completion_text
    from training.rewardranker.ppo import generate

    written = generating_s = scoring_s = 0.0
    prompts = [text.prompt_ids(problem) for problem in problems]
    for at, (problem, ids) in enumerate(zip(problems, prompts, strict=True)):
        began = time.process_time()
        completions = generate(generator, [ids] * candidates, recipe.iterate, text.end, at, greedy=way == "greedy")
        generating_s += time.process_time() - began
        written += sum(map(len, completions))
        if reranker is not None:
            texts = [completion_text(text, tokens) for tokens in completions]
            began = time.process_time()
            policy.score_completions(reranker, problem.prompt, texts)
            scoring_s += time.process_time() - began
    count = len(problems)
    return Cost(
        way,
        candidates,
        solved,
        mean([float(len(ids)) for ids in prompts]),
        written / count,
        generating_s / count,
        scoring_s / count,
    )


def _solved(groups: dict[str, list[ProgramRecord]]) -> float:
    return mean([mean_pass_rate(group) for group in groups.values()])


def computed(cost: Cost, generator: float, reranker: float) -> tuple[float, float]:
    """(operations, weights read) of a problem, both in parameters times tokens or steps, for models of these sizes."""
    tokens = cost.prompt_tokens + cost.written_tokens
    steps = cost.written_tokens / cost.candidates  # of a batch: all completions take a step together
    if cost.candidates == 1:
        return 2 * generator * tokens, generator * steps
    return 2 * (generator + reranker) * tokens, generator * steps + reranker


def markdown(costs: Sequence[Cost], sizes: tuple[float, float, float]) -> str:
    """Both tables."""
    generator, reranker, against = sizes
    alone = costs[0]
    big_operations, big_reads = computed(alone, against, 0.0)

    def ratio(amount: float | None, digits: int = 2) -> str:
        return "" if amount is None else f"{amount:.{digits}f}"

    lines = [
        "# Cost of a solved problem",
        "",
        "Measured: the run's own generator and reranker, on one CPU thread, per problem.",
        "",
        "| way | solved | tokens written | CPU-s generating | CPU-s scoring | tokens per solved | CPU-s per solved |",
        "|---|---:|---:|---:|---:|---:|---:|",
        *(
            f"| {cost.way} | {100 * cost.solved:.1f} % | {cost.written_tokens:.0f} | {cost.generating_cpu_s:.2f} | "
            f"{cost.scoring_cpu_s:.2f} | {ratio(cost.per_solved(cost.written_tokens), 0)} | "
            f"{ratio(cost.per_solved(cost.cpu_s))} |"
            for cost in costs
        ),
        "",
        f"Computed: a generator of {generator:g}B with a reranker of {reranker:g}B, over one greedy answer of "
        f"{against:g}B, at the lengths above. Below 1 is cheaper.",
        "",
        "| way | operations | weights read |",
        "|---|---:|---:|",
    ]
    for cost in costs:
        operations, reads = computed(cost, generator, reranker)
        lines.append(f"| {cost.way} | {operations / big_operations:.2f} | {reads / big_reads:.2f} |")
    return "\n".join([*lines, ""])
