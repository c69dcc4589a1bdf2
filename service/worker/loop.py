"""The life of a worker process: open, read, work, answer, until told to stop; then drain and leave.

One thread works, one keeps the leases (queue.consumer.Heartbeat). SIGTERM and SIGINT let the work in hand finish and
end the loop; what is not begun stays in the queue. When Redis is away the loop waits for it and keeps finished answers
until they can be handed in; if another worker answered meanwhile, ours is dropped there.
"""

from __future__ import annotations

import gc
import logging
import os
import resource
import signal
import socket
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import FrameType
from typing import Any, Protocol

from redis.exceptions import ClusterDownError, ReadOnlyError, RedisError, ResponseError, TryAgainError

from plaudit.errors import HostLacks, UsageError
from service import metrics
from service.jobs import Executed, Failed, JobState, Kind, Scored, encode
from service.queue.connections import connect, greet
from service.queue.consumer import Consumer, Ending, Heartbeat, Lease
from service.queue.producer import now_ms
from service.settings import Settings

log = logging.getLogger("plaudit.worker")

REFUSED_S = 2.0  # how long a large answer that Redis does not take is tried again before it is given up
SPARE_BYTES = 4096  # of an answer that is handed in even where Redis' memory is full
TRANSIENT = ("MISCONF", "NOREPLICAS", "BUSY ")  # beginnings of refusals that pass


