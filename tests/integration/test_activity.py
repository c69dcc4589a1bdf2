"""What a deployment says of itself: recent requests, slow work and why, workers, tenants, history, traces."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from plaudit import Client
from plaudit.errors import RequestUnknown
from service.api.dispatch.shards import Shards
from service.api.dispatch.trail import MAX_SAMPLES, SlowRecord, Trail
from service.api.middleware import tenant_of
from service.api.stores.activity import MAX_REQUESTS, MAX_SHOWN, MAX_SLOW, Activity
from service.api.stores.history import quantile_ms
from service.queue.connections import connect_async
from service.queue.producer import Queue
from support.broker import Broker
from support.stack import Stack, wait_for

MakeStack = Callable[..., Stack]
MakeActivity = Callable[[], Activity]

SECRET = "the_text_of_a_program_is_nobodys_business"
SLEEPER = f"import time\n\ndef {SECRET}():\n    time.sleep(0.8)\n    return 1\n"


# --- the store, on a Redis of the test's own ---


@pytest.fixture
async def make_activity(broker: Broker) -> AsyncIterator[MakeActivity]:
    clients = []

    def make() -> Activity:
        client = connect_async(broker.url)
        clients.append(client)
        shards = Shards({"": Queue(client, "plaudit", f"api{len(clients)}")})
        return Activity(shards, ["a", "b"], lambda: {"depth:execute": 3.0, "workers:score": 2.0})

    yield make
    for client in clients:
        await client.aclose()


def slow_record(request_id: str, total_ms: float) -> SlowRecord:
    return SlowRecord(request_id, "/execute", int(1000 * time.time()), total_ms, "cpu", {"cpu": total_ms}, "item")


def answered(
    activity: Activity, request_id: str, tenant: str = "a", *, status: int = 200, ms: float = 5.0, slow_ms: float = 0.0
) -> None:
    trail = Trail(request_id, time.monotonic(), activity.floors(tenant), route="/execute")
    trail.counts["programs"] += 1
    trail.counts["verdict:passed"] += 1
    if status >= 400:
        trail.failed("invalid", "a field is wrong")
    if slow_ms:
        assert not trail.wants("program", 0.0)
        if trail.wants("program", slow_ms):
            trail.remember("program", slow_record(request_id, slow_ms))
    activity.record(trail, tenant, "POST", status, ms / 1000)


async def test_all_processes_see_the_requests_of_all(make_activity: MakeActivity) -> None:
    one, other = make_activity(), make_activity()
    answered(one, "first")
    await one.flush()
    answered(other, "second", status=422)
    await other.flush()
    for activity in (one, other):
        assert [request.request_id for request in await activity.requests(["a"], 10, errors=False)] == [
            "second",
            "first",
        ]
        (failed,) = await activity.requests(["a"], 10, errors=True)
        assert (failed.request_id, failed.code, failed.detail) == ("second", "invalid", "a field is wrong")
    assert (await other.request(["a"], "first")).status == 200


async def test_one_tenant_cannot_see_or_displace_anothers(make_activity: MakeActivity) -> None:
    activity = make_activity()
    answered(activity, "rare", "a", slow_ms=50.0)
    await activity.flush()
    for turn in range(2 * MAX_REQUESTS // 100):
        for number in range(100):
            answered(activity, f"many-{turn}-{number}", "b", slow_ms=1000.0 + number)
        await activity.flush()
    (request,) = await activity.requests(["a"], 10, errors=False)
    assert (request.request_id, request.tenant) == ("rare", "a")
    assert [sample.request_id for sample in (await activity.slow(["a"])).programs] == ["rare"]
    with pytest.raises(RequestUnknown):
        await activity.request(["b"], "rare")
    assert {request.tenant for request in await activity.requests(["a", "b"], 200, errors=False)} == {"b"}
    assert (await activity.request(["a", "b"], "rare")).tenant == "a"


async def test_what_is_kept_is_bounded_and_it_is_the_slowest(make_activity: MakeActivity, broker: Broker) -> None:
    activity = make_activity()
    for turn in range(6):
        for number in range(100):
            answered(activity, f"{turn}-{number}", slow_ms=float(number + 100 * turn) or 0.5, status=500)
        await activity.flush()
    client: Any = activity.queue.client
    assert await client.xlen("plaudit:recent:a") == MAX_REQUESTS
    assert await client.xlen("plaudit:failed:a") == MAX_REQUESTS
    programs = (await activity.slow(["a"])).programs
    totals = [sample.total_ms for sample in programs]
    assert totals == sorted(totals, reverse=True)
    assert totals[:MAX_SLOW] == [599.0 - number for number in range(MAX_SLOW)]
    assert len(programs) <= MAX_SHOWN
    for key in await client.keys("plaudit:*"):
        assert 0 < await client.ttl(key) <= 90_000
    sizes = [await client.memory_usage(key) for key in await client.keys("plaudit:*")]
    assert sum(sizes) < 512 * 1024


def test_a_request_remembers_only_its_slowest_work() -> None:
    trail = Trail("r", 0.0, {"program": 100.0})
    remembered = []
    for total_ms in [50.0, *map(float, range(101, 201)), *map(float, range(150, 101, -1))]:
        if trail.wants("program", total_ms):
            remembered.append(total_ms)
            trail.remember("program", slow_record("r", total_ms))
    assert [sample.total_ms for _, sample in trail.samples()] == [200.0 - number for number in range(MAX_SAMPLES)]
    assert len(remembered) == 100  # none of the later, faster ones, and not the one below the floor


async def test_without_redis_answers_go_on_and_counts_come_later(make_activity: MakeActivity, broker: Broker) -> None:
    activity = make_activity()
    answered(activity, "lost")
    broker.kill()
    await activity.flush()
    broker.start()
    answered(activity, "kept")
    await activity.close()
    assert [request.request_id for request in await activity.requests(["a"], 10, errors=False)] == ["kept"]
    (point,) = await activity.history.read(10, 0)
    assert point.requests == 2


async def test_the_history_adds_up_over_processes(make_activity: MakeActivity) -> None:
    activities = [make_activity(), make_activity()]
    for activity in activities:
        for _ in range(50):
            answered(activity, "r", ms=4.0)
        answered(activity, "r", ms=900.0, status=429)
        answered(activity, "r", status=500)
        await activity.flush()
    point = (await activities[0].history.read(240, 0))[-1]
    assert (point.requests, point.rejected, point.server_errors, point.programs) == (104, 2, 2, 104)
    assert point.verdicts == {"passed": 104}
    assert point.depth == {"execute": 3.0}
    assert point.workers == {"score": 2}
    assert point.p50_ms == pytest.approx(3.8, abs=1.3)
    assert point.p99_ms is not None
    assert point.p99_ms > 500
    assert await activities[1].history.num_requests() == {"a": 104}


def test_quantiles_are_interpolated_as_prometheus_does() -> None:
    assert quantile_ms({}, 0.5) is None
    assert quantile_ms({0: 10}, 0.5) == 0.5
    assert quantile_ms({4: 2, 5: 2}, 0.5) == 25.0
    assert quantile_ms({4: 2, 5: 2}, 0.75) == pytest.approx(37.5)
    assert quantile_ms({17: 1}, 0.5) == 300_000.0


# --- the service ---


@pytest.fixture
def own_http(make_stack: MakeStack) -> Iterator[httpx.Client]:
    """A service that has met no slower program."""
    stack = make_stack(scorers=0)
    with stack.client() as client:
        wait_for(lambda: client.get("/ready").json()["executors"] == 1, 60, "the executor")
        yield client


def test_a_slow_program_is_seen_with_its_reason_and_without_its_text(own_http: httpx.Client) -> None:
    tests = {"kind": "assert", "asserts": [f"assert {SECRET}() == 1"]}
    item = {"id": "sleeper", "language": "python", "programs": [SLEEPER], "tests": tests}
    answer = own_http.post("/execute", json={"items": [item]})
    request_id = answer.headers["x-request-id"]

    def samples() -> list[dict[str, Any]]:
        found = own_http.get("/slow")
        assert SECRET not in found.text
        return [one for one in found.json()["programs"] if one["request_id"] == request_id]

    (sample,) = wait_for(samples, what="the sample")
    assert (sample["why"], sample["item"], sample["index"], sample["verdict"]) == ("waiting", "sleeper", 0, "passed")
    assert sample["parts"]["waiting"] > 500
    assert sample["num_bytes"] == len(SLEEPER)
    summary = own_http.get(f"/requests/{request_id}").json()
    assert SECRET not in json.dumps(summary)
    stages = summary["stages_ms"]
    assert stages["read"] <= stages["admitted"] <= stages["first_result"] <= stages["last_result"]
    assert summary["took_ms"] >= stages["last_result"]
    assert summary["num_jobs"] == 1
    assert summary["workers"][0].startswith("execute-")
    exposed = own_http.get("/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0"})
    assert f'request_id="{request_id}"' in exposed.text
    assert exposed.text.endswith("# EOF\n")


def test_an_asynchronous_request_is_kept_when_its_work_ends(http: httpx.Client) -> None:
    item = {
        "language": "python",
        "programs": ["print(41 + 1)"],
        "tests": {"kind": "stdio", "cases": [{"stdout": "42"}]},
    }
    headers = {"Prefer": "respond-async", "X-Request-Id": "asynchronous-one"}
    assert http.post("/execute", json={"items": [item]}, headers=headers).status_code == 202

    def entries() -> list[dict[str, Any]]:
        requests = http.get("/requests", params={"limit": 200}).json()["requests"]
        return [one for one in requests if one["request_id"] == "asynchronous-one" and one["num_jobs"] == 1]

    (entry,) = wait_for(entries, what="the durable request")
    assert entry["status"] == 200
    assert "last_result" in entry["stages_ms"]


def test_a_request_that_waits_for_its_durable_work_is_kept_once(http: httpx.Client) -> None:
    item = {"language": "python", "programs": ["print(43)"], "tests": {"kind": "stdio", "cases": [{"stdout": "43"}]}}
    headers = {"Idempotency-Key": "the key of one", "X-Request-Id": "idempotent-one"}
    assert http.post("/execute", json={"items": [item]}, headers=headers).is_success

    def entries() -> list[dict[str, Any]]:
        requests = http.get("/requests", params={"limit": 200}).json()["requests"]
        return [one for one in requests if one["request_id"] == "idempotent-one"]

    (entry,) = wait_for(entries, what="the request")
    assert entry["num_jobs"] == 1


def test_what_a_client_names_is_in_no_public_metric(http: httpx.Client) -> None:
    http.post("/execute", json={"items": []}, headers={"X-Request-Id": "named-by-a-client"})
    exposed = http.get("/metrics", headers={"Accept": "application/openmetrics-text"})
    assert "named-by-a-client" not in exposed.text


def test_workers_say_what_they_do(http: httpx.Client, stack: Stack) -> None:
    workers = {worker["kind"]: worker for worker in http.get("/workers").json()["workers"]}
    assert workers.keys() == {"score", "execute"}
    assert "python" in workers["execute"]["serves"]
    assert workers["score"]["serves"][0].startswith("default ")
    tenants = http.get("/workers").json()["tenants"]
    assert [(tenant["tenant"], tenant["own"]) for tenant in tenants] == [("", True)]


def test_the_files_of_the_page_are_served_and_nothing_else(http: httpx.Client) -> None:
    page = http.get("/").text
    for path in ("dashboard/app.js", "dashboard/page.css", "dashboard/vendor/prism.js", "dashboard/vendor/uplot.css"):
        assert path in page
        answer = http.get(f"/{path}")
        assert answer.is_success
        assert answer.headers["x-content-type-options"] == "nosniff"
        again = http.get(f"/{path}", headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    assert "MIT" in http.get("/dashboard/vendor/LICENSES.txt").text
    for path in ("dashboard/../system.py", "dashboard/%2e%2e/system.py", "dashboard/", "dashboard/nothing.js"):
        assert http.get(f"/{path}").status_code == 404


def test_keys_see_their_own_and_strangers_nothing(make_stack: MakeStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """One stack for what needs keys and what needs traces."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    stack = make_stack(scorers=0, executors=1, api_key="one,two", admin_key="boss")
    with stack.client() as client:
        wait_for(lambda: client.get("/ready").json()["executors"] == 1, 60, "the executor")
    item = {"language": "python", "programs": ["print(6 * 7)"], "tests": {"kind": "stdio", "cases": [{"stdout": "42"}]}}
    traced = "0af7651916cd43dd8448eb211c80319c"
    headers = {"X-Request-Id": "from-one", "traceparent": f"00-{traced}-b7ad6b7169203331-01"}
    with stack.client(headers={"Authorization": "Bearer one"}) as one:
        assert one.post("/execute", json={"items": [item]}, headers=headers).is_success
    with Client(stack.url, "two") as two:
        two.execute([item])
    paths = ("/slow", "/requests", "/requests/from-one", "/workers", "/history")
    with stack.client() as stranger:
        assert [stranger.get(path).status_code for path in paths] == [401] * len(paths)
        assert stranger.get("/").status_code == stranger.get("/dashboard/app.js").status_code == 200

    def seen_by(key: str) -> tuple[set[str], int, list[str]]:
        with stack.client(headers={"Authorization": f"Bearer {key}"}) as client:
            summaries = client.get("/requests").json()["requests"]
            tenants = [tenant["tenant"] for tenant in client.get("/workers").json()["tenants"]]
            return {one["tenant"] for one in summaries}, client.get("/requests/from-one").status_code, tenants

    everybody = {tenant_of("one"), tenant_of("two"), ""}
    wait_for(lambda: everybody <= seen_by("boss")[0], what="the requests of both, and the strangers'")
    wait_for(lambda: "others" in seen_by("one")[2], what="the history")
    assert seen_by("one") == ({tenant_of("one")}, 200, sorted([tenant_of("one"), "others"]))
    assert seen_by("two") == ({tenant_of("two")}, 404, sorted([tenant_of("two"), "others"]))
    assert seen_by("boss")[1] == 200

    stack.close()  # which sends the last spans
    spans = spans_of(stack)[f"0x{traced}"]
    request, wait, execute = (spans[name][0] for name in ("POST /execute", "wait in the queue", "execute"))
    assert request["parent_id"] == "0xb7ad6b7169203331"
    assert wait["parent_id"] == execute["parent_id"] == request["context"]["span_id"]
    assert request["resource"]["attributes"]["service.name"] == "plaudit-api"
    assert execute["resource"]["attributes"]["service.name"] == "plaudit-executor"
    assert execute["attributes"]["plaudit.verdict"] == "passed"
    assert {run["parent_id"] for run in spans["run program"]} == {execute["context"]["span_id"]}
    assert "print(6 * 7)" not in json.dumps(spans)


def spans_of(stack: Stack) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Every span that the processes wrote, by trace and name."""
    traces: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for process in stack.processes:
        for line in process.logged():
            if "context" in line:
                traces[line["context"]["trace_id"]][line["name"]].append(line)
    return traces


@pytest.mark.extended
def test_a_trace_reaches_from_the_client_to_every_worker(
    make_stack: MakeStack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from opentelemetry.sdk.trace import TracerProvider

    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    stack = make_stack()
    tracer = TracerProvider().get_tracer("trainer")
    with tracer.start_as_current_span("step") as step, Client(stack.url) as client:
        tests: Any = {"kind": "assert", "asserts": ["assert f() == 1"]}
        client.rank([{"prompt": "f() is 1", "completions": ["def f():\n    return 1"], "tests": tests}])
    context = step.get_span_context()
    stack.close()
    spans = spans_of(stack)[f"0x{context.trace_id:032x}"]
    assert spans["POST /rank"][0]["parent_id"] == f"0x{context.span_id:016x}"
    assert {"wait in the queue", "execute", "run program", "score batch"} <= spans.keys()
    names = {one["resource"]["attributes"]["service.name"] for named in spans.values() for one in named}
    assert names == {"plaudit-api", "plaudit-executor", "plaudit-scorer"}
