"""The loop of a worker process: read, work, answer, until told to stop; then finish what is held, and end.

- One thread works; the heartbeat's thread renews the leases (`service.queue.heartbeat`).
- SIGTERM and SIGINT let the current jobs finish and end the loop. Jobs that were not begun stay in the queue.
- While Redis is away the loop waits for it, and keeps finished answers until they can be stored. If another worker
  answered meanwhile, the answer of this one is dropped there.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import socket
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import FrameType
from typing import Any, Protocol

from redis.exceptions import ClusterDownError, ReadOnlyError, RedisError, ResponseError, TryAgainError

from plaudit.errors import UsageError
from service import metrics
from service.jobs import Completion, Executed, Failed, JobState, Kind, Lane, Scored, ScoreTask, encode
from service.queue.cached_scores import CachedScore, cached_score_keys
from service.queue.consumer import Consumer, FinishedJob, Lease
from service.queue.protocol import now_ms
from service.queue.sharded_consumer import ShardedConsumer, open_consumer, open_heartbeat
from service.settings import Settings

log = logging.getLogger("plaudit.worker")

RETRY_LARGE_S = 2.0  # how long a large answer that Redis rejects is tried again
SMALL_BYTES = 4096  # of an answer that is stored even if Redis' memory is full
TRANSIENT = ("MISCONF", "NOREPLICAS", "BUSY ")  # beginnings of errors that pass


class StopSignal:
    """`asked` is set by SIGTERM and SIGINT."""

    def __init__(self) -> None:
        self.asked = False

    def install(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True

    def sleep(self, seconds: float) -> None:
        """Sleep, but no longer than until the signal."""
        until = time.monotonic() + seconds
        while not self.asked and time.monotonic() < until:
            time.sleep(min(0.05, seconds))


class WorkerContext:
    """What a runner gets from the loop: how to end jobs, and the test suites that jobs refer to."""

    def __init__(self, consumer: Consumer | ShardedConsumer, stop: StopSignal) -> None:
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
        """End a job, waiting for Redis if it is away; nothing happens if the job had ended. See `FinishedJob`."""
        self.answer_all([FinishedJob(lease, body, cache_ms, compute_ms, started_ms or now_ms(), cache_as)])

    def answer_all(self, jobs: Sequence[FinishedJob], begun: Lease | None = None) -> None:
        """End the jobs of a batch, all at once. `begun`: a lease to mark as begun in the same step.

        If Redis answers but does not store them (its memory is full), small answers are stored without being cached,
        and each large one is replaced by a failure of its job.
        """
        if not jobs:
            return
        try:
            retry(lambda: self._consumer.finish_all(jobs, begun=begun), self._stop, rejected_s=0.0)
        except ResponseError as error:
            log.error("Redis rejected the answers: %s", error, extra={"jobs": [job.lease.id for job in jobs]})
            large = [job for job in jobs if len(encode(job.body)) > SMALL_BYTES]
            small = [replace(job, cache_ms=0, cache_as="") for job in jobs if job not in large]
            if small:
                retry(lambda: self._consumer.finish_all(small, spare=True), self._stop)
            if large:
                self._answer_large(large)

    def _answer_large(self, jobs: Sequence[FinishedJob]) -> None:
        """End jobs whose large answers Redis rejected once: try for a while, then as failures."""
        try:
            retry(lambda: self._consumer.finish_all(jobs), self._stop, rejected_s=RETRY_LARGE_S)
        except ResponseError as error:
            rejection = failure("answer_refused", f"the queue does not store the answer ({type(error).__name__})")
            refused = [replace(job, body=rejection, cache_ms=0, cache_as="") for job in jobs]
            retry(lambda: self._consumer.finish_all(refused, spare=True), self._stop)

    @property
    def stopping(self) -> bool:
        """Whether the worker was told to end: no job is begun any more."""
        return self._stop.asked

    def begin(self, lease: Lease) -> None:
        """Mark the job of a share that is worked on from now on. If Redis does not answer, it is not marked."""
        try:
            self._consumer.begin(lease)
        except (RedisError, OSError) as error:
            log.warning("a job is not marked as begun: %s", error, extra={"job": lease.id})

    def hand_back(self, leases: Sequence[Lease]) -> bool:
        """Give back jobs that were not begun. False if Redis does not do it: this worker still has them."""
        try:
            self._consumer.hand_back(leases)
        except (RedisError, OSError) as error:
            log.warning("%d jobs are not handed back: %s", len(leases), error)
            return False
        return True

    def drop(self, lease: Lease) -> None:
        """Stop working on a job that has ended elsewhere."""
        self._consumer.drop(lease)

    def deadlines(self, leases: Sequence[Lease]) -> list[int | None]:
        """The deadline of each job, Unix ms; None: it has ended. As it was leased if Redis does not answer."""
        try:
            return self._consumer.deadlines(leases)
        except (RedisError, OSError) as error:
            log.warning("queue does not tell who waits: %s", error)
            return [lease.deadline_ms for lease in leases]

    def cache_scores(self, lease: Lease, scores: Mapping[Completion, CachedScore]) -> None:
        """Store scores of a job by completion, for whoever asks for them next; what Redis rejects is lost."""
        task, completions = lease.task, list(scores)
        assert isinstance(task, ScoreTask)
        keys = cached_score_keys(self._consumer.keys, task.revision, task.prompt, task.on_overflow, completions)
        frames = {key: encode(scores[completion]) for key, completion in zip(keys, completions, strict=True)}
        try:
            self._consumer.remember(lease, frames)
        except (RedisError, OSError) as error:
            log.warning("%d scores are not cached: %s", len(frames), error)

    def suite(self, sha256: str) -> bytes | None:
        """The frame of a stored test suite; None if it has expired."""
        frame: bytes | None = retry(lambda: self._consumer.suite(sha256), self._stop)
        return frame


class JobRunner(Protocol):
    """What a kind of worker does with its jobs."""

    kind: Kind
    info: dict[str, Any]  # the announcement
    queues: list[str]
    stuck_after_s: float  # longer than any step; a worker whose step takes longer counts as stuck
    takes_share: bool  # whether it leaves other workers their part of the jobs, since it does one after the other

    def capacity(self) -> int:
        """How many more jobs it takes now."""

    def takes(self, queue: str, lane: Lane) -> bool:
        """Whether jobs of this queue and lane are among them."""

    def step(self, leases: list[Lease], context: WorkerContext) -> None:
        """Work on new leases and on those that it still holds."""

    @property
    def num_held(self) -> int:
        """Jobs that it holds between two steps."""

    def reset(self) -> list[Lease]:
        """Drop the jobs that it holds, and return them."""

    def on_cancelled(self, lease: Lease) -> None:
        """A job has ended elsewhere, so no one waits for it. Called from the heartbeat's thread."""


