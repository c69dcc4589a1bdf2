"""`code_eval` against the running service, called as lm-evaluation-harness calls it; against the formula of pass@k."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from plaudit.errors import InfraError, PlauditError
from plaudit.integrations.code_eval import CodeEval
from support.scripted import Scripted
from support.stack import Stack

RIGHT, WRONG, ENDS = (
    "def add(a, b):\n    return a + b\n",
    "def add(a, b):\n    return a * b\n",
    "import os\nos._exit(0)\n",
)
EQUAL = "class E:\n    def __eq__(self, other):\n        return True\n\ndef add(a, b):\n    return E()\n"
CHECK = "def check(candidate):\n    assert candidate(2, 3) == 5\n    assert candidate(0, 1) == 1\n\ncheck(add)"


def test_humaneval_and_mbpp_as_the_harness_asks(stack: Stack) -> None:
    predictions = [[RIGHT, WRONG, RIGHT, WRONG], [WRONG, RIGHT, ENDS, EQUAL]]
    references = [CHECK, "assert add(2, 3) == 5\nassert add(0, 1) == 1"]
    pass_at_k, results = CodeEval(stack.url).compute(predictions=predictions, references=references, k=[1, 2, 8])
    passed = [[one["passed"] for _, one in results[at]] for at in range(2)]
    assert passed == [
        [True, False, True, False],
        [False, True, False, False],
    ]
    assert set(pass_at_k) == {"pass@1", "pass@2"}  # 8 is more than there are
    for size in (1, 2):
        shares = [
            sum(any(own[at] for at in subset) for subset in itertools.combinations(range(4), size))
            / len(list(itertools.combinations(range(4), size)))
            for own in passed
        ]
        assert pass_at_k[f"pass@{size}"] == pytest.approx(sum(shares) / 2)
    assert results[0][0] == (0, {"task_id": 0, "passed": True, "result": "passed", "completion_id": 0})
    assert results[0][1][1]["result"].startswith("failed: ")


def test_an_endless_candidate_is_timed_out(stack: Stack) -> None:
    endless = "def add(a, b):\n    while True:\n        pass\n"
    _, results = CodeEval(stack.url).compute(
        predictions=[[endless]], references=["assert add(1, 1) == 2"], k=[1], timeout=0.5
    )
    assert results[0][0][1]["result"] == "timed out"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"predictions": [[]]}, "predictions\\[0\\]: no candidate"),
        ({"references": ["x = 1"]}, "references\\[0\\]: neither asserts"),
        ({"references": []}, "references has 0"),
    ],
)
def test_what_cannot_be_evaluated_is_said_before_anything_is_sent(changed: dict[str, Any], said: str) -> None:
    asked: dict[str, Any] = {"predictions": [[RIGHT]], "references": ["assert add(1, 1) == 2"], "k": [1], **changed}
    with pytest.raises(PlauditError, match=said):
        CodeEval("http://127.0.0.1:9").compute(**asked)


def test_an_outage_is_an_error_and_no_failed_candidate(scripted: Scripted) -> None:
    scripted.says(InfraError("by the script"))
    with pytest.raises(PlauditError):
        CodeEval(scripted.url, timeout_s=0.5).compute(
            predictions=[[RIGHT]], references=["assert add(1, 1) == 2"], k=[1]
        )
