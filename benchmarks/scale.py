"""The data stages at AceCoder's size: 87,149 questions with 16 programs each, made-up texts in the true schema.

Every part is a process of its own, so its time and its peak memory are its own. Programs are not run where a part is
about the stage itself: a judge that answers at once stands in for the sandbox. `engines` runs programs, on each engine.
What the papers' sizes cost is computed from these rates; nothing was run at those sizes beyond what the table says.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from training.data import judging
from training.data.judge_task import JudgeTask
from training.data.near_duplicates import near_duplicates
from training.data.tokens import words_of
from training.pipeline.cli import main as train
from training.pipeline.files import write_jsonl

ROOT = Path(__file__).parents[1]
QUESTIONS, SAMPLES, SEEDS = 87_149, 16, 124_000
WORDS = [f"word{at}" for at in range(20_000)]
WEIGHTS = list(itertools.accumulate(1 / (at + 5) for at in range(len(WORDS))))  # Zipf, more or less
COPIED = 50  # every so many questions is an earlier one with a few words changed
PARTS = ("collect", "duplicates", "sample", "verify", "pair", "synthesize")


def question(at: int) -> str:
    """90 words; every `COPIED`th question is the one before with five words changed."""
    if at % COPIED == COPIED - 1:
        words = question(at - 1).split(" ")
        words[:5] = [f"other{at}x{n}" for n in range(5)]
        return " ".join(words)
    return " ".join(random.Random(at).choices(WORDS, cum_weights=WEIGHTS, k=90))


def function(at: int, number: int) -> str:
    lines = [f"    value_{n} = sum(x * {n + number} for x in xs)\n" for n in range(12)]
    return f"def solve_{at}(xs):\n{''.join(lines)}    return {number}\n"


def asserts(at: int) -> list[str]:
    return [f"assert solve_{at}([{n}, {n + 1}, {n + 2}]) == {n % 5}" for n in range(16)]


def acecode_rows(count: int) -> Iterator[dict[str, Any]]:
    """Rows of TIGER-Lab/AceCode-87K."""
    for at in range(count):
        yield {
            "id": f"q_{at}",
            "source": ("evol", "oss", "stack_python_fns")[at % 3],
            "question": question(at),
            "test_cases": asserts(at),
            "inferences": [
                {
                    "model_name": "qwen",
                    "completion_id": number,
                    "completion": f"Here it is:\n\n```python\n{function(at, number)}```\n",
                    "pass_rate": 0.5,
                }
                for number in range(SAMPLES)
            ],
        }


def judge_at_once(tasks: Iterable[JudgeTask]) -> Iterator[dict[str, Any]]:
    """Verdicts by the program's text: what stands for a sandbox where the stage itself is measured."""
    for task in tasks:
        draw = random.Random(task.key)
        level = draw.random()
        verdicts = ["passed" if draw.random() < level else "wrong_answer" for _ in task.tests]
        if "NotImplemented" in task.solution:  # the stub of synthesize
            verdicts = ["wrong_answer"] * len(task.tests)
        elif task.program_id == "oracle":
            verdicts = ["passed"] * len(task.tests)
        rate = verdicts.count("passed") / max(1, len(verdicts))
        row = {"key": task.key, "program_id": task.program_id, "status": "ok", "pass_rate": rate}
        yield {**row, "verdict": "passed" if rate == 1 else "wrong_answer", "verdicts": verdicts, "detail": ""}


RECIPE = """
name = "scale"
stages = {stages}
[hub]
adapter = "acecode-87k"
path = "{folder}/rows.jsonl"
programs = {programs}
[split]
validation_share = 0.005
[sample]
n = {samples}
[sampler]
kind = "recorded"
path = "{folder}/samples.jsonl"
[pair]
max_per_problem = 0
weighted = false
[writer]
kind = "recorded"
path = "{folder}/written.jsonl"
[oracle]
kind = "recorded"
path = "{folder}/solved.jsonl"
[synthesize]
seeds = "{folder}/seeds.jsonl"
extend = 0
"""


