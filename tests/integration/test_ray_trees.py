"""The process trees of a deployment on Ray, without Ray: what an actor starts, tells, drains and takes along."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import redis

from service.on_ray.tree_actor import TreeActor, children_of
from support.broker import Broker
from support.stack import wait_for

pytestmark = pytest.mark.extended

TREE = [sys.executable, "-P", "-m", "service.on_ray.tree"]


@pytest.fixture(autouse=True)
def one_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ray of one node, on loopback."""
    small: Any = ModuleType("ray")
    small.get_runtime_context = lambda: SimpleNamespace(get_node_id=lambda: "node")
    small.util = SimpleNamespace(get_node_ip_address=lambda: "127.0.0.1")
    monkeypatch.setitem(sys.modules, "ray", small)


@pytest.fixture
def actors() -> Iterator[list[TreeActor]]:
    """Those that a test starts; their trees are ended behind it."""
    started: list[TreeActor] = []
    yield started
    for actor in started:
        actor.drain()
        wait_for(lambda actor=actor: actor.state()["phase"] == "ended", 30.0, "the end of a tree")  # type: ignore[misc]


def until_ready(actor: TreeActor) -> dict[str, Any]:
    def ready() -> dict[str, Any] | None:
        state = actor.state()
        assert state["phase"] != "ended", state
        return state if state["phase"] == "ready" else None

    return wait_for(ready, 60.0, "the tree")  # type: ignore[no-any-return]


def test_a_broker_asks_for_its_password_and_comes_back_with_its_data(actors: list[TreeActor]) -> None:
    actors.append(TreeActor("broker", {}, "pass-word_1"))
    state = until_ready(actors[0])
    where = {"host": state["event"]["host"], "port": int(state["event"]["port"])}
    with redis.Redis(**where) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()
    with redis.Redis(**where, password="pass-word_1") as client:
        client.set("kept", "yes")
        [server] = [pid for pid in state["pids"] if b"valkey" in _argv(pid) or b"redis" in _argv(pid)]
        assert b"pass-word_1" not in _argv(server)
        assert client.config_get("appendonly")["appendonly"] == "yes"
        wait_for(lambda: client.info("persistence")["aof_pending_bio_fsync"] == 0, 5.0, "the disk")
        client.execute_command("WAITAOF", 1, 0, 5000)
        os.kill(server, signal.SIGKILL)

        def kept() -> Any:
            try:
                return client.get("kept")
            except redis.ConnectionError:
                return None

        assert wait_for(kept, 30.0, "the broker's return") == b"yes"


def _argv(pid: int) -> bytes:
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read()


def test_a_tree_that_cannot_run_says_why(actors: list[TreeActor]) -> None:
    environ = {
        "PLAUDIT_REDIS_URL": "redis://127.0.0.1:1",
        "PLAUDIT_REDIS_WAIT_S": "0",
    }
    actors.append(TreeActor("executor", environ | {"PLAUDIT_EXECUTORS": "1"}))
    state = wait_for(lambda: (told := actors[0].state())["phase"] == "ended" and told, 60.0, "the end")
    assert state["exit_code"] == 3
    assert state["detail"].startswith("--redis-url redis://127.0.0.1:1: no Redis answered within 0 s")


def test_an_actor_that_is_killed_takes_its_tree_along(broker: Broker) -> None:
    program = (
        "import os, subprocess, sys, time\n"
        "subprocess.Popen([*sys.argv[1:], str(os.getpid()), '127.0.0.1'], stdin=subprocess.DEVNULL)\n"
        "time.sleep(600)\n"
    )
    environ = os.environ | {"PLAUDIT_REDIS_URL": broker.url, "PLAUDIT_HOST": "127.0.0.1", "PLAUDIT_PORT": "0"}
    actor = subprocess.Popen([sys.executable, "-c", program, *TREE, "api"], env=environ, stdout=subprocess.DEVNULL)
    try:
        [tree] = wait_for(lambda: children_of(actor.pid), 30.0, "the tree")
        pids = wait_for(lambda: len(found := children_of(tree)) == 2 and found, 60.0, "the reaper and the API")
    finally:
        actor.kill()
        actor.wait()
    wait_for(lambda: not any(map(_runs, [tree, *pids])), 60.0, "the end of all")


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
