"""How plaudit behaves on several hosts, and how far it goes; the tables of results/cluster.md.

- Partitions: what `partitions.py` does, with the time until everything works again.
- Simulator against measurement: `plaudit plan --measure` of this host, then bursts that the measurement did not have,
  by a service with two executors, and as the simulator predicts them for the cores that other work left. Exits with 1
  if a prediction is off by more than 15 %.
- Far: the simulator up to 1,024 executors and 8 shards with bursts of 5,120 rollouts, and two tenants at once.
- Shards: the rate of admission with 1, 2 and 4 Redis (`shards.py`).
- Ray: a local cluster with a node killed (`cluster_ray.py`).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

sys.path.append(str(Path(__file__).parent))  # last: one of its modules has the name of the package `sandbox`
sys.path.remove(str(Path(__file__).parent))

import cluster_ray
import partitions
import shards
from chaos import table
from overhead import machine

from plaudit.errors import HostLacks
from service.plan.capacity import Workload, plan
from service.plan.costs import Costs, read_costs
from service.plan.measure import host_name, measure, open_service, others_busy, tree_cpu_s
from service.plan.private_broker import private_broker
from service.plan.simulator import Arrival, Deployment, Simulated, Simulation
from service.settings import Settings

MAX_ERROR = 0.15
SETTINGS = Settings(isolation_accept="userns", scorers=0)
EXECUTORS = 2
ROUNDS = 5


@dataclass(frozen=True)
class Burst:
    """A burst that the measurement of costs did not have."""

    kind: str
    requests: int
    group: int
    tests: int

    @property
    def workload(self) -> Workload:
        return Workload(self.requests * self.group, self.group, self.tests, self.kind, extra_test_ms=0.0)


BURSTS = (Burst("python-stdio", 40, 8, 10), Burst("python-stdio", 12, 32, 5), Burst("python-assert", 40, 16, 10))


@dataclass(frozen=True)
class Comparison:
    """A burst as it was, and as it was predicted. `cores`: that other work left."""

    burst: Burst
    cores: float
    measured_s: float
    measured_cpu_s: float
    simulated: Simulated
    load: str

    @property
    def error(self) -> float:
        return self.simulated.makespan_s / self.measured_s - 1


def compare(costs: Costs, redis_url: str, bursts: tuple[Burst, ...] = BURSTS) -> list[Comparison]:
    """Each burst by a real service, the median of `ROUNDS` in turns, and by the simulator."""
    rounds: dict[Burst, list[tuple[float, float, float]]] = {burst: [] for burst in bursts}
    with open_service(SETTINGS, tell, EXECUTORS) as service:
        for number in range(ROUNDS):
            for burst in bursts:
                service.execute(burst.kind, 2, 4, burst.tests)
                time.sleep(1.0)
                tell(f"{burst}, round {number + 1} of {ROUNDS}")
                own_before_s, others = tree_cpu_s([os.getpid()]), others_busy()
                measured_s = max(service.burst(burst.kind, burst.requests, burst.group, burst.tests))
                own_s = tree_cpu_s([os.getpid()]) - own_before_s
                cores = max(0.1, len(os.sched_getaffinity(0)) - others())
                rounds[burst].append((measured_s, own_s, cores))
    found = []
    for burst in bursts:
        measured_s, own_s, cores = (statistics.median(values) for values in zip(*rounds[burst], strict=True))
        deployment = Deployment(EXECUTORS, cores=cores, clients=1)
        simulated = Simulation(deployment, burst.workload, costs, redis_url).run(
            [Arrival("trainer", burst.workload.rollouts)]
        )
        load = f"{os.getloadavg()[0]:.1f}"
        found.append(Comparison(burst, cores, measured_s, own_s, simulated, load))
    return found


def print_comparison(comparisons: list[Comparison]) -> bool:
    """The table; whether every prediction is good enough."""
    head = (
        "burst",
        "cores left by other work",
        "measured, s",
        "simulated, s",
        "off by",
        "CPU measured, s",
        "CPU simulated, s",
        "load average",
    )
    rows = [
        (
            f"{each.burst.requests} × {each.burst.group} {each.burst.kind}, {each.burst.tests} tests",
            f"{each.cores:.2f}",
            f"{each.measured_s:.2f}",
            f"{each.simulated.makespan_s:.2f}",
            f"{100 * each.error:+.0f} %",
            f"{each.measured_cpu_s:.2f}",
            f"{each.simulated.cpu_s:.2f}",
            each.load,
        )
        for each in comparisons
    ]
    print(table([head, *rows]))
    good = all(abs(each.error) <= MAX_ERROR for each in comparisons)
    print(f"\n{'Every prediction is' if good else 'NOT every prediction is'} within {100 * MAX_ERROR:.0f} %.")
    return good


def print_far(costs: Costs, redis_url: str, *, quick: bool) -> None:
    """The simulator alone, far beyond this host."""
    workload = Workload(5120, group=8, tests=20, kind="python-stdio", extra_test_ms=10.0)
    sizes = [(64, 1, 1), (256, 2, 2), (1024, 4, 4), (1024, 8, 8)]
    rows = []
    for executors, apis, num_shards in sizes[-2:] if quick else sizes:
        tell(f"{executors} executors, {apis} APIs, {num_shards} shards")
        told = Simulation(Deployment(executors, apis, num_shards), workload, costs, redis_url).run(
            [Arrival("trainer", workload.rollouts)]
        )
        rows.append((f"{executors:,} / {apis} / {num_shards}", *cells(told)))
    print(table([("executors / APIs / shards", *CELLS), *rows]))
    small = replace(workload, rollouts=1024)
    tell("two tenants")
    deployment = Deployment(64, 1, 1)
    alone = Simulation(deployment, small, costs, redis_url).run([Arrival("small", 128)])
    both = Simulation(deployment, small, costs, redis_url).run([Arrival("large", 1024), Arrival("small", 128, 1.0)])
    print(
        f"\nFairness, simulated: 128 rollouts on 64 executors take {alone.makespan_s:.1f} s if they are alone. "
        f"If they come 1 s after another tenant's 1,024, they take {both.ended_s['small'] - 1.0:.1f} s, and those "
        f"1,024 take {both.ended_s['large']:.1f} s."
    )


CELLS = (
    "last answer, s",
    "median, s",
    "99 %, s",
    "executors busy",
    "busiest API",
    "busiest Redis",
    "most jobs on a shard",
)


def cells(told: Simulated) -> tuple[str, ...]:
    shares = (f"{100 * told.busy[name]:.0f} %" for name in ("executors", "apis", "shards"))
    return (f"{told.makespan_s:.2f}", f"{told.p50_s:.2f}", f"{told.p99_s:.2f}", *shares, f"{told.max_depth:,}")


def print_shards(*, quick: bool) -> None:
    """The rate of admission with 1, 2 and 4 Redis."""
    num_rounds, num_groups = (2, 80) if quick else (4, 300)
    rounds: dict[int, list[shards.Round]] = {count: [] for count in shards.COUNTS}
    for number in range(num_rounds):
        for count in shards.COUNTS if number % 2 == 0 else shards.COUNTS[::-1]:
            tell(f"admission with {count} shards")
            with shards.brokers(count) as urls:
                rounds[count].append(asyncio.run(shards.measure(urls, num_groups)))
    shards.print_table(rounds)


def print_ray() -> bool:
    """The local cluster of Ray; whether no promise was broken. Not run where Ray is not installed."""
    try:
        rows, broken = cluster_ray.run()
    except HostLacks as error:
        print(error.detail)
        return True
    print(table(rows))
    print("\n".join([f"\n{len(broken)} broken promises", *broken[:50]]))
    return not broken


def tell(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def section(title: str, work: Callable[[], object]) -> bool:
    """A part of the report; its failure ends neither the report nor the others, but the exit code says so."""
    print(f"\n## {title}\n", flush=True)
    began, told = time.monotonic(), io.StringIO()
    try:
        with contextlib.redirect_stdout(told):
            good = work() is not False
    except (Exception, SystemExit) as error:  # noqa: BLE001 - one of several benchmarks in a report
        good = False
        told.write(f"\nThis part failed: {type(error).__name__}: {error}\n")
    print(told.getvalue().rstrip())
    print(f"\n({time.monotonic() - began:.0f} s; {machine()})", flush=True)
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="every pair in every way, more sizes: half an hour")
    parser.add_argument("--only", nargs="+", choices=("partitions", "plan", "far", "shards", "ray"), default=None)
    parser.add_argument("--costs", type=Path, help="costs that were measured on this host; default: measure them")
    given = parser.parse_args()
    quick = not given.full
    costs: list[Costs] = []

    def costs_here() -> Costs:
        if not costs:
            costs.append(read_costs(given.costs) if given.costs else measure(SETTINGS, tell))
        return costs[0]

    def run_partitions() -> bool:
        outcome = partitions.run(full=not quick)
        outcome.print()
        return not outcome.broken

    def run_plan() -> bool:
        with private_broker() as url:
            return print_comparison(compare(costs_here(), url))

    def run_far() -> None:
        answer = plan(Workload(5120, tests=20), costs_here())
        numbers = ", ".join(f"{part.count} {part.name}" for part in answer.parts)
        print(f"`plaudit plan --rollouts 5120 --tests 20` on these costs: {numbers}.\n")
        with private_broker() as url:
            print_far(costs_here(), url, quick=quick)

    sections: dict[str, tuple[str, Callable[[], object]]] = {
        "plan": ("The simulator against a measured run on this host", run_plan),
        "far": ("Simulated: to 1,024 executors", run_far),
        "shards": ("The rate of admission with 1, 2 and 4 shards", lambda: print_shards(quick=quick)),
        "ray": ("Ray's local cluster with a node killed", print_ray),
        "partitions": ("Several hosts, and what is between them broken", run_partitions),
    }
    print(f"# Several hosts, and how far it goes\n\n{datetime.now(UTC):%Y-%m-%d}, {host_name()}")
    results = [section(*sections[name]) for name in given.only or sections]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
