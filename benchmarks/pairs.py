"""`pair` at AceCoder's size: 1.4 million candidates of 87 thousand questions, with made-up pass rates and real rows.

The stage runs as its own process on files of the form that `verify` writes (program texts included), so its time
and its peak memory are its own. The made-up rates: a question has a difficulty, a sample a quality around it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from overhead import ROOT, machine

RECIPE = """
name = "pairs"
stages = ["pair"]
[pair]
rejected_above_zero = true
max_per_problem = 0
weighted = false
"""
BODY = "def solve(xs):\n" + "".join(f"    value_{n} = sum(x * {n} for x in xs)\n" for n in range(12)) + "    return 0\n"


def write_run(folder: Path, questions: int, samples: int) -> int:
    """The files that `pair` reads; bytes of the larger one."""
    draw = random.Random(1)
    sources = ("evol", "oss", "stack")
    with (folder / "problems.jsonl").open("w") as problems, (folder / "verified.jsonl").open("w") as programs:
        for at in range(questions):
            task_id, tests = f"{sources[at % 3]}_{at}", draw.randint(5, 22)
            asserts = [f"assert solve([{n}]) == {n}" for n in range(tests)]
            problem = {
                "task_id": task_id,
                "base_id": task_id,
                "prompt": BODY,
                "entry_point": "solve",
                "canonical": None,
                "test_setup": "",
                "tests": asserts,
                "source": sources[at % 3],
                "license": "MIT",
                "fold": "validation" if at % 200 == 0 else "train",
            }
            problems.write(json.dumps(problem) + "\n")
            mean = draw.betavariate(0.7, 0.4)
            for number in range(samples):
                level = draw.betavariate(mean + 0.02, 1.02 - mean)
                rate = sum(draw.random() < level for _ in range(tests)) / tests
                row = {
                    "program_id": f"{draw.getrandbits(80):020x}",
                    "task_id": task_id,
                    "origin": "sample",
                    "completion": BODY,
                    "solution": BODY,
                    "source": "made up",
                    "license": "",
                    "sample_ids": [f"{task_id}#{number}"],
                    "copies": 1,
                    "iid_copies": 1,
                    "pass_rate": rate,
                    "label": "sandbox",
                }
                programs.write(json.dumps(row) + "\n")
    return (folder / "verified.jsonl").stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=87_149)
    parser.add_argument("--samples", type=int, default=16)
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "recipe.toml").write_text(RECIPE)
        size = write_run(folder, flags.questions, flags.samples)
        began = time.perf_counter()
        argv = [sys.executable, "-m", "training.pipeline.cli", "pair", str(folder / "recipe.toml"), "--run", name]
        out = subprocess.run(argv, check=True, capture_output=True, text=True, cwd=ROOT, env=dict(os.environ))
        took = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        found = json.loads(out.stdout)
        print(f"{datetime.now(UTC):%Y-%m-%d}, {machine()}\n")
        print("| candidates | questions | input, GB | pairs | questions with pairs | seconds | peak memory, MB |")
        print("|---:|---:|---:|---:|---:|---:|---:|")
        used = found["train_problems"] + found["validation_problems"]
        print(
            f"| {flags.questions * flags.samples:,} | {flags.questions:,} | {size / 1e9:.2f} | {found['pairs']:,} | "
            f"{used:,} | {took:.1f} | {peak:.0f} |"
        )


if __name__ == "__main__":
    main()
