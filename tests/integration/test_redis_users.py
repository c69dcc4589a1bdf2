"""The users of deploy/redis: an executor does all its work with its own, and can do nothing beyond it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError
from redis.retry import Retry

from sandbox.capabilities import HostCapabilities
from service.queue.connections import connect
from support.broker import Broker
from support.stack import Stack, wait_for

START = Path(__file__).resolve().parents[2] / "deploy" / "redis" / "start.sh"
PASSWORDS = {"service": "service-7", "executor": "executor-7"}


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Broker]:
    """A Redis as compose and Kubernetes start it."""
    monkeypatch.setenv("REDIS_PASSWORD", PASSWORDS["service"])
    monkeypatch.setenv("REDIS_EXECUTOR_PASSWORD", PASSWORDS["executor"])
    monkeypatch.setenv("REDIS_USERS_FILE", str(tmp_path / "users.acl"))
    one = Broker(append_only=True, options=("--appendfsync", "always"))
    one.argv, one.user = ("sh", str(START), *one.argv), "health any"
    with one:
        yield one


def url_of(broker: Broker, user: str) -> str:
    return f"unix://{user}:{PASSWORDS[user]}@{broker.socket}"


def client_of(broker: Broker, user: str) -> redis.Redis:
    return connect(url_of(broker, user))


def test_an_executor_works_with_its_own_user(broker: Broker) -> None:
    if HostCapabilities.probe().level not in ("strong", "userns"):
        pytest.skip("programs cannot run here")
    broker.url = url_of(broker, "service")
    with Stack(broker, Path(), scorers=0, executors=0, lease_s="2", heartbeat_s="0.5") as stack:
        broker.url = url_of(broker, "executor")
        executor = stack.start_executor()
        broker.url = url_of(broker, "service")
        with stack.client() as http:
            wait_for(lambda: http.get("/info").json()["workers"].get("execute") == 1, 60, "the executor")
            # One that takes longer than a lease, one that is cached, and one that fails.
            sources = (
                "import time\ntime.sleep(2.5)\ndef f():\n    return 1\n",
                "def f():\n    return 1\n",
                "f = None\n",
            )
            suite = {"kind": "assert", "asserts": ["assert f() == 1"], "entry_point": "f"}
            body = {"items": [{"language": "python", "programs": list(sources), "tests": suite}]}
            for _ in range(2):
                answer = http.post("/execute", json=body)
                assert answer.status_code == 200, answer.text
                verdicts = [program["verdict"] for program in answer.json()["results"][0]["programs"]]
                assert verdicts[:2] == ["passed", "passed"]
                assert verdicts[2] != "passed"
        assert executor.stop() == 0
        for process in stack.processes:
            log = process.log.read_text()
            assert not [word for word in ("NOPERM", "ermission", "can't access") if word in log], log
        with client_of(broker, "service") as client:
            assert client.zcard("plaudit:workers") == 0  # it signed off


FORBIDDEN: tuple[tuple[Any, ...], ...] = (
    ("HGETALL", "plaudit:request:1"),
    ("HGET", "plaudit:request:1", "answer"),
    ("HSET", "plaudit:request:1", "answer", "x"),
    ("SET", "plaudit:score:1", "x"),
    ("GET", "plaudit:score:1"),
    ("GET", "plaudit:replay:1"),
    ("GET", "plaudit:cache:1"),
    ("LPOP", "plaudit:reply:1"),
    ("SET", "plaudit:suite:1", "x"),
    ("SET", "plaudit:api:1", "x"),
    ("SET", "plaudit:order:score:default", "x"),
    ("HSET", "plaudit:active:score:default", "revision", "x"),
    ("HSET", "plaudit:sources", "x", "y"),
    ("XREADGROUP", "GROUP", "workers", "x", "STREAMS", "plaudit:stream:score:default:high", ">"),
    ("KEYS", "*"),
    ("SCAN", "0"),
    ("FLUSHALL",),
    ("CONFIG", "GET", "*"),
    ("ACL", "LIST"),
    ("MONITOR",),
    ("SCRIPT", "FLUSH"),
)


@pytest.mark.parametrize("command", FORBIDDEN, ids=lambda command: " ".join(command[:2]))
def test_an_executor_can_do_nothing_beyond_its_work(broker: Broker, command: tuple[Any, ...]) -> None:
    with client_of(broker, "executor") as client, pytest.raises(NoPermissionError):
        client.execute_command(*command)


def test_a_script_of_an_executor_may_do_no_more(broker: Broker) -> None:
    with client_of(broker, "executor") as client:
        digest = client.script_load("return redis.call('HGET', 'plaudit:request:1', 'answer')")
        with pytest.raises(redis.ResponseError, match="access"):
            client.evalsha(digest, 0)


def test_what_one_script_wrote_outlives_redis(broker: Broker) -> None:
    """A script that writes twice is a transaction in the append-only file, which Redis reads as the user `default`."""
    with client_of(broker, "service") as client:
        script = "redis.call('SET', KEYS[1], '1') redis.call('XADD', KEYS[2], '*', 'job', '1')"
        client.eval(script, 2, "plaudit:job:1", "plaudit:stream:execute")
        broker.kill()
        broker.start()
        assert client.get("plaudit:job:1") == b"1"
        assert client.xlen("plaudit:stream:execute") == 1


def test_nobody_does_anything_without_a_name(broker: Broker) -> None:
    with redis.Redis(unix_socket_path=str(broker.socket), retry=Retry(NoBackoff(), 0)) as client:
        for command in (("PING",), ("GET", "plaudit:x"), ("INFO",), ("ACL", "WHOAMI")):
            with pytest.raises(AuthenticationError):
                client.execute_command(*command)
        for password in ("", "any", "default"):
            with pytest.raises(AuthenticationError):
                client.execute_command("AUTH", "default", password)


def test_a_probe_does_no_more_than_ping(broker: Broker) -> None:
    with redis.Redis(unix_socket_path=str(broker.socket), username="health", password="any") as client:
        assert client.ping()
        for command in (("GET", "plaudit:x"), ("INFO",), ("KEYS", "*")):
            with pytest.raises(NoPermissionError):
                client.execute_command(*command)
