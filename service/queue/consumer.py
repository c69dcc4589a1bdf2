"""A worker's side of the queue: read, lease, keep alive, end once, take over from the dead. Synchronous.

One thread works; a second one (`Heartbeat`) announces the worker and keeps its leases alive, and stops announcing when
the working thread has made no progress for too long, so that a stuck worker counts as dead while its process lives.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import msgspec
import redis
from redis.exceptions import RedisError, ResponseError

from service import metrics
from service.jobs import Failed, JobState, Kind, Lane, Reply, Task, decode_task, encode
from service.queue.keys import BLOCK_S, GROUP, Keys, kind_of_queue, script
from service.queue.protocol import KEEP_REPLY_MS, count_finished_job, now_ms

log = logging.getLogger("plaudit.queue")


@dataclass(frozen=True, slots=True)
class Lease:
    """A job in this worker's hands. `deliveries` counts this one too; `queued_ms` is when it was admitted."""

    id: str
    entry: str
    queue: str
    stream: str
    task: Task | None  # None: unreadable, ended before anybody sees it
    deadline_ms: int
    deliveries: int
    queued_ms: int

    @property
    def key(self) -> str:
        """Names this delivery. The job's id does not: identical work may come again while an old lease is in hand."""
        return f"{self.stream}/{self.entry}"

    @property
    def kind(self) -> Kind:
        return kind_of_queue(self.queue)

    @property
    def lane(self) -> Lane:
        return cast(Lane, self.stream.rsplit(":", 1)[1])


@dataclass(frozen=True, slots=True)
class Ending:
    """How a job ended. `cache_ms`: how long the answer is good for others, 0: not at all. `started_ms`: Unix time.

    `cache_as`: the job that it is the answer to, where that is another than was asked.
    """

    lease: Lease
    body: Any
    cache_ms: int
    compute_ms: float
    started_ms: int
    cache_as: str = ""

    @property
    def queue_ms(self) -> int:
        return max(0, self.started_ms - self.lease.queued_ms)


def _readable(frame: bytes) -> Task | None:
    try:
        return decode_task(frame)
    except msgspec.DecodeError:
        log.exception("unreadable job ended")
        return None


