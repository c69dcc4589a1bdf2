"""A deployment on a local Ray cluster of several node processes: found by name, scaled, and hit by lost nodes.

Needs the extra `ray`. A cluster takes half a minute to start and each node some seconds, so these tests are extended.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="needs Ray: pip install 'plaudit-server[ray]'")

import httpx
import ray

import plaudit
from plaudit.errors import HostLacks, NotFound, Unreachable, UsageError
from service import on_ray
from service.on_ray import DeploymentOptions
from service.settings import Settings
from support.asks import Asks, crowd, insist
from support.pages import ROOT, blocks
from support.ray_cluster import LocalRay, RedisServer
from support.stack import wait_for

pytestmark = [
    pytest.mark.extended,
    pytest.mark.timeout(1200),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

TESTS = {"kind": "assert", "asserts": ["assert add(1, 2) == 3"]}
RIGHT, WRONG = (f"```python\ndef add(a, b):\n    return a {sign} b\n```" for sign in "+-")


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalRay]:
    with LocalRay() as local:
        local.add_node(num_cpus=2, labels={"pool": "cpu"})
        local.add_node(num_cpus=3, labels={"pool": "cpu"})
        yield local


@pytest.fixture(scope="module")
def settings(tiny_model: Path) -> Callable[..., Settings]:
    def make(**fields: Any) -> Settings:
        return Settings(
            **{"isolation_accept": "userns", "device": "cpu", "model": {"default": str(tiny_model)}} | fields
        )

    return make


@pytest.fixture
def up(cluster: LocalRay, settings: Callable[..., Settings]) -> Iterator[Callable[..., dict[str, Any]]]:
    """Starts the deployment `plaudit` on the cluster; it is ended behind the test, and nothing of it is left."""

    def start(options: DeploymentOptions, **fields: Any) -> dict[str, Any]:
        on_ray.up(options, settings(**fields), wait_s=400)
        return on_ray.status(key=True)

    yield start
    try:
        on_ray.down()
    except NotFound:
        return
    assert [named for named in ray.util.list_named_actors(all_namespaces=True) if named["namespace"] == "plaudit"] == []


def async_client(state: dict[str, Any]) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {state['api_key']}"}
    limits = httpx.Limits(max_connections=256, max_keepalive_connections=0)
    return httpx.AsyncClient(base_url=state["url"], headers=headers, timeout=200, trust_env=False, limits=limits)


def executors_ready() -> int:
    return int(on_ray.status()["executors"]["ready"])


@ray.remote(num_cpus=0)
class Trainer:
    """As a trainer's reward worker: an actor of the cluster, which is told no URL."""

    def verl(self, solution: str) -> float:
        from plaudit.integrations import verl

        compute_score = verl.compute_score_blocking(reward="tests")
        return float(compute_score("apps", solution, ["assert add(1, 2) == 3"])["score"])

    def openrlhf(self, solutions: list[str]) -> list[float]:
        from plaudit.integrations import openrlhf

        reward_func = openrlhf.reward_func(reward="tests")
        prompts, labels = ["p"] * len(solutions), [["assert add(1, 2) == 3"]] * len(solutions)
        return list(reward_func([f"p{solution}" for solution in solutions], prompts, labels)["rewards"])

    async def awaited(self, solution: str) -> float | None:
        async with plaudit.AsyncClient("ray://plaudit") as client:
            item = {
                "prompt": "Add.",
                "completions": [solution],
                "tests": TESTS,
                "language": "python",
                "extract": "last_fence",
            }
            answer = await client.reward([item], spec={"terms": [{"name": "tests", "type": "execute"}]})
            return answer.results[0].completions[0].reward


def test_programs_of_the_cluster_need_no_url(up: Callable[..., dict[str, Any]]) -> None:
    state = up(DeploymentOptions(actor_cpus=1, min_executors=2, max_executors=2))
    assert state["isolation"] in (["strong"], ["userns"])
    trainer = Trainer.remote()
    assert ray.get(trainer.verl.remote(RIGHT), timeout=240) == 1.0
    assert ray.get(trainer.verl.remote(WRONG), timeout=240) == 0.0
    assert ray.get(trainer.openrlhf.remote([WRONG, RIGHT]), timeout=240) == [0.0, 1.0]
    assert ray.get(trainer.awaited.remote(RIGHT), timeout=240) == 1.0
    ray.kill(trainer)
    for block in blocks(ROOT / "docs" / "ray.md"):
        if block.info == "python ray":
            exec(compile(block.code, block.name, "exec"), {})
    without_key = httpx.post(f"{state['url']}/score", json={"items": []}, trust_env=False)
    assert without_key.status_code == 401  # a key was made, and only the cluster knows it
    with pytest.raises(UsageError, match="has a deployment of that name"):
        on_ray.up(DeploymentOptions())


