"""Names of the Redis keys, the scripts, and connections without the socket-timeout trap."""

from __future__ import annotations

from importlib import resources

import redis
import redis.asyncio
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from service.jobs import LANES, Kind, Lane

GROUP = "workers"
# A blocked read must end before the socket's own timeout: redis-py's default of 5 s turns a longer BLOCK into a minute
# of silent retries, and no timeout at all would never notice a host that vanished.
BLOCK_S = 0.5
SOCKET_TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 2.0


class Keys:
    """Every key under one namespace."""

    def __init__(self, namespace: str) -> None:
        self.prefix = f"{namespace}:"
        self.workers = f"{self.prefix}workers"
        self.workers_info = f"{self.prefix}workers:info"

    def stream(self, queue: str, lane: Lane) -> str:
        return f"{self.prefix}stream:{queue}:{lane}"

    def streams(self, queue: str) -> list[str]:
        return [self.stream(queue, lane) for lane in LANES]

    def load(self, queue: str) -> str:
        return f"{self.prefix}load:{queue}"

    def live(self, queue: str) -> str:
        return f"{self.prefix}live:{queue}"

    def tags(self, queue: str) -> str:
        return f"{self.prefix}tags:{queue}"

    def book(self, queue: str) -> list[str]:
        """What the scripts keep of a queue's live jobs: load, live, tags."""
        return [self.load(queue), self.live(queue), self.tags(queue)]

    def active(self, queue: str) -> str:
        return f"{self.prefix}active:{queue}"

    def order(self, queue: str) -> str:
        return f"{self.prefix}order:{queue}"

    def reports(self, order: str) -> str:
        return f"{self.prefix}reports:{order}"

    @property
    def sources(self) -> str:
        return f"{self.prefix}sources"

    def suite(self, sha256: str) -> str:
        return f"{self.prefix}suite:{sha256}"

    def reply(self, api: str) -> str:
        return f"{self.prefix}reply:{api}"

    def cache(self, job: str) -> str:
        return f"{self.prefix}cache:{job}"

    def last(self, job: str) -> str:
        return f"{self.prefix}last:{job}"

    def job(self, job: str) -> str:
        return f"{self.prefix}job:{job}"


def script(name: str, *, spare: bool = False) -> str:
    """Source of one of the scripts beside this module, after that of what it builds on.

    `spare`: one that runs even where the broker's memory is full, for what gives more back than it takes.
    """
    folder = resources.files("service.queue").joinpath("lua")
    parts = [*BUILT_ON.get(name, ()), name]
    source = "\n".join(folder.joinpath(f"{part}.lua").read_text("utf-8") for part in parts)
    return f"#!lua flags=allow-oom\n{source}" if spare else source


def queue_of_model(model: str) -> str:
    return f"score:{model}"


EXECUTE_QUEUE = "execute"
BUILT_ON = {"finish": ("book",), "leave": ("book",)}


def kind_of_queue(queue: str) -> Kind:
    return "execute" if queue == EXECUTE_QUEUE else "score"


def connect_async(url: str, *, max_connections: int = 512) -> redis.asyncio.Redis:
    """A pooled client that fails fast: the caller decides whether to come back."""
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        url,
        max_connections=max_connections,
        timeout=5,
        protocol=2,
        socket_timeout=SOCKET_TIMEOUT_S,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        retry=redis.asyncio.retry.Retry(ExponentialBackoff(cap=0.1, base=0.01), 1),
    )
    return redis.asyncio.Redis.from_pool(pool)  # closing the client closes the pool


def connect(url: str) -> redis.Redis:
    """A synchronous client for a worker; safe to share between its threads."""
    return redis.Redis.from_url(
        url,
        protocol=2,
        socket_timeout=SOCKET_TIMEOUT_S,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        retry=Retry(ExponentialBackoff(cap=0.1, base=0.01), 1),
    )
