"""Connections to Redis: which URLs are understood, clients without the socket-timeout trap, and the first contact.

A blocked read must end before the socket's own timeout: redis-py's default of 5 s turns a longer BLOCK into a minute
of silent retries, and no timeout at all would never notice a host that vanished.
"""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel
from redis.backoff import ExponentialBackoff
from redis.exceptions import AuthenticationError, AuthorizationError, RedisError, ResponseError
from redis.retry import Retry

from plaudit.errors import HostLacks, UsageError
from service.queue.keys import Keys
from service.queue.shards import ShardAddress, addresses, list_of, served_shards
from service.settings import Settings, masked

log = logging.getLogger("plaudit.queue")

SOCKET_TIMEOUT_S = 10.0
SHARD_TIMEOUT_S = 3.0  # of one Redis of several: whoever waits for it holds up work of the others
CONNECT_TIMEOUT_S = 2.0
SENTINEL_PORT = 26379
LEAST_VERSION = (7, 0)
FORMS = (
    "redis://[USER:PASSWORD@]HOST[:PORT][/DB], rediss:// for TLS, unix://[USER:PASSWORD@]/PATH, or "
    "sentinel://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]…]/SERVICE[/DB]"
)


def _timeouts(socket_timeout_s: float) -> dict[str, Any]:
    return {"protocol": 2, "socket_timeout": socket_timeout_s, "socket_connect_timeout": CONNECT_TIMEOUT_S}


@dataclass(frozen=True, slots=True)
class SentinelUrl:
    """A primary as its sentinels name it."""

    sentinels: tuple[tuple[str, int], ...]
    service: str
    db: int
    credentials: dict[str, str] = field(default_factory=dict)


def checked(url: str) -> str:
    """The URL, if it is one that plaudit understands. Raises UsageError, which says what it takes."""
    scheme = url.partition("://")[0] if "://" in url else ""
    try:
        if scheme == "sentinel":
            _sentinel(url)
        elif scheme in ("redis", "rediss", "unix"):
            if scheme != "unix" and "," in urlsplit(url).netloc:
                raise ValueError("it names several hosts, which only sentinel:// does")
            options: dict[str, Any] = redis.connection.parse_url(url)  # type: ignore[no-untyped-call]
            options.pop("connection_class", redis.Connection)(**options)  # refuses parameters that it does not know
        elif "sentinel" in scheme:
            raise ValueError("Redis Sentinel is written sentinel://")
        else:
            raise ValueError(f"{scheme}:// is not one of these" if scheme else "it has no scheme")
    except (ValueError, TypeError) as error:
        raise UsageError(f"--redis-url {masked(url)}: {error}; it takes {FORMS}") from None
    return url


def _sentinel(url: str) -> SentinelUrl:
    """Raises ValueError."""
    parts = urlsplit(url)
    userinfo, _, hosts = parts.netloc.rpartition("@")
    user, _, password = userinfo.partition(":")
    sentinels = []
    for host in hosts.split(","):
        match = re.fullmatch(r"(\[[0-9A-Fa-f:]+\]|[^:\[\]]+)(?::(\d{1,5}))?", host)
        if match is None:
            raise ValueError(f"{host!r} is not HOST or HOST:PORT")
        sentinels.append((match[1].strip("[]"), int(match[2] or SENTINEL_PORT)))
    service, _, db = parts.path.strip("/").partition("/")
    if not service:
        raise ValueError("the name of the service is missing behind the hosts")
    if not (db or "0").isdigit():
        raise ValueError(f"{db!r} is not the number of a database")
    named = (("username", user), ("password", password))
    return SentinelUrl(
        tuple(sentinels), unquote(service), int(db or 0), {name: unquote(value) for name, value in named if value}
    )


class _SentinelPool(redis.asyncio.sentinel.SentinelConnectionPool):
    """Connections to the primary; closing it closes those to the sentinels, too."""

    async def aclose(self) -> None:
        await super().aclose()
        for sentinel in self.sentinel_manager.sentinels:
            await sentinel.aclose()


def connect_async(
    url: str, *, max_connections: int = 512, socket_timeout_s: float = SOCKET_TIMEOUT_S
) -> redis.asyncio.Redis:
    """A pooled client that fails fast: the caller decides whether to come back."""
    timeouts = _timeouts(socket_timeout_s)
    retry = redis.asyncio.retry.Retry(ExponentialBackoff(cap=0.1, base=0.01), 1)
    if url.startswith("sentinel://"):
        named = _sentinel(url)
        watch = redis.asyncio.sentinel.Sentinel(  # type: ignore[no-untyped-call]
            named.sentinels, sentinel_kwargs=dict(timeouts), **timeouts, **named.credentials
        )
        pool: Any = _SentinelPool(  # type: ignore[no-untyped-call]
            named.service,
            watch,
            db=named.db,
            retry=retry,
            max_connections=max_connections,
            **timeouts,
            **named.credentials,
        )
        return redis.asyncio.Redis.from_pool(pool)
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        url, max_connections=max_connections, timeout=5, retry=retry, **timeouts
    )
    return redis.asyncio.Redis.from_pool(pool)  # closing the client closes the pool


