"""Several Redis: groups spread over them, a dead one takes only its own work, and lists must agree."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter

from plaudit.errors import BrokerUnavailable
from plaudit.schemas import InlineTests
from sandbox.capabilities import HostCapabilities
from service.api.dispatch.shard_monitor import ShardMonitor
from service.api.dispatch.shards import Shards
from service.api.handlers.execute import EncodedSuite
from service.api.stores.durable_requests import request_id_of
from service.jobs import content_hash
from service.queue.connections import connect_async
from service.queue.producer import Queue
from service.queue.shards import addresses, list_of, rank
from service.scoring.reward_model import Calibration
from service.settings import Settings
from support.asks import Asks
from support.broker import Broker
from support.checkpoints import checkpoint
from support.stack import Process, Stack, wait_for

NUM_SHARDS = 2
JSON = {"Content-Type": "application/json"}
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


def plaudit(*words: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PLAUDIT_")}
    argv = [sys.executable, "-m", "service.cli", *words]
    return subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=120)


def test_groups_spread_and_the_same_group_is_cached_on_its_shard(sharded: ShardedStack) -> None:
    prompts = [prompt_on(sharded, shard) for shard in (0, 1)]
    before = [set(keys_of(broker, "plaudit:score:*")) for broker in sharded.brokers]
    with sharded.client() as client:
        first = client.post("/score", json=score_body(*prompts)).raise_for_status().json()
        wait_for(
            lambda: all(
                len(set(keys_of(broker, "plaudit:score:*")) - known) >= 2
                for broker, known in zip(sharded.brokers, before, strict=True)
            ),
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


def test_a_frozen_shard_takes_only_its_own_work(sharded: ShardedStack) -> None:
    frozen = sharded.brokers[1].process
    assert frozen is not None
    here, there = prompt_on(sharded, 0), prompt_on(sharded, 1)
    suites = [suite_on(sharded, shard) for shard in (0, 1)]
    with sharded.client() as client:
        frozen.send_signal(signal.SIGSTOP)
        try:
            both = client.post("/score", json=score_body(here, there)).raise_for_status().json()
            assert statuses(both, "completions") == ["ok", "ok", "broker_unavailable", "broker_unavailable"]
            both = client.post("/execute", json=execute_body(*suites)).raise_for_status().json()
            assert statuses(both, "programs") == ["ok", "broker_unavailable"]
        finally:
            frozen.send_signal(signal.SIGCONT)
        wait_for(lambda: client.get("/ready").json()["reasons"] == [], 30, "the shard to be served again")
        both = client.post("/score", json=score_body(here, there)).raise_for_status().json()
        assert statuses(both, "completions") == ["ok"] * 4


def request_on(stack: ShardedStack, shard: int) -> str:
    """An idempotency key whose request is kept on this shard."""
    while True:
        key = uuid.uuid4().hex
        if stack.place("request", request_id_of("", key)) == shard:
            return key


def test_durable_requests_are_on_the_shard_of_their_id(sharded: ShardedStack) -> None:
    keys = [request_on(sharded, shard) for shard in (0, 1)]
    with sharded.client() as client:
        for shard, key in enumerate(keys):
            headers = {"Idempotency-Key": key, "Prefer": "respond-async"}
            body = score_body(prompt_on(sharded, 0), prompt_on(sharded, 1))
            accepted = client.post("/score", json=body, headers=headers)
            assert accepted.status_code == 202, accepted.text
            job_id = accepted.json()["job_id"]
            with client.stream("GET", f"/jobs/{job_id}/events") as stream:
                events = [line for line in stream.iter_lines() if line.startswith("event:")]
            assert events == ["event: item", "event: item", "event: end"]
            status = client.get(f"/jobs/{job_id}", params={"wait_ms": 5000}).json()
            assert status["state"] == "done"
            kept = [bool(keys_of(broker, f"plaudit:request:{job_id}")) for broker in sharded.brokers]
            assert kept == [shard == 0, shard == 1]
            replayed = client.post("/score", json=body, headers={"Idempotency-Key": key})
            assert replayed.json() == status["answer"]


def test_a_dead_shard_takes_the_durable_requests_that_it_keeps(sharded: ShardedStack) -> None:
    body = score_body(prompt_on(sharded, 0))
    with sharded.client() as client:
        sharded.brokers[1].kill()
        wait_for(lambda: client.get("/ready").json()["shards"][1]["up"] is False, what="the API to notice")
        kept = client.post("/score", json=body, headers={"Idempotency-Key": request_on(sharded, 0)})
        lost = client.post("/score", json=body, headers={"Idempotency-Key": request_on(sharded, 1)})
        sharded.brokers[1].start()
        wait_for(lambda: client.get("/ready").json()["reasons"] == [], 30, "the shard to be served again")
    assert kept.status_code == 200, kept.text
    assert (lost.status_code, lost.json()["code"]) == (503, "broker_unavailable")


def test_a_stored_suite_is_found_whichever_shard_dies(sharded: ShardedStack) -> None:
    body = json.dumps(suite_on(sharded, 0)).encode()
    sha256 = hashlib.sha256(body).hexdigest()
    place = sharded.place("suite", sha256)
    with sharded.client() as client:
        client.put(f"/testsets/{sha256}", content=body, headers=JSON).raise_for_status()
        assert all(keys_of(broker, f"plaudit:suite:{sha256}") for broker in sharded.brokers)
        sharded.brokers[1 - place].kill()
        wait_for(lambda: client.get("/ready").json()["shards"][1 - place]["up"] is False, what="the API to notice")
        ran = client.post("/execute", json=execute_body({"kind": "ref", "sha256": sha256}))
        sharded.brokers[1 - place].start()
        wait_for(lambda: client.get("/ready").json()["reasons"] == [], 30, "the shard to be served again")
        with sharded.brokers[place].client() as redis:
            redis.delete(f"plaudit:suite:{sha256}")
        again = client.post("/execute", json=execute_body({"kind": "ref", "sha256": sha256}))
        unknown = client.post("/execute", json=execute_body({"kind": "ref", "sha256": "0" * 64}))
    for answer in (ran, again):
        assert statuses(answer.raise_for_status().json(), "programs") == ["ok"]
    assert (unknown.status_code, unknown.json()["code"]) == (404, "testset_unknown")


def test_a_ranked_group_is_on_one_shard_scores_and_runs_alike(sharded: ShardedStack, asks: Asks) -> None:
    before = [
        [set(keys_of(broker, f"plaudit:{family}:*")) for family in ("score", "cache")] for broker in sharded.brokers
    ]
    ask = asks.rank(0)
    with sharded.client() as client:
        assert ask.judge(client.post(ask.path, json=ask.body)) == "right"
    shard = sharded.place("prompt", ask.body["items"][0]["prompt"])

    def new_keys(index: int) -> list[int]:
        families = zip(("score", "cache"), before[index], strict=True)
        return [len(set(keys_of(sharded.brokers[index], f"plaudit:{family}:*")) - old) for family, old in families]

    wait_for(lambda: new_keys(shard)[0] == 2, what="two cached scores")
    assert new_keys(shard)[1] >= 2
    assert new_keys(1 - shard) == [0, 0]


def test_replays_and_their_suites_are_found(sharded: ShardedStack) -> None:
    with sharded.client() as client:
        for shard in (0, 1):
            answer = client.post("/execute", json=execute_body(suite_on(sharded, shard))).raise_for_status()
            request_id = answer.headers["X-Request-Id"]
            replay = wait_for(
                lambda request_id=request_id: (
                    found if (found := client.get(f"/requests/{request_id}/replay")).is_success else None
                ),
                what="the replay",
            )
            assert replay.json()["items"][0]["given"][0]["verdict"] == "passed"


def test_another_list_of_shards_is_refused_by_name(sharded: ShardedStack) -> None:
    for urls in ([sharded.redis_urls[0]], [*sharded.redis_urls, "redis://127.0.0.1:1/0"]):
        for command in (["serve", "--port", "0"], ["worker", "execute", "--executors", "1"]):
            done = subprocess.run(
                [sys.executable, "-m", "service.cli", *command, "--redis-url", *urls],
                env=sharded.environ,
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert done.returncode == 2, done.stderr
            assert all(name in done.stderr for name in sharded.names), done.stderr
            assert "give all of them the same list" in done.stderr


def test_a_revision_is_activated_on_all_shards_and_a_late_one_catches_up(
    sharded: ShardedStack, tiny_model: Path, tmp_path: Path
) -> None:
    other = checkpoint(tmp_path / "other", calibration=Calibration(a=1.0, b=0.0))
    prompts = [prompt_on(sharded, shard) for shard in (0, 1)]

    def revisions() -> list[bytes | None]:
        found = []
        for broker in sharded.brokers:
            with broker.client() as redis:
                found.append(redis.hget("plaudit:active:score:default", "revision"))
        return found

    with sharded.client() as client:
        first = client.get("/models").json()["models"][0]["revision"]
        new = client.post("/models/default/activate", json={"path": str(other)}).raise_for_status().json()["revision"]
        assert new != first
        assert revisions() == [new.encode()] * 2
        answer = client.post("/score", json=score_body(*prompts)).raise_for_status().json()
        assert answer["model"]["revision"] == new
        assert statuses(answer, "completions") == ["ok"] * 4

        sharded.brokers[1].kill()
        wait_for(lambda: client.get("/ready").json()["shards"][1]["up"] is False, what="the API to notice")
        client.post("/models/default/activate", json={"path": str(tiny_model)}).raise_for_status()
        sharded.brokers[1].start()
        wait_for(lambda: revisions() == [first.encode()] * 2, 30, "the shard to catch up")
        wait_for(lambda: client.get("/ready").json()["reasons"] == [], 30, "the shard to be served again")
        answer = client.post("/score", json=score_body(*prompts)).raise_for_status().json()
        assert answer["model"]["revision"] == first
        assert statuses(answer, "completions") == ["ok"] * 4


def test_what_a_dying_shard_had_in_hand_holds_up_no_other(sharded: ShardedStack) -> None:
    slow = execute_body(suite_on(sharded, 1))
    slow["items"][0]["programs"] = [f"import time; time.sleep(2)\n{slow['items'][0]['programs'][0]}"]
    with sharded.client() as client, ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(client.post, "/execute", json=slow)
        wait_for(lambda: keys_of(sharded.brokers[1], "plaudit:job:*"), what="the job")
        sharded.brokers[1].kill()
        other = client.post("/execute", json=execute_body(suite_on(sharded, 0))).raise_for_status().json()
        assert statuses(other, "programs") == ["ok"]
        assert not waiting.done()
        sharded.brokers[1].start()
        assert statuses(waiting.result(60).raise_for_status().json(), "programs") == ["ok"]


@pytest.mark.extended
def test_plaudit_up_starts_shards_and_deals_them_to_its_workers(tiny_model: Path, tmp_path: Path) -> None:
    """One scorer serves both shards, and each of two executors one; the data are there again after a restart."""
    state = tmp_path / "state"
    argv = ["up", "--port", "0", "--shards", "2", "--scorers", "1", "--executors", "2", "--state-dir", str(state)]
    argv += ["--model", f"default={tiny_model}", "--isolation-accept", "userns"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PLAUDIT_")}
    environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    prompts = [uuid.uuid4().hex for _ in range(12)]
    caches: list[list[bool]] = []
    for number in range(2):
        tree = Process(argv, tmp_path / f"up-{number}.log", environ)
        try:
            with httpx.Client(base_url=tree.line()["url"], timeout=60, trust_env=False) as client:
                wait_for(lambda client=client: client.get("/ready").json()["reasons"] == [], 60, "both shards")
                state_of_shards = client.get("/ready").json()["shards"]
                assert [(shard["scorers"], shard["executors"]) for shard in state_of_shards] == [(1, 1)] * 2
                answer = client.post("/score", json=score_body(*prompts)).raise_for_status().json()
                caches.append([one["cached"] for result in answer["results"] for one in result["completions"]])
        finally:
            tree.close()
    assert caches == [[False] * 24, [True] * 24]
    assert (state / "shard-2").is_dir()


def test_processes_start_while_one_shard_is_away_but_not_without_any(sharded: ShardedStack, tmp_path: Path) -> None:
    argv = ["--redis-url", *sharded.redis_urls, "--redis-wait-s", "0.5"]
    sharded.brokers[1].kill()
    api = Process(["serve", "--port", "0", *argv], tmp_path / "api.log", sharded.environ)
    executor = Process(
        ["worker", "execute", "--executors", "1", "--isolation-accept", "userns", *argv],
        tmp_path / "executor.log",
        sharded.environ,
    )
    try:
        with httpx.Client(base_url=api.line()["url"], timeout=60, trust_env=False) as client:
            answer = client.post("/execute", json=execute_body(suite_on(sharded, 0))).raise_for_status().json()
            assert statuses(answer, "programs") == ["ok"]
            assert executor.line()["event"] == "ready"
            sharded.brokers[1].start()
            wait_for(lambda: client.get("/ready").json()["reasons"] == [], 30, "the shard to be served")
            wait_for(lambda: client.get("/ready").json()["shards"][1]["executors"] == 2, 30, "the late executor")
    finally:
        executor.close()
        api.close()
        if sharded.brokers[1].process is None:
            sharded.brokers[1].start()
    nowhere = ["redis://127.0.0.1:1/0", "redis://127.0.0.1:1/1"]
    done = plaudit("serve", "--port", "0", "--redis-url", *nowhere, "--redis-wait-s", "0.2")
    assert done.returncode == 3, done.stderr
    assert all(url in done.stderr for url in nowhere)


def test_check_says_which_shard_is_away_without_its_secrets(sharded: ShardedStack, tmp_path: Path) -> None:
    away = "redis://me:secret@127.0.0.1:1/0#late"
    done = plaudit("check", "--json", "--model", f"default={tmp_path}", "--redis-url", sharded.redis_urls[0], away)
    report = json.loads(done.stdout)
    assert report["broker"].keys() == {sharded.names[0], "late"}
    assert [text for text in report["missing"] if text.startswith("shard late: no Redis answers at redis://***@")]
    assert not any(name in text for text in report["missing"] for name in sharded.names)
    assert "secret" not in done.stdout + done.stderr


async def test_a_suite_has_two_copies_and_is_found_after_a_shard_is_added() -> None:
    with ExitStack() as ends:
        brokers = [ends.enter_context(Broker(append_only=True)) for _ in range(4)]
        clients = [connect_async(broker.url, max_connections=4) for broker in brokers]
        queues = {f"shard-{number}": Queue(client, "plaudit", "api") for number, client in enumerate(clients)}
        three = Shards(dict(list(queues.items())[:3]))
        digests = [hashlib.sha256(bytes([number])).hexdigest() for number in range(30)]
        await three.put_suites(dict.fromkeys(digests, b"frame"), 60)
        copies = [[bool(keys_of(broker, f"plaudit:suite:{sha256}")) for broker in brokers] for sha256 in digests]
        assert {sum(row) for row in copies} == {2}
        assert all(any(row[index] for row in copies) for index in range(3))

        four = Shards(queues)
        assert [await four.get_suite(sha256) for sha256 in digests] == [b"frame"] * 30
        brokers[0].kill()
        assert [await three.get_suite(sha256) for sha256 in digests] == [b"frame"] * 30
        with pytest.raises(BrokerUnavailable, match="1 of 3 shards"):
            await three.get_suite("f" * 64)
        await three.put_suites({"e" * 64: b"late"}, 60)
        assert await three.get_suite("e" * 64) == b"late"
        brokers[0].start()
        assert await three.get_suite("f" * 64) is None
        for client in clients:
            await client.aclose()


async def test_a_worker_or_api_of_another_list_is_named_by_the_shard_that_it_uses(broker: Broker) -> None:
    shards = addresses([broker.url, "redis://127.0.0.1:1"])
    client = connect_async(broker.url, max_connections=4)
    monitor = ShardMonitor(Queue(client, "plaudit", "api"), Settings(), shards, 0)
    info: dict[str, Any] = {"kind": "execute", "languages": [], "isolation": "strong", "toolchain": "t"}

    async def announce(name: str, **more: str) -> None:
        await client.delete("plaudit:workers")
        await client.zadd("plaudit:workers", {name: 2**50})
        await client.hset("plaudit:workers:info", name, json.dumps(info | more))  # type: ignore[misc]
        await monitor.refresh()

    try:
        await announce("of-the-same-list", shards=list_of(shards))
        assert (monitor.broker, monitor.other_list) == (True, "")
        await announce("of-one-redis")
        assert monitor.other_list.startswith("worker of-one-redis was not given the shards")
        await announce("of-the-same-list", shards=list_of(shards))
        await client.set("plaudit:shards", "somewhere else")
        await monitor.refresh()
        assert "another API process was given the shards somewhere else" in monitor.other_list
    finally:
        await client.aclose()
