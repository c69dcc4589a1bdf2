"""Several hosts, and the network between them cut, slow and lossy; a failover; hosts that are gone for good.

Nine hosts are network namespaces of this one: the callers, two APIs, a Redis and its replica under three sentinels, a
second shard, two executors and a scorer, each on a wire that can be cut (`tests/support/wire.py`). Every pair of hosts
is cut, both ways or one way; then all links become slow, then lossy; the primary is killed, and cut off; hosts go for
good. The clock of the second shard is minutes off, and those of one API and one executor are, too. Callers of four
tenants send what `chaos.py` sends, and the history of every attempt is checked by the same rules, but for one: as
accepted requests wait for the replica (`--redis-replicas 1`), none may be lost. Exits with 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from chaos import DEADLINE_MS, RECOVERY_S, ROOT, TENANTS, Load, table
from overhead import machine

sys.path.append(str(ROOT / "tests"))

from service.scoring.reward_model import Calibration, RewardModel
from support.asks import Asks
from support.checkpoints import checkpoint
from support.history import Fault, Request, violations
from support.hosts import HERE, HostStack, Network, RedisHosts, missing
from support.stack import Process, wait_for

APIS, REDIS, WORKERS = ("api1", "api2"), ("redis1", "redis2", "shard"), ("exec1", "exec2", "scorer")
SENTINELS = ("redis2", "shard", "api1")  # not with the primary: whoever cuts it off cuts off no sentinel
OFF_S = 200.0
CUT_S, QUIET_S, RECOVERED_S = 5.0, 1.0, 60.0
WAYS = ("both ways", "there", "back")


def kind_of(one: str, other: str) -> str:
    """What is broken for a caller when two hosts cannot reach each other."""
    hosts = {one, other}
    if HERE in hosts:
        return "api" if hosts & set(APIS) else "none"
    if hosts & set(REDIS):
        return "worker" if hosts & set(WORKERS) else "redis"
    return "none"  # they have nothing to say to each other


@dataclass
class Cluster:
    """The hosts and what runs on them. `apis` are those that still live, as `chaos.Load` has them."""

    network: Network
    brokers: RedisHosts
    stack: HostStack
    apis: list[tuple[Process, str]] = field(default_factory=list)
    workers: dict[str, Process] = field(default_factory=dict)

    def start(self) -> None:
        for host in ("exec1", "exec2"):
            with self.stack.on(host):
                self.workers[host] = self.stack.start_executor(clock_s=OFF_S if host == "exec2" else 0.0)
        with self.stack.on("scorer"):
            self.workers["scorer"] = self.stack.start_scorer()
        for worker in self.workers.values():
            worker.line()
        for host in APIS:
            process = self.stack.start_api_on(host, clock_s=-OFF_S if host == "api2" else 0.0)
            self.apis.append((process, self.stack.apis[host]))

    def works(self) -> bool:
        """Whether each API that lives is ready without a reservation, and answers new work of every shard."""
        try:
            return all(self._works(url) for _, url in self.apis)
        except httpx.TransportError:
            return False

    def _works(self, url: str) -> bool:
        headers = {"Authorization": f"Bearer {TENANTS[0]}", "X-Deadline-Ms": "5000"}
        with httpx.Client(base_url=url, trust_env=False, timeout=3, headers=headers) as client:
            ready = client.get("/ready")
            if ready.status_code != 200 or ready.json()["reasons"]:
                return False
            salt = time.time_ns()
            tests = [{"kind": "stdio", "cases": [{"stdin": f"{at} {salt}", "stdout": ""}]} for at in range(6)]
            programs = [{"language": "python", "programs": [f"pass  # {salt}"], "tests": suite} for suite in tests]
            prompts = [{"prompt": f"{at} {salt}", "completions": ["pass"]} for at in range(6)]
            ran, scored = (
                client.post("/execute", json={"items": programs}),
                client.post("/score", json={"items": prompts}),
            )
        if ran.status_code != 200 or scored.status_code != 200:
            return False
        parts = [item["programs"][0] for item in ran.json()["results"]]
        parts += [item["completions"][0] for item in scored.json()["results"]]
        return all(part["status"] == "ok" for part in parts)


@dataclass
class Recovery:
    """A fault's name, and how long after its end (or, of one without an end, its beginning) everything worked."""

    name: str
    way: str
    recovered_s: float
    fault: Fault