def connect(url: str, *, socket_timeout_s: float = SOCKET_TIMEOUT_S) -> redis.Redis:
    """A synchronous client for a worker; safe to share between its threads."""
    timeouts = _timeouts(socket_timeout_s)
    retry = Retry(ExponentialBackoff(cap=0.1, base=0.01), 1)
    if url.startswith("sentinel://"):
        named = _sentinel(url)
        watch = redis.sentinel.Sentinel(  # type: ignore[no-untyped-call]
            named.sentinels, sentinel_kwargs=dict(timeouts), **timeouts, **named.credentials
        )
        client: redis.Redis = watch.master_for(  # type: ignore[no-untyped-call]
            named.service, db=named.db, retry=retry
        )
        return client
    return redis.Redis.from_url(url, retry=retry, **timeouts)


class RedisAway(HostLacks):
    """No Redis answers at a URL."""


def greet_shards(settings: Settings) -> None:
    """Wait until a shard that these settings use answers, and see that plaudit can use it.

    Of several, one that does not answer is left out: it may come back at any time.

    Raises:
        UsageError, HostLacks: as `greet`.
        UsageError: a running process of this deployment was given other shards.
    """
    shards, wait_s = served_shards(settings), settings.redis_wait_s
    if len(shards) == 1:
        greet(shards[0].url, wait_s)
        _compare_lists(settings, shards)
        return
    until = time.monotonic() + wait_s
    while True:
        away: list[RedisAway] = []
        for shard in shards:
            try:
                greet(shard.url, 0.0)
            except RedisAway as error:
                away.append(error)
        if len(away) < len(shards):
            _compare_lists(settings, shards)
            for one in away:
                log.warning("%s; the other shards are used until it does", one.detail)
            return
        if time.monotonic() >= until:
            raise RedisAway("; ".join(one.detail for one in away))
        time.sleep(min(0.5, max(0.0, until - time.monotonic())))


def _compare_lists(settings: Settings, shards: Sequence[ShardAddress]) -> None:
    """Raises UsageError if a running API process was given other shards."""
    own = list_of(addresses(settings.redis_urls))
    for shard in shards:
        with connect(shard.url) as client, contextlib.suppress(RedisError, OSError):  # away: it is compared later
            told: Any = client.get(Keys(settings.namespace).shards)
            if told is not None and told.decode() != own:
                raise UsageError(
                    f"--redis-url: this process is given the shards {own or shard.name}, and running processes of "
                    f"this deployment have {told.decode()}; give all of them the same list, and stop those of the old "
                    "one before others start (docs/operations.md)"
                )


def greet(url: str, wait_s: float, asked_to_stop: Callable[[], bool] = bool) -> None:
    """Wait until Redis answers, and see that it is one plaudit can use.

    Args:
        url: what `--redis-url` says.
        wait_s: how long Redis may be away, in seconds.
        asked_to_stop: looked at between two tries; the wait ends when it is true.

    Raises:
        UsageError: Redis refuses the user or the password.
        HostLacks: nobody answers in time, or what answers is too old or a Redis Cluster.
    """
    until = time.monotonic() + wait_s
    shown = masked(url)
    with connect(url) as client:
        while not asked_to_stop():
            try:
                info: Any = client.info()
                break
            except (AuthenticationError, AuthorizationError) as error:
                raise UsageError(f"--redis-url {shown}: Redis refuses the user or the password ({error})") from None
            except ResponseError as error:
                if "NOPERM" in str(error) or "NOAUTH" in str(error):
                    raise UsageError(f"--redis-url {shown}: Redis refuses this user ({error})") from None
                raise HostLacks(f"--redis-url {shown}: Redis answers with an error: {error}") from None
            except (RedisError, OSError) as error:
                if time.monotonic() >= until:
                    raise RedisAway(
                        f"--redis-url {shown}: no Redis answered within {wait_s:g} s (--redis-wait-s): {error}"
                    ) from None
                time.sleep(min(0.5, max(0.0, until - time.monotonic())))
        else:
            return
    version = str(info.get("redis_version", "0"))
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < LEAST_VERSION:
        raise HostLacks(f"--redis-url {shown}: Redis {version} is too old; plaudit needs 7.0 or newer, or any Valkey")
    if info.get("cluster_enabled"):
        raise HostLacks(
            f"--redis-url {shown}: a Redis Cluster, which plaudit does not support; give it one primary, "
            "with Sentinel if it is to fail over, or several that know nothing of each other"
        )
