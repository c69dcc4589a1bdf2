"""What `options.audit` sees, what it sees wrongly, and what it costs.

False alarms: reference solutions (each meant honestly) and programs sampled from models, judged against their tests
under audit; every flag of a reference solution is printed. Hits: the families of `tests/support/exploits.py`, which
were written against judges and not for these flags; those that raise none are printed.
Cost: the same programs with and without audit, in turns (A B, B A, ...), CPU time of the candidate's processes by their
cgroup and wall time of the whole judgement. Verdicts with and without must agree.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import random
import re
import statistics
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests"))

from sandbox.judge import judge  # noqa: E402
from sandbox.judge.audit import AUDIT_FLAGS  # noqa: E402
from sandbox.open import open_sandbox  # noqa: E402
from sandbox.sandbox import Sandbox  # noqa: E402
from sandbox.types import AssertSuite, CheckSuite, Limits, Options, Program, Report, Stop, Suite  # noqa: E402
from support.exploits import FAMILIES, OURS, completion  # noqa: E402

DATA = Path(os.environ.get("PLAUDIT_DATA", ROOT / ".." / "shared" / "data"))
LIMITS = Limits(cpu_s=5)


def read(name: str) -> list[dict[str, Any]]:
    with gzip.open(DATA / name, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def suite_of(problem: dict[str, Any], *, whole: bool) -> Suite:
    """The asserts one by one, or HumanEval's own form."""
    if whole and problem["task_id"].startswith("HumanEval"):
        test = re.sub(r"\ncheck\(\w+\)\s*\Z", "\n", problem["test_code"])
        return CheckSuite(problem["test_setup"] + "\n" + test, problem["entry_point"])
    return AssertSuite(tuple(problem["tests"]), problem["test_setup"], problem["entry_point"])


def seen(report: Report) -> set[str]:
    return set(report.flags) & AUDIT_FLAGS.keys()


def timed(sandbox: Sandbox, source: str, suite: Suite, options: Options, stop: Stop) -> tuple[Report, float, float]:
    began = time.perf_counter()
    report = judge(Program("python", source), suite, LIMITS, stop, sandbox, options)
    return report, 1000 * (time.perf_counter() - began), sum(test.cpu_ms for test in report.tests)


def watch_all(
    sandbox: Sandbox, work: list[tuple[str, str, Suite]], stop: Stop
) -> tuple[dict[str, set[str]], list[tuple[float, float, float, float]], int]:
    """Flags by program, the cost of each (wall and CPU, without and with), and how many verdicts differ."""
    flags: dict[str, set[str]] = {}
    costs, differing = [], 0
    for number, (key, source, suite) in enumerate(work):
        ways = [Options(), Options(audit=True)]
        done = {way.audit: timed(sandbox, source, suite, way, stop) for way in (ways if number % 2 else ways[::-1])}
        flags[key] = seen(done[True][0])
        differing += done[False][0].verdict != done[True][0].verdict
        costs.append((done[False][1], done[True][1], done[False][2], done[True][2]))
    return flags, costs, differing


def watched(sandbox: Sandbox, family: str) -> Report:
    """A family of exploits on the first of our own problems."""
    problem = OURS[0]
    suite = CheckSuite(problem.test, problem.entry_point, problem.prompt)
    program = Program("python", completion(family, problem.entry_point))
    return judge(program, suite, Limits(cpu_s=1, wall_s=10), Stop(), sandbox, Options(audit=True))


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure options.audit.")
    parser.add_argument("--samples", type=int, default=2000, help="programs of models to look at")
    count = parser.parse_args().samples
    problems = [problem for problem in read("problems.python.jsonl.gz") if problem["canonical_solution"]]
    by_id = {problem["task_id"]: problem for problem in problems}
    references = [(one["task_id"], one["canonical_solution"], suite_of(one, whole=True)) for one in problems]
    samples = [one for one in read("samples.python.jsonl.gz") if one["task_id"] in by_id]
    chosen = random.Random(20_261_121).sample(samples, min(count, len(samples)))
    sampled = [(one["sample_id"], one["solution"], suite_of(by_id[one["task_id"]], whole=False)) for one in chosen]

    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"load average {load} at the beginning\n"
    )
    print(
        "| programs | number | with a flag | verdicts that differ | wall ms, median: without, with, difference "
        "| CPU ms of the answers |\n|---|---:|---:|---:|---:|---:|"
    )
    with open_sandbox() as sandbox:
        told = []
        for name, work, stop in (("reference solutions", references, Stop()), ("samples of models", sampled, Stop(1))):
            flags, costs, differing = watch_all(sandbox, work, stop)
            off, on = (statistics.median(cost[at] for cost in costs) for at in (0, 1))
            apart = statistics.median(cost[1] - cost[0] for cost in costs)
            cpu_off, cpu_on = (statistics.median(cost[at] for cost in costs) for at in (2, 3))
            flagged = {key: words for key, words in flags.items() if words}
            print(
                f"| {name} | {len(work)} | {len(flagged)} | {differing} | {off:.1f}, {on:.1f}, {apart:+.1f} "
                f"| {cpu_off:.1f}, {cpu_on:.1f} |",
                flush=True,
            )
            told.append((name, flagged))
        tricks = {family: seen(watched(sandbox, family)) for family in FAMILIES}
        print(f"| families of exploits | {len(tricks)} | {sum(map(bool, tricks.values()))} | | | |\n")
    told.append(("families of exploits", tricks))
    print("families without a flag: " + ", ".join(family for family, words in tricks.items() if not words))
    for name, flagged in told:
        words = Counter(word for found in flagged.values() for word in found)
        print(f"{name}: " + (", ".join(f"{word} {number}" for word, number in words.most_common()) or "no flag"))
        if name == "reference solutions":
            print(*(f"  {key}: {', '.join(sorted(found))}" for key, found in flagged.items()), sep="\n")


if __name__ == "__main__":
    main()
