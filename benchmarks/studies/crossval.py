"""Two cross-validations against each other, problem by problem: `crossval.json` before and after.

    plaudit-train crossval training/recipes/mini.toml --run runs/mini
    python benchmarks/studies/crossval.py runs/before/crossval.json runs/mini/crossval.json

Differences are paired, so what makes a problem hard for both is out of them. Intervals: 95 %, bootstrap over problems.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import benchmarks_path  # noqa: F401

from training.evaluation.crossval import compare
from training.evaluation.report import format_interval


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    flags = parser.parse_args()
    before, after = (json.loads(path.read_text(encoding="utf-8")) for path in (flags.before, flags.after))
    print("| | after less before | problems |\n|---|---|---:|")
    for name, difference in compare(before, after).items():
        print(f"| {name.replace('_', ' ')} | {format_interval(difference)} | {difference['problems']} |")


if __name__ == "__main__":
    main()