class Consumer:
    """Reads one or more queues. Redis' errors come through as `redis.RedisError`; the worker loop waits and retries."""

    def __init__(
        self,
        client: redis.Redis,
        namespace: str,
        name: str,
        queues: Sequence[str],
        *,
        lease_s: float,
        max_deliveries: int,
    ) -> None:
        self.client: Any = client  # redis-py types every reply as a union of all replies
        self.keys = Keys(namespace)
        self.name = name
        self.queues = list(queues)
        self.lease_ms = int(lease_s * 1000)
        self.max_deliveries = max_deliveries
        # highest lane first, over all queues
        lanes = [self.keys.streams(queue) for queue in self.queues]
        self._streams = [streams[lane] for lane in range(3) for streams in lanes]
        self._queue_of = {stream: queue for queue in self.queues for stream in self.keys.streams(queue)}
        self._lease = client.register_script(script("lease", spare=True))  # what is done is what makes room
        self._finish = client.register_script(script("finish"))
        self._finish_spare = client.register_script(script("finish", spare=True))
        self._in_hand: dict[str, Lease] = {}
        self._lock = threading.Lock()
        self._reclaimed_at = 0.0
        self._idle = False  # the last look found nothing
        self._cursors = dict.fromkeys(self._streams, "0-0")  # how far each stream has been searched for the abandoned

    def ensure_groups(self) -> None:
        for stream in self._streams:
            try:
                self.client.xgroup_create(stream, GROUP, id="0", mkstream=True)
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise

    def take(self, limit: int, block_s: float = BLOCK_S) -> list[Lease]:
        """Up to `limit` jobs worth doing, the abandoned ones first, then by lane; waits for the first if there is none.

        Jobs past their deadline are ended here as `timeout_queue`, poisoned ones as `infra_error`.
        """
        with self._lock:
            held = set(self._in_hand)
        try:
            leases = self._reclaim(limit)
            if len(leases) < limit and not (self._idle and block_s > 0):
                leases += self._admit([], limit - len(leases))
            if not leases and block_s > 0:
                leases = self._await(block_s)
        except (RedisError, OSError, MemoryError) as error:
            with self._lock:  # what was leased a moment ago is in nobody's hands: its lease must run out
                for key in self._in_hand.keys() - held:
                    del self._in_hand[key]
            if not (isinstance(error, ResponseError) and "NOGROUP" in str(error)):
                raise
            self.ensure_groups()  # the broker came back without its data
            return []
        self._idle = not leases
        return leases

    def _await(self, block_s: float) -> list[Lease]:
        """The first job to come, of any lane; one of each where several lanes get work in the same moment."""
        block = max(1, int(min(block_s, BLOCK_S) * 1000))
        found = self.client.xreadgroup(GROUP, self.name, dict.fromkeys(self._streams, ">"), count=1, block=block)
        return self._admit([(stream.decode(), entry.decode()) for stream, entries in found for entry, _ in entries])

    def _reclaim(self, limit: int) -> list[Lease]:
        """Entries whose worker has kept silent for longer than a lease."""
        if time.monotonic() - self._reclaimed_at < self.lease_ms / 4000:
            return []
        self._reclaimed_at = time.monotonic()
        taken: list[Lease] = []
        for stream in self._streams:
            if len(taken) >= limit:
                break
            answer = self.client.xautoclaim(
                stream, GROUP, self.name, self.lease_ms, self._cursors[stream], count=limit - len(taken)
            )
            self._cursors[stream] = answer[0].decode()
            entries = [(stream, entry.decode()) for entry, fields in answer[1] if fields]
            with self._lock:  # a heartbeat that came too late makes our own work look abandoned
                entries = [one for one in entries if f"{one[0]}/{one[1]}" not in self._in_hand]
            taken += self._admit(entries)
        return taken

    def _admit(self, entries: list[tuple[str, str]], num_new: int = 0) -> list[Lease]:
        """Lease entries (stream, entry) and at most so many new ones; ends those that no one should begin."""
        if not entries and not num_new:
            return []
        words = [word for entry in entries for word in entry]
        answers = self._lease(
            keys=self._streams if num_new else [],
            args=[self.keys.prefix, now_ms(), self.name, GROUP, num_new, *words],
        )
        leases = []
        for state, raw, entry, job, task, deadline, deliveries, queued in answers:
            stream = raw.decode()
            lease = Lease(
                job.decode(),
                entry.decode(),
                self._queue_of[stream],
                stream,
                _readable(task),
                int(deadline),
                int(deliveries),
                int(queued),
            )
            if lease.task is None:
                self.finish(lease, Failed(JobState.FAILED, "unreadable", "a job of another version", False))
            elif state == b"expired":
                self.finish(lease, Failed(JobState.TIMEOUT, "deadline", "the deadline passed in the queue", True))
            elif lease.deliveries > self.max_deliveries:
                log.error("poisoned job ended", extra={"job": lease.id, "deliveries": lease.deliveries})
                detail = f"given up after {self.max_deliveries} deliveries that no worker survived"
                self.finish(lease, Failed(JobState.FAILED, "poisoned", detail, False))
            else:
                leases.append(lease)
        with self._lock:
            self._in_hand.update({lease.key: lease for lease in leases})
        return leases

    def finish(
        self, lease: Lease, body: Any, *, cache_ms: int = 0, compute_ms: float = 0.0, started_ms: int | None = None
    ) -> bool:
        """End a job. False if it had ended before (another worker, or its deadline)."""
        return self.finish_all([Ending(lease, body, cache_ms, compute_ms, started_ms or now_ms())])[0]

    def finish_all(self, endings: Sequence[Ending], *, spare: bool = False) -> list[bool]:
        """End jobs, each in a step of its own, in one round trip. `spare`: even where the broker's memory is full."""
        if len(endings) == 1:
            outcomes = [self._end(endings[0], spare=spare)]
        else:
            with self.client.pipeline(transaction=False) as pipe:
                for ending in endings:
                    self._end(ending, pipe, spare=spare)
                outcomes = pipe.execute()
        for ending, ended in zip(endings, outcomes, strict=True):
            self.drop(ending.lease)
            if ended:
                count_finished_job(ending.lease.kind, ending.body, ending.queue_ms / 1000, ending.compute_ms / 1000)
        return [bool(ended) for ended in outcomes]

    def _end(self, ending: Ending, client: Any = None, *, spare: bool = False) -> Any:
        lease = ending.lease
        reply = encode(Reply(lease.id, ending.body, float(ending.queue_ms), ending.compute_ms, self.name))
        arguments: list[Any] = [
            self.keys.prefix,
            lease.id,
            reply,
            ending.cache_ms,
            KEEP_REPLY_MS,
            GROUP,
            lease.entry,
            ending.cache_as,
        ]
        finish = self._finish_spare if spare else self._finish
        return finish(keys=self.keys.book(lease.queue), args=arguments, client=client)

    def drop(self, lease: Lease) -> None:
        """Let go of a job without ending it; it is redelivered when its lease runs out."""
        with self._lock:
            self._in_hand.pop(lease.key, None)

    def renew(self) -> list[Lease]:
        """Keep the leases in hand alive (heartbeat thread). Answers those whose job has ended without this worker."""
        with self._lock:
            leases = list(self._in_hand.values())
        return [
            lease
            for lease in leases
            if not self.client.xclaim(lease.stream, GROUP, self.name, 0, [lease.entry], justid=True)
        ]

    def suite(self, sha256: str) -> bytes | None:
        frame: bytes | None = self.client.get(self.keys.suite(sha256))
        return frame

    def retire(self) -> None:
        """Leave the group in good order: nothing pending may be under this name any more."""
        for stream in self._streams:
            pending = self.client.xpending_range(stream, GROUP, "-", "+", 1, consumername=self.name)
            if not pending:
                self.client.xgroup_delconsumer(stream, GROUP, self.name)


