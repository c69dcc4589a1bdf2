"""Tests made by input generators: what is kept, what is dropped, and in which order."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from plaudit.errors import HostLacks
from sandbox.sandbox import Sandbox
from training.data.fetch import json_objects
from training.data.generated_inputs import MAX_CASES, cases_of, chosen_cases, is_usable, problem_of
from training.data.judge_local import judge_tasks, local_sandbox
from training.data.judge_task import task_of
from training.data.programs import program_of

GENERATOR = (
    "def generate_input(rng):\n    return {'xs': [rng.randint(0, 9) for _ in range(4)], 'k': rng.randint(1, 3)}\n"
)
SUM = "# import necessary packages\nimport math\n\n# main function\ndef main_solution(xs, k):\n    return sum(xs) * k\n"


def row(reference: str, generator: str = GENERATOR) -> dict[str, Any]:
    return {
        "task_id": "codeio/1",
        "description": 'Add the numbers, "k" times.',
        "io_spec": "Input:\n  `xs` (list of int)\n\nOutput:\n  `return` (int)",
        "reference": reference,
        "entry_point": "main_solution",
        "input_generator": generator,
        "source": "own",
        "license": "Apache-2.0",
    }


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    try:
        with local_sandbox() as opened:
            yield opened
    except HostLacks as error:
        pytest.skip(str(error))


def test_the_problem_continues_its_signature_and_drops_boilerplate() -> None:
    problem = problem_of(row(SUM), ('{"args": [[1, 2], 3], "expected": 9}',))
    assert problem.prompt.startswith('import math\n\ndef main_solution(xs, k):\n    """\n    Add the numbers')
    assert problem.canonical is not None
    assert "necessary packages" not in problem.canonical
    compile(problem.prompt + "    return 0\n", "prompt", "exec")


@pytest.mark.parametrize(
    ("reference", "usable"),
    [
        (SUM, True),
        (SUM.replace("import math", "import numpy as np"), False),
        (SUM.replace("import math", "from scipy.stats import norm"), False),
        (SUM.replace("main_solution", "other"), False),
        (SUM.replace("sum(xs) * k", "sum(xs * k"), False),
        (SUM + "#" * 2000, False),
    ],
    ids=["good", "numpy", "scipy", "name", "syntax", "long"],
)
def test_only_short_references_without_heavy_imports_are_run(reference: str, usable: bool) -> None:
    assert is_usable(row(reference)) == usable


def test_cases_with_different_answers_come_first_and_few_answers_are_no_test() -> None:
    cases = [{"args": [n], "expected": n % 3} for n in range(16)]
    kept = [json.loads(case) for case in chosen_cases(cases)]
    assert len(kept) == MAX_CASES
    assert {case["expected"] for case in kept[:3]} == {0, 1, 2}
    assert chosen_cases([{"args": [n], "expected": 1} for n in range(16)]) == ()
    assert chosen_cases([{"args": [n], "expected": n} for n in range(3)]) == ()
    assert chosen_cases([{"args": ["x" * 5000, n], "expected": n} for n in range(16)]) == ()


def test_the_reference_passes_its_tests_and_a_wrong_program_fails(sandbox: Sandbox) -> None:
    tests = cases_of(row(SUM), sandbox)
    assert 4 <= len(tests) <= MAX_CASES
    problem = problem_of(row(SUM), tests)
    programs = [
        program_of(problem, text, "mutant", "own", "")
        for text in (SUM, SUM.replace("sum(xs) * k", "sum(xs)"), SUM.replace("sum(xs) * k", "k * sum(reversed(xs))"))
    ]
    results = list(judge_tasks([task_of(problem, program, 1.0) for program in programs], sandbox))
    assert results[0]["pass_rate"] == results[2]["pass_rate"] == 1.0
    assert results[1]["pass_rate"] < 1.0


@pytest.mark.parametrize(
    "body",
    [
        "import random\n    return random.random()",
        "return None",
        "return (sum(xs), k)",
        "return {1: sum(xs)}",
        "return float('nan')",
        "raise ValueError(k)",
        "return print",
        "import sys\n    sys.exit(0)",
        "while True:\n        pass",
        "xs.append(k)\n    print('noise')\n    return 7",
    ],
    ids=["random", "none", "tuple", "int keys", "nan", "raises", "function", "exits", "endless", "constant"],
)
def test_answers_that_cannot_be_tests_are_dropped(body: str, sandbox: Sandbox) -> None:
    assert cases_of(row(f"def main_solution(xs, k):\n    {body}\n"), sandbox) == ()


@pytest.mark.parametrize(
    "generator",
    [
        "def generate_input(rng):\n    return {'ys': 1, 'k': rng.randint(1, 9)}\n",
        "def generate_input(rng):\n    return {'xs': {1, 2}, 'k': rng.randint(1, 9)}\n",
        "def generate_input(rng):\n    return 5\n",
    ],
    ids=["other names", "set", "no dict"],
)
def test_inputs_that_do_not_fit_the_reference_make_no_tests(generator: str, sandbox: Sandbox) -> None:
    assert cases_of(row(SUM, generator), sandbox) == ()


def test_a_reference_that_prints_and_changes_its_input_still_makes_tests(sandbox: Sandbox) -> None:
    reference = "def main_solution(xs, k):\n    print(xs)\n    xs.sort()\n    xs.append(k)\n    return xs\n"
    assert len(cases_of(row(reference), sandbox)) >= 4


def test_json_objects_are_read_one_after_the_other_over_any_lines() -> None:
    assert list(json_objects('{"a": 1}\n{\n  "b": {"c": "}{"}\n}\n')) == [{"a": 1}, {"b": {"c": "}{"}}]
    assert list(json_objects("")) == []