async def test_a_node_killed_under_load_loses_nothing(
    cluster: LocalRay, up: Callable[..., dict[str, Any]], asks: Asks
) -> None:
    doomed = cluster.add_node(num_cpus=2, labels={"pool": "cpu", "doomed": "yes"}, resources={"doomed": 1})
    state = up(
        DeploymentOptions(actor_cpus=1, min_executors=4, max_executors=4, scorer_resources={"doomed": 0.1}), scorers=1
    )
    wait_for(lambda: executors_ready() == 4, 240.0, "four executors")
    node_id = doomed.node_id
    lost = [actor["actor"] for actor in on_ray.status()["actors"] if actor["node"] == node_id]
    assert any(name.startswith("scorer") for name in lost)
    spare = cluster.add_node(num_cpus=2, labels={"pool": "cpu"}, resources={"doomed": 1})
    mix = asks.mix(scores=40, executes=60, ranks=20)
    async with async_client(state) as client:
        await crowd(client, mix, disturb=lambda: time.sleep(0.5) or cluster.kill_node(doomed))  # type: ignore[func-returns-value]
        await insist(client, mix, 240.0)
    assert all(ask.outcomes[-1] == "right" for ask in mix)
    wait_for(lambda: executors_ready() == 4, 240.0, "four executors again")
    now = {actor["actor"] for actor in on_ray.status()["actors"]}
    assert not now & set(lost)
    on_ray.down()
    cluster.cluster.remove_node(spare)


def test_executors_come_with_a_burst_and_are_drained_behind_it(up: Callable[..., dict[str, Any]], asks: Asks) -> None:
    state = up(
        DeploymentOptions(actor_cpus=1, min_executors=1, max_executors=4, jobs_per_executor=4.0, idle_s=4.0),
    )
    assert executors_ready() == 1
    slow = [asks.slow(number) for number in range(60)]
    programs = [ask.body["items"][0]["programs"][0] for ask in slow]
    item = {"language": "python", "programs": programs, "tests": slow[0].body["items"][0]["tests"]}
    answers: list[Any] = []

    def send() -> None:
        with plaudit.Client("ray://plaudit", timeout_s=300) as client:
            answers.append(client.execute([item], deadline_ms=300_000))

    sender = threading.Thread(target=send)
    sender.start()
    wait_for(lambda: executors_ready() == 4, 240.0, "four executors")
    wait_for(lambda: executors_ready() < 4 or not sender.is_alive(), 240.0, "the end of the burst")
    sender.join(300)
    assert [program.verdict for program in answers[0].results[0].programs] == ["passed"] * 60
    wait_for(lambda: on_ray.status()["executors"]["actors"] == 1, 240.0, "one executor")
    events = on_ray.status()["events"]
    assert sum("drain, fewer are enough" in event for event in events) >= 3
    assert sum("remove, drained" in event for event in events) >= 3
    assert not any("did not drain in time" in event for event in events)
    assert state["url"] == on_ray.status()["url"]


