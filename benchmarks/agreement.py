"""Whether the split judge fails honest programs: its verdicts on public data, next to labels made in plain processes.

Every canonical solution must pass (HumanEval as `check`, MBPP as `assert`), and on real model samples "passed or not"
must agree with the label, which was made by running program and tests in one process. What differs is listed by name
with our verdict and reason. Samples that import a module which the labels' interpreter lacked and this host has are
listed, and counted apart: the two do not run the same program.

Asserts that are one call with literal values are judged without a process for the tests; `--long-way` makes every suite
need one, so that both ways can be held against the labels.

Programs that are the same letter for letter, with the same tests, are run once. A disagreement is run a second time
before it counts, and both verdicts are shown if they differ.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import random
import re
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sandbox.judge import judge
from sandbox.open import open_sandbox
from sandbox.sandbox import Sandbox
from sandbox.types import AssertSuite, CheckSuite, Limits, Program, Stop, Suite

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("PLAUDIT_DATA", ROOT / ".." / "shared" / "data"))
LIMITS = Limits(cpu_s=5)  # the labels' budget
SEED = 20_261_121
NO_MODULE = "load:ModuleNotFoundError"  # a label's error


@dataclass
class Tally:
    """What has been judged so far."""

    judged: int = 0
    runs: int = 0
    agreed: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    differing: list[dict[str, Any]] = field(default_factory=list)


def read(name: str) -> list[dict[str, Any]]:
    with gzip.open(DATA / name, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def suites(problem: dict[str, Any]) -> tuple[Suite, Suite]:
    """The suite for samples, of single asserts, and the one for the canonical solution, HumanEval in its own form."""
    asserts = AssertSuite(tuple(problem["tests"]), problem["test_setup"], problem["entry_point"])
    if not problem["task_id"].startswith("HumanEval"):
        return asserts, asserts
    test = re.sub(r"\ncheck\(\w+\)\s*\Z", "\n", problem["test_code"])
    return asserts, CheckSuite(problem["test_setup"] + "\n" + test, problem["entry_point"])


def verdict(sandbox: Sandbox, source: str, suite: Suite) -> tuple[str, str]:
    """A verdict and what the first failed test says."""
    report = judge(Program("python", source), suite, LIMITS, Stop(after_failures=1), sandbox)
    return report.verdict.value, next((test.detail for test in report.tests if test.verdict != "passed"), "")


def stratified(samples: list[dict[str, Any]], labels: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """As many of each model's passing and failing samples as there are of the others'."""
    strata = defaultdict(list)
    for sample in random.Random(SEED).sample(samples, len(samples)):
        strata[sample["model"], bool(labels[sample["sample_id"]]["gt_pass"])].append(sample)
    chosen: list[dict[str, Any]] = []
    while len(chosen) < count and strata:
        for key in list(strata):
            chosen.append(strata[key].pop())
            if not strata[key]:
                del strata[key]
    return chosen[:count]


def judge_samples(sandbox: Sandbox, samples: list[dict[str, Any]], labels: dict[str, Any], long_way: bool) -> Tally:
    by_task = {}
    for problem in read("problems.python.jsonl.gz"):
        suite = suites(problem)[0]
        assert isinstance(suite, AssertSuite)
        # A name that the setup assigns is more than the short way can do.
        by_task[problem["task_id"]] = replace(suite, setup=f"{suite.setup}\nlong_way = 1\n") if long_way else suite
    seen: dict[tuple[str, str], tuple[str, str]] = {}
    tally = Tally()
    began = time.monotonic()
    for sample in samples:
        key = sample["task_id"], sample["solution"]
        label = labels[sample["sample_id"]]
        right = bool(label["gt_pass"])
        if key not in seen:
            found = verdict(sandbox, sample["solution"], by_task[sample["task_id"]])
            tally.runs += 1
            if (found[0] == "passed") != right:
                again = verdict(sandbox, sample["solution"], by_task[sample["task_id"]])
                found = found if again[0] == found[0] else (f"{found[0]}, then {again[0]}", found[1] or again[1])
            seen[key] = found
        said, detail = seen[key]
        tally.judged += 1
        tally.verdicts[said] += 1
        if (said == "passed") == right:
            tally.agreed += 1
        else:
            tally.differing.append(
                {
                    "sample": sample["sample_id"],
                    "task": sample["task_id"],
                    "label": right,
                    "verdict": said,
                    "reason": detail,
                    "error": label.get("error") or "",
                }
            )
        if tally.judged % 1000 == 0:
            pace = f"{tally.runs / (time.monotonic() - began):.0f} runs/s"
            print(f"{tally.judged} judged, {len(tally.differing)} differ, {pace}", file=sys.stderr, flush=True)
    return tally


def canonical(sandbox: Sandbox) -> list[str]:
    """The table's lines about canonical solutions, and those that fail by name."""
    counts: Counter[tuple[str, bool]] = Counter()
    failed = []
    for problem in read("problems.python.jsonl.gz"):
        if not problem["canonical_solution"]:
            continue
        suite = suites(problem)[1]
        said, detail = verdict(sandbox, problem["canonical_solution"], suite)
        counts["check" if isinstance(suite, CheckSuite) else "assert", said == "passed"] += 1
        if said != "passed":
            failed.append(f"- {problem['task_id']}: {said}: {detail}")
    lines = ["| canonical solutions | passed | of |", "|---|---:|---:|"]
    for kind, name in (("check", "HumanEval, `check`"), ("assert", "MBPP, `assert`")):
        lines.append(f"| {name} | {counts[kind, True]} | {counts[kind, True] + counts[kind, False]} |")
    return lines + failed


