"""The judge against public data: reference solutions pass, and verdicts on real model samples agree with their labels.

The labels were made by running program and tests in one plain process, with an interpreter that had few packages: a
sample may pass here whose label says that it imports a module which was not there. Nothing else may differ.
"""

from __future__ import annotations

import gzip
import json
import multiprocessing
import os
import random
import re
import shutil
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from sandbox.judge import judge
from sandbox.open import open_sandbox
from sandbox.types import AssertSuite, CheckSuite, Limits, Program, Stop, Suite

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("PLAUDIT_DATA", ROOT / ".." / "shared" / "data"))
NUM_PROCESSES = 2
NUM_SAMPLES = 2_000
SEED = 20_261_121
LIMITS = Limits(cpu_s=5)

pytestmark = [
    pytest.mark.data,
    pytest.mark.root,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not (DATA / "problems.python.jsonl.gz").exists(), reason=f"needs the public data folder (PLAUDIT_DATA): {DATA}"
    ),
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("bwrap") is None, reason="needs root and bubblewrap (isolation level strong)"
    ),
]

Work = tuple[str, Program, Suite]
Outcome = tuple[str, str]  # verdict, and what the first failed test says


def read(name: str) -> list[dict[str, Any]]:
    with gzip.open(DATA / name, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def work_through(items: list[Work], stop: Stop, answers: Connection) -> None:
    """One process: its own sandbox, its share of the items."""
    outcomes: dict[str, Outcome] = {}
    with open_sandbox() as sandbox:
        for key, program, suite in items:
            report = judge(program, suite, LIMITS, stop, sandbox)
            detail = next((test.detail for test in report.tests if test.verdict != "passed"), "")
            outcomes[key] = (report.verdict.value, detail)
    answers.send(outcomes)


def judge_all(items: list[Work], stop: Stop) -> dict[str, Outcome]:
    context = multiprocessing.get_context("fork")
    running = []
    for share in range(NUM_PROCESSES):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=work_through, args=(items[share::NUM_PROCESSES], stop, theirs))
        process.start()
        theirs.close()
        running.append((process, ours))
    outcomes: dict[str, Outcome] = {}
    for process, answers in running:
        outcomes |= answers.recv()
        process.join()
        answers.close()
    return outcomes


def assert_suite(problem: dict[str, Any]) -> AssertSuite:
    return AssertSuite(tuple(problem["tests"]), problem["test_setup"], problem["entry_point"])


def check_suite(problem: dict[str, Any]) -> CheckSuite:
    """HumanEval's own form: the test text defines `check`, the judge calls it."""
    test = re.sub(r"\ncheck\(\w+\)\s*\Z", "\n", problem["test_code"])
    return CheckSuite(problem["test_setup"] + "\n" + test, problem["entry_point"])


def failed(outcomes: dict[str, Outcome]) -> dict[str, Outcome]:
    return {key: outcome for key, outcome in outcomes.items() if outcome[0] != "passed"}


def test_every_reference_solution_passes_its_tests() -> None:
    problems = [problem for problem in read("problems.python.jsonl.gz") if problem["canonical_solution"]]
    work: list[Work] = []
    for problem in problems:
        program = Program("python", problem["canonical_solution"])
        human_eval = problem["task_id"].startswith("HumanEval")
        work.append((problem["task_id"], program, check_suite(problem) if human_eval else assert_suite(problem)))
    outcomes = judge_all(work, Stop())
    assert len(outcomes) == 777
    assert failed(outcomes) == {}


@pytest.mark.extended
def test_verdicts_on_model_samples_agree_with_their_labels() -> None:
    suites = {problem["task_id"]: assert_suite(problem) for problem in read("problems.python.jsonl.gz")}
    labels = {label["sample_id"]: label for label in read("labels.jsonl.gz") if "gt_pass" in label}
    samples = [sample for sample in read("samples.python.jsonl.gz") if sample["sample_id"] in labels]
    chosen = random.Random(SEED).sample(samples, NUM_SAMPLES)
    work: list[Work] = [
        (sample["sample_id"], Program("python", sample["solution"]), suites[sample["task_id"]]) for sample in chosen
    ]
    outcomes = judge_all(work, Stop(after_failures=1))
    right = {key for key, label in labels.items() if label["gt_pass"]}
    has_module = {
        key
        for key, (verdict, _) in outcomes.items()
        if verdict == "passed" and labels[key].get("error") == "load:ModuleNotFoundError"
    }
    differing = {key: outcome for key, outcome in outcomes.items() if (outcome[0] == "passed") != (key in right)}
    assert {key: outcome for key, outcome in differing.items() if key not in has_module} == {}
