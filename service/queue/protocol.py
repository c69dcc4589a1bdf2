"""What both ends of the queue agree on: the clock, how long replies are kept, Redis' errors, how jobs are counted.

The clock is Redis' own, because the clocks of hosts differ. Scripts read it themselves. A process measures once per
second, or per heartbeat, how far it is from its own monotonic clock; so a wall clock that is wrong, or that is put
right, changes nothing.

Several Redis are on several hosts, whose clocks differ, too. So a process has a `Clock` per shard, and its own
(`now_ms`), which then is no shard's. A moment is translated where it crosses: what stands in a Redis is of its clock.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

from redis.exceptions import OutOfMemoryError, RedisError

from plaudit.errors import BrokerUnavailable, Overloaded
from service import metrics
from service.jobs import Failed, JobState, Kind

KEEP_REPLY_MS = 120_000  # how long a reply waits for an API process that lost its connection


def monotonic_ms() -> float:
    """Milliseconds since some moment, of this host."""
    return time.monotonic_ns() / 1e6


class Clock:
    """Redis' clock, as one process knows it. Until it is measured, the host's own.

    An answer of Redis came about between question and answer, so each measurement is a range. Ranges are narrowed down
    by later ones; one that contradicts what is known (a clock was set, or another Redis answers) replaces it.
    """

    def __init__(self) -> None:
        self._range_ms: tuple[float, float] | None = None  # how far Redis' clock is ahead of the monotonic one
        self._own_ms = time.time_ns() / 1e6 - monotonic_ms()

    def measured(self, answer: tuple[int, int], asked_ms: float, answered_ms: float) -> None:
        """Take in what TIME answered (seconds, microseconds) between two moments of the monotonic clock."""
        redis_ms = answer[0] * 1000 + answer[1] / 1000
        new = redis_ms - answered_ms, redis_ms - asked_ms
        old = self._range_ms or new
        both = max(old[0], new[0]), min(old[1], new[1])
        self._range_ms = both if both[0] <= both[1] else new

    @property
    def _ahead_ms(self) -> float:
        return self._own_ms if self._range_ms is None else sum(self._range_ms) / 2

    def now_ms(self) -> int:
        """Unix time in milliseconds."""
        return int(monotonic_ms() + self._ahead_ms)

    def here(self, process_ms: int) -> int:
        """A moment of this process's clock, as this clock has it."""
        return process_ms + round(self._ahead_ms - clock._ahead_ms)

    def of_process(self, ms: int) -> int:
        """A moment of this clock, as this process's clock has it."""
        return ms - round(self._ahead_ms - clock._ahead_ms)

    def read(self, client: Any) -> None:
        """Measure it. Raises Redis' own errors."""
        asked_ms = monotonic_ms()
        answer = client.time()
        self.measured(answer, asked_ms, monotonic_ms())


clock = Clock()  # of this process: its Redis' clock if it has one Redis, else the host's, as it was at the start


def shard_clock(num_shards: int) -> Clock:
    """The clock of one Redis of so many: of a single one it is the process's."""
    return clock if num_shards == 1 else Clock()


def now_ms() -> int:
    """Unix time by the clock of this process, in milliseconds."""
    return clock.now_ms()


@contextlib.contextmanager
def broker_errors() -> Iterator[None]:
    """Redis' errors as plaudit's: full memory is `Overloaded`, everything else is `BrokerUnavailable`."""
    try:
        yield
    except OutOfMemoryError as error:
        raise Overloaded("the queue's memory is full", retry_after_s=2.0) from error
    except RuntimeError as error:  # uvloop raises it for a connection that a proxy has reset
        if "TCPTransport" not in str(error) and "UnixTransport" not in str(error):
            raise
        raise BrokerUnavailable("the queue's connection was reset", retry_after_s=1.0) from error
    except (RedisError, OSError) as error:
        raise BrokerUnavailable(f"the queue does not answer ({type(error).__name__})", retry_after_s=1.0) from error


def no_room(answer: Sequence[Any]) -> Overloaded:
    """The error for a script's answer `no_room`: a family of keys has as many bytes as it may have."""
    family, live, budget, wait_ms = answer[1].decode(), int(answer[2]), int(float(answer[3])), int(answer[4])
    what = {"answers": "answers of idempotent and asynchronous requests", "suites": "test suites"}[family]
    setting = {"answers": "max_answer_bytes", "suites": "max_testset_bytes"}[family]
    return Overloaded(
        f"the queue's memory for {what} is full: {live} of {budget} bytes ({setting})",
        retry_after_s=max(1.0, wait_ms / 1000),
    )


def count_finished_job(kind: Kind, body: Any, queue_s: float = 0.0, compute_s: float = 0.0) -> None:
    """Count a job where it ends: in a worker, or in the API if its deadline ended it."""
    state = body.state if isinstance(body, Failed) else JobState.DONE
    metrics.jobs.labels(kind, state.value).inc()
    if state is JobState.DONE:
        metrics.job_queue_seconds.labels(kind).observe(queue_s)
        metrics.job_compute_seconds.labels(kind).observe(compute_s)
    elif isinstance(body, Failed) and state is JobState.FAILED:
        metrics.infra_errors.labels(kind, body.code).inc()
