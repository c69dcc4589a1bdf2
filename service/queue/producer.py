"""The API's side of the queue: admit, leave, end what expired, and tell how long the line is."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import msgspec
import redis.asyncio

from plaudit.errors import BrokerUnavailable, Overloaded, RevisionMoved
from plaudit.grading import Level
from plaudit.schemas import LanguageInfo, ModelInfo
from service import metrics, tracing
from service.jobs import Failed, Job, JobState, Reply, decode_reply, encode, read_reply
from service.queue.keys import GROUP, Keys, kind_of_queue, script
from service.queue.protocol import (
    KEEP_REPLY_MS,
    Clock,
    broker_errors,
    clock,
    count_finished_job,
    monotonic_ms,
    no_room,
    now_ms,
)

log = logging.getLogger("plaudit.queue")

WAIT_FOR_REPLICAS_MS = 1000
REMEMBER_S = 0.002  # what is to be remembered waits so long for more of it, and lets the answer go first
MAX_REMEMBERED = 1000  # what one script stores
KEEP_SCORE_MS = 60_000  # for so long at least a score is remembered, unless there is no room at all
KEEP_SUITE_MS = 300_000  # a suite outlives its last job's deadline by so much


@dataclass(frozen=True, slots=True)
class Bound:
    """How much may wait or run in one queue: jobs, and their cost (tokens or CPU-seconds).

    Tenants share it: see `submit.lua`.
    """

    max_depth: int
    max_cost: float


@dataclass(frozen=True, slots=True)
class Load:
    """A queue at one moment.

    Attributes:
        depth: jobs waiting or running.
        cost: of these jobs.
        drained: cost of all jobs that workers have ended.
        oldest_ms: how long the oldest waiting job has waited.
        cost_by_tenant: the cost of the jobs waiting or running, of each tenant that has any.
    """

    depth: int
    cost: float
    drained: float
    oldest_ms: float
    cost_by_tenant: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Worker:
    """A live worker as it announced itself."""

    id: str
    kind: str
    info: dict[str, Any]


def read_worker(name: str, announcement: bytes) -> Worker:
    """A worker as it announced itself. Raises ValueError for an announcement of another version."""
    try:
        info = json.loads(announcement)
        kind = info.pop("kind")
        if kind == "score":
            [ModelInfo(**model, workers=1) for model in info["models"]]
        elif kind == "execute":
            [LanguageInfo(**language) for language in info["languages"]]
            if info["isolation"] not in get_args(Level) or not isinstance(info["toolchain"], str):
                raise ValueError("isolation or toolchain is not one that is known here")
        else:
            raise ValueError(f"kind {kind!r:.80} is not known here")
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    return Worker(name, kind, info)


def _full(
    queue: str, bound: Bound, depth: float, cost: float, own_depth: float, own_cost: float, num_tenants: float
) -> str:
    """What a tenant is told that a full queue does not admit."""
    detail = (
        f"queue {queue} holds {depth:.0f} jobs (at most {bound.max_depth}) "
        f"of cost {cost:g} (at most {bound.max_cost:g})"
    )
    if num_tenants > 1:
        detail += (
            f"; of them {own_depth:.0f} jobs of cost {own_cost:g} are under this key, whose share is "
            f"{bound.max_depth / num_tenants:.0f} jobs of cost {bound.max_cost / num_tenants:g}"
        )
    return detail


class Remembered(Exception):
    """Some of what was to be done is done already. `frames`: what is remembered under each key, None where nothing."""

    def __init__(self, frames: list[bytes | None]) -> None:
        super().__init__("remembered")
        self.frames = frames


class Queue:
    """One per API process and shard. Raises BrokerUnavailable if Redis does not answer; it reconnects by itself.

    Args:
        client: of the shard.
        namespace: of all keys.
        channel: this process's name.
        clock: the shard's.
        num_replicas: that have what is acknowledged.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        namespace: str,
        channel: str,
        clock: Clock = clock,
        *,
        num_replicas: int = 0,
    ) -> None:
        self.client: Any = client  # redis-py types every reply as a union of all replies
        self.clock = clock
        self.num_replicas = num_replicas
        self.keys = Keys(namespace)
        self.channel = self.keys.reply(channel)
        self._submit = client.register_script(script("submit"))
        self._leave = client.register_script(script("leave", spare=True))
        self._put_suites = client.register_script(script("suite"))
        self._remember = client.register_script(script("remember"))
        self._finish = client.register_script(script("finish", spare=True))  # what it says here is short
        self._recount = client.register_script(script("recount", spare=True))
        self._fresh: dict[str, tuple[bytes, int]] = {}  # to be remembered: frame, for how long
        self._storing: asyncio.Task[None] | None = None
        self._strangers: set[bytes] = set()  # workers whose announcement cannot be read, and who were told of

    async def replicated(self, script: Any, keys: Sequence[str], arguments: Sequence[Any]) -> tuple[Any, bool]:
        """What a script answers, and whether enough replicas have what it wrote, and all that was written before it.

        Raises Redis' own errors.
        """
        if not self.num_replicas:
            return await script(keys=keys, args=arguments), True
        async with self.client.pipeline(transaction=False) as pipe:
            await script(keys=keys, args=arguments, client=pipe)
            # WAIT is about what its connection wrote last; the script may write nothing, as when it is sent again.
            pipe.set(self.keys.written, "1", px=KEEP_REPLY_MS)
            pipe.wait(self.num_replicas, WAIT_FOR_REPLICAS_MS)
            answer, _, num_replicas = await pipe.execute()
        return answer, int(num_replicas) >= self.num_replicas

    def too_few_replicas(self, what: str) -> BrokerUnavailable:
        """The error for something that was written, but might be lost."""
        return BrokerUnavailable(
            f"{what} is stored, but fewer than {self.num_replicas} replicas of Redis have it (redis_replicas); "
            "send it again",
            retry_after_s=1.0,
        )

    async def submit(
        self, jobs: Mapping[str, Job], bound: Bound, *, use_cache: bool = True, unless: Sequence[str] = ()
    ) -> dict[str, Reply]:
        """Admit jobs of one queue, tag and tenant, all or none; the replies of finished ones come back at once.

        `jobs` by the token under which this caller waits: leaving takes back that token and no later caller's. A job
        that is live already is joined; it gets the later of the deadlines and, while it waits, the higher of the lanes.

        Raises Remembered, with nothing admitted, if anything is remembered under one of the keys `unless`; Overloaded,
        without a Retry-After (the caller knows the drain rate), when the bound would be passed; RevisionMoved when the
        queue admits another tag.
        """
        if not jobs:
            return {}
        first = next(iter(jobs.values()))
        queue, tag = first.queue, first.tag
        arguments: list[Any] = [
            self.keys.prefix,
            self.channel,
            bound.max_depth,
            bound.max_cost,
            len(jobs),
            tag,
            first.tenant,
            GROUP,
            tracing.current(),
            len(unless),
            *unless,
        ]
        for token, job in jobs.items():
            line = f"{queue}:{job.lane}"
            deadline_ms = self.clock.here(job.deadline_ms)
            arguments += [job.id, line, job.task, job.cost, deadline_ms, "1" if use_cache else "0", token]
        keep_ms = max(job.deadline_ms for job in jobs.values()) - now_ms() + KEEP_SUITE_MS
        for sha256, frame in dict(job.suite for job in jobs.values() if job.suite is not None).items():
            arguments += [sha256, frame, max(keep_ms, KEEP_SUITE_MS)]
        with broker_errors():
            keys = [*self.keys.accounting(queue), self.keys.active(queue)]
            outcome = await self._submit(keys=keys, args=arguments)
        if outcome[0] == b"moved":
            raise RevisionMoved(f"queue {queue} takes jobs of {outcome[1].decode()}, and these are of {tag}")
        if outcome[0] == b"known":
            raise Remembered(outcome[1])
        if outcome[0] == b"no_room":
            raise no_room(outcome)
        if outcome[0] == b"full" and (len(outcome) > 1 and isinstance(outcome[1], int)):
            raise Overloaded(_full(queue, bound, *map(float, outcome[1:])))
        words = (b"new", b"joined")
        found, unreadable = {}, {}
        for (token, job), word in zip(jobs.items(), outcome, strict=True):
            if word in words:
                continue
            try:
                found[job.id] = decode_reply(word)
            except msgspec.DecodeError:
                unreadable[token] = job
        if unreadable:  # kept by another version: a miss
            metrics.unreadable.labels("cached_reply").inc(len(unreadable))
            found |= await self.submit(unreadable, bound, use_cache=False)
        return found

    async def leave(self, queue: str, jobs: Mapping[str, str]) -> int:
        """Stop waiting, by token; what nobody waits for and nobody has begun is taken back. Answers how many."""
        if not jobs:
            return 0
        with broker_errors():
            keys = self.keys.accounting(queue)
            pairs = [word for token, job in jobs.items() for word in (job, token)]
            return int(await self._leave(keys=keys, args=[self.keys.prefix, self.channel, GROUP, *pairs]))

    async def replies(self, timeout_s: float) -> list[Reply]:
        """Replies that have come, waiting at most so long for the first. Blocks one connection."""
        with broker_errors():
            found = await self.client.blmpop(timeout_s, 1, self.channel, direction="LEFT", count=256)
        replies = [read_reply(frame) for frame in found[1]] if found else []
        for reply in replies:
            if reply is None or (isinstance(reply.body, Failed) and reply.body.code == "reply_unreadable"):
                metrics.unreadable.labels("reply").inc()
                log.error("a reply cannot be read%s", "" if reply is None else f", that of job {reply.job}")
        return [reply for reply in replies if reply is not None]

    async def look_up(self, jobs: Sequence[str]) -> dict[str, Reply | None]:
        """Jobs that ended without this process hearing of it (a lost connection): id → reply, None if vanished.

        Jobs still alive are not in the answer.
        """
        if not jobs:
            return {}
        with broker_errors():
            async with self.client.pipeline(transaction=False) as pipe:
                for job in jobs:
                    pipe.exists(self.keys.job(job))
                    pipe.mget(self.keys.cache(job), self.keys.last(job))
                answers = await pipe.execute()
        found: dict[str, Reply | None] = {}
        for index, job in enumerate(jobs):
            alive, (cached, last) = answers[2 * index], answers[2 * index + 1]
            if not alive:
                frame = cached or last
                found[job] = read_reply(frame) if frame else None
        return found

    async def expire(self, queue: str, grace_ms: int = 250) -> int:
        """End jobs whose deadline has passed and that no worker has ended, as `timeout_queue`. Answers how many."""
        keys = self.keys.accounting(queue)
        with broker_errors():
            late = await self.client.zrangebyscore(keys[1], "-inf", self.clock.now_ms() - grace_ms, start=0, num=512)
            if not late:
                return 0
            body = Failed(JobState.TIMEOUT, "deadline", "the deadline passed in the queue", True)
            arguments: list[Any] = [self.keys.prefix, KEEP_REPLY_MS, GROUP, "", ""]
            for job in late:
                arguments += [job, encode(Reply(job.decode(), body)), 0, "", ""]
            outcomes = await self._finish(keys=[*keys, self.keys.begun(queue)], args=arguments)
            gone = [job for job, ended in zip(late, outcomes, strict=True) if not ended]
            if gone:
                await self.client.zrem(keys[1], *gone)
        for _ in range(len(late) - len(gone)):
            count_finished_job(kind_of_queue(queue), body)
        return len(late)

    async def load(self, queue: str) -> Load:
        with broker_errors():
            async with self.client.pipeline(transaction=False) as pipe:
                pipe.zcard(self.keys.live(queue))
                pipe.hmget(self.keys.load(queue), "cost", "drained")
                pipe.hgetall(self.keys.tenants(queue))
                for stream in self.keys.streams(queue):
                    pipe.xrange(stream, count=1)
                depth, (cost, drained), tenants, *heads = await pipe.execute()
            if depth != sum(int(num) for name, num in tenants.items() if name.startswith(b"jobs:")):
                keys = [self.keys.live(queue), self.keys.tenants(queue)]
                if await self._recount(keys=keys, args=[self.keys.prefix]):
                    tenants = await self.client.hgetall(keys[1])
        cost_by_tenant = {
            name.removeprefix(b"cost:").decode(): float(own)
            for name, own in tenants.items()
            if name.startswith(b"cost:")
        }
        oldest = min((int(head[0][0].split(b"-")[0]) for head in heads if head), default=None)
        oldest_ms = max(0.0, self.clock.now_ms() - oldest) if oldest else 0.0
        return Load(depth, float(cost or 0), float(drained or 0), oldest_ms, cost_by_tenant)

    async def read_clock(self) -> None:
        """Measure Redis' clock, by which deadlines are set and compared."""
        asked_ms = monotonic_ms()
        with broker_errors():
            time = await self.client.time()
        self.clock.measured(time, asked_ms, monotonic_ms())

    async def workers(self) -> list[Worker]:
        """The workers whose announcement has not run out. One that cannot be read is as good as none."""
        with broker_errors():
            names = await self.client.zrangebyscore(self.keys.workers, self.clock.now_ms(), "+inf")
            infos = await self.client.hmget(self.keys.workers_info, names) if names else []
        live = []
        for name, info in zip(names, infos, strict=True):
            if not info:
                continue
            try:
                live.append(read_worker(name.decode(), info))
            except ValueError as error:
                metrics.unreadable.labels("announcement").inc()
                if name not in self._strangers:
                    log.error("worker %s cannot be read, so it is unknown here: %s", name.decode(), error)
                    self._strangers.add(name)
        self._strangers &= set(names)
        return live

    async def put_suites(self, frames: Mapping[str, bytes], keep_s: int, *, bounded: bool = True) -> None:
        """Have suites stored, by digest, for at least so long.

        Raises Overloaded if all suites together would exceed their budget, unless not `bounded`; BrokerUnavailable also
        if too few replicas have them.
        """
        with broker_errors():
            keys = [self.keys.suite(sha256) for sha256 in frames]
            arguments = [self.keys.prefix, keep_s * 1000, "1" if bounded else "0", *frames.values()]
            if bounded:
                outcome, is_replicated = await self.replicated(self._put_suites, keys, arguments)
            else:  # a probe's
                outcome, is_replicated = await self._put_suites(keys=keys, args=arguments), True
        if outcome[0] == b"no_room":
            raise no_room(outcome)
        if not is_replicated:
            raise self.too_few_replicas("the test suite")

    async def get_suite(self, sha256: str) -> bytes | None:
        with broker_errors():
            frame: bytes | None = await self.client.get(self.keys.suite(sha256))
        return frame

    def remember(self, frames: Mapping[str, bytes], keep_s: int) -> None:
        """Store frames under their keys, soon. Nobody waits for it: what is lost is computed again."""
        self._fresh |= {key: (frame, keep_s) for key, frame in frames.items()}
        if self._storing is None or self._storing.done():
            self._storing = asyncio.create_task(self._store(), name="remember")

    def remembers(self, keys: Sequence[str]) -> bool:
        """Whether anything of this is on its way to being stored."""
        return any(key in self._fresh for key in keys)

    async def recall(self, queue: str, tag: str, keys: Sequence[str]) -> list[bytes | None]:
        """What was remembered under each key, by this process just now or by anyone.

        Raises RevisionMoved when the queue admits another tag: what is remembered must not be older than what is done.
        """
        own = [self._fresh[key][0] if key in self._fresh else None for key in keys]
        with broker_errors():
            async with self.client.pipeline(transaction=False) as pipe:
                pipe.hget(self.keys.active(queue), "revision")
                pipe.mget(keys)
                admitted, stored = await pipe.execute()
        if admitted is not None and admitted.decode() != tag:
            raise RevisionMoved(f"queue {queue} is at {admitted.decode()}, and this is of {tag}")
        return [mine if mine is not None else theirs for mine, theirs in zip(own, stored, strict=True)]

    async def stored(self, keys: Sequence[str]) -> list[bytes | None]:
        """What is stored under each key, whoever stored it."""
        with broker_errors():
            frames: list[bytes | None] = await self.client.mget(keys)
        return frames

    async def _store(self) -> None:
        while self._fresh:
            await asyncio.sleep(REMEMBER_S)
            batch = dict(self._fresh)
            with contextlib.suppress(BrokerUnavailable, Overloaded), broker_errors():
                for start in range(0, len(batch), MAX_REMEMBERED):
                    keys = list(batch)[start : start + MAX_REMEMBERED]
                    frames = [batch[key][0] for key in keys]
                    keep_ms = 1000 * min(batch[key][1] for key in keys)
                    await self._remember(keys=keys, args=[self.keys.prefix, keep_ms, KEEP_SCORE_MS, *frames])
            for key in batch:
                del self._fresh[key]  # the same key has the same frame: scores are of their text and revision

    async def ping(self) -> bool:
        with broker_errors():
            return bool(await self.client.ping())
