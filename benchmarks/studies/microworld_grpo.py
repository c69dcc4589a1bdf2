"""GRPO in the micro-world through TRL, rewards over HTTP: rows base, +RM, +rule, +combined.

    python benchmarks/studies/microworld_grpo.py --run runs/micro --steps 30

Needs `benchmarks/studies/microworld.py` first: it takes the SFT generator, its executed samples of held-out problems
and the first round's reranker from that run, serves the reranker (`plaudit up`), trains one generator per reward from
the same start on the same order of prompts, and executes their samples on held-out families. A hacked reward model
shows as a rising score of samples whose pass rate does not rise with it, so both are printed: the mean score by the
same reranker, its rise, and the share of failures that it scores like passing programs
(`training/rewardranker/mining.py`).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from benchmarks_path import ROOT
from overhead import service

from service.scoring.reward_model import RewardModel
from training.pipeline.config import read_recipe
from training.pipeline.metrics import bootstrap, mean
from training.pipeline.records import ProgramRecord, read_programs
from training.pipeline.run import Run
from training.rewardranker import policy
from training.rewardranker.iterate import RewardRankerLoop
from training.rewardranker.mining import by_task, execute_completions, mean_pass_rate, mine
from training.rl import grpo

RECIPE = ROOT / "training" / "recipes" / "micro.toml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/micro"))
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--lr", type=float, default=2e-4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rewards", default="rm,rule,combined")
    options = parser.parse_args()
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    recipe = read_recipe(RECIPE, environ=os.environ)
    recipe = dataclasses.replace(recipe, iterate=dataclasses.replace(recipe.iterate, seed=options.seed))
    run = Run(options.run, quiet=True)
    loop = RewardRankerLoop(recipe, run)
    loop.prepare()
    checkpoint = loop.round_folder(1).path("checkpoint/config.json").parent
    reranker = RewardModel.load(checkpoint)
    table = [row("base", loop, reranker, by_task(read_programs(loop.shared.path("held_out.jsonl"))), [])]
    with service(checkpoint) as url:
        for kind in options.rewards.split(","):
            output = run.path(f"grpo/seed-{options.seed}/{kind}/config.json").parent
            log = grpo.train(
                run.path("iterate/sft"),
                loop.train_problems,
                grpo.reward_of(kind, url),
                output,
                steps=options.steps,
                seed=options.seed,
                lr=options.lr,
                max_new_tokens=recipe.iterate.max_new_tokens,
                use_cpu=True,
            )
            model = policy.load_generator(output)
            samples = policy.sample_completions(
                model, loop.text, loop.test_problems, recipe.iterate.candidates, recipe, run, f"grpo:{kind}"
            )
            completions = {problem.task_id: texts for problem, texts in zip(loop.test_problems, samples, strict=True)}
            table.append(
                row(
                    f"+{kind}",
                    loop,
                    reranker,
                    execute_completions(recipe, loop.shared, loop.problems, completions),
                    log,
                )
            )
            print(json.dumps(table[-1]), flush=True)
    print(markdown(table, options.steps))


def row(
    name: str,
    loop: RewardRankerLoop,
    reranker: RewardModel,
    programs: dict[str, list[ProgramRecord]],
    log: list[dict[str, Any]],
) -> dict[str, Any]:
    """What became of a generator, on held-out families."""
    scores: dict[str, float] = {}
    for task_id, group in programs.items():
        values = policy.score_completions(reranker, loop.problems[task_id].prompt, [p.completion for p in group])
        scores |= {p.program_id: score for p, score in zip(group, values, strict=True)}
    rates = [mean_pass_rate(group) for group in programs.values()]
    low, high = bootstrap(rates, resamples=1000, seed=1)
    mined = mine(programs, scores, {}, loop.recipe)  # held against their own programs that pass, not a reference
    weight = sum(p.copies for group in programs.values() for p in group)
    return {
        "row": name,
        "pass_rate": mean(rates),
        "low": low,
        "high": high,
        "score": sum(scores[p.program_id] * p.copies for group in programs.values() for p in group) / weight,
        "high_scoring": mined.num_hard / max(1, mined.num_failures),
        "first_reward": log[0]["reward"] if log else None,
        "last_reward": log[-1]["reward"] if log else None,
    }


def markdown(table: list[dict[str, Any]], steps: int) -> str:
    lines = [
        f"| {steps} steps | pass rate, held-out families | interval | mean score | high-scoring failures "
        "| reward, first and last step |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for r in table:
        rewards = "" if r["first_reward"] is None else f"{r['first_reward']:.3f} → {r['last_reward']:.3f}"
        lines.append(
            f"| {r['row']} | {r['pass_rate']:.3f} | {r['low']:.3f} to {r['high']:.3f} | {r['score']:+.2f} | "
            f"{100 * r['high_scoring']:.1f} % | {rewards} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