def worker_name(kind: Kind) -> str:
    return f"{kind}-{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def run(runner: JobRunner, settings: Settings, stop: StopSignal, name: str | None = None) -> None:
    """Read and work until asked to stop. `name`: of a worker that is registered already."""
    if settings.redis_url is None:
        raise UsageError("a worker needs --redis-url")
    if settings.metrics_port:
        metrics.serve(settings.metrics_port)
    consumer = open_consumer(settings, name or worker_name(runner.kind), runner.queues)
    retry(consumer.ensure_groups, stop)
    runner.info.update(pid=os.getpid(), host=socket.gethostname())
    heartbeat = open_heartbeat(
        settings,
        consumer,
        runner.kind,
        runner.info,
        stuck_after_s=runner.stuck_after_s,
        on_cancelled=runner.on_cancelled,
    )
    context = WorkerContext(consumer, stop)
    gc.freeze()  # what is loaded stays: the collector skips it while working, and at the end, where torch takes seconds
    with heartbeat:
        log.info("worker ready", extra={"worker": consumer.name, "kind": runner.kind})
        announce_ready(consumer.name)
        while not stop.asked or runner.num_held:
            heartbeat.progress()
            leases: list[Lease] = []
            try:
                if not stop.asked and (capacity := runner.capacity()) > 0:
                    leases = consumer.take(
                        capacity,
                        block_s=0.0 if runner.num_held else 0.5,
                        takes=runner.takes,
                        share=runner.takes_share,
                    )
            except (RedisError, OSError, MemoryError) as error:
                log.warning("no jobs taken: %s: %s", type(error).__name__, error)
                stop.sleep(0.25)
                continue
            try:
                runner.step(leases, context)
            except Exception as error:  # the worker loop: a job must end, whatever its work raised
                failed = {lease.key: lease for lease in [*leases, *runner.reset()]}
                log.exception("work failed", extra={"jobs": [lease.id for lease in failed.values()]})
                for lease in failed.values():
                    context.answer(lease, failure("internal", f"{type(error).__name__} in the worker"))
    log.info("worker stopped", extra={"worker": consumer.name})


def announce_ready(worker: str) -> None:
    """Print the line by which a supervisor or a script knows that this worker takes jobs."""
    try:
        print(json.dumps({"event": "ready", "worker": worker, "pid": os.getpid()}), flush=True)
    except BrokenPipeError:
        log.warning("standard output is closed; the ready line is not printed")


def failure(code: str, detail: str, *, retryable: bool = True) -> Failed:
    """A server error as the result of a job."""
    return Failed(JobState.FAILED, code, detail, retryable)


def is_rejection(error: Exception) -> bool:
    """Whether Redis understood a command and rejects it; not if it is starting, a replica, or cannot write its disk."""
    if not isinstance(error, ResponseError) or isinstance(error, ReadOnlyError | ClusterDownError | TryAgainError):
        return False
    return not str(error).startswith(TRANSIENT)


def retry(call: Callable[[], Any], stop: StopSignal, give_up_s: float = 60.0, rejected_s: float | None = None) -> Any:
    """Call until Redis answers.

    Args:
        call: raises Redis' errors.
        stop: once it is set, the calls go on for `give_up_s` more, then the error is raised.
        give_up_s: in seconds.
        rejected_s: raise the ResponseError of a command that Redis rejects for so long; None: never.
    """
    stopping_since: float | None = None
    rejected_since: float | None = None
    while True:
        try:
            return call()
        except (RedisError, OSError) as error:
            rejected_since = (rejected_since or time.monotonic()) if is_rejection(error) else None
            if rejected_s is not None and rejected_since and time.monotonic() - rejected_since >= rejected_s:
                raise
            if stop.asked:
                stopping_since = stopping_since or time.monotonic()
                if time.monotonic() - stopping_since > give_up_s:
                    raise
            log.warning("queue does not answer: %s", error)
            time.sleep(0.25)
