"""A worker's side of the queue: read jobs, lease them, end each once, take over those of crashed workers. Synchronous.

The working thread calls everything here but `renew` and `sweep`, which the heartbeat's thread calls (`heartbeat.py`).
An executor's second thread ends jobs and hands them back, too (`service.worker.batch`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import msgspec
import redis
from redis.exceptions import RedisError, ResponseError

from service.jobs import LANES, Failed, JobState, Kind, Lane, Reply, Task, decode_task, encode
from service.queue.keys import BLOCK_S, GROUP, Keys, kind_of_queue, script
from service.queue.protocol import KEEP_REPLY_MS, Clock, clock, count_finished_job, now_ms

log = logging.getLogger("plaudit.queue")


@dataclass(frozen=True, slots=True)
class Lease:
    """A job that this worker holds.

    Attributes:
        id: of the job.
        entry: of the stream; the lease is on it.
        task: None if it cannot be read; such a job ends before it reaches the worker.
        deadline_ms: Unix time by the clock of this process, as are the other moments (`now_ms`).
        deliveries: how often the job was handed to a worker, this one included.
        queued_ms: when it was admitted.
        reclaimed: whether it was taken over from a worker that crashed or stalled.
        trace: `traceparent` of the request that submitted it first; empty without a trace.
    """

    id: str
    entry: str
    queue: str
    stream: str
    task: Task | None
    deadline_ms: int
    deliveries: int
    queued_ms: int
    reclaimed: bool = False
    trace: str = ""

    @property
    def key(self) -> str:
        """Identifies this delivery. The job's id does not: an identical job may come while an old lease is held."""
        return f"{self.stream}/{self.entry}"

    @property
    def kind(self) -> Kind:
        return kind_of_queue(self.queue)

    @property
    def lane(self) -> Lane:
        return cast(Lane, self.stream.rsplit(":", 1)[1])


@dataclass(frozen=True, slots=True)
class FinishedJob:
    """How a job ended.

    Attributes:
        body: `Scored`, `Executed` or `Failed`.
        cache_ms: how long identical jobs are answered from the cache; 0: never.
        compute_ms: time spent on it.
        started_ms: Unix time at which the worker began it.
        cache_as: id to cache the answer under, if not the job's own.
        parts: of its reply.
    """

    lease: Lease
    body: Any
    cache_ms: int
    compute_ms: float
    started_ms: int
    cache_as: str = ""
    parts: dict[str, float] | None = None

    @property
    def queue_ms(self) -> int:
        return max(0, self.started_ms - self.lease.queued_ms)


def _mark(lease: Lease) -> str:
    """What stands in Redis of the job that a worker of several has begun."""
    return f"{lease.queue}:{lease.lane} {lease.entry}"


def _readable(frame: bytes) -> Task | None:
    try:
        return decode_task(frame)
    except msgspec.DecodeError:
        log.exception("a job cannot be read; it ends as infra_error")
        return None


