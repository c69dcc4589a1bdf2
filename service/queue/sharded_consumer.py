"""A worker that serves several shards: one `Consumer` and one `Heartbeat` per shard behind the same calls.

- Every shard is asked without waiting, each time another one first. Where none has work, each is waited at for
  `WAIT_S`, so work begins at most so long later per further shard.
- A shard that does not answer is left out until a heartbeat reaches it again: heartbeats have threads of their own, so
  a host that has vanished holds up its own thread alone.
- The answers of jobs of such a shard are dropped, and its jobs are done again once their leases have run out. A worker
  of one shard keeps them instead (`service.worker.loop`); here the other shards would wait.
- Leases are told apart by the number of their shard, which stands before the name of their stream.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from redis.exceptions import RedisError, ResponseError

from service.jobs import Lane
from service.queue.connections import SHARD_TIMEOUT_S, SOCKET_TIMEOUT_S, connect
from service.queue.consumer import Consumer, FinishedJob, Lease
from service.queue.heartbeat import Heartbeat
from service.queue.protocol import shard_clock
from service.queue.shards import ShardAddress, addresses, list_of, served_shards
from service.settings import Settings

log = logging.getLogger("plaudit.queue")

WAIT_S = 0.01

AnyAnswer = TypeVar("AnyAnswer")


class DeadShards:
    """The shards that did not answer this process when it last asked, by name."""

    def __init__(self) -> None:
        self._names: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def add(self, name: str, error: Exception) -> None:
        if name not in self._names:
            log.warning("shard %s does not answer; the others are served: %s", name, error)
            self._names.add(name)

    def remove(self, name: str) -> None:
        if name in self._names:
            log.info("shard %s answers again", name)
            self._names.discard(name)

    @contextlib.contextmanager
    def noting(self, name: str) -> Iterator[None]:
        """Takes in whether a shard answered; what it rejected, it did answer. Redis' errors are raised on."""
        try:
            yield
        except (RedisError, OSError) as error:
            if not isinstance(error, ResponseError):
                self.add(name, error)
            raise
        self.remove(name)


dead_shards = DeadShards()  # of this process


