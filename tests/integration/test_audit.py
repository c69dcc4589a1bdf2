"""`POST /audit` over HTTP and real executors: each weakness that a suite can have is found and named."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from plaudit.client import Client
from plaudit.schemas import AuditReport
from support.stack import Stack

CLAMP = """\
def clamp(x, low, high):
    if x < low:
        return low
    if x > high:
        return high
    return x
"""
STRONG = [
    "assert clamp(5, 0, 10) == 5",
    "assert clamp(-1, 0, 10) == 0",
    "assert clamp(11, 0, 10) == 10",
    "assert clamp(0, 0, 10) == 0",
    "assert clamp(10, 1, 10) == 10",
    "assert clamp(3, 3, 3) == 3",
]
WORDS = """\
def words(text):
    return list(set(text.split()))
"""


def audit(http: httpx.Client, tests: Any, **item: Any) -> AuditReport:
    response = http.post("/audit", json={"items": [{"tests": tests, **item}]}, timeout=120)
    assert response.status_code == 200, response.text
    (report,) = response.json()["results"]
    return AuditReport.model_validate(report)


def asserts(*texts: str) -> dict[str, Any]:
    return {"kind": "assert", "asserts": list(texts)}


def test_a_strong_suite_is_good_and_has_no_problems(http: httpx.Client) -> None:
    programs = [
        {"source": "def clamp(x, low, high):\n    return max(low, min(high, x))\n", "right": True},
        {"source": "def clamp(x, low, high):\n    return min(low, max(high, x))\n", "right": False},
        {"source": "def clamp(x, low, high):\n    return x\n", "right": False},
    ]
    report = audit(http, asserts(*STRONG), reference=CLAMP, programs=programs)
    assert (report.verdict, report.problems) == ("good", [])
    assert report.hackable is False
    assert report.mutation_score is not None
    assert report.mutation_score.rate >= 0.8
    assert report.mutation_score.low < report.mutation_score.rate <= report.mutation_score.high
    assert report.false_accepts is not None
    assert (report.false_accepts.count, report.false_accepts.total) == (0, 2)
    assert report.false_rejects is not None
    assert (report.false_rejects.count, report.false_rejects.total) == (0, 1)
    assert [test.flaky for test in report.tests] == [False] * len(STRONG)
    assert all(test.kills for test in report.tests)
    assert all(survivor.diff.startswith("--- reference") for survivor in report.survivors)


def test_a_vacuous_test_and_a_duplicate_are_named(http: httpx.Client) -> None:
    tests = asserts(*STRONG, "assert clamp is not None", "assert clamp( 5,0, 10 ) == (5)  # again")
    report = audit(http, tests, reference=CLAMP)
    assert [test.vacuous for test in report.tests] == [False] * 6 + [True, False]
    assert [test.duplicate_of for test in report.tests] == [None] * 7 + [0]
    assert report.verdict == "weak"
    assert [problem.split()[0] for problem in report.problems] == ["Vacuous,", "Duplicates:"]


def test_a_test_that_hangs_on_the_order_of_a_set_is_flaky(http: httpx.Client) -> None:
    order = "assert words('a b c d e f g h')[0] == 'a' or words('a b c d e f g h')[-1] == 'a'"
    report = audit(http, asserts("assert sorted(words('a b')) == ['a', 'b']", order), reference=WORDS, hash_seeds=12)
    assert [test.flaky for test in report.tests] == [False, True]
    assert any("hash seed: test 1" in problem for problem in report.problems)


def test_a_suite_that_shows_all_its_answers_is_hackable(http: httpx.Client) -> None:
    prompt = 'def clamp(x, low, high):\n    """Into the range.\n\n    >>> clamp(5, 0, 10)\n    5\n    """\n'
    report = audit(http, asserts(STRONG[0], "assert clamp(5, 2, 7) == 5"), reference=CLAMP, prompt=prompt)
    assert report.hackable is True
    assert report.verdict == "weak"
    assert report.hack is not None
    assert "knows only the visible examples" in report.problems[0]


def test_a_wrong_suite_is_broken_and_the_test_is_named(http: httpx.Client) -> None:
    report = audit(http, asserts(STRONG[0], "assert clamp(11, 0, 10) == 11"), reference=CLAMP)
    assert report.verdict == "broken"
    assert report.reference_passes is False
    assert "test 1 fails" in report.problems[0]
    assert report.mutation_score is None


def test_a_weak_suite_leaves_mutants_and_wrong_programs_alive(http: httpx.Client) -> None:
    wrong = {"source": "def clamp(x, low, high):\n    return min(x, high)\n", "right": False}
    report = audit(http, asserts(STRONG[0], STRONG[2]), reference=CLAMP, programs=[wrong])
    assert report.verdict == "weak"
    assert report.mutation_score is not None
    assert report.mutation_score.rate < 0.8
    assert report.survivors
    assert report.false_accepted == [0]
    assert any("wrong programs are accepted: program 0" in problem for problem in report.problems)


def test_a_right_program_that_is_rejected_is_a_broken_suite(http: httpx.Client) -> None:
    right = {"source": "def words(text):\n    return sorted(set(text.split()), reverse=True)\n", "right": True}
    tests = asserts("assert words('a b') == ['a', 'b']")
    report = audit(http, tests, reference="def words(text):\n    return sorted(set(text.split()))\n", programs=[right])
    assert report.verdict == "broken"
    assert report.false_rejected == [0]


KINDS: dict[str, tuple[dict[str, Any], str, int]] = {
    "function": (
        {"entry_point": "add", "cases": [{"args": [1, 2], "expected": 3}, {"args": [1, 2], "expected": 3}]},
        "def add(a, b):\n    return a + b\n",
        2,
    ),
    "check": (
        {"entry_point": "add", "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n"},
        "def add(a, b):\n    return a + b\n",
        1,
    ),
    "stdio": (
        {"cases": [{"stdin": "1 2\n", "stdout": "3"}, {"stdin": "1 2\n", "stdout": "3"}]},
        "a, b = map(int, input().split())\nprint(a + b)\n",
        2,
    ),
    "pytest": (
        {
            "source": "def test_one():\n    assert add(1, 2) == 3\n\ndef test_two():\n    assert add(1, 2) == 3\n",
            "entry_point": "add",
        },
        "def add(a, b):\n    return a + b\n",
        2,
    ),
    "unittest": (
        {
            "source": "import unittest\n\nclass T(unittest.TestCase):\n    def test_one(self):\n"
            "        assert add(1, 2) == 3\n\n    def test_two(self):\n        assert add(1, 2) == 3\n",
            "entry_point": "add",
        },
        "def add(a, b):\n    return a + b\n",
        2,
    ),
    "script": ({"source": "assert add(1, 2) == 3\n"}, "def add(a, b):\n    return a + b\n", 1),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_suite_is_audited(http: httpx.Client, kind: str) -> None:
    suite, reference, num_tests = KINDS[kind]
    report = audit(http, {"kind": kind, **suite}, reference=reference)
    assert report.reference_passes is True, report
    assert len(report.tests) == num_tests
    assert report.mutation_score is not None, report.unmeasured
    assert [test.flaky for test in report.tests] == [False] * num_tests
    assert [test.duplicate_of for test in report.tests] == [None, 0][:num_tests]
    assert report.hackable is (None if kind == "script" else True), report.unmeasured
    if num_tests == 1:
        assert any("is judged as one test" in text for text in report.unmeasured)


def test_other_languages_get_what_needs_no_mutation(http: httpx.Client) -> None:
    cases = [{"stdin": "1 2\n", "stdout": "3"}, {"stdin": "2 2\n", "stdout": "4"}]
    reference = 'const [a, b] = require("fs").readFileSync(0, "utf8").split(" ").map(Number); console.log(a + b);\n'
    wrong = {"source": "console.log(3);\n", "right": False}
    report = audit(
        http, {"kind": "stdio", "cases": cases}, language="javascript", reference=reference, programs=[wrong]
    )
    if report.reference_passes is None:
        pytest.skip("this host has no JavaScript")
    assert report.verdict == "good"
    assert report.mutation_score is None
    assert any("only of Python" in text for text in report.unmeasured)
    assert report.false_accepts is not None
    assert report.false_accepts.count == 0


@pytest.mark.parametrize(
    ("tests", "reference"),
    [
        (asserts("assert True"), CLAMP),
        (asserts("assert clamp("), CLAMP),
        (asserts(f"assert {'(' * 500}1{')' * 500}"), f"x = {'-' * 5000}1"),
        (asserts("assert clamp(1, 2, 3) == 2"), "while True: pass"),
        (asserts("assert clamp(1, 2, 3) == 2"), "import os; os._exit(0)"),
        (asserts("import os; os.kill(os.getppid(), 9)"), CLAMP),
        (asserts("assert clamp(1, 2, 3) == 2"), "def clamp(*a):\n    return 2\n" + "\x00"),
    ],
    ids=["vacuous", "no-python", "deep", "endless", "exit", "kill", "nul"],
)
def test_a_hostile_suite_or_program_is_a_finding(http: httpx.Client, tests: Any, reference: str) -> None:
    report = audit(http, tests, reference=reference, limits={"cpu_s": 1})
    assert report.verdict == "broken"
    assert report.problems


def test_a_budget_stops_the_mutants_and_says_so(http: httpx.Client) -> None:
    reference = (
        "def count(n):\n    total = 0\n    for i in range(300000 * n):\n        total += i % 7\n    return total\n"
    )
    report = audit(
        http, asserts("assert count(1) == 899997"), reference=reference, mutants=40, budget_cpu_s=0.01, hash_seeds=1
    )
    assert report.mutation_score is None
    assert report.spent_cpu_ms > 10
    assert any("budget_cpu_s" in text for text in report.unmeasured)


def test_the_clients_audit_answers_item_by_item(stack: Stack) -> None:
    items = [{"id": str(at), "tests": asserts(*STRONG[:at]), "reference": CLAMP, "mutants": 4} for at in (1, 2, 3)]
    with Client(stack.url) as client:
        answer = client.audit(items)
    assert [report.id for report in answer.results] == ["1", "2", "3"]
    assert [len(report.tests) for report in answer.results] == [1, 2, 3]
    assert answer.status == "complete"


def test_a_look_up_table_of_unittests_values_is_tried(http: httpx.Client) -> None:
    one = "        self.assertEqual(double(2), 4)\n"
    source = f"import unittest\nclass T(unittest.TestCase):\n    def test_double(self):\n{one}"
    tests = {"kind": "unittest", "source": source, "entry_point": "double"}
    report = audit(http, tests, reference="def double(x):\n    return x * 2\n")
    assert report.hackable is True
    assert report.hack is not None
    assert "4" in report.hack


@pytest.mark.parametrize(
    ("tests", "verdict"),
    [
        (asserts("assert sq(3) != 77"), "broken"),
        (
            {"kind": "check", "test": "def check(candidate):\n    assert candidate(3) != 77\n", "entry_point": "sq"},
            "broken",
        ),
        (asserts("assert sq"), "weak"),
    ],
)
def test_a_suite_that_none_passes_is_not_good(http: httpx.Client, tests: Any, verdict: str) -> None:
    report = audit(http, tests, reference="def sq(x):\n    return x * x\n")
    assert report.verdict == verdict
    assert report.problems
    assert any("say little" in line for line in report.unmeasured)


def test_names_of_the_suite_are_not_learnt_by_heart(http: httpx.Client) -> None:
    report = audit(
        http, asserts("xs = [1, 2, 3]\nassert total(xs) == 6"), reference="def total(x):\n    return sum(x)\n"
    )
    assert report.hackable is None
    assert any(line.startswith("hackability") for line in report.unmeasured)
