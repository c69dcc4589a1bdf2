"""5,000 programs at once before two executors: waiting is not running, so none of them is over its time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from support.stack import Stack

NUM_ITEMS, NUM_PROGRAMS = 5, 1000
LIMITS = {"cpu_s": 0.5, "wall_s": 4}


@pytest.mark.extended
def test_no_program_of_5000_is_failed_for_the_crowd_it_came_with(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack(executors=2)
    tests = {"kind": "stdio", "cases": [{"stdin": "2000", "stdout": "1999000"}]}
    items = [
        {
            "id": str(at),
            "language": "python",
            "programs": [f"print(sum(range(int(input()))))  # {at} {number}" for number in range(NUM_PROGRAMS)],
            "tests": tests,
            "limits": LIMITS,
        }
        for at in range(NUM_ITEMS)
    ]
    with stack.client() as http:
        answer = http.post("/execute", json={"items": items, "deadline_ms": 290_000}, timeout=300)
    assert answer.status_code == 200, answer.text

    document = answer.json()
    verdicts = Counter(one.get("verdict", one["status"]) for item in document["results"] for one in item["programs"])
    assert verdicts == {"passed": NUM_ITEMS * NUM_PROGRAMS}
    assert document["status"] == "complete"
