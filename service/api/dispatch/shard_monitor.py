"""What this API process knows of one shard: whether it answers, its workers, its queues, its memory.

Refreshed once a second by a background loop of its own, so a shard that does not answer holds up no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from plaudit.errors import BrokerUnavailable, Overloaded
from service.queue.activation import ActiveRevision, read_active
from service.queue.keys import EXECUTE_QUEUE, queue_of_model
from service.queue.memory import MemoryMonitor
from service.queue.producer import Load, Queue, Worker
from service.queue.protocol import broker_errors
from service.queue.shards import KEEP_LIST_S, ShardAddress, list_of
from service.settings import Settings

log = logging.getLogger("plaudit.fleet")

MAX_PROVEN = 4096  # ids of proven workers that are kept
RATE_SMOOTHING = 0.3  # weight of the newest second in the drain rate


@dataclass(slots=True)
class QueueMonitor:
    """A queue as last measured.

    `rate` is the cost drained per second while there was work; None until measured. It is measured from one ending to
    the next: a second in which nothing ended, because one long batch runs, does not count. When the queue has become
    empty the rate is a lower bound: otherwise a single job per second would pass for all that the workers can do.
    """

    load: Load = field(default_factory=lambda: Load(0, 0.0, 0.0, 0.0))
    rate: float | None = None
    measured_from: float | None = None  # monotonic seconds: when work was last seen to end, or to arrive

    def update(self, load: Load, now: float) -> None:
        """Take in a measurement made at `now` (monotonic seconds)."""
        drained = load.drained - self.load.drained
        if self.load.depth > 0 and self.measured_from is not None and drained > 0:
            seconds = max(1e-3, now - self.measured_from)
            new_rate = drained / seconds
            if load.depth > 0:
                old_weight = (1 - RATE_SMOOTHING) ** seconds
                self.rate = new_rate if self.rate is None else (1 - old_weight) * new_rate + old_weight * self.rate
            elif self.rate is not None:
                self.rate = max(self.rate, new_rate)
        if self.load.depth == 0 or self.measured_from is None or drained != 0:
            self.measured_from = now
        self.load = load

    def wait_s(self, tenant: str) -> float | None:
        """Expected time until a new job of this tenant begins; None while unknown.

        Tenants take turns by cost, so until the tenant's own jobs are done each other tenant is given as much as the
        tenant itself, or less if it has less. Before the first of them, one running job has to end.
        """
        load = self.load
        if load.depth == 0:
            return 0.0
        own = load.cost_by_tenant.get(tenant, 0.0)
        taking_turns = sum(min(cost, own) for cost in load.cost_by_tenant.values())
        return min(load.cost, taking_turns + load.cost / load.depth) / self.rate if self.rate else None

    def drain_s(self, tenant: str, cost: float) -> float | None:
        """Expected time until work of so much cost is done for this tenant; None while unknown.

        The tenant has an equal share of the rate, and all of it once the others' jobs are done.
        """
        others = sum(other for name, other in self.load.cost_by_tenant.items() if name != tenant)
        num_tenants = len(self.load.cost_by_tenant.keys() | {tenant})
        return min(cost * num_tenants, cost + others) / self.rate if self.rate else None


def merged(monitors: Sequence[QueueMonitor]) -> QueueMonitor:
    """The queues of one name on several shards, together."""
    loads = [monitor.load for monitor in monitors]
    rates = [monitor.rate for monitor in monitors if monitor.rate is not None]
    load = Load(
        sum(load.depth for load in loads),
        sum(load.cost for load in loads),
        sum(load.drained for load in loads),
        max(load.oldest_ms for load in loads),
    )
    return QueueMonitor(load, sum(rates) if rates else None)


class ShardMonitor:
    """One shard, as last seen.

    Args:
        queue: of the shard.
        settings: the budgets of its memory.
        shards: all shards of this deployment; none if this one is alone.
        index: of this one among them.

    Attributes:
        broker: whether it answered.
        other_list: what differs, if a process of this deployment was given another list of shards.
    """

    def __init__(self, queue: Queue, settings: Settings, shards: Sequence[ShardAddress] = (), index: int = 0) -> None:
        self.queue = queue
        self.name = shards[index].name if shards else ""
        self.url = shards[index].shown if shards else ""
        self.other_list = ""
        self._list = list_of(shards)
        self.broker = False
        self.memory = MemoryMonitor(queue, settings)
        self.workers: list[Worker] = []
        self.active: dict[str, ActiveRevision] = {}
        self.queues: dict[str, QueueMonitor] = {EXECUTE_QUEUE: QueueMonitor()}
        self._proven: OrderedDict[str, None] = OrderedDict()  # ids of workers that have done a job
        self._look_lock = asyncio.Lock()  # an older look must not overwrite a newer one

    def mark_proven(self, worker: str) -> None:
        """A worker has done a job, so it works. This outlives an outage of the broker."""
        self._proven[worker] = None
        self._proven.move_to_end(worker)
        while len(self._proven) > MAX_PROVEN:
            self._proven.popitem(last=False)

    def of_kind(self, kind: str) -> list[Worker]:
        return [worker for worker in self.workers if worker.kind == kind]

    def proven(self, kind: str) -> bool:
        """Whether a live worker of this kind has done a job of this shard."""
        return any(worker.id in self._proven for worker in self.of_kind(kind))

    def queue_monitor(self, queue: str) -> QueueMonitor:
        return self.queues.setdefault(queue, QueueMonitor())

    async def look(self) -> None:
        """Read who is alive and which revisions are active. Raises BrokerUnavailable.

        A worker announces a revision before it can become active. So if a revision is active that no worker has, the
        announcements were read too early and are read again.
        """
        async with self._look_lock:
            await self.queue.read_clock()
            workers = await self.queue.workers()
            names = {name for name, _ in _served(workers)}
            self.active = await read_active(self.queue, sorted(names | self.active.keys()))
            if {(name, active.revision) for name, active in self.active.items()} - _served(workers):
                workers = await self.queue.workers()
            self.workers = workers

    async def refresh(self) -> None:
        """Look once and measure the queues. An unreachable broker is a state (`broker`), not an error."""
        try:
            await self.look()
            await self.memory.refresh()
            if self.name:
                await self._compare_lists()
            models = (info["name"] for worker in self.of_kind("score") for info in worker.info["models"])
            names = {EXECUTE_QUEUE, *map(queue_of_model, models), *self.queues}
            for name in sorted(names):
                with contextlib.suppress(Overloaded):  # Redis is full; late jobs are ended when it has room again
                    await self.queue.expire(name)
                self.queue_monitor(name).update(await self.queue.load(name), time.monotonic())
            if not self.broker:
                log.info("the broker answers%s", self.name and f": {self.name}")
            self.broker = True
        except BrokerUnavailable as error:
            if self.broker:
                log.warning("the broker is lost%s: %s", self.name and f" ({self.name})", error.detail)
            self.broker = False

    async def _compare_lists(self) -> None:
        """Say which shards this process knows, and see whether the others know the same."""
        with broker_errors():
            told = await self.queue.client.set(self.queue.keys.shards, self._list, ex=KEEP_LIST_S, get=True)
        others = [worker.id for worker in self.workers if worker.info.get("shards", "") != self._list]
        problem = ""
        if told is not None and told.decode() != self._list:
            problem = f"another API process was given the shards {told.decode()}, and this one {self._list}"
        elif others:
            problem = f"worker {others[0]} was not given the shards {self._list}"
        if problem and problem != self.other_list:
            log.error("shard %s: %s; all processes need the same list", self.name, problem)
        self.other_list = problem


def _served(workers: Iterable[Worker]) -> set[tuple[str, str]]:
    """The models that workers have, by name and revision."""
    return {(info["name"], info["revision"]) for worker in workers for info in worker.info.get("models", ())}
