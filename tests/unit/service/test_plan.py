"""`plaudit plan`: the arithmetic, the cores of a simulated host, costs and flags."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from plaudit.errors import UsageError
from service.cli import main
from service.plan.capacity import Workload, plan
from service.plan.costs import read_costs
from service.plan.host_cpu import Events, HostCpu, Server
from service.queue.shards import deal
from support.costs import COSTS

LOAD = Workload(1000, group=10, tests=20, extra_test_ms=9.0, step_s=10.0)


def test_a_plan_is_the_sum_of_what_was_measured() -> None:
    answer = plan(LOAD, COSTS, max_utilisation=0.5)
    # 5 + 20 · (1 + 9) ms of CPU and 10 ms of waiting per program; 5 s of each executor's step may be busy
    assert answer.count("executors") == math.ceil(1000 * 0.215 / 5.0)
    executors, apis, shards = answer.parts
    assert executors.needed_s == pytest.approx(215.0)
    assert apis.needed_s == pytest.approx(100 * 0.004 + 1000 * 0.0005)
    assert shards.needed_s == pytest.approx(100 * 0.0008 + 1000 * 0.0002)
    assert answer.redis_bytes == pytest.approx(2 * 1000 * 900 * 360)
    assert answer.commands_per_s == pytest.approx(2000)
    assert answer.cores == answer.count("executors") + 2


@pytest.mark.parametrize("rollouts", [1, 100, 5120])
def test_no_part_is_busier_than_it_may_be(rollouts: int) -> None:
    load = replace(LOAD, rollouts=rollouts, prompt_tokens=100, completion_tokens=300, step_s=60.0)
    answer = plan(load, COSTS)
    assert all(part.utilisation <= 0.7 + 1e-9 for part in answer.parts)
    assert answer.next_bottleneck[1] >= rollouts


def test_more_workers_than_an_api_process_can_watch_are_refused() -> None:
    with pytest.raises(UsageError, match="split the load"):
        plan(replace(LOAD, rollouts=1_000_000), COSTS)


def test_the_next_bottleneck_is_what_is_too_busy_first() -> None:
    answer = plan(LOAD, COSTS)
    part, rollouts = answer.next_bottleneck
    assert part.name == "executors"
    busy = {one.name: one.rollouts_at(0.7, LOAD.rollouts) for one in answer.parts}
    assert rollouts == min(busy.values())
    slow_redis = msgspec.structs.replace(COSTS.queue, redis_program_cpu_ms=6.85)
    part, _ = plan(LOAD, msgspec.structs.replace(COSTS, queue=slow_redis)).next_bottleneck
    assert part.name == "shards"


def test_scoring_needs_devices_and_each_prompt_counts_once_per_group() -> None:
    load = replace(LOAD, prompt_tokens=200, completion_tokens=300)
    assert load.scored_tokens == 1000 * 300 + 100 * 200
    assert plan(load, COSTS).count("scorers") == math.ceil(32.0 / 7.0)
    with pytest.raises(UsageError, match="no scorer"):
        plan(load, msgspec.structs.replace(COSTS, score=None))


def test_a_plan_names_the_settings_whose_default_is_too_small() -> None:
    assert plan(replace(LOAD, rollouts=100), COSTS).bounds == {}
    assert plan(replace(LOAD, rollouts=20_000, step_s=3600), COSTS).bounds == {
        "max_queued_execute": 20_000,
        "max_queued_execute_cpu_s": 20_000 * 20 * 5,
    }


def test_a_kind_that_was_not_measured_is_an_error_that_names_those_that_were() -> None:
    with pytest.raises(UsageError, match="--kind rust was not measured; these were: python-stdio"):
        plan(replace(LOAD, kind="rust"), COSTS)


def test_costs_come_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "costs.json"
    path.write_text(COSTS.as_json())
    assert read_costs(path) == COSTS
    assert read_costs(None).programs["python-stdio"].test_cpu_ms > 0
    path.write_text('{"host": 3}')
    for bad in (path, tmp_path / "none"):
        with pytest.raises(UsageError, match="plaudit plan --measure"):
            read_costs(bad)


def test_tasks_share_the_cores_of_a_host() -> None:
    events, ended = Events(), dict[str, float]()
    host = HostCpu(events, 2.0)

    def begin(name: str, seconds: float) -> None:
        def end() -> None:
            ended[name] = events.now_s

        host.compute(seconds, end)

    begin("alone", 1.0)
    events.at(2.0, lambda: [begin(name, 1.0) for name in "abc"] and None)
    events.at(2.5, lambda: begin("late", 0.1))
    events.run()
    assert ended["alone"] == pytest.approx(1.0)  # on one core, however many there are
    # three on two cores: 1/3 s each until 2.5 s, then four on two cores, half a second each per second
    assert ended["late"] == pytest.approx(2.7)
    assert ended["a"] == pytest.approx(ended["c"])
    assert host.busy_s == pytest.approx(4.1)


def test_a_server_does_one_thing_after_the_other() -> None:
    events, ended = Events(), list[float]()
    server = Server(HostCpu(events, 8.0))
    for _ in range(3):
        server.work(0.5, lambda: ended.append(events.now_s))
    events.run()
    assert ended == pytest.approx([0.5, 1.0, 1.5])


def test_workers_are_dealt_to_shards_or_serve_all() -> None:
    assert [list(served) for served in deal(2, 3)] == [[0], [1], [0]]
    assert [list(served) for served in deal(3, 2)] == [[0, 1, 2]] * 2
    assert [list(served) for served in deal(1, 2)] == [[0], [0]]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ([], "--rollouts is missing"),
        (["--rollouts", "0"], "--rollouts 0: it is from 1 to"),
        (["--rollouts", "9", "--passing", "2"], "--passing 2.0: it is from 0 to 1"),
        (["--rollouts", "9", "--kind", "cobol"], "--kind cobol was not measured"),
        (["--rollouts", "200000", "--simulate"], "--simulate takes at most"),
    ],
)
def test_what_cannot_be_planned_is_said(words: list[str], error: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *words]) == 2
    assert error in capsys.readouterr().err


def test_a_plan_is_printed_as_tables_and_as_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "costs.json"
    path.write_text(COSTS.as_json())
    words = ["plan", "--rollouts", "5120", "--costs", str(path), "--core-hour", "0.05"]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "5,120 rollouts per step" in text
    assert "Next bottleneck: executor" in text
    assert "price of a step" in text
    assert main([*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["start"]["executors"] >= 1
    assert document["price_per_step"] == pytest.approx(document["cores"] * 0.05 / 60)
    assert document["costs"] == {"host": "a host", "date": "2026-01-01"}
