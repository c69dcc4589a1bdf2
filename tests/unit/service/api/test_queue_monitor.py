"""How fast a queue drains, as an API process sees it once a second."""

from __future__ import annotations

import pytest

from service.api.dispatch.shard_monitor import QueueMonitor
from service.queue.producer import Load


def seen(*looks: tuple[int, float, float]) -> QueueMonitor:
    """Depth, cost waiting and cost drained so far, a second apart."""
    monitor = QueueMonitor()
    for at, (depth, cost, drained) in enumerate(looks):
        monitor.update(Load(depth, cost, drained, 0.0, {"": cost} if depth else {}), float(at))
    return monitor


def test_the_rate_is_what_drained_while_there_was_work() -> None:
    monitor = seen((4, 100.0, 0.0), (3, 75.0, 25.0), (2, 50.0, 50.0))
    assert monitor.rate == pytest.approx(25.0)
    assert monitor.wait_s("") == pytest.approx(2.0)


def test_nothing_is_known_before_something_has_drained() -> None:
    assert seen((4, 100.0, 0.0), (4, 100.0, 0.0)).wait_s("") is None


def test_a_long_batch_is_not_a_slow_one() -> None:
    """Ten seconds in which nothing ends, then all of it at once."""
    steady = [(9, 900.0, 100.0 * at) for at in range(5)]
    during = seen(*steady, *[(9, 900.0, 400.0)] * 10)
    assert during.rate == pytest.approx(100.0)
    after = seen(*steady, *[(9, 900.0, 400.0)] * 10, (9, 900.0, 1500.0))
    assert after.rate == pytest.approx(100.0)


def test_a_queue_that_became_slower_is_found_out() -> None:
    monitor = seen(
        *[(9, 900.0, 100.0 * at) for at in range(5)], *[(9, 900.0, 400.0 + 10.0 * at) for at in range(1, 20)]
    )
    assert monitor.rate == pytest.approx(10.0, abs=0.5)


def test_an_empty_queue_says_that_the_rate_is_at_least_so_high() -> None:
    monitor = seen((2, 20.0, 0.0), (1, 10.0, 10.0), (0, 0.0, 90.0))
    assert monitor.rate == pytest.approx(80.0)
    assert seen((2, 20.0, 0.0), (1, 10.0, 10.0), (0, 0.0, 11.0)).rate == pytest.approx(10.0)
    assert monitor.wait_s("") == 0.0


def test_a_drain_count_that_began_anew_is_no_rate() -> None:
    assert seen((4, 100.0, 500.0), (4, 100.0, 525.0), (4, 100.0, 3.0)).rate == pytest.approx(25.0)


def shared(**costs: float) -> QueueMonitor:
    """A queue of jobs of cost 10 each, 10 of which are done per second."""
    monitor = QueueMonitor()
    total = sum(costs.values())
    for at in range(3):
        monitor.update(Load(int(total / 10), total, 10.0 * at, 0.0, costs), float(at))
    return monitor


def test_a_tenant_waits_for_its_own_work_and_its_turns_not_for_all() -> None:
    monitor = shared(alice=1000.0, bob=20.0)
    assert monitor.wait_s("newcomer") == pytest.approx(1.0)  # until one job ends
    assert monitor.wait_s("bob") == pytest.approx((20 + 20 + 10) / 10)
    assert monitor.wait_s("alice") == pytest.approx(102.0)  # the whole, and never more
    assert shared(alice=1000.0).wait_s("alice") == pytest.approx(100.0)


def test_a_tenants_work_drains_at_its_share_of_the_rate() -> None:
    assert shared(alice=1000.0).drain_s("alice", 50.0) == pytest.approx(5.0)
    assert shared(alice=1000.0).drain_s("bob", 50.0) == pytest.approx(10.0)
    assert shared(alice=20.0).drain_s("bob", 50.0) == pytest.approx(7.0)
    assert QueueMonitor().drain_s("bob", 50.0) is None
