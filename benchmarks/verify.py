"""`verify` against the engine that does the work, round by round in one run: how much of its rate reaches the labels.

The engine's rate is what one open sandbox judges in this process, one program after the other, nothing kept. The stage
does the same programs with its journal, from its tasks to its results; once with one sandbox of its own, once through
a service with one executor. Programs are new in every round, so that no cache answers. `--groups` problems of 16
programs and 16 asserts a round, as AceCode-87K has them. Opening the sandbox is timed apart: a stage pays it once.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from overhead import ROOT, machine, service

from sandbox.judge import judge
from sandbox.open import open_sandbox
from sandbox.sandbox import Sandbox
from sandbox.types import Limits, Program, Stop
from training.data.judge_local import judge_tasks
from training.data.judge_task import JudgeTask
from training.data.judging import judge_all
from training.data.test_formats import sandbox_suite
from training.data.verify_remote import judge_remotely
from training.pipeline import config
from training.pipeline.digests import content_key
from training.pipeline.run import Run

NUM_PROGRAMS = NUM_TESTS = 16
BODIES = ("sum(values) + start", "sum(values) - start", "len(values) + start", "sum(values, start)")


def tasks(groups: int, nonce: str) -> list[JudgeTask]:
    """Programs of which half are right, each new."""
    made = []
    for group in range(groups):
        asserts = tuple(f"assert total_{group}([{n}, {n + 1}], {n}) == {3 * n + 1}" for n in range(NUM_TESTS))
        for at in range(NUM_PROGRAMS):
            text = f"def total_{group}(values, start):\n    return {BODIES[at % 4]}  # {nonce} {at}\n"
            key = content_key(text, asserts)
            made.append(JudgeTask(key, key, text, "", asserts, f"total_{group}", 5.0))
    return made


def engine(sandbox: Sandbox, wanted: list[JudgeTask]) -> list[float]:
    rates = []
    for task in wanted:
        suite = sandbox_suite(task.kind, task.tests, task.setup, task.entry_point)
        rates.append(
            judge(Program("python", task.solution), suite, Limits(cpu_s=task.cpu_s), Stop(), sandbox).pass_rate
        )
    return rates


def rate(do: Callable[[], list[float]], count: int) -> float:
    began = time.perf_counter()
    rates = do()
    took = time.perf_counter() - began
    assert len(rates) == count, (len(rates), count)
    assert abs(sum(rates) / count - 0.5) < 0.1, rates[:8]
    return count / took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--groups", type=int, default=6)
    flags = parser.parse_args()
    count = flags.groups * NUM_PROGRAMS
    with (
        tempfile.TemporaryDirectory() as name,
        service(ROOT / "models" / "plaudit-mini") as url,
        open_sandbox(accept="userns") as sandbox,
    ):
        run = Run(Path(name), quiet=True)
        remote = config.VerifyConfig(in_flight=4, group=NUM_PROGRAMS)

        def at_once(turn: int) -> list[float]:
            return engine(sandbox, tasks(flags.groups, f"{turn} {time.time_ns()}"))

        def staged(turn: int) -> list[float]:
            wanted = tasks(flags.groups, f"stage {turn} {time.time_ns()}")
            found = judge_all(wanted, run, partial(judge_tasks, sandbox=sandbox), name=f"{turn}-local.jsonl")
            return [found[task.key]["pass_rate"] for task in wanted]

        def served(turn: int) -> list[float]:
            wanted = tasks(flags.groups, f"service {turn} {time.time_ns()}")
            judge = partial(judge_remotely, settings=remote, url=url)
            found = judge_all(wanted, run, judge, name=f"{turn}-remote.jsonl")
            return [found[task.key]["pass_rate"] for task in wanted]

        ratios: dict[str, list[float]] = {"stage": [], "service": []}
        rates: dict[str, list[float]] = {"engine": [], "stage": [], "service": []}
        for turn in range(-1, flags.rounds):
            now = {
                "engine": rate(partial(at_once, turn), count),
                "stage": rate(partial(staged, turn), count),
                "service": rate(partial(served, turn), count),
            }
            if turn >= 0:
                for way, value in now.items():
                    rates[way].append(value)
                for way, of in ratios.items():
                    of.append(now[way] / now["engine"])
        print(
            f"{datetime.now(UTC):%Y-%m-%d}, {machine()}; {count} programs x {NUM_TESTS} asserts a round, "
            f"{flags.rounds} rounds\n"
        )
        print("| way | programs/s | of the engine, median | lowest | highest |\n|---|---:|---:|---:|---:|")
        print(f"| the engine alone | {statistics.median(rates['engine']):.0f} | | | |")
        for way, text in (("stage", "`verify`, one sandbox of its own"), ("service", "`verify` through a service")):
            of = ratios[way]
            print(
                f"| {text} | {statistics.median(rates[way]):.0f} | {statistics.median(of):.2f} | {min(of):.2f} | "
                f"{max(of):.2f} |"
            )


if __name__ == "__main__":
    main()
