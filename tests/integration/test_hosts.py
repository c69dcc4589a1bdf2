"""Several hosts with a network between them that is cut: what `benchmarks/partitions.py` does for longer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.hosts import HERE, HostStack, Network, RedisHosts, missing
from support.stack import wait_for

pytestmark = [
    pytest.mark.extended,
    pytest.mark.skipif(bool(missing()), reason=f"hosts are network namespaces, which need {missing()}"),
]

SUITE = {"kind": "assert", "asserts": ["assert f() == 1"], "entry_point": "f"}
KEYS = "tenant"
HOSTS = ("api1", "api2", "redis1", "redis2", "exec1")


class Lab:
    """Two APIs, a primary and its replica under three sentinels, and an executor."""

    def __init__(self, network: Network, brokers: RedisHosts, stack: HostStack) -> None:
        self.network, self.brokers, self.stack = network, brokers, stack

    def send(self, api: str, name: str, **headers: str) -> httpx.Response:
        """A program of that name."""
        program = f"def f():\n    return 1\n# {name}"
        body = {"items": [{"language": "python", "programs": [program], "tests": SUITE}]}
        headers |= {"Authorization": f"Bearer {KEYS}", "X-Deadline-Ms": "15000"}
        return httpx.post(f"{self.stack.apis[api]}/execute", json=body, headers=headers, timeout=30, trust_env=False)

    def accept(self, api: str, name: str) -> httpx.Response:
        return self.send(api, name, Prefer="respond-async", **{"Idempotency-Key": name})

    def works(self, api: str, name: str) -> bool:
        try:
            answer = self.send(api, name)
        except httpx.TransportError:
            return False
        return answer.status_code == 200 and answer.json()["results"][0]["programs"][0]["status"] == "ok"

    def state(self, api: str, accepted: httpx.Response) -> dict[str, Any]:
        url = self.stack.apis[api] + accepted.json()["status_url"]
        params, headers = {"wait_ms": 5000}, {"Authorization": f"Bearer {KEYS}"}
        answer = httpx.get(url, params=params, headers=headers, timeout=30, trust_env=False)
        document: dict[str, Any] = answer.json()
        return document if answer.status_code == 200 else {"state": document["code"]}


@pytest.fixture
def lab() -> Iterator[Lab]:
    with ExitStack() as ends:
        network = ends.enter_context(Network(*HOSTS))
        brokers = RedisHosts(network, primary="redis1", replica="redis2", sentinels=("redis2", "api1", "exec1"))
        ends.enter_context(brokers)
        settings = {"lease_s": "3", "heartbeat_s": "0.5", "redis_replicas": "1", "log_level": "warning"}
        stack = HostStack(network, brokers, Path("none"), api_key=KEYS, **settings)
        ends.enter_context(stack)
        with stack.on("exec1"):
            stack.start_executor().line()
        for host in ("api1", "api2"):
            stack.start_api_on(host)
        one = Lab(network, brokers, stack)
        for host in ("api1", "api2"):
            wait_for(lambda host=host: one.works(host, f"first of {host}"), 60, f"{host} to work")
        yield one


def test_a_primary_that_is_cut_off_acknowledges_nothing(lab: Lab) -> None:
    """It and one API see each other and nobody else. What the others accept meanwhile is there afterwards."""
    network, others = lab.network, ("redis2", "exec1", "api1")
    accepted = {name: lab.accept("api1", name) for name in ("before 1", "before 2")}
    pairs = [(one, other) for one in ("redis1", "api2") for other in others]
    with network.cut(*pairs, *((other, one) for one, other in pairs), (HERE, "redis1")):
        refused = lab.accept("api2", "alone")
        assert (refused.status_code, refused.json()["code"]) == (503, "broker_unavailable")
        wait_for(lambda: lab.brokers.primary("redis2") == "redis2", 30, "a new primary")
        wait_for(lambda: lab.works("api1", "meanwhile"), 40, "the larger side to work")
        # The new primary has no replica while the old one is away, so it acknowledges nothing that it could lose.
        assert lab.accept("api1", "no replica").status_code == 503
    wait_for(lambda: lab.brokers.replicas_in_step() == 1, 60, "the old primary to follow the new one")
    wait_for(lambda: lab.works("api2", "afterwards"), 60, "the other API to work again")
    accepted["after"] = wait_for(
        lambda: (told := lab.accept("api2", "after")).status_code == 202 and told, 30, "a request to be accepted"
    )
    for name, response in accepted.items():
        assert response.status_code == 202, (name, response.text)
        for host in ("api1", "api2"):
            state = wait_for(
                lambda host=host, response=response: (
                    (told := lab.state(host, response))["state"] not in ("running", "broker_unavailable") and told
                ),
                40,
                f"the end of {name}",
            )
            assert state["state"] in ("done", "failed"), (name, state)  # not lost; what was in hand may be, and says so
            if state["state"] == "failed":
                assert state["error"]["retryable"], (name, state)
            else:
                assert state["answer"]["results"][0]["programs"][0]["verdict"] in ("passed", None)


@pytest.mark.parametrize("way", ["there", "back"])
def test_an_executor_that_is_heard_by_one_side_only_is_found_out(lab: Lab, way: str) -> None:
    """Its job ends as another worker's, or typed; and it works again once its link does."""
    pair = ("exec1", "redis1") if way == "there" else ("redis1", "exec1")
    with lab.network.cut(pair):
        told = lab.send("api1", f"during {way}")
        if told.status_code == 200:
            program = told.json()["results"][0]["programs"][0]
            assert program["status"] in ("timeout_queue", "infra_error"), program
            assert program["verdict"] is None
        else:
            assert told.status_code == 503, told.text
            assert told.json()["retryable"]
    wait_for(lambda: lab.works("api1", f"after {way}"), 40, "the executor to work again")


def test_slow_and_lossy_links_make_answers_later_and_not_wrong(lab: Lab) -> None:
    for number, link in enumerate(({"delay_s": 0.1}, {"loss": 0.05})):
        lab.network.everywhere(**link)
        answers = [lab.send("api1", f"slow {number} {at}") for at in range(5)]
        lab.network.everywhere(**dict.fromkeys(link, 0.0))
        verdicts = [answer.json()["results"][0]["programs"][0]["verdict"] for answer in answers]
        assert verdicts == ["passed"] * 5
