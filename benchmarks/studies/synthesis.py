"""`synthesize` on tests that a model really wrote: what an oracle's filter leaves of them, by how good the oracle is.

The writer is on record: the statements of the public HumanEval problems with the 20 tests a problem that CodeGen-16B
wrote most often, of which about a third are right. So is the oracle: one program a problem of CodeLlama, of GPT-4, or
the reference solution. Whether a test is right is what the reference solution says of it; the stage never sees that.
The last row keeps the public problems out as an evaluation set, and so must drop all of them.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import json
import os
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks_path import ROOT
from overhead import machine

from training.data.public_data import data_file
from training.pipeline.config import Recipe, SourceConfig, read_recipe
from training.pipeline.files import read_jsonl, write_jsonl
from training.pipeline.records import read_problems
from training.pipeline.run import Run
from training.synthesis.synthesize import synthesize_problems

ORACLES = {"CodeLlama": "LDB:humaneval/seed/codellama", "GPT-4": "LDB:humaneval/seed/gpt-4-1106-preview"}
PER_PROBLEM = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, default=117)
    flags = parser.parse_args()
    base = read_recipe(ROOT / "training" / "recipes" / "mini.toml", environ=os.environ)
    tests = {r["task_id"]: r for r in read_jsonl(data_file(base.data, "generated_tests.jsonl.gz"))}
    public = {r["task_id"]: r for r in read_jsonl(data_file(base.data, "problems.python.jsonl.gz"))}
    names = sorted(tests)[: flags.problems]
    right = {
        (name, ast.unparse(ast.parse(test)))
        for name in names
        for test, ok in zip(tests[name]["tests"], tests[name]["passes_canonical"], strict=False)
        if ok
    }
    print(f"{datetime.now(UTC):%Y-%m-%d}, {machine()}; {len(names)} problems, at most {PER_PROBLEM} tests each\n")
    columns = (
        "oracle",
        "its programs right",
        "tests written",
        "tests kept",
        "written: right",
        "kept: right",
        "questions kept",
        "tests that nothing fails",
        "mutants killed, mean",
        "weak suites",
    )
    print(f"| {' | '.join(columns)} |\n|---{'|---:' * (len(columns) - 1)}|")
    with tempfile.TemporaryDirectory() as folder:
        for oracle in (*ORACLES, "the reference", "the reference, problems kept out"):
            programs = dict(oracle_programs(base.data, oracle, public))
            run = Run(Path(folder) / oracle.replace(" ", "-"), quiet=True)
            asked = [name for name in names if name in programs]
            recipe = recorded(base, run, asked, public, tests, {name: programs[name][0] for name in asked})
            if oracle.endswith("out"):
                kept_out = (str(data_file(base.data, "problems.python.jsonl.gz")),)
                recipe = dataclasses.replace(
                    recipe, synthesize=dataclasses.replace(recipe.synthesize, evaluation=kept_out)
                )
            solves = [rate for name in asked if (rate := programs[name][1]) is not None]
            print(line(oracle, recipe, run, right, sum(solves) / len(solves)), flush=True)


def oracle_programs(data: str, oracle: str, public: dict[str, Any]) -> Iterator[tuple[str, tuple[str, float | None]]]:
    """task_id → (program, whether it passes its problem's own tests)."""
    if oracle not in ORACLES:
        for name, row in public.items():
            if row["canonical_solution"]:
                yield name, (row["canonical_solution"], 1.0)
        return
    passed = {r["sample_id"]: r.get("gt_pass") for r in read_jsonl(data_file(data, "labels.jsonl.gz"))}
    for row in read_jsonl(data_file(data, "samples.python.jsonl.gz")):
        if row["model"] == ORACLES[oracle]:
            yield row["task_id"], (row["solution"], passed[row["sample_id"]])


def recorded(
    base: Recipe, run: Run, names: list[str], public: dict[str, Any], tests: dict[str, Any], programs: dict[str, str]
) -> Recipe:
    """A recipe whose writer and oracle are files in the run folder."""
    wrote = {name: {"question": public[name]["prompt"], "tests": tests[name]["tests"][:PER_PROBLEM]} for name in names}
    replies = [{"key": name, "texts": [json.dumps(reply)]} for name, reply in wrote.items()]
    write_jsonl(run.path("seeds.jsonl"), ({"id": name, "program": "pass", "source": "HumanEval"} for name in names))
    write_jsonl(run.path("writer.jsonl"), replies)
    fenced = ({"key": name, "texts": [f"```python\n{programs[name]}\n```"]} for name in names)
    write_jsonl(run.path("oracle.jsonl"), fenced)
    settings = dataclasses.replace(base.synthesize, seeds=str(run.path("seeds.jsonl")), extend=0, near_duplicate=1.0)
    return dataclasses.replace(
        base,
        synthesize=settings,
        writer=SourceConfig(kind="recorded", path=str(run.path("writer.jsonl"))),
        oracle=SourceConfig(kind="recorded", path=str(run.path("oracle.jsonl"))),
    )


def line(oracle: str, recipe: Recipe, run: Run, right: set[tuple[str, str]], solved: float) -> str:
    """One run of the stage as a row."""
    synthesize_problems(recipe, run)
    report = json.loads(run.path("synthesis/report.json").read_text())
    problems = read_problems(run.path("problems.jsonl"))
    written = [
        (row["key"], ast.unparse(ast.parse(test)))
        for row in read_jsonl(run.path("writer.jsonl"))
        for test in json.loads(row["texts"][0])["tests"]
    ]
    kept = [(name, test) for name, problem in problems.items() for test in problem.tests]
    rights = [f"{sum(pair in right for pair in pairs) / len(pairs):.0%}" if pairs else "–" for pairs in (written, kept)]
    killed = "–" if report["killed"] is None else f"{report['killed']:.0%}"
    useless = report["counts"].get("tests_nothing_fails", 0)
    return (
        f"| {oracle} | {solved:.0%} | {len(written)} | {len(kept)} | {rights[0]} | {rights[1]} | {len(problems)} | "
        f"{useless} | {killed} | {report['weak']} |"
    )


if __name__ == "__main__":
    main()