def stage(name: str, folder: Path) -> None:
    """One stage of the recipe in this process, programs judged at once."""
    judging.judge_of = lambda recipe: judge_at_once
    for user in ("training.data.verify", "training.synthesis.filters"):
        sys.modules.get(user) or __import__(user)
        vars(sys.modules[user])["judge_of"] = judging.judge_of
    assert train([name, str(folder / "recipe.toml"), "--run", str(folder / "run")]) == 0


def duplicates(folder: Path, count: int) -> None:
    """Near duplicates among the questions, as `synthesize` looks for them."""
    found = set(near_duplicates((frozenset(words_of(question(at))) for at in range(count)), 0.7))
    planted = {(at - 1, at) for at in range(COPIED - 1, count, COPIED)}
    print(json.dumps({"found": len(found), "planted": len(planted), "missed": len(planted - found)}))


def prepare(part: str, folder: Path, count: int) -> tuple[int, Path]:
    """The files that a part reads; its rows, and the largest file."""
    if part == "collect":
        write_jsonl(folder / "rows.jsonl", acecode_rows(count))
        return count * SAMPLES, folder / "rows.jsonl"
    if part == "sample":
        rows = (
            {"task_id": row["id"], "completion": one["completion"]}
            for row in acecode_rows(count)
            for one in row["inferences"]
        )
        write_jsonl(folder / "samples.jsonl", rows)
        return count * SAMPLES, folder / "samples.jsonl"
    if part in ("verify", "pair"):
        name = "samples/00000-of-00001.jsonl" if part == "verify" else "verified.jsonl"
        return count * SAMPLES, folder / "run" / name
    if part == "synthesize":
        seeds = [f"s_{at}" for at in range(count)]
        write_jsonl(folder / "seeds.jsonl", ({"id": key, "program": function(0, 1)} for key in seeds))
        write_jsonl(
            folder / "written.jsonl",
            (
                {"key": key, "texts": [json.dumps({"question": question(at), "tests": asserts(at)})]}
                for at, key in enumerate(seeds)
            ),
        )
        write_jsonl(
            folder / "solved.jsonl",
            ({"key": key, "texts": [f"```python\n{function(at, 3)}```"]} for at, key in enumerate(seeds)),
        )
        return count, folder / "written.jsonl"
    return count, folder / "recipe.toml"


def child(arguments: list[str]) -> tuple[float, float, float, dict[str, Any]]:
    """Wall seconds, CPU seconds, peak MB and the printed summary of this script with these arguments."""
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, __file__, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environ()
    )
    assert process.stdout is not None
    out = process.stdout.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, (arguments, process.returncode)
    cpu_s = usage.ru_utime + usage.ru_stime
    return time.monotonic() - began, cpu_s, usage.ru_maxrss / 1024, json.loads(out.strip().splitlines()[-1])


def environ() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'client'}", "HF_HUB_OFFLINE": "1"}


def measure_parts(parts: list[str], questions: int, seeds: int) -> dict[str, tuple[int, float]]:
    """Print the table of parts; rows and CPU seconds by part."""
    print("| part | rows | largest input, GB | wall s | CPU s | rows per CPU second | peak memory, MB | result |")
    print("|---|---:|---:|---:|---:|---:|---:|---|")
    measured = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in parts:
            count = seeds if part == "synthesize" else questions
            stages = '["sample", "verify"]' if part == "verify" else f'["{part}"]'
            (folder / "recipe.toml").write_text(
                RECIPE.format(stages=stages, folder=folder, samples=SAMPLES, programs="true")
            )
            rows, largest = prepare(part, folder, count)
            size = largest.stat().st_size / 1e9
            wall_s, cpu_s, peak_mb, said = child(["--child", part, "--folder", name, "--count", str(count)])
            told = ", ".join(f"{key} {value}" for key, value in said.items() if key in TOLD)
            print(
                f"| {part} | {rows:,} | {size:.2f} | {wall_s:.0f} | {cpu_s:.0f} | {rows / cpu_s:,.0f} | "
                f"{peak_mb:,.0f} | {told} |",
                flush=True,
            )
            measured[part] = (rows, cpu_s)
            for used in ("rows.jsonl", "samples.jsonl", "run/programs.jsonl" if part == "collect" else ""):
                if used:
                    (folder / used).unlink(missing_ok=True)
    return measured


