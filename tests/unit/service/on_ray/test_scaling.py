"""How many executing actors there should be."""

from __future__ import annotations

from typing import Any

from service.on_ray.options import DeploymentOptions
from service.on_ray.scaling import ExecutorScaling, QueueDemand


def scaling(**options: Any) -> ExecutorScaling:
    """Actors of 4 executors, from 1 to 16 of them; 8 jobs for each executor."""
    return ExecutorScaling(DeploymentOptions(**{"min_executors": 4, "max_executors": 64, "idle_s": 60.0} | options))


def test_a_burst_gets_as_many_as_it_needs_at_once() -> None:
    assert scaling().target(QueueDemand(5 * 32, 0.0), 1, 0, 0.0) == 5
    assert scaling().target(QueueDemand(5 * 32 + 1, 0.0), 1, 0, 0.0) == 6


def test_there_are_never_more_or_fewer_than_allowed() -> None:
    assert scaling().target(QueueDemand(5120, 60.0), 1, 0, 0.0) == 16
    assert scaling().target(QueueDemand(0, 0.0), 0, 0, 0.0) == 1
    assert scaling().target(None, 0, 0, 0.0) == 1
    assert scaling().target(None, 99, 0, 0.0) == 16


def test_a_short_queue_that_does_not_move_gets_half_as_many_again() -> None:
    assert scaling().target(QueueDemand(20, 6.0), 4, 0, 0.0) == 6
    assert scaling().target(QueueDemand(20, 6.0), 1, 0, 0.0) == 2
    assert scaling().target(QueueDemand(20, 4.0), 4, 0, 0.0) == 4


def test_age_adds_nothing_while_actors_still_start() -> None:
    assert scaling().target(QueueDemand(20, 60.0), 6, 2, 0.0) == 6


def test_fewer_have_to_be_enough_for_a_while() -> None:
    policy = scaling()
    assert [policy.target(QueueDemand(0, 0.0), 8, 0, now) for now in (0.0, 30.0, 59.0, 60.0)] == [8, 8, 8, 6]


def test_a_moment_of_need_begins_the_wait_again() -> None:
    policy = scaling()
    assert policy.target(QueueDemand(0, 0.0), 8, 0, 0.0) == 8
    assert policy.target(QueueDemand(8 * 32, 0.0), 8, 0, 50.0) == 8
    assert policy.target(QueueDemand(0, 0.0), 8, 0, 60.0) == 8
    assert policy.target(QueueDemand(0, 0.0), 8, 0, 119.0) == 8
    assert policy.target(QueueDemand(0, 0.0), 8, 0, 120.0) == 6


def test_what_was_needed_meanwhile_is_kept() -> None:
    policy = scaling()
    policy.target(QueueDemand(0, 0.0), 16, 0, 0.0)
    assert policy.target(QueueDemand(15 * 4, 0.0), 16, 0, 30.0) == 16
    assert policy.target(QueueDemand(0, 0.0), 16, 0, 60.0) == 15


def test_it_goes_down_to_the_least_and_no_further() -> None:
    policy, current, now, seen = scaling(), 8, 0.0, []
    for _ in range(600):
        current = policy.target(QueueDemand(0, 0.0), current, 0, now)
        now += 1.0
        seen.append(current)
    assert sorted(set(seen), reverse=True) == [8, 6, 5, 4, 3, 2, 1]


def test_executors_that_all_have_a_program_stay() -> None:
    policy = scaling(jobs_per_executor=100.0)
    assert [policy.target(QueueDemand(32, 0.0), 8, 0, now) for now in (0.0, 100.0, 1000.0)] == [8, 8, 8]
    assert policy.target(QueueDemand(17, 0.0), 8, 0, 2000.0) == 8
    assert policy.target(QueueDemand(17, 0.0), 8, 0, 2060.0) == 6


def test_a_queue_that_does_not_answer_changes_nothing() -> None:
    policy = scaling()
    policy.target(QueueDemand(0, 0.0), 8, 0, 0.0)
    assert policy.target(None, 8, 0, 100.0) == 8
    assert policy.target(QueueDemand(0, 0.0), 8, 0, 101.0) == 8  # the wait begins again
