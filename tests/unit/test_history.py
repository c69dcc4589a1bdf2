"""The checker of histories under faults finds each kind of broken promise, and nothing in an honest history."""

from __future__ import annotations

import pytest

from support.history import Attempt, Fault, Request, violations

REDIS = [Fault("redis", "killed", 10.0, 11.0)]


def found(*attempts: Attempt, must_succeed: bool = False) -> list[str]:
    return violations([Request("r", list(attempts), must_succeed)], REDIS, recovery_s=5.0)


@pytest.mark.parametrize(
    "attempts",
    [
        [Attempt(0, 1, "right")],
        [Attempt(9, 12, "broker_unavailable"), Attempt(15, 16, "right")],
        [Attempt(12, 15.5, "job_lost")],
        [Attempt(0, 1, "cancelled"), Attempt(2, 3, "cancelled")],
        [Attempt(0, 0.1, "left")],
    ],
)
def test_an_honest_history_breaks_nothing(attempts: list[Attempt]) -> None:
    assert found(*attempts) == []


@pytest.mark.parametrize(
    ("attempts", "why"),
    [
        ([Attempt(0)], "no end"),
        ([Attempt(0, 31, "right")], "right after 31"),
        ([Attempt(0, 1, "wrong: 3 is not 4")], "3 is not 4"),
        ([Attempt(0, 1, "broker_unavailable")], "nothing of that kind"),
        ([Attempt(17, 18, "broker_unavailable")], "nothing of that kind"),
        ([Attempt(10, 11, "no key")], "no known kind"),
        ([Attempt(10, 11, "shutting_down")], "nothing of that kind"),
        ([Attempt(0, 1, "cancelled"), Attempt(2, 3, "right")], "told cancelled"),
    ],
)
def test_a_broken_promise_is_found(attempts: list[Attempt], why: str) -> None:
    (line,) = found(*attempts)
    assert why in line


def test_a_caller_who_went_on_must_have_been_answered() -> None:
    assert found(Attempt(10, 11, "broker_unavailable"), must_succeed=True) == ["r: no right answer in the end"]
