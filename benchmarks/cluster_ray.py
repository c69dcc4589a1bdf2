"""A deployment on a local Ray cluster while its nodes are killed: what callers see, and how long recovery takes.

Node processes of one machine stand for hosts: a head, two nodes for the API and the controller, and nodes with CPUs.
Callers inside the cluster find the deployment by its name and send scores, programs and rankings whose right answers
are known. Meanwhile everything on a node is ended by SIGKILL at once, one node after the other, and a new node joins.
The history of every call is checked as that of `chaos.py`. Needs the extra `ray`; exits with 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from chaos import failure_code, table
from overhead import machine

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests"))

import plaudit  # noqa: E402
from plaudit.errors import HostLacks, PlauditError, Unreachable  # noqa: E402
from service import on_ray  # noqa: E402
from service.on_ray import DeploymentOptions  # noqa: E402
from service.scoring.reward_model import RewardModel  # noqa: E402
from service.settings import Settings  # noqa: E402
from support.asks import Ask, Asks  # noqa: E402
from support.checkpoints import checkpoint  # noqa: E402
from support.history import Attempt, Fault, Request, violations  # noqa: E402

CALL_S, CALM_S, RECOVERY_S = 20.0, 10.0, 60.0
EXECUTORS = 3
HEAD = ("killed", "answers right / put off", "longest answer, s", "no answer for, s", "whole again after, s")
Row = tuple[str, ...]


@dataclass
class Callers:
    """Programs of the cluster that call one after the other until `over`."""

    asks: Asks
    clock: Callable[[], float]
    over: threading.Event = field(default_factory=threading.Event)
    requests: list[Request] = field(default_factory=list)

    async def call_all(self, count: int) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(self.call())

    async def call(self) -> None:
        async with plaudit.AsyncClient("ray://plaudit", timeout_s=CALL_S, max_tries=10_000) as client:
            while not self.over.is_set():
                number = len(self.requests)
                ask = (self.asks.score, self.asks.execute, self.asks.rank)[number % 3](number)
                attempt = Attempt(self.clock())
                self.requests.append(Request(f"{ask.path} {number}", [attempt]))
                attempt.outcome = await outcome_of(client, ask)
                attempt.ended = self.clock()

    def attempts(self, began: float, ended: float) -> list[Attempt]:
        """Those that ended in this time."""
        return [one for request in self.requests for one in request.attempts if began <= one.ended < ended]


async def outcome_of(client: plaudit.AsyncClient, ask: Ask) -> str:
    """`right`, `wrong: …`, or the code of a typed failure; `reset`: no connection until the call's end."""
    method = getattr(client, ask.path.strip("/"))
    options = {name: value for name, value in ask.body.items() if name != "items"}
    try:
        answer = (await method(ask.body["items"], **options)).model_dump(mode="json")
        if ask.judge_answer(answer) == "right":
            return "right"
    except Unreachable:
        return "reset"
    except PlauditError as error:
        return error.code if error.retryable else f"wrong: {error.code}: {error.detail}"
    except AssertionError as error:
        return f"wrong: {str(error)[:300]}"
    return next(code for part in ask.statuses(answer) if (code := failure_code(part)) is not None)


def whole() -> bool:
    """Whether everything runs that should."""
    try:
        state = on_ray.status()
    except PlauditError:
        return False
    roles = [actor["actor"].rpartition("-")[0] for actor in state["actors"] if actor["phase"] == "ready"]
    return state["phase"] == "ready" and roles.count("executor") == EXECUTORS and roles.count("scorer") == 1


