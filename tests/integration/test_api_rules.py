"""What holds for every endpoint: keys, errors, limits, deadlines, idempotency, single flight, overload, disconnects."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import re
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.broker import Broker
from support.stack import Stack, wait_for

ADD = "def add(a, b):\n    return a + b\n"
ONE = {"kind": "assert", "asserts": ["assert add(1, 2) == 3"]}
SCORE: dict[str, Any] = {"items": [{"prompt": "p", "completions": ["c"]}]}
EXECUTE: dict[str, Any] = {"items": [{"language": "python", "programs": [ADD], "tests": ONE}]}
REWARD: dict[str, Any] = {"items": [{"prompt": "p", "completions": [ADD], "tests": ONE}]}
WORK = {"/score": SCORE, "/execute": EXECUTE, "/reward": REWARD, "/rank": REWARD}
LATER = {"Prefer": "respond-async"}
PROBLEM = {"type", "title", "status", "detail", "code", "retryable", "retry_after_ms", "request_id"}


def sleeper(seconds: float) -> str:
    """A program that nobody has run before and that takes so long."""
    return f"import time\ndef add(a, b):\n    time.sleep({seconds})\n    return a + b\n# {uuid.uuid4().hex}\n"


def running(*programs: str, **request: Any) -> dict[str, Any]:
    return {"items": [{"language": "python", "programs": list(programs), "tests": ONE}], **request}


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem document of an error answer, checked for its form."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert set(document) >= PROBLEM
    assert (document["status"], document["code"]) == (status, code)
    assert document["type"] == f"urn:plaudit:problem:{code}"
    assert document["request_id"] == response.headers["x-request-id"]
    if document["retry_after_ms"] is not None:
        assert response.headers["retry-after"] == str(math.ceil(document["retry_after_ms"] / 1000))
    return document


def settle(stack: Stack) -> None:
    """Wait until the executor has nothing left in hand of what another test gave up."""
    with stack.client() as http:
        assert http.post("/execute", json=running(sleeper(0))).status_code == 200
    time.sleep(0.1)


def executed(stack: Stack) -> float:
    return stack.metric('plaudit_jobs_total{kind="execute",state="ok"}')


# --- keys and limits: an API alone, for it says no before any work ----------------------------------------------------


@pytest.fixture(scope="module")
def door() -> Iterator[Stack]:
    """An API with keys and small limits, and nobody behind it."""
    limits = {
        "items": 2,
        "completions": 3,
        "total_completions": 4,
        "code_bytes": 100,
        "tests": 2,
        "stdin_bytes": 10,
        "body_bytes": 5000,
    }
    settings = {f"max_{name}": str(value) for name, value in limits.items()}
    with (
        Broker() as broker,
        Stack(broker, Path("none"), scorers=0, executors=0, api_key="plain,other", admin_key="boss", **settings) as one,
    ):
        yield one


@pytest.fixture
def guest(door: Stack) -> Iterator[httpx.Client]:
    with door.client(headers={"Authorization": "Bearer plain"}) as client:
        yield client


JOB = f"/jobs/{'0' * 32}"
PRIVATE = [("POST", path) for path in WORK] + [
    ("GET", "/models"),
    ("GET", "/languages"),
    ("GET", "/info"),
    ("GET", JOB),
    ("DELETE", JOB),
    ("GET", f"{JOB}/events"),
    ("PUT", f"/testsets/{'0' * 64}"),
    ("GET", "/nowhere"),
]
STRANGERS = [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic plain"}, {"Authorization": "plain"}]


@pytest.mark.parametrize(("method", "path"), PRIVATE)
def test_without_a_key_there_is_nothing_to_see(door: Stack, method: str, path: str) -> None:
    with door.client() as http:
        for headers in STRANGERS:
            response = http.request(method, path, headers=headers, json=WORK.get(path))
            problem(response, 401, "unauthorized")
            assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/", "/health", "/metrics", "/docs", "/docs/start.js", "/openapi.json"])
def test_what_is_public_needs_no_key(door: Stack, path: str) -> None:
    with door.client() as http:
        assert http.get(path).status_code == 200
        assert http.get("/ready").status_code == 503


@pytest.mark.parametrize("key", ["plain", "other", "boss"])
def test_every_key_opens(door: Stack, key: str) -> None:
    with door.client(headers={"Authorization": f"bearer {key}"}) as http:
        assert http.get("/models").json() == {"models": []}


def test_an_admin_call_needs_an_admin_key(door: Stack, guest: httpx.Client) -> None:
    body = {"revision": "sha256:0"}
    problem(guest.post("/models/default/activate", json=body), 403, "forbidden")
    with door.client(headers={"Authorization": "Bearer boss"}) as http:
        assert http.post("/models/default/activate", json=body).status_code not in (401, 403)


def test_a_job_belongs_to_the_key_that_asked(door: Stack, guest: httpx.Client) -> None:
    accepted = guest.post("/score", json=SCORE, headers={"Prefer": "respond-async"})
    url = accepted.json()["status_url"]
    assert guest.get(url).status_code == 200
    with door.client(headers={"Authorization": "Bearer other"}) as other:
        problem(other.get(url), 404, "not_found")
        problem(other.delete(url), 404, "not_found")


@pytest.mark.parametrize(
    ("path", "body", "limit"),
    [
        ("/score", {"items": SCORE["items"] * 3}, "items: 3 is more than 2 (max_items)"),
        (
            "/score",
            {"items": [{"prompt": "p", "completions": ["c"] * 4}]},
            "items.0.completions: 4 is more than 3 (max_completions)",
        ),
        (
            "/score",
            {"items": [{"prompt": "p", "completions": ["c"] * 3}] * 2},
            "items.*.completions: 6 is more than 4 (max_total_completions)",
        ),
        ("/execute", running("é" * 51), "items.0.programs.0: 102 is more than 100 (max_code_bytes)"),
        (
            "/reward",
            {"items": [REWARD["items"][0] | {"completions": ["x", "y" * 101]}]},
            "items.0.completions.1: 101 is more than 100 (max_code_bytes)",
        ),
        (
            "/execute",
            {"items": [EXECUTE["items"][0] | {"tests": {"kind": "assert", "asserts": ["a"] * 3}}]},
            "items.0.tests: 3 is more than 2 (max_tests)",
        ),
        (
            "/execute",
            {
                "items": [
                    EXECUTE["items"][0] | {"tests": {"kind": "stdio", "cases": [{"stdin": "x" * 11, "stdout": ""}]}}
                ]
            },
            "items.0.tests.cases.0.stdin: 11 is more than 10 (max_stdin_bytes)",
        ),
        ("/rank", {"items": REWARD["items"] * 3}, "items: 3 is more than 2 (max_items)"),
    ],
)
def test_past_a_limit_is_413_with_the_limit_named(guest: httpx.Client, path: str, body: Any, limit: str) -> None:
    assert problem(guest.post(path, json=body), 413, "too_large")["detail"] == limit


def test_a_body_past_its_limit_is_413_whether_or_not_it_says_its_length(guest: httpx.Client) -> None:
    body = json.dumps(SCORE | {"model": "x" * 5000}).encode()
    parts = (body[at : at + 500] for at in range(0, len(body), 500))
    headers = {"Content-Type": "application/json"}
    for content in (body, parts):
        document = problem(guest.post("/score", content=content, headers=headers), 413, "too_large")
        assert "5000 (max_body_bytes)" in document["detail"]


def test_limits_of_a_run_past_the_ceiling_are_invalid_and_name_it(guest: httpx.Client) -> None:
    item = EXECUTE["items"][0] | {"limits": {"cpu_s": 61}}
    document = problem(guest.post("/execute", json={"items": [item]}), 422, "invalid")
    assert document["detail"] == "items.0.limits.cpu_s: 61 is more than 60 (max_cpu_s)"


def test_without_workers_work_is_503_and_may_be_tried_again(guest: httpx.Client) -> None:
    for path, body in WORK.items():
        document = problem(guest.post(path, json=body), 503, "no_worker")
        assert document["retryable"] is True
        assert document["retry_after_ms"] > 0
    ready = guest.get("/ready")
    assert ready.status_code == 503
    assert ready.json()["reasons"] == ["no scoring worker is alive", "no executing worker is alive"]


def test_a_retry_after_a_failure_of_ours_runs_again_under_the_same_key(guest: httpx.Client) -> None:
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    for _ in range(2):
        problem(guest.post("/score", json=SCORE, headers=headers), 503, "no_worker")


# --- form: asked of the shared stack ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", WORK)
def test_an_unknown_field_is_422_with_its_path(http: httpx.Client, path: str) -> None:
    (item,) = WORK[path]["items"]
    document = problem(http.post(path, json={"items": [item | {"colour": 1}]}), 422, "invalid")
    assert [one["path"] for one in document["errors"]] == ["items.0.colour"]
    assert document["detail"].startswith("items.0.colour: ")
    assert document["retryable"] is False


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"{", 422),
        (b"", 422),
        (b"[]", 422),
        (b"null", 422),
        (b"\xff\xfe", 400),
        (b'{"items": "\xff"}', 400),
        (b'{"items": [{"prompt": "\\ud800", "completions": ["c"]}]}', 422),
        (b'{"items": [{"prompt": "p", "completions": ["c"]}], "deadline_ms": NaN}', 422),
        (b'{"items": [{"prompt": "p", "completions": ["c"]}], "deadline_ms": 1e999}', 422),
        (b'{"items": ' + b"[" * 100_000, 422),
        (b'{"items": ' + b"9" * 5000 + b"}", 400),
    ],
)
def test_what_is_not_json_or_not_a_request_is_the_callers_mistake(
    http: httpx.Client, content: bytes, status: int
) -> None:
    response = http.post("/score", content=content, headers={"Content-Type": "application/json"})
    document = problem(response, response.status_code, response.json()["code"])
    assert response.status_code in (status, 400, 422)
    assert document["retryable"] is False


@pytest.mark.parametrize("key", [None, "durable"])
@pytest.mark.parametrize(
    "expected",
    ["NaN", "-Infinity", "1e999", '"\\ud800"', '{"\\ud800": 1}', "[" * 300 + "]" * 300, "[" * 900 + "]" * 900],
    ids=["nan", "infinity", "large", "text", "key", "deep", "deeper"],
)
def test_a_value_that_cannot_be_said_back_is_refused_and_nothing_breaks(
    http: httpx.Client, expected: str, key: str | None
) -> None:
    body = json.dumps(
        {
            "items": [
                EXECUTE["items"][0]
                | {"tests": {"kind": "function", "entry_point": "add", "cases": [{"args": [1, 2], "expected": "HERE"}]}}
            ]
        }
    ).replace('"HERE"', expected)
    headers = {"Content-Type": "application/json"} | ({"Idempotency-Key": uuid.uuid4().hex} if key else {})
    response = http.post("/execute", content=body, headers=headers)
    assert problem(response, 422, "invalid")["errors"][0]["path"].startswith("items.0.tests.function.cases.0.expected")


def test_paths_and_methods_that_there_are_not(http: httpx.Client) -> None:
    problem(http.get("/nowhere"), 404, "not_found")
    problem(http.get("/score"), 405, "method_not_allowed")


def test_a_request_id_is_echoed_or_made_and_time_is_told(http: httpx.Client) -> None:
    given = http.post("/score", json=SCORE, headers={"X-Request-Id": "mine-1"})
    made = http.post("/score", json=SCORE, headers={"X-Request-Id": "not good"})
    assert given.headers["x-request-id"] == given.json()["request_id"] == "mine-1"
    assert made.headers["x-request-id"] == made.json()["request_id"] != "mine-1"
    for path in ("/health", "/nowhere", "/", "/metrics"):
        response = http.get(path)
        assert re.fullmatch(r"queue;dur=0\.0, compute;dur=0\.0, total;dur=\d+\.\d", response.headers["server-timing"])
        assert response.headers["x-request-id"]
    computed = http.post("/execute", json=running(sleeper(0.05)))
    told = dict(part.split(";dur=") for part in computed.headers["server-timing"].split(", "))
    assert float(told["compute"]) == pytest.approx(computed.json()["timing"]["compute_ms"], abs=0.1)
    assert float(told["compute"]) > 50
    assert float(told["total"]) >= computed.json()["timing"]["wall_ms"] >= 50


def test_the_clock_and_the_work_of_several_jobs_are_told_apart(http: httpx.Client) -> None:
    answer = http.post("/execute", json=running(*(sleeper(0.3 + n / 1000) for n in range(4)))).json()
    assert answer["timing"]["compute_ms"] > 4 * 300
    assert answer["timing"]["wall_ms"] > 300


@pytest.mark.parametrize("path", ["/score", "/execute", "/rank", "/get_reward", "/run_code"])
def test_a_body_that_is_not_said_to_be_json_is_415(http: httpx.Client, path: str) -> None:
    for given in ("application/x-www-form-urlencoded", "text/plain", None):
        headers = {} if given is None else {"Content-Type": given}
        answer = http.post(path, content=json.dumps(SCORE), headers=headers)
        document = problem(answer, 415, "unsupported_media_type")
        assert "Content-Type: application/json" in document["detail"]
        assert (given or "no Content-Type") in document["detail"]
    spelt = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert http.post("/score", content=json.dumps(SCORE), headers=spelt).status_code == 200


@pytest.mark.parametrize("size", [0, 100_000, 400_000], ids=["small", "parsed in a thread", "parsed in pieces"])
def test_a_body_that_is_not_json_is_400_and_says_where(http: httpx.Client, size: int) -> None:
    text = '{"items":\n [' + " " * size + "}"
    document = problem(
        http.post("/score", content=text, headers={"Content-Type": "application/json"}), 400, "bad_request"
    )
    assert document["detail"].startswith("body: not JSON: ")
    assert size > 300_000 or f"line 2, column {size + 3}" in document["detail"]


def test_errors_name_the_field_that_explains_the_others(http: httpx.Client) -> None:
    document = problem(http.post("/rank", json={"items": [{"prompt": "p", "completion": ["c"]}]}), 422, "invalid")
    assert document["detail"].startswith("items.0.completion: there is no such field; did you mean 'completions'?")
    assert [field["path"] for field in document["errors"]] == ["items.0.completion", "items.0.completions"]


def test_a_wrong_path_or_method_says_what_there_is(http: httpx.Client) -> None:
    assert (
        "POST /rank/rank: there is no such endpoint"
        in problem(http.post("/rank/rank", json=SCORE), 404, "not_found")["detail"]
    )
    assert problem(http.get("/score"), 405, "method_not_allowed")["detail"] == "/score takes POST, not GET"


def test_a_slash_too_many_is_no_redirect(http: httpx.Client) -> None:
    assert http.post("/score/", json=SCORE, follow_redirects=False).status_code == 200


def test_who_is_turned_away_is_counted_under_the_route_that_was_meant(door: Stack) -> None:
    with door.client() as http:
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            document = problem(http.post("/score", json=SCORE, headers=headers), 401, "unauthorized")
            assert document["detail"].startswith("this key" if headers else "no key was given")
        metrics = http.get("/metrics").text
    counted = [line for line in metrics.splitlines() if line.startswith("plaudit_http_requests_total{")]
    assert any('route="/score"' in line and 'status="401"' in line for line in counted), counted
    assert re.search(r'plaudit_rejected_total\{reason="unauthorized"\} [2-9]', metrics)


# --- deadlines -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["body", "header", "the sooner of both"])
def test_what_is_done_by_the_deadline_comes_back_and_the_rest_is_timeout_queue(
    http: httpx.Client, stack: Stack, where: str
) -> None:
    settle(stack)
    programs = [f"{ADD}# {uuid.uuid4().hex}\n", sleeper(1.5), sleeper(1.5)]
    in_body = {"body": 900, "header": None, "the sooner of both": 60_000}[where]
    headers = {} if where == "body" else {"X-Deadline-Ms": "900"}
    began = time.perf_counter()
    response = http.post("/execute", json=running(*programs, deadline_ms=in_body), headers=headers)
    elapsed = time.perf_counter() - began

    assert response.status_code == 200
    assert response.json()["status"] == "partial"
    runs = response.json()["results"][0]["programs"]
    assert [run["status"] for run in runs] == ["ok", "timeout_queue", "timeout_queue"]
    assert [run["trainable"] for run in runs] == [True, False, False]
    assert [(run["verdict"], run["pass_rate"]) for run in runs[1:]] == [(None, None)] * 2
    assert [run["error"]["retryable"] for run in runs[1:]] == [True, True]
    assert 0.8 < elapsed < 1.4


@pytest.mark.parametrize("value", ["0", "-1", "soon", "1.5", "", "٣", "9" * 30, "9" * 5000])
def test_a_deadline_header_that_is_no_budget_is_refused(http: httpx.Client, value: str) -> None:
    headers = httpx.Headers([(b"X-Deadline-Ms", value.encode())])
    document = problem(http.post("/score", json=SCORE, headers=headers), 422, "invalid")
    assert "X-Deadline-Ms" in document["detail"]


# --- the same work, once ---------------------------------------------------------------------------------------------


async def test_identical_requests_at_once_are_executed_once(stack: Stack) -> None:
    settle(stack)
    before, body = executed(stack), running(sleeper(0.5))
    async with stack.async_client() as http:
        answers = await asyncio.gather(*(http.post("/execute", json=body) for _ in range(24)))

    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["results"][0]["programs"][0]["verdict"] for answer in answers} == {"passed"}
    await asyncio.sleep(0.2)
    assert executed(stack) - before == 1


async def test_identical_scores_at_once_are_computed_once(stack: Stack) -> None:
    def computed() -> float:
        return stack.metric('plaudit_jobs_total{kind="score",state="ok"}')

    before = computed()
    body = {"items": [{"prompt": "p", "completions": [uuid.uuid4().hex]}]}
    async with stack.async_client() as http:
        answers = await asyncio.gather(*(http.post("/score", json=body) for _ in range(24)))
    assert len({answer.json()["results"][0]["completions"][0]["score"] for answer in answers}) == 1
    await asyncio.sleep(0.2)
    assert computed() - before <= 2  # a caller who comes after the answer, before it is remembered, computes it anew


async def test_an_idempotency_key_joins_what_runs_and_replays_what_is_done(stack: Stack) -> None:
    settle(stack)
    before, body, headers = executed(stack), running(sleeper(0.4)), {"Idempotency-Key": uuid.uuid4().hex}
    async with stack.async_client(headers=headers) as http:
        first, joined = await asyncio.gather(http.post("/execute", json=body), http.post("/execute", json=body))
        replayed = await http.post("/execute", json=body)
        conflict = await http.post("/execute", json=running(ADD))
        other_route = await http.post("/score", json=SCORE)
        later = await http.post("/execute", json=body, headers={"Prefer": "respond-async"})
        job = await http.get(later.json()["status_url"])

    assert first.json() == joined.json() == replayed.json() == job.json()["answer"]
    assert first.json()["results"][0]["programs"][0]["cached"] is False
    problem(conflict, 409, "idempotency_conflict")
    problem(other_route, 409, "idempotency_conflict")
    assert executed(stack) - before == 1


def test_an_answer_that_a_retry_could_better_is_not_replayed(http: httpx.Client, stack: Stack) -> None:
    settle(stack)
    body, headers = running(sleeper(0.7)), {"Idempotency-Key": uuid.uuid4().hex}
    first = http.post("/execute", json=body, headers=headers | {"X-Deadline-Ms": "300"})
    second = http.post("/execute", json=body, headers=headers | {"X-Deadline-Ms": "20000"})
    assert first.json()["status"] == "partial"
    assert (second.json()["status"], second.json()["results"][0]["programs"][0]["verdict"]) == ("complete", "passed")


# --- callers who go away ---------------------------------------------------------------------------------------------


def line(http: httpx.Client) -> dict[str, Any]:
    """The queue of programs as `/info` tells of it; up to a second old."""
    state: dict[str, Any] = http.get("/info").json()["queues"]["execute"]
    return state


def depth(http: httpx.Client) -> int:
    queued: int = line(http)["depth"]
    return queued


def test_a_caller_who_goes_away_takes_the_queued_work_along(http: httpx.Client) -> None:
    wait_for(lambda: depth(http) == 0)
    with contextlib.suppress(httpx.ReadTimeout):
        http.post("/execute", json=running(*(sleeper(1.5) for _ in range(10))), timeout=0.5)
    wait_for(lambda: depth(http) == 0, 4, "the queue to be empty")


def test_a_program_that_nobody_waits_for_any_more_is_stopped(http: httpx.Client, stack: Stack) -> None:
    wait_for(lambda: depth(http) == 0)
    before = executed(stack)
    with contextlib.suppress(httpx.ReadTimeout):
        http.post("/execute", json=running(sleeper(60)), timeout=0.5)
    began = time.monotonic()
    assert http.post("/execute", json=running(sleeper(0)), timeout=30).status_code == 200
    assert time.monotonic() - began < 10  # left alone it would have slept to its wall limit of 15 s
    assert executed(stack) == before + 1


def test_work_that_another_caller_waits_for_goes_on_without_the_first(http: httpx.Client, stack: Stack) -> None:
    wait_for(lambda: depth(http) == 0)
    blocker, shared = running(sleeper(1.0)), running(sleeper(0.1))
    answers: list[httpx.Response] = []

    def ask(body: Any) -> None:
        with stack.client() as client:
            answers.append(client.post("/execute", json=body))

    threads = [threading.Thread(target=ask, args=(body,)) for body in (blocker, shared)]
    threads[0].start()
    time.sleep(0.2)
    threads[1].start()
    with pytest.raises(httpx.ReadTimeout):
        http.post("/execute", json=shared, timeout=0.4)
    for thread in threads:
        thread.join()
    assert [answer.json()["results"][0]["programs"][0]["verdict"] for answer in answers] == ["passed", "passed"]


# --- a stack of one's own: full queues, hopeless deadlines, an API that dies ------------------------------------------


@pytest.fixture(scope="module")
def small(tiny_model: Path) -> Iterator[Stack]:
    """A whole service with a very short queue."""
    with Broker() as broker, Stack(broker, tiny_model, max_queued_execute="4", max_queued_score_tokens="400") as one:
        yield one


def test_a_full_queue_is_429_at_once_with_a_time_to_come_back(small: Stack) -> None:
    with small.client() as http:
        later = http.post("/execute", json=running(*(sleeper(1.0) for _ in range(4))), headers=LATER)
        began = time.perf_counter()
        document = problem(http.post("/execute", json=running(sleeper(0))), 429, "overloaded")
        assert time.perf_counter() - began < 0.5
        assert document["retryable"] is True
        assert 1000 <= document["retry_after_ms"] <= 60_000
        assert "at most 4" in document["detail"]
        assert small.metric('plaudit_rejected_total{reason="queue_full"}') == 1
        assert http.post("/score", json=SCORE).status_code == 200
        status_url = later.json()["status_url"]
        wait_for(lambda: http.get(status_url, params={"wait_ms": 5000}).json()["state"] == "done", 20)


def test_a_deadline_that_the_line_cannot_meet_is_503_at_once(small: Stack) -> None:
    with small.client() as http:
        job = http.post("/execute", json=running(*(sleeper(1.2) for _ in range(4))), headers=LATER)
        wait_for(lambda: line(http)["drained_cost_per_s"] > 0 and 0 < line(http)["depth"] < 4)
        began = time.perf_counter()
        document = problem(
            http.post("/execute", json=running(sleeper(0)), headers={"X-Deadline-Ms": "100"}),
            503,
            "deadline_unreachable",
        )
        assert time.perf_counter() - began < 0.5
        assert document["retryable"] is True
        assert document["retry_after_ms"] >= 1000
        http.delete(job.json()["status_url"])


def test_an_api_that_dies_is_replaced_and_its_requests_are_finished(small: Stack) -> None:
    body, headers = running(*(sleeper(0.5) for _ in range(4))), {"Idempotency-Key": uuid.uuid4().hex}
    with small.client() as http:
        wait_for(lambda: depth(http) == 0)
        job = http.post("/execute", json=body, headers=headers | LATER).json()
        wait_for(lambda: depth(http) > 0)
    assert small.api is not None
    small.api.kill()
    small.start_api(port=small.port)

    before = executed(small)
    with small.client() as http:
        answer = http.post("/execute", json=body, headers=headers)
        status = http.get(job["status_url"]).json()
    assert [run["verdict"] for run in answer.json()["results"][0]["programs"]] == ["passed"] * 4
    assert status["state"] == "done"
    assert status["answer"] == answer.json()
    assert answer.json()["request_id"] == job["job_id"]
    assert executed(small) - before <= 4


def test_every_process_ends_with_0_when_asked(small: Stack) -> None:
    processes = [process for kind in ("api", "execute", "score") for process in small.of_kind(kind)]
    assert [process.stop() for process in processes] == [0, 0, 0]