@pytest.mark.parametrize("own_redis", [True, False], ids=["own redis", "embedded broker"])
def test_the_front_moves_to_another_node_and_callers_follow(
    cluster: LocalRay, up: Callable[..., dict[str, Any]], asks: Asks, own_redis: bool
) -> None:
    fronts = [cluster.add_node(num_cpus=0, resources={"front": 1}) for _ in range(2)]
    with RedisServer() as server:
        options = DeploymentOptions(
            actor_cpus=1, min_executors=2, max_executors=2, front_resources={"front": 0.01}, idle_s=600
        )
        before = up(options, **({"redis_url": server.url} if own_redis else {}))
        wait_for(lambda: executors_ready() == 2, 240.0, "two executors")
        pids = {
            pid for actor in on_ray.status()["actors"] if actor["actor"].startswith("exec") for pid in actor["pids"]
        }
        [node] = {actor["node"] for actor in before["actors"] if actor["actor"].startswith("api")}
        stop, outcomes, errors = threading.Event(), [], []

        def call(caller: int) -> None:
            number = 0
            with plaudit.Client("ray://plaudit", timeout_s=420, max_tries=10_000) as client:
                while not stop.is_set():
                    ask = asks.execute(1000 * caller + number)
                    number += 1
                    try:
                        answer = client.execute(ask.body["items"], deadline_ms=400_000)
                        outcomes.append(ask.judge_answer(answer.model_dump(mode="json")))
                    except BaseException as error:
                        errors.append(error)
                        raise

        callers = [threading.Thread(target=call, args=(caller,)) for caller in range(4)]
        for caller in callers:
            caller.start()
        wait_for(lambda: len(outcomes) > 20 or errors, 240.0, "answers")
        killed = [each for each in fronts if each.node_id == node]
        cluster.kill_node(killed[0])
        seen = len(outcomes)
        wait_for(lambda: len(outcomes) > seen + 50 or errors, 420.0, "answers from the new front")
        stop.set()
        for caller in callers:
            caller.join(430)
        assert errors == []
        assert outcomes.count("right") + outcomes.count("put off") == len(outcomes)
        assert not own_redis or "put off" not in outcomes  # what was accepted is still there
        after = on_ray.status()
        assert after["url"] != before["url"]
        if own_redis:  # the new controller found the executors that there were
            again = {pid for actor in after["actors"] if actor["actor"].startswith("exec") for pid in actor["pids"]}
            assert again == pids
    on_ray.down()  # while there is a node for the controller
    for each in fronts:
        if each.node_id != node:
            cluster.cluster.remove_node(each)


def test_the_command_line_starts_shows_and_ends_a_deployment(cluster: LocalRay, tiny_model: Path) -> None:
    gpu = cluster.add_node(num_cpus=4, num_gpus=1)  # counted by Ray, whatever the machine has
    address = ["--ray-address", cluster.cluster.address, "--name", "second"]

    def plaudit_ray(*words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "service.cli", "ray", *words, *address]
        return subprocess.run(argv, capture_output=True, text=True, timeout=500)

    numbers = ["--actor-cpus", "1", "--min-executors", "2", "--max-executors", "2", "--scorer-gpus", "1"]
    model = ["--model", f"default={tiny_model}", "--device", "cpu", "--isolation-accept", "userns"]
    started = plaudit_ray("up", *numbers, *model, "--api-key", "the-key", "--wait-s", "400")
    try:
        assert started.returncode == 0, started.stderr
        ready = json.loads(started.stdout.splitlines()[-1])
        shown = plaudit_ray("status", "--json", "--key")
        state = json.loads(shown.stdout)
        assert (state["url"], state["api_key"], state["phase"]) == (ready["url"], "the-key", "ready")
        nodes = {actor["actor"].rpartition("-")[0]: actor["node"] for actor in state["actors"]}
        assert nodes["scorer"] == gpu.node_id
        assert nodes["executor"] != gpu.node_id  # Ray leaves it to who asks for a GPU
        assert f"ray://second  ready  {ready['url']}" in plaudit_ray("status").stdout
        with plaudit.Client("ray://second") as client:
            assert client.health().status == "ok"
        again = plaudit_ray("up")
        assert (again.returncode, "this cluster has a deployment of that name" in again.stderr) == (2, True)
    finally:
        ended = plaudit_ray("down")
    assert (ended.returncode, ended.stdout) == (0, "")
    assert plaudit_ray("status").returncode == 1
    cluster.cluster.remove_node(gpu)


def test_what_the_cluster_lacks_is_named(up: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(NotFound, match="no deployment 'plaudit'"):
        on_ray.status()
    options = DeploymentOptions(actor_cpus=2, min_executors=2, max_executors=2, executor_labels={"pool": "tpu"})
    with pytest.raises(
        Unreachable, match="executor: 1 not placed: no node of the cluster has CPU 2, the label pool=tpu"
    ):
        on_ray.up(options, Settings(device="cpu", isolation_accept="userns"), wait_s=20)


def test_a_node_without_the_isolation_that_is_asked_for_refuses(
    cluster: LocalRay, settings: Callable[..., Settings], tmp_path: Path
) -> None:
    for program in Path("/usr/bin").iterdir():  # all but bubblewrap, without which there is no `strong`
        if program.name != "bwrap":
            (tmp_path / program.name).symlink_to(program)
    runtime_env = {"env_vars": {"PATH": str(tmp_path)}}
    options = DeploymentOptions(actor_cpus=1, min_executors=1, max_executors=1)
    with pytest.raises(HostLacks, match=r"the deployment cannot start: ended with exit code 3: .*bubblewrap"):
        on_ray.up(options, settings(isolation_accept="strong"), runtime_env=runtime_env, wait_s=400)
    with pytest.raises(NotFound):
        on_ray.status()