class Heartbeat:
    """Announces a worker and renews its leases until closed; a context manager."""

    def __init__(
        self,
        consumer: Consumer,
        kind: str,
        info: dict[str, Any],
        *,
        every_s: float,
        patience_s: float,
        on_lost: Callable[[Lease], None],
    ) -> None:
        self.consumer = consumer
        self.info = info  # what it says may change while it works
        info["kind"] = kind
        self.every_s = every_s
        self.patience_s = patience_s
        self.on_lost = on_lost
        self._announce = consumer.client.register_script(script("announce", spare=True))
        self._progress = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def progress(self) -> None:
        """The working thread tells that it lives."""
        self._progress = time.monotonic()

    def beat(self) -> None:
        keys, client = self.consumer.keys, self.consumer.client
        if time.monotonic() - self._progress > self.patience_s:
            log.error("worker makes no progress; its announcement and its leases lapse")
            return
        expires = now_ms() + int(self.every_s * 3000)
        arguments = [self.consumer.name, expires, json.dumps(self.info)]
        self._announce(keys=[keys.workers, keys.workers_info], args=arguments)
        sweep_announcements(client, keys)
        for lease in self.consumer.renew():
            self.on_lost(lease)

    def _run(self) -> None:
        pause_s = self.every_s
        while not self._stop.wait(pause_s):
            began = time.monotonic()
            try:
                self.beat()
            except (RedisError, OSError, MemoryError) as error:  # the working thread may have reached the limit
                log.warning("heartbeat missed: %s", error)
            except Exception:  # a background loop outlives what it meets
                metrics.loop_failures.labels("heartbeat").inc()
                log.exception("heartbeat failed; it goes on")
            # A beat that a silent Redis held up is old news when it arrives: the next one follows at once.
            pause_s = max(0.1, self.every_s - (time.monotonic() - began))

    def __enter__(self) -> Heartbeat:
        self.beat()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        keys, client = self.consumer.keys, self.consumer.client
        try:
            client.zrem(keys.workers, self.consumer.name)
            client.hdel(keys.workers_info, self.consumer.name)
            self.consumer.retire()
        except (RedisError, OSError) as error:
            log.warning("worker could not sign off: %s", error)


def sweep_announcements(client: Any, keys: Keys) -> None:
    """Forget workers whose announcement ran out a minute ago."""
    late = client.zrangebyscore(keys.workers, "-inf", now_ms() - 60_000)
    if late:
        client.zrem(keys.workers, *late)
        client.hdel(keys.workers_info, *late)