class Consumer:
    """Reads one or more queues. Redis' errors are raised as `redis.RedisError`; the worker loop waits and retries."""

    def __init__(
        self,
        client: redis.Redis,
        namespace: str,
        name: str,
        queues: Sequence[str],
        *,
        lease_s: float,
        max_deliveries: int,
        clock: Clock = clock,
    ) -> None:
        self.clock = clock  # of this Redis
        self.client: Any = client  # redis-py types every reply as a union of all replies
        self.keys = Keys(namespace)
        self.name = name
        self.queues = list(queues)
        self.lease_ms = int(lease_s * 1000)
        self.max_deliveries = max_deliveries
        # highest lane first, over all queues
        lanes = [self.keys.streams(queue) for queue in self.queues]
        self._streams = [streams[lane] for lane in range(3) for streams in lanes]
        self._line_of: dict[str, tuple[str, Lane]] = {
            self.keys.stream(queue, lane): (queue, lane) for queue in self.queues for lane in LANES
        }
        self._lease = client.register_script(script("lease", spare=True))  # finishing jobs frees memory
        self._held = client.register_script(script("held"))
        self._remember = client.register_script(script("remember"))
        self._finish = client.register_script(script("finish"))
        self._finish_spare = client.register_script(script("finish", spare=True))
        self._hand_back = client.register_script(script("hand_back", spare=True))
        self._sweep = client.register_script(script("sweep", spare=True))
        self._in_hand: dict[str, Lease] = {}
        self._lock = threading.Lock()
        self._reclaimed_at = dict.fromkeys(self._streams, 0.0)
        self._idle = False  # the last read found nothing
        self._cursors = dict.fromkeys(self._streams, "0-0")  # how far each stream was searched
        self.num_workers = 1  # that share these queues, this one included; the heartbeat counts them
        self._shares = False  # whether the last call asked for a share
        self._begun = ""  # the key of the lease that is marked as begun

    def ensure_groups(self) -> None:
        for stream in self._streams:
            try:
                self.client.xgroup_create(stream, GROUP, id="0", mkstream=True)
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise

    def take(
        self,
        limit: int,
        block_s: float = BLOCK_S,
        *,
        takes: Callable[[str, Lane], bool] = lambda queue, lane: True,
        share: bool = False,
    ) -> list[Lease]:
        """Up to `limit` jobs: those of crashed workers first, then by lane. Waits for the first if there is none.

        Jobs past their deadline end here as `timeout_queue`, poisoned ones as `infra_error`.

        Args:
            limit: most jobs to lease.
            block_s: how long to wait for the first, in seconds; 0: not at all.
            takes: whether jobs of this queue and lane are taken now.
            share: take no more than an equal share among the live workers: for a worker of one queue that does one job
                after the other, and calls `begin` for each.
        """
        self._shares = share
        streams = [stream for stream in self._streams if takes(*self._line_of[stream])]
        if not streams:
            return []
        with self._lock:
            held = set(self._in_hand)
        try:
            leases = self._reclaim(streams, limit)
            if len(leases) < limit and not (self._idle and block_s > 0):
                leases += self._admit([], streams, limit - len(leases))
            if not leases and block_s > 0:
                leases = self._await(streams, limit, block_s)
        except (RedisError, OSError, MemoryError) as error:
            with self._lock:  # jobs leased in this call will not be returned: their leases must run out
                for key in self._in_hand.keys() - held:
                    del self._in_hand[key]
            if not (isinstance(error, ResponseError) and "NOGROUP" in str(error)):
                raise
            self.ensure_groups()  # the broker restarted without its data
            return []
        self._idle = not leases
        return leases

    def _await(self, streams: list[str], limit: int, block_s: float) -> list[Lease]:
        """The first job to arrive, of any lane; one per lane if several lanes get work at the same moment.

        A worker that takes its share takes the rest of it in the same step.
        """
        block = max(1, int(min(block_s, BLOCK_S) * 1000))
        found = self.client.xreadgroup(GROUP, self.name, dict.fromkeys(streams, ">"), count=1, block=block)
        woken = [(stream.decode(), entry.decode()) for stream, entries in found for entry, _ in entries]
        more = max(0, limit - len(woken)) if woken and self._shares else 0
        return self._admit(woken, streams, more)

    def _reclaim(self, streams: list[str], limit: int) -> list[Lease]:
        """Entries whose worker has not renewed them for longer than a lease."""
        now = time.monotonic()
        taken: list[Lease] = []
        for stream in streams:
            if len(taken) >= limit:
                break
            if now - self._reclaimed_at[stream] < self.lease_ms / 4000:
                continue
            self._reclaimed_at[stream] = now
            answer = self.client.xautoclaim(
                stream, GROUP, self.name, self.lease_ms, self._cursors[stream], count=limit - len(taken)
            )
            self._cursors[stream] = answer[0].decode()
            entries = [(stream, entry.decode()) for entry, fields in answer[1] if fields]
            with self._lock:  # after a late heartbeat, entries of this worker look abandoned
                entries = [(stream, entry) for stream, entry in entries if f"{stream}/{entry}" not in self._in_hand]
            taken += self._admit(entries, reclaimed=True)
        return taken

    def _admit(
        self,
        entries: list[tuple[str, str]],
        streams: Sequence[str] = (),
        num_new: int = 0,
        *,
        reclaimed: bool = False,
    ) -> list[Lease]:
        """Lease these entries (stream, entry) and at most `num_new` new ones of these streams.

        Those that should not begin end here.
        """
        if not entries and not num_new:
            return []
        words = [word for entry in entries for word in entry]
        answers = self._lease(
            keys=streams if num_new else [],
            args=[
                self.keys.prefix,
                self.name,
                GROUP,
                num_new,
                self.name if self._shares else "",
                self.num_workers if self._shares else 0,
                *words,
            ],
        )
        if self._shares and answers:
            self._begun = f"{answers[0][1].decode()}/{answers[0][2].decode()}"
        leases = []
        for state, raw, entry, job, task, deadline, deliveries, queued, trace in answers:
            stream = raw.decode()
            lease = Lease(
                job.decode(),
                entry.decode(),
                self._line_of[stream][0],
                stream,
                _readable(task),
                self.clock.of_process(int(deadline)),
                int(deliveries),
                self.clock.of_process(int(queued)),
                reclaimed,
                trace.decode(),
            )
            if lease.task is None:
                self.finish(lease, Failed(JobState.FAILED, "unreadable", "a job of another version", False))
            elif state == b"expired":
                self.finish(lease, Failed(JobState.TIMEOUT, "deadline", "the deadline passed in the queue", True))
            elif lease.deliveries > self.max_deliveries:
                log.error("poisoned job ends as infra_error", extra={"job": lease.id, "deliveries": lease.deliveries})
                detail = f"gave up after {self.max_deliveries} deliveries: every worker crashed or stalled"
                self.finish(lease, Failed(JobState.FAILED, "poisoned", detail, False))
            else:
                leases.append(lease)
        with self._lock:
            self._in_hand.update({lease.key: lease for lease in leases})
        return leases

    def finish(
        self, lease: Lease, body: Any, *, cache_ms: int = 0, compute_ms: float = 0.0, started_ms: int | None = None
    ) -> bool:
        """End a job. False if it had ended before (by another worker, or by its deadline)."""
        return self.finish_all([FinishedJob(lease, body, cache_ms, compute_ms, started_ms or now_ms())])[0]

    def finish_all(self, jobs: Sequence[FinishedJob], *, begun: Lease | None = None, spare: bool = False) -> list[bool]:
        """End jobs, those of a queue in one script; False for those that had ended before.

        Args:
            jobs: of any queues.
            begun: a lease to `begin` in the same step.
            spare: whether to do it even if the broker's memory is full.
        """
        outcomes: dict[str, bool] = {}
        for queue in dict.fromkeys(job.lease.queue for job in jobs):
            of_queue = [job for job in jobs if job.lease.queue == queue]
            words = [word for job in of_queue for word in self._ending(job)]
            finish = self._finish_spare if spare else self._finish
            mark = _mark(begun) if begun is not None and begun.queue == queue else ""
            arguments = [self.keys.prefix, KEEP_REPLY_MS, GROUP, self.name, mark, *words]
            ended = finish(keys=[*self.keys.accounting(queue), self.keys.begun(queue)], args=arguments)
            if begun is not None and mark:
                self._begun = begun.key
            outcomes |= {job.lease.key: bool(one) for job, one in zip(of_queue, ended, strict=True)}
        for job in jobs:
            self.drop(job.lease)
            if outcomes[job.lease.key]:
                count_finished_job(job.lease.kind, job.body, job.queue_ms / 1000, job.compute_ms / 1000)
        return [outcomes[job.lease.key] for job in jobs]

    def _ending(self, job: FinishedJob) -> list[Any]:
        """What the script that ends jobs is told of one."""
        lease = job.lease
        reply = encode(Reply(lease.id, job.body, float(job.queue_ms), job.compute_ms, self.name, job.parts))
        return [lease.id, reply, job.cache_ms, lease.entry, job.cache_as]

    def begin(self, lease: Lease) -> None:
        """Mark the job of a share that is worked on from now on: if this worker crashes, only that one was tried."""
        if lease.key != self._begun:
            self.client.hset(self.keys.begun(lease.queue), self.name, _mark(lease))
            self._begun = lease.key

    def hand_back(self, leases: Sequence[Lease]) -> int:
        """Give back jobs of a share that were not begun: other workers find them at once. Answers how many."""
        words = [word for lease in leases for word in (lease.id, lease.entry)]
        num = int(self._hand_back(keys=[], args=[self.keys.prefix, self.name, GROUP, *words]))
        for lease in leases:
            self.drop(lease)
        return num

    def drop(self, lease: Lease) -> None:
        """Stop renewing a job without ending it; it is redelivered when its lease runs out."""
        with self._lock:
            self._in_hand.pop(lease.key, None)

    def renew(self) -> list[Lease]:
        """Renew all leases (from the heartbeat's thread). Returns those whose job has ended without this worker."""
        with self._lock:
            leases = list(self._in_hand.values())
        return [
            lease
            for lease in leases
            if not self.client.xclaim(lease.stream, GROUP, self.name, 0, [lease.entry], justid=True)
        ]

    def deadlines(self, leases: Sequence[Lease]) -> list[int | None]:
        """The deadline of each job (see `now_ms`), which a later waiter may have moved; None: the job has ended."""
        words = [word for lease in leases for word in (lease.id, lease.entry)]
        deadlines = self._held(keys=[], args=[self.keys.prefix, *words])
        return [self.clock.of_process(deadline) if deadline else None for deadline in deadlines]

    def remember(self, lease: Lease, frames: Mapping[str, bytes]) -> None:
        """Store a job's cached scores under their keys for as long as a reply, where their family has room."""
        keys = list(frames)
        self._remember(keys=keys, args=[self.keys.prefix, KEEP_REPLY_MS, KEEP_REPLY_MS, *frames.values()])

    def suite(self, sha256: str) -> bytes | None:
        """The frame of a stored test suite; None if it has expired."""
        frame: bytes | None = self.client.get(self.keys.suite(sha256))
        return frame

    def sweep(self, keep_ms: int) -> int:
        """Remove announcements that ran out `keep_ms` ago, and this queue's consumers of crashed workers.

        Only consumers without pending entries go: the others' jobs are taken over first. Answers how many went.
        """
        begun = [self.keys.begun(queue) for queue in self.queues]
        keys = [self.keys.workers, self.keys.workers_info, *begun, *self._streams]
        return int(self._sweep(keys=keys, args=[GROUP, keep_ms, len(begun)]))

    def retire(self) -> None:
        """Leave the consumer groups in which nothing is pending under this name."""
        for stream in self._streams:
            pending = self.client.xpending_range(stream, GROUP, "-", "+", 1, consumername=self.name)
            if not pending:
                self.client.xgroup_delconsumer(stream, GROUP, self.name)
        for queue in self.queues:
            self.client.hdel(self.keys.begun(queue), self.name)
