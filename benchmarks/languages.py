"""Reference programs of public problem sets in every language, with their tests, through the `script` kind.

Reads the public data folder in place (`PLAUDIT_DATA`, `../shared/data`), runs every program that comes with a reference
solution, and prints a table and, by name, every one that does not pass. `languages.json` says why those do not, or the
data says itself that they fail; the exit code is 1 if another one fails. MBXP's "reference solutions" are a model's
programs that passed weak tests once; HumanEval-X's are written by people.

    python benchmarks/languages.py [--each N] [--only LANGUAGE ...] [--processes 2]
"""

from __future__ import annotations

import argparse
import gzip
import json
import multiprocessing
import os
import re
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sandbox.judge import judge
from sandbox.open import open_sandbox
from sandbox.types import Limits, Program, Report, ScriptSuite, Stop

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("PLAUDIT_DATA", ROOT / ".." / "shared" / "data"))
FILES = ("problems.multilang.jsonl.gz", "problems.more_languages.jsonl.gz")
LIMITS = Limits(cpu_s=10, memory_mb=1024)
KNOWN: dict[str, str] = json.loads(Path(__file__).with_suffix(".json").read_text())

# What the authors' own harnesses bring along, and the suites rely on.
CONSOLE_ASSERT = "console.assert = (fine, ...why) => { if (!fine) throw new Error('assertion failed ' + why) };\n"
COMPARE_LOGIC = """
namespace KellermanSoftware.CompareNetObjects
{
    public class Comparison { public bool AreEqual; }
    public class CompareLogic
    {
        public Comparison Compare(object a, object b) { return new Comparison { AreEqual = Same(a, b) }; }
        static bool Same(object a, object b)
        {
            if (a == null || b == null) return a == b;
            if (a is string || !(a is System.Collections.IEnumerable)) return a.Equals(b);
            var entries = a as System.Collections.IDictionary;
            if (entries != null)
            {
                var others = b as System.Collections.IDictionary;
                return others != null && entries.Count == others.Count
                    && entries.Keys.Cast<object>().All(key => others.Contains(key) && Same(entries[key], others[key]));
            }
            if (!(b is System.Collections.IEnumerable) || a.GetType() != b.GetType()) return false;
            var left = ((System.Collections.IEnumerable)a).Cast<object>().ToList();
            var right = ((System.Collections.IEnumerable)b).Cast<object>().ToList();
            return left.Count == right.Count && left.Zip(right, Same).All(same => same);
        }
    }
}
"""
CRATES = re.compile(r"^use (?:rand::Rng|regex::Regex|md5);$", re.MULTILINE)  # imported by every Rust problem there


def problems() -> Iterator[dict[str, Any]]:
    for name in FILES:
        with gzip.open(DATA / name, "rt", encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                if row["canonical_solution"] and row["language"] not in ("kotlin", "scala"):
                    yield row


def work_of(row: dict[str, Any]) -> tuple[str, Program, ScriptSuite]:
    """A problem as a program and a suite, put together as its authors' harness does."""
    language, program, test = row["language"], row["canonical_solution"], row["test_code"]
    if language == "javascript":
        test = CONSOLE_ASSERT + test
    elif language == "go":
        program = row["test_setup"] + program
    elif language == "csharp":
        test += COMPARE_LOGIC
    elif language == "rust":
        program = CRATES.sub("", program)
    return row["task_id"], Program(language, program), ScriptSuite(test)


def cause(report: Report) -> str:
    """One line of why it did not pass."""
    told = report.tests[0]
    compiled = (report.compile.stderr or report.compile.stdout) if report.compile else ""
    said = compiled if report.verdict == "compile_error" else told.stderr or told.stdout or told.detail
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    best = next((line for line in lines if re.search(r"error|exception|fatal|panicked", line, re.IGNORECASE)), "")
    return f"{report.verdict}: {(best or ' '.join(lines))[:160]}"


def work_through(share: list[dict[str, Any]]) -> list[tuple[str, bool, str, float]]:
    outcomes = []
    with open_sandbox("userns") as sandbox:
        here = {language.name for language in sandbox.languages()}
        for row in share:
            if row["language"] not in here:
                continue
            key, program, suite = work_of(row)
            began = time.perf_counter()
            report = judge(program, suite, LIMITS, Stop(), sandbox)
            took = time.perf_counter() - began
            outcomes.append((key, report.verdict == "passed", cause(report), took))
    return outcomes


def main() -> int:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--each", type=int, default=0, help="only so many of each set (0: all)")
    flags.add_argument("--only", nargs="*", default=[])
    flags.add_argument("--processes", type=int, default=2)
    options = flags.parse_args()
    if not (DATA / FILES[0]).exists():
        print(f"needs the public data folder (PLAUDIT_DATA): {DATA}", file=sys.stderr)
        return 3
    sets: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in problems():
        sets[row["task_id"].rpartition("/")[0]].append(row)
    failing = {
        row["task_id"]: "the data says that it fails"
        for found in sets.values()
        for row in found
        if row.get("canonical_passes_tests") is False
    }
    known = KNOWN | failing
    rows = [
        row
        for key, found in sorted(sets.items())
        for row in found[: options.each or None]
        if not options.only or row["language"] in options.only
    ]
    shares = [rows[start :: options.processes] for start in range(options.processes)]
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        outcomes = [outcome for share in pool.map(work_through, shares) for outcome in share]
    print("| set | passed | total | median s |\n| --- | --- | --- | --- |")
    by_set: dict[str, list[tuple[str, bool, str, float]]] = defaultdict(list)
    for outcome in outcomes:
        by_set[outcome[0].rpartition("/")[0]].append(outcome)
    for name, found in sorted(by_set.items()):
        passed, times = sum(one[1] for one in found), sorted(one[3] for one in found)
        print(f"| {name} | {passed} | {len(found)} | {times[len(times) // 2]:.2f} |")
    unexpected = 0
    for key, passed, why, _ in sorted(outcomes):
        if not passed:
            unexpected += key not in known
            print(f"{'known' if key in known else 'NEW'}\t{key}\t{why}\t{known.get(key, '')}")
    print(f"{sum(one[1] for one in outcomes)} passed, {unexpected} failed")
    return 1 if unexpected else 0


if __name__ == "__main__":
    sys.exit(main())
