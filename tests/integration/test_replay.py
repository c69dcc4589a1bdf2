"""What it takes to reproduce a verdict is to be had under the request's id, by its caller, for a while."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from plaudit.errors import RequestUnknown
from plaudit.grading import Verdict
from plaudit.schemas import ExecuteItem, ExecuteResult, ProgramResult, TestResult
from service.api.dispatch.request_context import RequestContext
from service.api.dispatch.shards import Shards
from service.api.handlers.execute import EncodedSuite, ExecuteGroup
from service.api.handlers.replays import MAX_PENDING, Replays
from service.queue.connections import connect_async
from service.queue.producer import Queue
from service.queue.protocol import now_ms
from support.broker import Broker
from support.stack import Stack, wait_for

ADD = "def add(a, b):\n    return a + b\n"
SUB = "def add(a, b):\n    return a - b\n"
ASSERT = {"kind": "assert", "asserts": ["assert add(1, 2) == 3", "assert add(0, 0) == 0"]}
KINDS: dict[str, Any] = {
    "assert": ASSERT,
    "function": {
        "kind": "function",
        "entry_point": "add",
        "rel_tol": 1e-9,
        "cases": [{"args": [2**80], "kwargs": {"b": 1}, "expected": 2**80 + 1}],
    },
    "check": {"kind": "check", "test": "def check(c):\n    assert c(1, 2) == 3\n", "entry_point": "add", "prompt": ""},
    "stdio": {"kind": "stdio", "cases": [{"stdin": "é", "stdout": ""}], "compare": "exact"},
}


def replayed(http: httpx.Client, request_id: str) -> Any:
    """The replay, which is there a moment after the answer."""
    url = f"/requests/{request_id}/replay"
    response: httpx.Response = wait_for(lambda: (got := http.get(url)).status_code == 200 and got, what=url)
    return response.json()


def post(http: httpx.Client, path: str, item: dict[str, Any], **headers: str) -> httpx.Response:
    response = http.post(path, json={"items": [item]}, headers=headers)
    assert response.status_code in (200, 202), response.text
    return response


@pytest.mark.parametrize("kind", KINDS)
def test_a_replay_holds_what_was_asked_and_what_was_answered(http: httpx.Client, kind: str) -> None:
    mark = f"# {uuid.uuid4().hex}\n"
    item = {
        "id": "p1",
        "language": "py3",
        "programs": [ADD + mark, SUB + mark],
        "tests": KINDS[kind],
        "limits": {"cpu_s": 2, "memory_mb": 256},
        "stop": {"after": 2},
        "options": {"audit": True},
    }
    response = post(http, "/execute", item)
    answer = response.json()["results"][0]["programs"]
    replay = replayed(http, response.headers["X-Request-Id"])

    assert replay["request_id"] == response.headers["X-Request-Id"] == response.json()["request_id"]
    assert replay["toolchain"].startswith("sha256:")
    (told,) = replay["items"]
    for name, value in item.items():
        if isinstance(value, dict):
            assert value.items() <= told["request"][name].items() or name == "tests"
        else:
            assert told["request"][name] == value
    assert [one["sha256"] for one in told["given"]] == [
        hashlib.sha256(text.encode()).hexdigest()
        for text in item["programs"]  # type: ignore[attr-defined]
    ]
    for one, run in zip(told["given"], answer, strict=True):
        for name in ("status", "verdict", "passed", "total", "flags", "judge", "isolation", "cached", "toolchain"):
            assert one[name] == run[name], name
        assert one["tests"] == [test["verdict"] for test in run["tests"]]

    again = post(http, "/execute", told["request"]).json()["results"][0]["programs"]
    assert [(run["verdict"], run["cached"]) for run in again] == [(run["verdict"], True) for run in answer]
    by_digest = told["request"] | {"tests": {"kind": "ref", "sha256": told["suite"]}}
    assert [run["cached"] for run in post(http, "/execute", by_digest).json()["results"][0]["programs"]] == [True] * 2


def test_a_program_taken_out_of_a_completion_is_named_by_its_own_digest(http: httpx.Client) -> None:
    item = {
        "language": "python",
        "extract": "last_fence",
        "tests": ASSERT,
        "programs": [f"So:\n```python\n{ADD}```\n", "no code"],
    }
    fenced, bare = replayed(http, post(http, "/execute", item).headers["X-Request-Id"])["items"][0]["given"]
    assert fenced["sha256"] == hashlib.sha256(ADD.encode()).hexdigest()
    assert (bare["verdict"], bare["job"]) == ("no_code", None)


def test_the_verdicts_behind_a_reward_can_be_replayed_and_a_score_has_none(http: httpx.Client) -> None:
    item = {"prompt": "Add.", "completions": [ADD, SUB], "tests": ASSERT}
    given = replayed(http, post(http, "/rank", item).headers["X-Request-Id"])["items"][0]["given"]
    assert [one["verdict"] for one in given] == ["passed", "wrong_answer"]

    scored = post(http, "/score", {"prompt": "Add.", "completions": [ADD]}).headers["X-Request-Id"]
    unknown = http.get(f"/requests/{scored}/replay")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "request_unknown")


@pytest.mark.parametrize("later", [False, True])
def test_a_durable_request_is_found_by_either_of_its_ids(http: httpx.Client, later: bool) -> None:
    own = f"mine-{uuid.uuid4().hex}"
    headers = {"Idempotency-Key": uuid.uuid4().hex, "X-Request-Id": own}
    headers |= {"Prefer": "respond-async"} if later else {}
    response = post(http, "/execute", {"language": "python", "programs": [ADD], "tests": ASSERT}, **headers)
    other = response.json()["job_id"] if later else response.json()["request_id"]
    assert response.headers["X-Request-Id"] == own != other
    assert replayed(http, other)["items"] == replayed(http, own)["items"]


def test_the_command_line_judges_again_and_compares(http: httpx.Client, stack: Stack, tmp_path: Path) -> None:
    item = {"language": "python", "programs": [ADD, SUB], "tests": ASSERT}
    request_id = post(http, "/execute", item).headers["X-Request-Id"]
    kept = replayed(http, request_id)

    def plaudit(what: str) -> tuple[int, list[Any]]:
        argv = [sys.executable, "-m", "service.cli", "execute", "--replay", what, "--url", stack.url]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]

    before = stack.metric('plaudit_verdicts_total{language="python",verdict="wrong_answer"}')
    code, lines = plaudit(request_id)
    assert (code, [line["same"] for line in lines]) == (0, [True, True])
    assert [line["now"] for line in lines] == ["passed", "wrong_answer"]
    after = stack.metric('plaudit_verdicts_total{language="python",verdict="wrong_answer"}')
    assert after == before + 1  # it was really run

    kept["items"][0]["given"][1]["verdict"] = "passed"
    (tmp_path / "kept.json").write_text(json.dumps(kept))
    code, lines = plaudit(str(tmp_path / "kept.json"))
    assert (code, [line["same"] for line in lines]) == (1, [True, False])
    assert plaudit("nobody") == (1, [])


def test_an_unknown_request_is_404(http: httpx.Client) -> None:
    response = http.get("/requests/nobody/replay")
    assert (response.status_code, response.json()["code"]) == (404, "request_unknown")
    assert response.headers["content-type"] == "application/problem+json"


def test_a_replay_needs_a_key_where_keys_are_configured() -> None:
    with (
        Broker() as broker,
        Stack(broker, Path("none"), scorers=0, executors=0, api_key="plain") as stack,
        stack.client() as http,
    ):
        assert http.get("/requests/x/replay").status_code == 401
        assert http.get("/requests/x/replay", headers={"Authorization": "Bearer plain"}).status_code == 404


# --- the store -------------------------------------------------------------------------------------------------------


@pytest.fixture
async def queue(broker: Broker) -> AsyncIterator[Queue]:
    client = connect_async(broker.url)
    yield Queue(client, "test", "api")
    await client.aclose()


def judged(program: str) -> tuple[list[ExecuteGroup], list[ExecuteResult]]:
    item = ExecuteItem.model_validate({"language": "python", "programs": [program], "tests": ASSERT})
    group = ExecuteGroup(item, EncodedSuite.of(item.tests), "tools", RequestContext("r", now_ms() + 1000))
    run = ProgramResult(
        status="ok",
        verdict=Verdict.PASSED,
        passed=1,
        total=1,
        trainable=True,
        tests=[TestResult(verdict=Verdict.PASSED)],
    )
    return [group], [ExecuteResult(programs=[run])]


async def keep(replays: Replays, request_id: str, tenant: str, program: str) -> None:
    replays.keep(RequestContext(request_id, now_ms() + 1000, tenant=tenant), "tools", *judged(program))
    await asyncio.wait(replays._pending)


async def test_one_callers_request_id_says_nothing_of_anothers(queue: Queue) -> None:
    replays = Replays(Shards({"": queue}), 60, 1 << 20)
    await keep(replays, "same", "one", "x = 1")
    await keep(replays, "same", "two", "x = 2")
    assert (await replays.of("same", "one")).items[0].request.programs == ["x = 1"]
    assert (await replays.of("same", "two")).items[0].request.programs == ["x = 2"]
    with pytest.raises(RequestUnknown):
        await replays.of("same", "")
    await keep(replays, "same", "one", "x = 3")  # the later one counts
    assert (await replays.of("same", "one")).items[0].request.programs == ["x = 3"]


async def test_records_expire_and_zero_keeps_none(queue: Queue) -> None:
    replays = Replays(Shards({"": queue}), 1, 1 << 20)
    await keep(replays, "r", "", "x = 1")
    assert await queue.client.pttl("test:replay::r") <= 1000
    off = Replays(Shards({"": queue}), 0, 1 << 20)
    off.keep(RequestContext("s", now_ms()), "tools", *judged("x"))
    off.alias("", "t", "r")
    assert not off._pending
    with pytest.raises(RequestUnknown):
        await off.of("r", "")


async def test_the_sum_of_all_records_is_bounded_and_the_oldest_go(queue: Queue) -> None:
    replays = Replays(Shards({"": queue}), 60, 4_000)
    programs = [f"x = {json.dumps([uuid.uuid4().hex for _ in range(20)])}" for _ in range(8)]
    for at, program in enumerate(programs):
        await keep(replays, f"r{at}", "", program)
    kept = [key async for key in queue.client.scan_iter("test:replay:*")]
    size = sum([await queue.client.strlen(key) for key in kept])
    assert 2 <= len(kept) < 8
    assert size <= 4_000
    assert int(await queue.client.get("test:replays:bytes")) == size
    assert (await replays.of("r7", "")).items[0].request.programs == [programs[7]]
    with pytest.raises(RequestUnknown):
        await replays.of("r0", "")
    await keep(replays, "huge", "", f"x = {json.dumps([uuid.uuid4().hex for _ in range(1000)])}")
    with pytest.raises(RequestUnknown):
        await replays.of("huge", "")
    await replays.of("r7", "")  # what is too large for itself costs nobody else anything


async def test_a_flood_or_an_absent_broker_costs_replays_and_nothing_else(broker: Broker) -> None:
    client = connect_async(broker.url)
    replays = Replays(Shards({"": Queue(client, "test", "api")}), 60, 1 << 20)
    broker.kill()
    for at in range(3 * MAX_PENDING):
        replays.keep(RequestContext(f"r{at}", now_ms()), "tools", *judged("x"))
    assert len(replays._pending) == MAX_PENDING
    done, _ = await asyncio.wait(replays._pending)
    assert [task.exception() for task in done] == [None] * MAX_PENDING
    await replays.close()
    await client.aclose()
    broker.start()
