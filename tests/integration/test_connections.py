"""The first contact with Redis: what is understood, what is refused and by which name, and a failover by Sentinel."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import redis

from plaudit.errors import HostLacks, UsageError
from service.queue.connections import checked, connect, connect_async, greet
from service.settings import masked
from support.broker import Broker
from support.sentinels import Sentinels
from support.stack import free_port, wait_for

GOOD = (
    "redis://h",
    "redis://h:1/3",
    "redis://u:p@h",
    "rediss://h",
    "unix:///tmp/s",
    "redis://h/0?socket_timeout=3",
    "sentinel://a,b:2/main",
    "sentinel://u:p@a/main/4",
    "sentinel://[::1]:9/main",
)
BAD = {
    "h:6379": "no scheme",
    "http://h": "http:// is not",
    "redis://h:port": "",
    "redis://h:99999": "",
    "redis://a,b": "several hosts",
    "redis://h/0?foo=1": "foo",
    "sentinel://a": "name of the service",
    "redis+sentinel://a/m": "is written sentinel://",
    "sentinel://a:b:c/m": "HOST:PORT",
    "sentinel://a/m/x": "database",
    "": "no scheme",
}


@pytest.mark.parametrize("url", GOOD)
def test_urls_that_are_understood(url: str) -> None:
    assert checked(url) == url


@pytest.mark.parametrize(("url", "why"), BAD.items(), ids=[url or "empty" for url in BAD])
def test_a_url_not_understood_is_refused_by_the_flags_name(url: str, why: str) -> None:
    with pytest.raises(UsageError) as caught:
        checked(url)
    assert "--redis-url" in caught.value.detail
    assert why in caught.value.detail
    assert "sentinel://" in caught.value.detail


@pytest.mark.parametrize(
    "url",
    [
        "redis://u:secret@h/0",
        "redis://h/0?password=secret&socket_timeout=3",
        "unix://:secret@/tmp/s",
        "sentinel://u:secret@a,b/main",
        "redis://h/0?PASSWORD=secret",
        "u:secret@h:1",
        "sentinel://a/m?sentinel_password=secret",
    ],
)
def test_no_secret_of_a_url_is_shown(url: str) -> None:
    assert "secret" not in masked(url)
    assert "***" in masked(url)


def plaudit(*argv: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PLAUDIT_")}
    return subprocess.run(
        [sys.executable, "-m", "service.cli", *argv],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("command", [("serve", "--port", "0"), ("worker", "execute"), ("up", "--port", "0")])
def test_an_unreachable_redis_ends_after_a_bounded_wait(command: tuple[str, ...]) -> None:
    began = time.monotonic()
    url = f"redis://127.0.0.1:{free_port()}"
    done = plaudit(*command, "--redis-url", url, "--redis-wait-s", "1")
    assert done.returncode == 3, done.stderr
    assert time.monotonic() - began < 20
    assert "--redis-url" in done.stderr
    assert "--redis-wait-s" in done.stderr


def test_a_wrong_password_is_said_at_once() -> None:
    with Broker() as broker:
        with broker.client() as client:
            client.config_set("requirepass", "right")
        began = time.monotonic()
        with pytest.raises(UsageError) as caught:
            greet(broker.url.replace("unix://", "unix://:wrong@"), 30)
        assert "refuses" in caught.value.detail
        assert "wrong@" not in caught.value.detail
        assert time.monotonic() - began < 5
        greet(broker.url.replace("unix://", "unix://:right@"), 1)


def test_a_cluster_is_refused_by_name() -> None:
    with Broker(options=("--cluster-enabled", "yes")) as broker, pytest.raises(HostLacks) as caught:
        greet(broker.url, 1)
    assert "Redis Cluster" in caught.value.detail


@pytest.fixture
def sentinels() -> Iterator[Sentinels]:
    with ExitStack() as stack:
        yield stack.enter_context(Sentinels())


async def test_both_clients_follow_a_failover_by_sentinel(sentinels: Sentinels) -> None:
    greet(sentinels.url, 5)
    with connect(sentinels.url) as client:
        client.set("before", 1)
        with sentinels.client("b") as replica:
            wait_for(lambda: replica.get("before"), what="replication")
        sentinels.kill("a")

        def writes() -> bool:
            try:
                return bool(client.set("after", 1))
            except (redis.RedisError, OSError):
                return False

        wait_for(writes, 30.0, "a new primary")
        assert client.get("before") == b"1"
    later = connect_async(sentinels.url)
    assert await later.get("after") == b"1"
    await later.aclose()
