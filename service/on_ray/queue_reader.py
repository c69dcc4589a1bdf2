"""What the controller knows of the queue: how long it is, and which workers are announced. Over all shards."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from plaudit.errors import BrokerUnavailable
from service.on_ray.scaling import QueueDemand
from service.queue.connections import connect_async
from service.queue.keys import EXECUTE_QUEUE
from service.queue.producer import Queue, Worker
from service.queue.shards import addresses
from service.settings import Settings

SOCKET_TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True)
class QueueView:
    """One look. None: no shard answers."""

    demand: QueueDemand | None = None
    announced: frozenset[tuple[str, int]] | None = None
    isolation: frozenset[str] = frozenset()


class QueueReader:
    """Connections to the shards of these settings. Close it."""

    def __init__(self, settings: Settings) -> None:
        self._runner = asyncio.Runner()
        self._clients = [
            connect_async(shard.url, max_connections=2, socket_timeout_s=SOCKET_TIMEOUT_S)
            for shard in addresses(settings.redis_urls)
        ]
        self._queues = [Queue(client, settings.namespace, "ray-controller") for client in self._clients]

    def read(self) -> QueueView:
        """Look at all shards at once."""
        return self._runner.run(self._read())

    async def _read(self) -> QueueView:
        looks = await asyncio.gather(*map(_look, self._queues), return_exceptions=True)
        demands: list[QueueDemand] = []
        workers: list[Worker] = []
        for look in looks:
            if isinstance(look, tuple):
                demands.append(look[0])
                workers += look[1]
            elif not isinstance(look, BrokerUnavailable):
                raise look
        if not demands:
            return QueueView()
        demand = QueueDemand(sum(each.depth for each in demands), max(each.oldest_s for each in demands))
        # A shard that is away has announcements, too; who is announced there alone must not be taken for silent.
        announced = frozenset((str(worker.info.get("host")), int(worker.info.get("pid", 0))) for worker in workers)
        levels = frozenset(str(worker.info["isolation"]) for worker in workers if worker.kind == "execute")
        return QueueView(demand, announced if len(demands) == len(looks) else None, levels)

    def close(self) -> None:
        async def end() -> None:
            for client in self._clients:
                await client.aclose()

        self._runner.run(end())
        self._runner.close()


async def _look(queue: Queue) -> tuple[QueueDemand, list[Worker]]:
    await queue.read_clock()
    load = await queue.load(EXECUTE_QUEUE)
    return QueueDemand(load.depth, load.oldest_ms / 1000), await queue.workers()
