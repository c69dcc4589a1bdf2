"""Several Redis: groups spread over them, a dead one takes only its own work, and lists must agree."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from plaudit.schemas import InlineTests
from sandbox.capabilities import HostCapabilities
from service.api.handlers.execute import EncodedSuite
from service.jobs import content_hash
from service.queue.shards import addresses, rank
from support.broker import Broker
from support.stack import Stack, wait_for

NUM_SHARDS = 2
InlineTestsAdapter: TypeAdapter[Any] = TypeAdapter(InlineTests)


class ShardedStack(Stack):
    """A stack on several brokers. `num_live`: how many executors and scorers serve each, or all."""

    def __init__(self, brokers: list[Broker], model: Path, **options: Any) -> None:
        super().__init__(brokers[0], model, **options)
        self.brokers = brokers
        self.redis_urls = [broker.url for broker in brokers]
        self.names = [shard.name for shard in addresses(self.redis_urls)]

    def place(self, *parts: object) -> int:
        return rank(self.names, content_hash(*parts))[0]

    def close(self) -> None:
        for broker in self.brokers:
            if broker.process is None:
                broker.start()
        super().close()


@pytest.fixture(scope="module")
def sharded(tiny_model: Path) -> Iterator[ShardedStack]:
    """Two brokers, and one worker of each kind that serves both."""
    walls = HostCapabilities.probe()
    if walls.level not in ("strong", "userns"):
        pytest.skip(f"programs cannot run here; missing: {'; '.join(walls.missing)}")
    with ExitStack() as ends:
        brokers = [ends.enter_context(Broker(append_only=True)) for _ in range(NUM_SHARDS)]
        stack = ShardedStack(brokers, tiny_model, lease_s="2", heartbeat_s="0.4")
        ends.callback(shutil.rmtree, stack.folder, ignore_errors=True)
        yield ends.enter_context(stack)


def prompt_on(stack: ShardedStack, shard: int) -> str:
    """A prompt that nobody has used, of a group that lives on this shard."""
    while True:
        prompt = f"Add two numbers {uuid.uuid4().hex}"
        if stack.place("prompt", prompt) == shard:
            return prompt


def score_body(*prompts: str) -> dict[str, Any]:
    return {"items": [{"prompt": prompt, "completions": ["a + b", "a - b"]} for prompt in prompts]}


def keys_of(broker: Broker, pattern: str) -> list[bytes]:
    with broker.client() as client:
        return list(client.scan_iter(pattern))


def test_groups_spread_and_the_same_group_is_cached_on_its_shard(sharded: ShardedStack) -> None:
    prompts = [prompt_on(sharded, shard) for shard in (0, 1)]
    before = [len(keys_of(broker, "plaudit:score:*")) for broker in sharded.brokers]
    with sharded.client() as client:
        first = client.post("/score", json=score_body(*prompts)).raise_for_status().json()
        wait_for(
            lambda: [len(keys_of(broker, "plaudit:score:*")) for broker in sharded.brokers] == [n + 2 for n in before],
            what="two scores on each shard",
        )
        again = client.post("/score", json=score_body(*prompts)).raise_for_status().json()
        alone = client.post("/score", json=score_body(prompts[1])).raise_for_status().json()
    scores = [[one["score"] for one in result["completions"]] for result in first["results"]]
    assert [[one["score"] for one in result["completions"]] for result in again["results"]] == scores
    assert all(one["cached"] for result in again["results"] for one in result["completions"])
    assert all(one["cached"] for one in alone["results"][0]["completions"])


def suite_on(stack: ShardedStack, shard: int) -> dict[str, Any]:
    """Tests that nobody has used, whose group lives on this shard."""
    while True:
        sum_ = uuid.uuid4().int % 10**12
        tests = {"kind": "stdio", "cases": [{"stdin": f"{sum_}\n1\n", "stdout": f"{sum_ + 1}\n"}]}
        if stack.place("suite", EncodedSuite.of(InlineTestsAdapter.validate_python(tests)).sha256) == shard:
            return tests


def execute_body(*suites: dict[str, Any]) -> dict[str, Any]:
    program = "print(int(input()) + int(input()))"
    return {"items": [{"language": "python", "programs": [program], "tests": tests} for tests in suites]}


def statuses(answer: dict[str, Any], name: str) -> list[str]:
    parts = [part for result in answer["results"] for part in result[name]]
    return [part["status"] if part["status"] == "ok" else part["error"]["code"] for part in parts]


def test_a_killed_shard_takes_only_its_own_work_and_comes_back(sharded: ShardedStack) -> None:
    workers = [process.pid for kind in ("score", "execute") for process in sharded.of_kind(kind)]
    dead = sharded.brokers[1]
    with sharded.client() as client:
        assert client.get("/ready").json()["reasons"] == []
        dead.kill()
        wait_for(lambda: client.get("/ready").json()["shards"][1]["up"] is False, what="the API to notice")

        state = client.get("/ready")
        assert state.status_code == 200, state.text
        assert state.json()["reasons"] == [f"shard {sharded.names[1]}: the queue does not answer"]
        assert sharded.metric(f'plaudit_shard_up{{shard="{sharded.names[1]}"}}') == 0.0
        assert sharded.metric(f'plaudit_shard_up{{shard="{sharded.names[0]}"}}') == 1.0
        assert [shard["up"] for shard in client.get("/info").json()["shards"]] == [True, False]

        here, there = prompt_on(sharded, 0), prompt_on(sharded, 1)
        lost = client.post("/score", json=score_body(there))
        assert (lost.status_code, lost.json()["code"], lost.json()["retryable"]) == (503, "broker_unavailable", True)
        both = client.post("/score", json=score_body(here, there)).raise_for_status().json()
        assert statuses(both, "completions") == ["ok", "ok", "broker_unavailable", "broker_unavailable"]
        suites = [suite_on(sharded, shard) for shard in (0, 1)]
        lost = client.post("/execute", json=execute_body(suites[1]))
        assert (lost.status_code, lost.json()["code"]) == (503, "broker_unavailable")
        both = client.post("/execute", json=execute_body(*suites)).raise_for_status().json()
        assert statuses(both, "programs") == ["ok", "broker_unavailable"]

        dead.start()
        wait_for(lambda: client.get("/ready").json()["reasons"] == [], 30, "the shard to be served again")
        both = client.post("/score", json=score_body(prompt_on(sharded, 0), there)).raise_for_status().json()
        assert statuses(both, "completions") == ["ok"] * 4
        both = client.post("/execute", json=execute_body(*suites)).raise_for_status().json()
        assert statuses(both, "programs") == ["ok", "ok"]
    assert workers == [process.pid for kind in ("score", "execute") for process in sharded.of_kind(kind)]