class ShardedConsumer:
    """What the worker loop calls of a `Consumer`, over several. Raises only if no shard answers."""

    def __init__(self, shards: Sequence[ShardAddress], consumers: Sequence[Consumer]) -> None:
        self.consumers = list(consumers)
        self.keys = consumers[0].keys
        self.name = consumers[0].name
        self._names = [shard.name for shard in shards]
        self._first = 0  # the shard that is asked first

    def ensure_groups(self) -> None:
        self._of_live(lambda consumer: consumer.ensure_groups())

    def take(
        self,
        limit: int,
        block_s: float = WAIT_S,
        *,
        takes: Callable[[str, Lane], bool] = lambda queue, lane: True,
        share: bool = False,
    ) -> list[Lease]:
        """As of `Consumer`, except that `block_s` only says whether to wait."""
        self._first = (self._first + 1) % len(self.consumers)
        order = [(self._first + step) % len(self.consumers) for step in range(len(self.consumers))]
        leases: list[Lease] = []
        rejection: Exception | None = None
        for wait_s in (0.0, WAIT_S) if block_s > 0 else (0.0,):
            for index in order:
                if len(leases) >= limit or (wait_s and leases):
                    break
                try:
                    leases += self._take_from(index, limit - len(leases), wait_s, takes, share)
                except (ResponseError, MemoryError) as error:
                    rejection = error
                    log.warning("no jobs taken from shard %s: %s", self._names[index], error)
        if not leases and rejection is not None:
            raise rejection
        if all(name in dead_shards for name in self._names):
            raise ConnectionError("no shard answers")
        return leases

    def _take_from(
        self, index: int, limit: int, wait_s: float, takes: Callable[[str, Lane], bool], share: bool
    ) -> list[Lease]:
        consumer = self.consumers[index]
        taken: list[Lease] = self._from(index, lambda: consumer.take(limit, wait_s, takes=takes, share=share), [])
        return [self.outer(index, lease) for lease in taken]

    def outer(self, index: int, lease: Lease) -> Lease:
        """A lease of one shard's consumer as the worker sees it."""
        return replace(lease, stream=f"{index}/{lease.stream}")

    def _inner(self, lease: Lease) -> tuple[int, Lease]:
        index, _, stream = lease.stream.partition("/")
        return int(index), replace(lease, stream=stream)

    def _by_shard(self, leases: Sequence[Lease]) -> dict[int, list[tuple[int, Lease]]]:
        """Per shard, the positions of its leases and the leases as its consumer knows them."""
        by_shard: dict[int, list[tuple[int, Lease]]] = {}
        for position, lease in enumerate(leases):
            index, inner = self._inner(lease)
            by_shard.setdefault(index, []).append((position, inner))
        return by_shard

    def finish_all(self, jobs: Sequence[FinishedJob], *, begun: Lease | None = None, spare: bool = False) -> list[bool]:
        """As of `Consumer`; False also for jobs of shards that do not answer, which are dropped."""
        outcomes = [False] * len(jobs)
        by_shard = self._by_shard([job.lease for job in jobs])
        begun_on, begun_inner = (None, None) if begun is None else self._inner(begun)
        for index, leases in by_shard.items():
            consumer = self.consumers[index]
            batch = [replace(jobs[position], lease=lease) for position, lease in leases]
            try:
                if self._names[index] in dead_shards:
                    raise ConnectionError("it did not answer before")
                with dead_shards.noting(self._names[index]):
                    mark = begun_inner if index == begun_on else None
                    ended = consumer.finish_all(batch, begun=mark, spare=spare)
            except (RedisError, OSError) as error:
                if isinstance(error, ResponseError):
                    raise
                log.warning("%d answers are dropped: shard %s: %s", len(batch), self._names[index], error)
                for job in batch:
                    consumer.drop(job.lease)
                continue
            for (position, _), is_new in zip(leases, ended, strict=True):
                outcomes[position] = is_new
        if begun is not None and begun_on not in by_shard:
            self.begin(begun)
        return outcomes

    def begin(self, lease: Lease) -> None:
        """As of `Consumer`. If this worker crashes, one job of each shard that it has jobs of counts as tried."""
        index, inner = self._inner(lease)
        self._from(index, lambda: self.consumers[index].begin(inner), None)

    def hand_back(self, leases: Sequence[Lease]) -> int:
        """As of `Consumer`; jobs of a shard that does not answer come back when their leases have run out."""
        total = 0
        for index, pairs in self._by_shard(leases).items():
            consumer, inner = self.consumers[index], [lease for _, lease in pairs]
            num = self._from(index, lambda consumer=consumer, inner=inner: consumer.hand_back(inner), None)  # type: ignore[misc]
            for lease in inner if num is None else ():
                consumer.drop(lease)
            total += num or 0
        return total

    def drop(self, lease: Lease) -> None:
        index, inner = self._inner(lease)
        self.consumers[index].drop(inner)

    def deadlines(self, leases: Sequence[Lease]) -> list[int | None]:
        """As of `Consumer`; those of shards that do not answer are as they were leased."""
        deadlines: list[int | None] = [lease.deadline_ms for lease in leases]
        for index, pairs in self._by_shard(leases).items():
            inner = [lease for _, lease in pairs]
            told = self._from(index, lambda index=index, inner=inner: self.consumers[index].deadlines(inner), None)  # type: ignore[misc]
            for (position, _), deadline_ms in zip(pairs, told or (), strict=bool(told)):
                deadlines[position] = deadline_ms
        return deadlines

    def remember(self, lease: Lease, frames: Mapping[str, bytes]) -> None:
        index, inner = self._inner(lease)
        self._from(index, lambda: self.consumers[index].remember(inner, frames), None)

    def suite(self, sha256: str) -> bytes | None:
        """The frame of a test suite from whichever shard has it: digests are of the content. None: none has it."""
        frames = (
            self._from(index, lambda index=index: self.consumers[index].suite(sha256), None)  # type: ignore[misc]
            for index in range(len(self.consumers))
        )
        return next((frame for frame in frames if frame is not None), None)

    def _of_live(self, call: Callable[[Consumer], None]) -> None:
        for index, consumer in enumerate(self.consumers):
            self._from(index, lambda consumer=consumer: call(consumer), None)  # type: ignore[misc]

    def _from(self, index: int, call: Callable[[], AnyAnswer], otherwise: AnyAnswer) -> AnyAnswer:
        """What a shard answers; `otherwise` if it does not answer. Rejections are raised."""
        name = self._names[index]
        if name in dead_shards:
            return otherwise
        try:
            with dead_shards.noting(name):
                return call()
        except (RedisError, OSError) as error:
            if isinstance(error, ResponseError):
                raise
            return otherwise


