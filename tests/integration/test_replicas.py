"""What is acknowledged is in as many replicas as `redis_replicas` says; otherwise it is 503, and may be sent again."""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.sentinels import Sentinels
from support.stack import Stack, wait_for

pytestmark = pytest.mark.extended

SUITE = {"kind": "assert", "asserts": ["assert f() == 1"], "entry_point": "f"}
JSON = {"Content-Type": "application/json"}
BODY = {"items": [{"language": "python", "programs": ["def f():\n    return 1"], "tests": SUITE}]}


@pytest.fixture
def replicated() -> Iterator[tuple[Sentinels, httpx.Client]]:
    """An API on a primary and its replica. No worker: nothing that is accepted is done."""
    with (
        Sentinels(append_only=True, down_after_ms=1000) as sentinels,
        Stack(sentinels, Path("none"), scorers=0, executors=0, redis_replicas="1") as stack,  # type: ignore[arg-type]
        stack.client() as http,
    ):
        wait_for(lambda: http.get("/info").status_code == 200, 30, "the API")
        yield sentinels, http


def accept(http: httpx.Client, key: str) -> httpx.Response:
    return http.post("/execute", json=BODY, headers={"Prefer": "respond-async", "Idempotency-Key": key})


def test_nothing_is_acknowledged_that_the_replica_does_not_have(replicated: tuple[Sentinels, httpx.Client]) -> None:
    sentinels, http = replicated

    def store() -> httpx.Response:
        frame = json.dumps(SUITE).encode()
        return http.put(f"/testsets/{hashlib.sha256(frame).hexdigest()}", content=frame, headers=JSON)

    first = wait_for(
        lambda: (told := accept(http, "first")).status_code == 202 and told, 30, "the replica to be in step"
    )
    replica = sentinels.processes["b"]
    replica.send_signal(signal.SIGSTOP)
    try:
        refused = accept(http, "second")
        put = store()
    finally:
        replica.send_signal(signal.SIGCONT)
    for response in (refused, put):
        problem: dict[str, Any] = response.json()
        assert (response.status_code, problem["code"]) == (503, "broker_unavailable"), problem
        assert "redis_replicas" in problem["detail"]
        assert problem["retryable"]
    again = wait_for(
        lambda: (told := accept(http, "second")).status_code == 202 and told, 20, "the second one accepted"
    )
    assert store().is_success

    sentinels.kill("a")
    wait_for(lambda: sentinels.primary() == "b", 30, "the failover")
    for accepted in (first, again):
        url = accepted.json()["status_url"]
        wait_for(lambda: http.get(url).status_code != 503, 30, "the API to follow")  # noqa: B023 - called at once
        status = http.get(url)
        assert status.status_code == 200, status.text  # known to the new primary
