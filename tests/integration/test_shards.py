"""Several Redis: groups spread over them, a dead one takes only its own work, and lists must agree."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from sandbox.capabilities import HostCapabilities
from service.jobs import content_hash
from service.queue.shards import addresses, rank
from support.broker import Broker
from support.stack import Stack, wait_for

NUM_SHARDS = 2


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