class _ShardHeartbeat(Heartbeat):
    """The heartbeat for one shard of several; it finds out when the shard answers again."""

    def __init__(self, shard: ShardAddress, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._name = shard.name

    def beat(self) -> None:
        with dead_shards.noting(self._name):
            super().beat()

    def __enter__(self) -> Heartbeat:
        try:
            return super().__enter__()
        except (RedisError, OSError):
            self._thread.start()
            return self


class ShardedHeartbeat:
    """The heartbeats of a worker that serves several shards. A context manager."""

    def __init__(self, heartbeats: Sequence[Heartbeat]) -> None:
        self._heartbeats = heartbeats
        self._open = contextlib.ExitStack()

    def progress(self) -> None:
        for heartbeat in self._heartbeats:
            heartbeat.progress()

    def __enter__(self) -> ShardedHeartbeat:
        for heartbeat in self._heartbeats:
            self._open.enter_context(heartbeat)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()


def open_consumer(settings: Settings, name: str, queues: Sequence[str]) -> Consumer | ShardedConsumer:
    """The consumer of a worker: of its one shard, or of several."""
    shards = served_shards(settings)
    timeout_s = SOCKET_TIMEOUT_S if len(shards) == 1 else SHARD_TIMEOUT_S
    consumers = [
        Consumer(
            connect(shard.url, socket_timeout_s=timeout_s),
            settings.namespace,
            name,
            queues,
            lease_s=settings.lease_s,
            max_deliveries=settings.max_deliveries,
            clock=shard_clock(len(shards)),
        )
        for shard in shards
    ]
    return consumers[0] if len(consumers) == 1 else ShardedConsumer(shards, consumers)


def open_heartbeat(
    settings: Settings,
    consumer: Consumer | ShardedConsumer,
    kind: str,
    info: dict[str, Any],
    *,
    stuck_after_s: float,
    on_cancelled: Callable[[Lease], None],
) -> Heartbeat | ShardedHeartbeat:
    """The heartbeat of a worker. A context manager around its loop."""
    if names := list_of(addresses(settings.redis_urls)):
        info["shards"] = names
    options: dict[str, Any] = {"every_s": settings.heartbeat_s, "stuck_after_s": stuck_after_s}
    if isinstance(consumer, Consumer):
        return Heartbeat(consumer, kind, info, on_cancelled=on_cancelled, **options)

    def outer(index: int, consumer: ShardedConsumer) -> Callable[[Lease], None]:
        return lambda lease: on_cancelled(consumer.outer(index, lease))

    return ShardedHeartbeat(
        [
            _ShardHeartbeat(shard, one, kind, info, on_cancelled=outer(index, consumer), **options)
            for index, (shard, one) in enumerate(zip(served_shards(settings), consumer.consumers, strict=True))
        ]
    )