TOLD = ("problems", "programs", "found", "planted", "missed", "candidates", "distinct", "judged", "pairs", "tests")


def measure_engines(count: int) -> dict[str, float]:
    """Print programs per second through each engine; a program has 16 asserts and takes a few milliseconds."""
    print("\n| engine | programs | wall s | programs per second |\n|---|---:|---:|---:|")
    rates = {}
    ways = {
        "local, one process": [],
        "local, two processes": ["--verify.processes", "2"],
        "ray, one executor": ["--engine", "ray", "--ray.executors", "1"],
        "ray, two executors": ["--engine", "ray", "--ray.executors", "2"],
    }
    for way, flags in ways.items():
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "recipe.toml").write_text(
                RECIPE.format(stages='["collect", "verify"]', folder=folder, samples=SAMPLES, programs="true")
            )
            write_jsonl(folder / "rows.jsonl", acecode_rows(count // SAMPLES))
            with contextlib.redirect_stdout(sys.stderr):
                assert train(["collect", str(folder / "recipe.toml"), "--run", name]) == 0
            wall_s, *_ = child(["--child", "run", "--folder", name, "--flags", json.dumps(flags)])
            rates[way] = count / wall_s
            print(f"| {way} | {count:,} | {wall_s:.1f} | {rates[way]:.1f} |", flush=True)
    return rates


def computed(measured: dict[str, tuple[int, float]], rates: dict[str, float]) -> None:
    """Print what the papers' sizes cost, computed from the rates above."""
    print("\nComputed from the rates above, not run:\n")
    print("| at AceCoder's size | programs | CPU hours | of which the stage itself, without running programs |")
    print("|---|---:|---:|---:|")
    rate = rates.get("local, one process")
    for name, part, rows in (
        ("verify 16 programs of 87,149 questions", "verify", QUESTIONS * SAMPLES),
        ("synthesize 124,000 seeds: three runs of the oracle's, 12 mutants and a stub", "synthesize", SEEDS * 16),
    ):
        if rate and part in measured:
            done, cpu_s = measured[part]
            own_s = cpu_s / done * (SEEDS if part == "synthesize" else rows)
            print(f"| {name} | {rows:,} | {(rows / rate + own_s) / 3600:.1f} | {own_s / 3600:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=QUESTIONS)
    parser.add_argument("--seeds", type=int, default=20_000)
    parser.add_argument("--programs", type=int, default=800, help="programs that each engine runs; 0: none")
    parser.add_argument("--parts", nargs="*", default=list(PARTS))
    for hidden in ("--child", "--folder", "--flags"):
        parser.add_argument(hidden, default="", help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, default=0, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    folder = Path(flags.folder)
    if flags.child == "duplicates":
        duplicates(folder, flags.count)
    elif flags.child == "run":
        assert train(["verify", str(folder / "recipe.toml"), "--run", str(folder), *json.loads(flags.flags)]) == 0
    elif flags.child:
        stage(flags.child, folder)
    else:
        measured = measure_parts(flags.parts, flags.questions, flags.seeds)
        computed(measured, measure_engines(flags.programs) if flags.programs else {})
        from overhead import machine  # after the children: it imports torch

        print(f"\n{datetime.now(UTC):%Y-%m-%d}, {machine()}")


if __name__ == "__main__":
    main()