class Killer:
    """Kills one node after the other, and adds another for it."""

    def __init__(self, cluster: Any, callers: Callers) -> None:
        self.cluster = cluster
        self.callers = callers
        self.faults: list[Fault] = []
        self.rows: list[Row] = []
        self.nodes = [self.with_cpus(), self.with_cpus()]
        self.fronts = [self.front(), self.front()]

    def with_cpus(self) -> Any:
        return self.cluster.add_node(num_cpus=2)

    def front(self) -> Any:
        return self.cluster.add_node(num_cpus=0, resources={"front": 1})

    def holder(self, role: str, nodes: list[Any]) -> Any:
        """The node on which an actor of this kind is."""
        held = {actor["node"] for actor in on_ray.status()["actors"] if actor["actor"].startswith(role)}
        return next(node for node in nodes if node.node_id in held)

    def kill(self, what: str, kind: str, role: str) -> None:
        nodes, add = (self.fronts, self.front) if role == "api" else (self.nodes, self.with_cpus)
        node = self.holder(role, nodes)
        began = self.callers.clock()
        self.cluster.kill_node(node)
        nodes.remove(node)
        nodes.append(add())  # a machine comes as soon as one is lost
        self.wait_until_whole(began, what, kind)

    def wait_until_whole(self, began: float, what: str, kind: str) -> None:
        seen_broken, until = False, time.monotonic() + 300
        while time.monotonic() < until:
            now_whole = whole()
            seen_broken = seen_broken or not now_whole
            if seen_broken and now_whole:
                break
            time.sleep(0.25)
        else:
            raise SystemExit(f"{what}: the deployment was not whole again within 300 s")
        ended = self.callers.clock()
        self.faults.append(Fault(kind, what, began, ended))
        time.sleep(3)
        attempts = self.callers.attempts(began, self.callers.clock())
        right = sorted(one.ended for one in attempts if one.outcome == "right")
        gaps = [later - earlier for earlier, later in zip([began, *right], right, strict=False)]
        self.rows.append(
            (
                what,
                f"{len(right)} / {len(attempts) - len(right)}",
                f"{max(one.ended - one.began for one in attempts):.1f}",
                f"{max(gaps):.1f}",
                f"{ended - began:.1f}",
            )
        )


def measure(cluster: Any, asks: Asks, num_callers: int, settings: Settings) -> tuple[list[Row], list[str]]:
    """The table, and what broke a promise. Callers have a thread of their own; Ray adds nodes in the main one."""
    origin = time.monotonic()
    callers = Callers(asks, lambda: time.monotonic() - origin)
    killer = Killer(cluster, callers)
    options = DeploymentOptions(
        actor_cpus=1, min_executors=EXECUTORS, max_executors=EXECUTORS, front_resources={"front": 0.01}
    )
    began = callers.clock()
    on_ray.up(options, settings)
    while not whole():
        time.sleep(0.25)
    started_s = callers.clock() - began
    calling = threading.Thread(target=asyncio.run, args=(callers.call_all(num_callers),))
    calling.start()
    try:
        time.sleep(CALM_S)
        before = callers.attempts(0.0, callers.clock())
        for what, kind, role in (
            ("node with executors", "worker", "executor"),
            ("node with the scorer", "worker", "scorer"),
            ("node with API and controller", "api", "api"),
        ):
            killer.kill(what, kind, role)
            print(
                f"{callers.clock():7.1f} s  {what}, {len(callers.requests)} calls so far", file=sys.stderr, flush=True
            )
    finally:
        callers.over.set()
        calling.join()
        on_ray.down()
    longest, right = max(one.ended - one.began for one in before), sum(one.outcome == "right" for one in before)
    counts = f"{right} / {len(before) - right}"
    calm = (f"nothing, for {CALM_S:g} s", counts, f"{longest:.1f}", "", f"start: {started_s:.1f}")
    return [HEAD, calm, *killer.rows], violations(callers.requests, killer.faults, RECOVERY_S)


def run(num_callers: int = 6) -> tuple[list[Row], list[str]]:
    """The table with its head first, and what broke a promise, a line each. Raises HostLacks without Ray."""
    if find_spec("ray") is None:
        raise HostLacks("not run: the package 'ray' is not installed; pip install 'plaudit-server[ray]'")
    from support.ray_cluster import LocalRay, RedisServer

    with tempfile.TemporaryDirectory() as folder, RedisServer() as server, LocalRay() as cluster:
        model = checkpoint(Path(folder))
        settings = Settings(
            isolation_accept="userns",
            device="cpu",
            model={"default": str(model)},
            redis_url=server.url,
            log_level="warning",
        )
        asks = Asks(RewardModel.load(str(model), dtype="float32", threads=1))
        return measure(cluster, asks, num_callers, settings)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--callers", type=int, default=6)
    arguments = parser.parse_args()
    try:
        rows, broken = run(arguments.callers)
    except HostLacks as error:
        print(error.detail)
        return 0
    print(f"\n{machine()}\n")
    print(table(rows))
    print(f"\n{len(broken)} broken promises")
    print("\n".join(broken[:50]))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
