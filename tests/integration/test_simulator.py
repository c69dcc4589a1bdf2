"""The simulator: with the queue's real scripts every job is answered once, tenants share, and no time is lost."""

from __future__ import annotations

from dataclasses import replace

import pytest

from service.plan.capacity import Workload
from service.plan.simulator import Arrival, Deployment, Simulation
from support.broker import Broker
from support.costs import COSTS

LOAD = Workload(256, group=8, tests=10, extra_test_ms=10.0)


def work_s(load: Workload) -> float:
    """Of all programs on an executor, without the queue."""
    program = COSTS.program(load.kind)
    return load.rollouts * (program.cpu_ms(load.tests, load.extra_test_ms) + program.wait_ms(load.tests)) / 1000


def test_a_burst_takes_what_its_programs_take_divided_by_the_executors(broker: Broker) -> None:
    for executors, shards in ((8, 1), (32, 2)):
        told = Simulation(Deployment(executors, 1, shards), LOAD, COSTS, broker.url).run(
            [Arrival("one", LOAD.rollouts)]
        )
        assert told.num_jobs == LOAD.rollouts
        least_s = work_s(LOAD) / executors
        assert least_s <= told.makespan_s <= 1.6 * least_s + 0.5
        assert 0.5 < told.busy["executors"] <= 1.0
    with broker.client() as client:
        assert client.dbsize() == 0  # nothing is left behind


def test_one_host_shares_its_cores_among_all_processes(broker: Broker) -> None:
    deployment = Deployment(4, cores=2.0, clients=1)
    told = Simulation(deployment, LOAD, COSTS, broker.url).run([Arrival("one", LOAD.rollouts)])
    assert told.cpu_s / 2.0 == pytest.approx(told.makespan_s, rel=0.1)


def test_a_tenant_that_comes_late_has_its_share(broker: Broker) -> None:
    small, deployment = 64, Deployment(8)
    alone = Simulation(deployment, LOAD, COSTS, broker.url).run([Arrival("small", small)])
    both = Simulation(deployment, LOAD, COSTS, broker.url).run([Arrival("large", 512), Arrival("small", small, 1.0)])
    assert both.ended_s["small"] - 1.0 < 2.5 * alone.makespan_s + 0.5  # half of the executors, or nearly
    assert both.ended_s["small"] < 0.6 * both.ended_s["large"]


def test_scores_are_batched_by_the_real_scheduler(broker: Broker) -> None:
    load = replace(LOAD, rollouts=64, tests=1, extra_test_ms=0.0, prompt_tokens=100, completion_tokens=50)
    told = Simulation(Deployment(4, scorers=2), load, COSTS, broker.url).run([Arrival("one", load.rollouts)])
    assert told.num_jobs == load.rollouts + load.groups
    assert COSTS.score is not None
    device_s = load.scored_tokens / COSTS.score.tokens_per_s / 2
    assert device_s <= told.makespan_s * 1.01
    assert told.busy["scorers"] > 0.5
