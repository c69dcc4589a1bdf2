"""`make run`: starts the whole service on this host, sends one real request, and serves until Ctrl-C.

Ranks eight candidate programs for one problem: right, subtly wrong, too slow, and some that attack their judge. With
`--data FOLDER` the problem is one of HumanEval's and the candidates are what a language model wrote for it.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from plaudit import Client
from plaudit.schemas import CompletionReward, RewardItem
from sandbox.capabilities import HostCapabilities
from service.up.process import Child, command, spawn

HERE = Path(__file__).parent
CURL = """curl -s {url}/rank -H 'Content-Type: application/json' -d '{{"items": [{{
  "prompt": "Write a function add(a, b) that returns the sum of two numbers.",
  "completions": ["def add(a, b):\\n    return a - b\\n", "def add(a, b):\\n    return a + b\\n"],
  "tests": {{"kind": "assert", "asserts": ["assert add(1, 2) == 3"]}}}}]}}'"""


@dataclass(frozen=True, slots=True)
class Demo:
    """A problem with its candidates, and what is known of each candidate beforehand."""

    title: str
    known: str  # heading of that column
    item: RewardItem
    labels: list[str]


def own_problem() -> Demo:
    """The first problem of `problems.jsonl`."""
    row = json.loads((HERE / "problems.jsonl").read_text().splitlines()[0])
    meant = json.loads((HERE / "meant.json").read_text())
    return Demo(row["id"], "meant to be", RewardItem.model_validate(row), meant[row["id"]])


def human_eval(data: Path, num: int = 8) -> Demo:
    """The first HumanEval problem with enough different samples that pass and that fail, with their recorded labels."""
    passes = {row["sample_id"]: bool(row["gt_pass"]) for row in _rows(data / "labels.jsonl.gz") if "gt_pass" in row}
    problems = {row["task_id"]: row for row in _rows(data / "problems.python.jsonl.gz") if row["tests"]}
    samples = (row for row in _rows(data / "samples.python.jsonl.gz") if row["sample_id"] in passes)
    for task, group in itertools.groupby(samples, key=lambda row: row["task_id"]):
        if not task.startswith("HumanEval/") or task not in problems:
            continue
        programs = {row["solution"]: passes[row["sample_id"]] for row in group}
        halves = [[text for text, passed in programs.items() if passed is wanted] for wanted in (True, False)]
        if min(map(len, halves)) < num // 2:
            continue
        chosen = [text for pair in zip(*halves, strict=False) for text in pair][:num]
        problem = problems[task]
        tests = {
            "kind": "assert",
            "asserts": problem["tests"],
            "setup": problem["test_setup"] or "",
            "entry_point": problem["entry_point"],
        }
        item = RewardItem.model_validate(
            {"id": task, "prompt": problem["prompt"], "completions": chosen, "tests": tests}
        )
        return Demo(task, "recorded", item, ["pass" if programs[text] else "fail" for text in chosen])
    raise SystemExit(f"{data}: no HumanEval problem with {num // 2} samples that pass and as many that fail")


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            yield from map(json.loads, lines)
    except FileNotFoundError:
        raise SystemExit(f"{path} does not exist: --data takes the folder with problems, samples and labels") from None


def isolation_flags(flags: list[str]) -> list[str]:
    """Flags that accept level `userns` on a host without `strong` (no root, for example). Prints that."""
    host = HostCapabilities.probe()
    chosen = "PLAUDIT_ISOLATION_ACCEPT" in os.environ or any("--isolation-accept" in flag for flag in flags)
    if chosen or host.level != "userns":
        return []
    print(
        f"this host has isolation level {host.level!r}, which is enough for a demo; 'strong' needs "
        f"{'; '.join(host.missing)}"
    )
    return ["--isolation-accept", "userns"]


@contextmanager
def service(flags: list[str]) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """`plaudit up` as a child that ends with this process. Gives the process and its URL once it is ready."""
    process = spawn(Child("up", command("up", "--log-level", "warning", *flags), os.environ), subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        try:
            line = process.stdout.readline()
            if not line:
                raise SystemExit(process.wait())  # it has printed the reason
            yield process, json.loads(line)["url"]
        finally:
            process.terminate()
            process.wait()


def table(demo: Demo, results: list[CompletionReward], order: list[int], best: int | None) -> str:
    """The ranking as text, best first."""
    heading = f"{'':2}{'place':>5}  {'candidate':>9}  {demo.known:<11}  {'verdict':<18}  {'pass_rate':>9}"
    rows = [f"{heading}  {'score':>7}  {'reward':>6}"]
    for place, index in enumerate(order, start=1):
        completion = results[index]
        tests, score = completion.components["tests"], completion.components["rm"]
        rows.append(
            f"{'*' if index == best else '':2}{place:>5}  {index:>9}  {demo.labels[index]:<11}  "
            f"{tests.verdict or tests.status:<18}  {_number(tests.value, 9)}  {_number(score.value, 7)}  "
            f"{_number(completion.reward, 6, 4)}"
        )
    return "\n".join(rows)


def _number(value: float | None, width: int, digits: int = 2) -> str:
    return f"{'-' if value is None else f'{value:.{digits}f}':>{width}}"


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, help="folder with HumanEval problems, samples and labels")
    options.add_argument("--once", action="store_true", help="stop after the table")
    options.add_argument("flags", nargs="*", metavar="-- FLAG", help="flags for `plaudit up`")
    arguments = options.parse_args()
    demo = human_eval(arguments.data) if arguments.data else own_problem()

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(0)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
    print("starting plaudit: broker, API, scorer, executors ...", flush=True)
    with service([*arguments.flags, *isolation_flags(arguments.flags)]) as (process, url):
        with Client(url) as client:
            answer = client.rank([demo.item])
        result = answer.results[0]
        print(
            f"\nPOST {url}/rank: {demo.title}, {len(result.completions)} programs, "
            f"{len(getattr(demo.item.tests, 'asserts', []))} tests, model {answer.models[0].name} "
            f"{(answer.models[0].revision or '')[:19]}\n"
        )
        print(table(demo, result.completions, result.order, result.group.best))
        print(
            "\n* best. The reward is the pass rate, and the score breaks ties: it adds less than half of one test.\n"
            "The tests are the evidence, the score is an estimate."
        )
        if arguments.once:
            print("\nThat was all: plaudit stops now. `make run` serves until Ctrl-C, `make up` on port 8000.")
        else:
            print(f"\nplaudit is up at {url} (dashboard at /, reference at /docs). Ask it:\n\n{CURL.format(url=url)}\n")
            print("The command line is in .venv: `. .venv/bin/activate` puts `plaudit` on your PATH, `plaudit --help`.")
        if any(completion.status != "ok" for completion in result.completions):
            print("some completions got no reward: a server error, see the log above", file=sys.stderr)
            return 1
        if arguments.once:
            return 0
        print("Ctrl-C stops everything.", flush=True)
        return process.wait()


if __name__ == "__main__":
    sys.exit(main())
