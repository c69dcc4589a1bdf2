"""RewardRanker's loop in the closed micro-world: both modes, several seeds, over the same generator and samples.

    python benchmarks/studies/microworld.py --run runs/micro --seeds 1,2,3

Runs `plaudit-train iterate training/recipes/micro.toml` for every seed and mode (what is there already is not made
again) and prints, as Markdown, one table over all seeds: rows as in RewardRanker's, mean and range over seeds; the
share of the mean-to-oracle gap that the reranker alone closes on held-out families, with intervals; and the share of
high-scoring failures in every round.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks_path import ROOT

from training.pipeline.config import read_recipe
from training.pipeline.run import Run
from training.rewardranker.iterate import iterate
from training.rewardranker.mining import MODES

RECIPE = ROOT / "training" / "recipes" / "micro.toml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/micro"))
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--only-print", action="store_true", help="make nothing; print what is there")
    options = parser.parse_args()
    seeds = [int(seed) for seed in options.seeds.split(",")]
    run, recipe = Run(options.run), read_recipe(RECIPE, environ=os.environ)
    if not options.only_print:
        for seed in seeds:
            for mode in MODES:
                settings = dataclasses.replace(recipe.iterate, mode=mode, seed=seed)
                iterate(dataclasses.replace(recipe, iterate=settings), run)
    print(markdown(options.run, seeds))


def reports(folder: Path, mode: str, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """The reports of this mode that are there."""
    paths = [folder / "iterate" / f"seed-{seed}" / mode / "report.json" for seed in seeds]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.is_file()]


def markdown(folder: Path, seeds: Sequence[int]) -> str:
    lines: list[str] = []
    for mode in MODES:
        found = reports(folder, mode, seeds)
        if not found:
            continue
        names = [name for name in found[0]["rows"][0] if name not in ("row", "low", "high")]
        lines += [
            f"### {mode.replace('_', ' ')}, seeds {', '.join(str(report['seed']) for report in found)}",
            "",
            f"| | {' | '.join(names)} |",
            f"|---|{'---:|' * len(names)}",
        ]
        for at, row in enumerate(found[0]["rows"]):
            cells = [spread([report["rows"][at][name] for report in found]) for name in names]
            lines.append(f"| {row['row']} | {' | '.join(cells)} |")
        lines += ["", "| seed | round | candidates of | gap closed | 95 % interval |", "|---:|---:|---|---:|---:|"]
        for report in found:
            lines += [
                f"| {report['seed']} | {g['round']} | {g['pool']} | {g['value']:.2f} | {g['low']:.2f} to "
                f"{g['high']:.2f} |"
                for g in report["gap_closed"]
            ]
        lines += [
            "",
            "| seed | round | completions mined | failures | high-scoring failures | share of failures |",
            "|---:|---:|---:|---:|---:|---:|",
        ]
        for report in found:
            lines += [
                f"| {report['seed']} | {m['round']} | {m['completions']} | {m['failures']} | "
                f"{m['high_scoring_failures']} | {100 * m['share_of_failures']:.1f} % |"
                for m in report["mined"]
            ]
        lines.append("")
    return "\n".join(lines)


def spread(values: Sequence[float]) -> str:
    """Mean, and the range where there is more than one value."""
    centre = f"{sum(values) / len(values):.1f}"
    return centre if len(set(values)) == 1 else f"{centre} ({min(values):.1f} to {max(values):.1f})"


if __name__ == "__main__":
    main()