class Stop:
    """Set by SIGTERM and SIGINT."""

    def __init__(self) -> None:
        self.asked = False

    def install(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True

    def sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self.asked and time.monotonic() < until:
            time.sleep(min(0.05, seconds))


class Hands:
    """What a kind of work gets from the loop: a way to end a job, and the suites that jobs refer to."""

    def __init__(self, consumer: Consumer, stop: Stop) -> None:
        self._consumer = consumer
        self._stop = stop

    def answer(
        self,
        lease: Lease,
        body: Scored | Executed | Failed,
        *,
        cache_ms: int = 0,
        compute_ms: float = 0.0,
        started_ms: int | None = None,
        cache_as: str = "",
    ) -> None:
        """Hand in the ending of a job, waiting for Redis if it is away; dropped there if the job had ended."""
        self.answer_all([Ending(lease, body, cache_ms, compute_ms, started_ms or now_ms(), cache_as)])

    def answer_all(self, endings: Sequence[Ending]) -> None:
        """The same for the jobs of a batch, all at once.

        For what Redis answers but does not take (its memory is full) there is a little room: a small answer is handed
        in without being remembered, and a large one becomes a failure of its job.
        """
        if not endings:
            return
        small = all(len(encode(ending.body)) <= SPARE_BYTES for ending in endings)
        try:
            patiently(lambda: self._consumer.finish_all(endings), self._stop, refused_s=0.0 if small else REFUSED_S)
        except ResponseError as error:
            log.error("answers refused: %s", error, extra={"jobs": [ending.lease.id for ending in endings]})
            refusal = failure("answer_refused", f"the queue does not store the answer ({type(error).__name__})")
            spare = [
                replace(ending, body=ending.body if small else refusal, cache_ms=0, cache_as="") for ending in endings
            ]
            patiently(lambda: self._consumer.finish_all(spare, spare=True), self._stop)

    def drop(self, lease: Lease) -> None:
        """Let go of a job that has ended elsewhere."""
        self._consumer.drop(lease)

    def suite(self, sha256: str) -> bytes | None:
        """The frame of a stored test suite; None if it is gone."""
        frame: bytes | None = patiently(lambda: self._consumer.suite(sha256), self._stop)
        return frame


class Work(Protocol):
    """What a kind of worker does. `step` works on new leases and on what it still holds; `held` is how much that is."""

    kind: Kind
    info: dict[str, Any]
    queues: list[str]
    patience_s: float  # longer than any step: after that the worker counts as stuck

    def appetite(self) -> int:
        """How many more jobs it wants now."""

    def step(self, leases: list[Lease], hands: Hands) -> None: ...

    @property
    def held(self) -> int: ...

    def abandon(self) -> list[Lease]:
        """Forget what it holds; answers the jobs."""

    def lost(self, lease: Lease) -> None:
        """A job in hand has ended elsewhere: nobody waits for it (called from the heartbeat's thread)."""


def worker_name(kind: Kind) -> str:
    return f"{kind}-{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def run(work: Work, settings: Settings, stop: Stop, name: str | None = None) -> None:
    """Read and work until asked to stop. `name`: under which the worker is known already."""
    if settings.redis_url is None:
        raise UsageError("a worker needs --redis-url")
    if settings.metrics_port:
        metrics.serve(settings.metrics_port)
    client = connect(settings.redis_url)
    consumer = Consumer(
        client,
        settings.namespace,
        name or worker_name(work.kind),
        work.queues,
        lease_s=settings.lease_s,
        max_deliveries=settings.max_deliveries,
    )
    patiently(consumer.ensure_groups, stop)
    work.info.update(pid=os.getpid(), host=socket.gethostname())
    heartbeat = Heartbeat(
        consumer, work.kind, work.info, every_s=settings.heartbeat_s, patience_s=work.patience_s, on_lost=work.lost
    )

    hands = Hands(consumer, stop)
    gc.freeze()  # what is loaded stays: not looked at again while working, nor for seconds at the end (torch)
    with heartbeat:
        log.info("worker ready", extra={"worker": consumer.name, "kind": work.kind})
        while not stop.asked or work.held:
            heartbeat.progress()
            leases: list[Lease] = []
            try:
                if not stop.asked and (appetite := work.appetite()) > 0:
                    leases = consumer.take(appetite, block_s=0.0 if work.held else 0.5)
            except (RedisError, OSError, MemoryError) as error:
                log.warning("no jobs taken: %s: %s", type(error).__name__, error)
                stop.sleep(0.25)
                continue
            try:
                work.step(leases, hands)
            except Exception as error:  # the worker loop: a job must end, whatever its work raised
                stuck = {lease.key: lease for lease in [*leases, *work.abandon()]}
                log.exception("work failed", extra={"jobs": [lease.id for lease in stuck.values()]})
                for lease in stuck.values():
                    hands.answer(lease, failure("internal", f"{type(error).__name__} in the worker"))
    log.info("worker stopped", extra={"worker": consumer.name})


def failure(code: str, detail: str, *, retryable: bool = True) -> Failed:
    return Failed(JobState.FAILED, code, detail, retryable)


def refused(error: Exception) -> bool:
    """Whether Redis has understood and does not want to: not one that is starting, a replica, or without its disk."""
    if not isinstance(error, ResponseError) or isinstance(error, ReadOnlyError | ClusterDownError | TryAgainError):
        return False
    return not str(error).startswith(TRANSIENT)


def patiently(call: Callable[[], Any], stop: Stop, give_up_s: float = 60.0, refused_s: float | None = None) -> Any:
    """Call until Redis answers; once asked to stop, only for `give_up_s` more.

    With `refused_s`: what Redis refuses for so long raises its ResponseError.
    """
    stopping_since: float | None = None
    refused_since: float | None = None
    while True:
        try:
            return call()
        except (RedisError, OSError) as error:
            refused_since = (refused_since or time.monotonic()) if refused(error) else None
            if refused_s is not None and refused_since and time.monotonic() - refused_since >= refused_s:
                raise
            if stop.asked:
                stopping_since = stopping_since or time.monotonic()
                if time.monotonic() - stopping_since > give_up_s:
                    raise
            log.warning("queue does not answer: %s", error)
            time.sleep(0.25)


def run_score(settings: Settings) -> int:
    """A scoring worker until SIGTERM. Raises HostLacks or UsageError when it cannot start."""
    from service.queue.activation import Registry
    from service.worker.model_manager import Shelf, enrol
    from service.worker.score import ScoreWork

    if settings.redis_url is None:
        raise UsageError("a worker needs --redis-url")
    greet(settings.redis_url, settings.redis_wait_s)
    stop = Stop()
    stop.install()
    name = worker_name("score")
    registry = Registry(connect(settings.redis_url), settings.namespace, name)
    active = enrol(settings, registry, lambda call: patiently(call, stop), stop)
    if not stop.asked:
        run(ScoreWork(Shelf.open(settings, active, registry), settings), settings, stop, name)
    return 0


def limit_memory(mb: int) -> None:
    """Let this process have so much memory and no more: past it, what asks for more raises MemoryError.

    Only the soft limit is set, and jailed programs begin with the hard one: theirs are limits of their own.
    """
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    wanted = mb * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def run_execute(settings: Settings) -> int:
    """An executing worker until SIGTERM. Raises HostLacks when this host's walls are not what is asked for."""
    from sandbox.errors import IsolationUnavailable
    from sandbox.open import open_sandbox
    from service.worker.execute import ExecuteWork

    if settings.redis_url is None:
        raise UsageError("a worker needs --redis-url")
    greet(settings.redis_url, settings.redis_wait_s)
    stop = Stop()
    stop.install()
    try:
        with open_sandbox(accept=settings.isolation_accept) as sandbox:
            if settings.executor_memory_mb is not None:
                limit_memory(settings.executor_memory_mb)
            run(ExecuteWork(settings, sandbox), settings, stop)
    except IsolationUnavailable as error:
        raise HostLacks(str(error)) from error
    return 0