class Partitions:
    """Breaks one thing after the other and measures. Its methods block; they run in a thread."""

    def __init__(self, cluster: Cluster, clock: Callable[[], float]) -> None:
        self.cluster = cluster
        self.clock = clock
        self.done: list[Recovery] = []

    def run(self, *, full: bool) -> None:
        """Everything, the faults without an end last."""
        hosts, number = (HERE, *APIS, *REDIS, *WORKERS), 0
        for one, other in itertools.combinations(hosts, 2):
            if not full and kind_of(one, other) == "none":
                continue
            for way in WAYS if full else WAYS[number % 3 :][:1]:
                self.partition(one, other, way)
            number += 1
        self.slow("all links 100 ms slower each way", delay_s=0.1)
        self.slow("all links lose 5 % of their packets", loss=0.05)
        self.primary_killed()
        self.primary_cut_off()
        self.gone_for_good("exec1", "worker")
        self.gone_for_good("api2", "api")
        self.gone_for_good(self.cluster.brokers.primary("shard"), "redis")

    @contextmanager
    def _fault(self, kind: str, name: str, way: str = "") -> Iterator[None]:
        began = self.clock()
        yield
        ended = self.clock()
        wait_for(self.cluster.works, RECOVERED_S, f"everything to work after: {name} {way}")
        recovered = self.clock()
        # Until everything works, its consequences are true.
        self.done.append(Recovery(name, way, recovered - ended, Fault(kind, f"{name} {way}", began, recovered)))
        print(f"{recovered:7.1f} s  {name} {way}: works {recovered - ended:.1f} s later", file=sys.stderr, flush=True)
        time.sleep(QUIET_S)

    def partition(self, one: str, other: str, way: str) -> None:
        pairs = {"both ways": [(one, other), (other, one)], "there": [(one, other)], "back": [(other, one)]}[way]
        kind = kind_of(one, other)
        with self._fault(kind, f"{one} – {other}", way), self.cluster.network.cut(*pairs):
            time.sleep(CUT_S)

    def slow(self, name: str, **link: float) -> None:
        with self._fault("*", name):
            self.cluster.network.everywhere(**link)
            time.sleep(2 * CUT_S)
            self.cluster.network.everywhere(**dict.fromkeys(link, 0.0))

    def primary_killed(self) -> None:
        brokers = self.cluster.brokers
        old = brokers.primary("shard")
        with self._fault("redis", "primary killed, until the replica has taken over"):
            brokers.kill(old)
        self._back_as_replica(old, restart=True)

    def primary_cut_off(self) -> None:
        """A primary that lives, and that some hosts still reach: its side of the partition must not acknowledge."""
        brokers, network = self.cluster.brokers, self.cluster.network
        old = brokers.primary("shard")
        others = [host for host in network.names if host not in (old, "api2", "exec2")]
        pairs = [pair for other in others for pair in ((old, other), (other, old))]
        with self._fault("redis", "primary cut off with an API and an executor"), network.cut(*pairs):
            wait_for(lambda: brokers.primary("shard") != old, 30, "a new primary")
            time.sleep(CUT_S)
        self._back_as_replica(old, restart=False)

    def _back_as_replica(self, name: str, *, restart: bool) -> None:
        brokers = self.cluster.brokers
        new = brokers.primary("shard")
        with self._fault("redis", "the old primary returns as a replica" + ("" if restart else ", by itself")):
            if restart:
                brokers.start_server(name, replica_of=new)
            wait_for(lambda: brokers.replicas_in_step() == 1, 60, "the replica to follow")

    def gone_for_good(self, host: str, kind: str) -> None:
        cluster = self.cluster
        with self._fault(kind, f"{'a Redis primary' if kind == 'redis' else host} gone for good"):
            cluster.network.isolate(host)
            cluster.apis[:] = [(process, url) for process, url in cluster.apis if url != cluster.stack.apis.get(host)]


def longest_silence_s(requests: list[Request], fault: Fault) -> float:
    """The longest time within a fault without a right answer to anybody."""
    moments = sorted(
        attempt.ended
        for request in requests
        for attempt in request.attempts
        if attempt.outcome == "right" and fault.began <= attempt.ended <= fault.ended
    )
    edges = [fault.began, *moments, fault.ended]
    return max(later - earlier for earlier, later in itertools.pairwise(edges))


