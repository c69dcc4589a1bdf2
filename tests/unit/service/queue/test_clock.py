"""Redis' clock as a process knows it: measured between question and answer, and independent of the host's own."""

from __future__ import annotations

import time

import pytest

from service.queue.protocol import Clock, clock, monotonic_ms, now_ms, shard_clock

HOUR_MS = 3_600_000.0


def measure(clock: Clock, ahead_ms: float, *, to_ms: float = 1.0, back_ms: float = 1.0) -> None:
    """Ask a Redis whose clock is ahead of the host's monotonic one; question and answer take so long."""
    asked_ms = monotonic_ms()
    redis_us = round((asked_ms + to_ms + ahead_ms) * 1000)
    clock.measured(divmod(redis_us, 1_000_000), asked_ms, asked_ms + to_ms + back_ms)


def error_ms(clock: Clock, ahead_ms: float) -> float:
    return clock.now_ms() - monotonic_ms() - ahead_ms


def test_until_it_is_measured_it_is_the_hosts_own() -> None:
    assert Clock().now_ms() == pytest.approx(time.time() * 1000, abs=100)


def test_a_wrong_wall_clock_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    measure(clock, HOUR_MS)
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert error_ms(clock, HOUR_MS) == pytest.approx(0.0, abs=3)


def test_a_slow_answer_does_not_blur_what_is_known() -> None:
    clock = Clock()
    measure(clock, HOUR_MS)
    measure(clock, HOUR_MS, to_ms=0.0, back_ms=5000.0)
    assert error_ms(clock, HOUR_MS) == pytest.approx(0.0, abs=3)


def test_slow_answers_narrow_each_other_down() -> None:
    clock = Clock()
    measure(clock, HOUR_MS, to_ms=1.0, back_ms=5000.0)
    measure(clock, HOUR_MS, to_ms=5000.0, back_ms=1.0)
    assert error_ms(clock, HOUR_MS) == pytest.approx(0.0, abs=3)


def test_another_redis_is_believed_at_once() -> None:
    clock = Clock()
    for ahead_ms in (HOUR_MS, -HOUR_MS, 2 * HOUR_MS):
        measure(clock, ahead_ms)
        assert error_ms(clock, ahead_ms) == pytest.approx(0.0, abs=3)


def test_a_moment_is_translated_between_a_shards_clock_and_the_processs() -> None:
    ahead, behind = Clock(), Clock()
    own_ahead_ms = now_ms() - monotonic_ms()
    measure(ahead, own_ahead_ms + 200_000)
    measure(behind, own_ahead_ms - 200_000)
    deadline_ms = now_ms() + 5000
    assert ahead.here(deadline_ms) - ahead.now_ms() == pytest.approx(5000, abs=50)
    assert ahead.here(deadline_ms) - behind.here(deadline_ms) == pytest.approx(400_000, abs=50)
    assert ahead.of_process(ahead.here(deadline_ms)) == deadline_ms


def test_a_process_of_one_redis_has_its_clock_and_one_of_several_its_own() -> None:
    assert shard_clock(1) is clock
    assert shard_clock(2) is not clock
    assert shard_clock(1).here(12345) == shard_clock(1).of_process(12345) == 12345