def one_line(text: str, most: int = 160) -> str:
    return " ".join(text.split()).replace("|", "\\|")[:most]


def report(tally: Tally) -> list[str]:
    lacked = [one for one in tally.differing if one["error"] == NO_MODULE and one["verdict"] == "passed"]
    alike = tally.judged - len(lacked)
    lines = [
        "| model samples | |",
        "|---|---:|",
        f"| judged | {tally.judged} |",
        f"| different programs run | {tally.runs} |",
        f"| pass because this host has a module that the labels' interpreter lacked | {len(lacked)} |",
        f"| agree with the label, of the other {alike} | {tally.agreed} ({100 * tally.agreed / max(1, alike):.3f} %) |",
        f"| differ otherwise | {len(tally.differing) - len(lacked)} |",
        "",
        "Verdicts: " + ", ".join(f"{name} {count}" for name, count in tally.verdicts.most_common()) + ".",
    ]
    if tally.differing:
        lines += ["", "| sample | problem | label | verdict | reason |", "|---|---|---|---|---|"]
    for one in tally.differing:
        label = "passed" if one["label"] else f"failed {one['error']}"
        cells = one["sample"], one["task"], one_line(label, 60), one["verdict"], one_line(one["reason"])
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def machine() -> str:
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    cores = len(os.sched_getaffinity(0))
    return f"CPython {platform.python_version()}, {cores} cores, shared machine, load average {load} at the end"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=0, help="judge this many, the same of each model (default: all)")
    parser.add_argument("--only", help="judge the samples whose name contains this")
    parser.add_argument("--long-way", action="store_true", help="every suite gets a process for the tests")
    flags = parser.parse_args()
    if not (DATA / "samples.python.jsonl.gz").exists():
        raise SystemExit(f"needs the public data folder (PLAUDIT_DATA): {DATA}")
    labels = {label["sample_id"]: label for label in read("labels.jsonl.gz") if label.get("gt_pass") is not None}
    samples = [one for one in read("samples.python.jsonl.gz") if one["sample_id"] in labels and one["solution"]]
    if flags.only:
        samples = [one for one in samples if flags.only in one["sample_id"]]
    if flags.samples:
        samples = stratified(samples, labels, flags.samples)
    began = time.monotonic()
    with open_sandbox(accept="userns") as sandbox:
        lines = [] if flags.only else [*canonical(sandbox), ""]
        lines += report(judge_samples(sandbox, samples, labels, flags.long_way))
        level = sandbox.level
    took = time.monotonic() - began
    print(f"{datetime.now(UTC):%Y-%m-%d}, {machine()}, isolation level {level}; {took:.0f} s")
    print("every suite with a process for the tests\n" if flags.long_way else "")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