@dataclass
class Outcome:
    """What a run came to. `broken`: promises, a line each."""

    recoveries: list[Recovery]
    requests: list[Request]
    broken: list[str]
    took_s: float

    def print(self) -> None:
        """The tables."""
        by_name: dict[str, list[Recovery]] = {}
        for each in self.recoveries:
            one, dash, other = each.name.partition(" – ")
            name = f"{_role(one)} – {_role(other)} cut for {CUT_S:g} s" if dash else each.name
            by_name.setdefault(name, []).append(each)
        rows = [
            (
                name,
                f"{len(group)}",
                f"{max(each.recovered_s for each in group):.1f}",
                f"{max(longest_silence_s(self.requests, each.fault) for each in group):.1f}",
            )
            for name, group in by_name.items()
        ]
        head = ("fault", "times", "everything works again after at most, s", "longest time without a right answer, s")
        print(table([head, *rows]))
        outcomes = Counter(attempt.outcome.split(":")[0] for each in self.requests for attempt in each.attempts)
        print(
            "\n"
            + table([("outcome of an attempt", "count"), *((name, f"{n:,}") for name, n in outcomes.most_common())])
        )
        counts = f"{len(self.requests):,} requests, {len(self.recoveries)} faults, {len(self.broken)} broken promises"
        print(f"\n{counts}, {self.took_s:.0f} s")
        for line in self.broken[:50]:
            print(f"- {line}")


def _role(host: str) -> str:
    roles = {HERE: "callers", **dict.fromkeys(APIS, "API"), **dict.fromkeys(REDIS, "Redis")}
    return roles.get(host, "executor" if host.startswith("exec") else host)


async def _run(cluster: Cluster, asks: Asks, callers: int, seed: int, *, full: bool) -> Outcome:
    draw, origin = random.Random(seed), time.monotonic()

    def clock() -> float:
        return time.monotonic() - origin

    load, faults = Load(cluster, asks, draw, clock), Partitions(cluster, clock)
    sending = [asyncio.create_task(load.caller(TENANTS[number % len(TENANTS)])) for number in range(callers)]
    await asyncio.sleep(3 * QUIET_S)
    broken = []
    try:
        await asyncio.to_thread(faults.run, full=full)
    except AssertionError as error:  # it never worked again
        broken.append(str(error))
    load.over.set()
    await asyncio.gather(*sending)
    told = violations(load.requests, [each.fault for each in faults.done], RECOVERY_S, may_lose=False)
    return Outcome(faults.done, load.requests, broken + told, clock())


def run(*, full: bool = False, callers: int = 6, seed: int = 1, keep: Path | None = None) -> Outcome:
    """Start the hosts, break what is between them, and end them. Raises SystemExit where this host cannot."""
    if lacks := missing():
        raise SystemExit(f"network namespaces need {lacks}")
    with ExitStack() as ends:
        folder = Path(ends.enter_context(tempfile.TemporaryDirectory()))
        model = checkpoint(folder, calibration=Calibration(a=2.0, b=-1.0))
        network = ends.enter_context(Network(*APIS, *REDIS, *WORKERS))
        brokers = RedisHosts(
            network,
            alone=("shard",),
            copies={"redis2": "shard"},
            primary="redis1",
            replica="redis2",
            sentinels=SENTINELS,
            clocks_s={"shard": OFF_S},
        )
        ends.enter_context(brokers)
        stack = HostStack(
            network,
            brokers,
            model,
            api_key=",".join(TENANTS),
            lease_s="3",
            heartbeat_s="0.5",
            drain_s="10",
            redis_replicas="1",
            log_level="warning",
        )
        ends.callback(stack.close)
        cluster = Cluster(network, brokers, stack)
        cluster.start()
        wait_for(cluster.works, RECOVERED_S, "everything to work before the first fault")
        asks = Asks(RewardModel.load(str(model), dtype="float32", threads=1))
        try:
            outcome = asyncio.run(_run(cluster, asks, callers, seed, full=full))
        finally:
            if keep is not None:
                for log in stack.folder.glob("*.log"):
                    (keep / log.name).write_bytes(log.read_bytes())
        return outcome


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="every pair in every way, some 15 minutes")
    parser.add_argument("--callers", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep-logs", type=Path, help="folder for the logs of all processes")
    given = parser.parse_args()
    outcome = run(full=given.full, callers=given.callers, seed=given.seed, keep=given.keep_logs)
    outcome.print()
    print(f"\n{machine()}; deadline {DEADLINE_MS / 1000:g} s, {given.callers} callers")
    return 1 if outcome.broken else 0


if __name__ == "__main__":
    sys.exit(main())
