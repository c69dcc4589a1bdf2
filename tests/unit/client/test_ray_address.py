"""`ray://NAME`, with a small Ray in place of the real one: who is asked when, and what is missing, by name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import httpx
import pytest

import plaudit
from plaudit import ray_address
from plaudit.errors import Unreachable, UsageError
from plaudit.integrations import openrlhf, trl, verl
from plaudit.integrations.batcher import RewardBatcher
from plaudit.integrations.config import Misconfigured
from plaudit.ray_address import AsyncRayTransport, RayAddress, RayTransport


class RayError(Exception):
    """As `ray.exceptions.RayError`."""


class SmallRay(ModuleType):
    """As much of Ray as the client uses: named actors, and the answers that they give, one after the other."""

    def __init__(self) -> None:
        super().__init__("ray")
        self.exceptions = SimpleNamespace(RayError=RayError)
        self.connected = True
        self.answers: dict[str, list[Any]] = {}
        self.num_asked = 0

    def is_initialized(self) -> bool:
        return self.connected

    def get_actor(self, name: str, namespace: str) -> Any:
        assert namespace == "plaudit"
        if name not in self.answers:
            raise ValueError(f"Failed to look up actor with name '{name}'")
        return SimpleNamespace(address=SimpleNamespace(remote=lambda: name))

    def get(self, reference: str, timeout: float) -> Any:
        self.num_asked += 1
        answers = self.answers[reference]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> SmallRay:
    small = SmallRay()
    monkeypatch.setitem(sys.modules, "ray", small)
    monkeypatch.setattr(ray_address, "find_spec", lambda name: object())
    return small


def at(port: int, key: str | None = "k") -> dict[str, str | None]:
    return {"url": f"http://10.0.0.{port % 7}:{port}", "api_key": key}


def client_of(handler: Callable[[httpx.Request], httpx.Response], key: str | None = None) -> httpx.Client:
    transport = RayTransport(RayAddress("ray://plaudit", key), httpx.MockTransport(handler))
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.Client(base_url="http://plaudit", headers=headers, transport=transport)


def test_requests_go_where_the_deployment_is_with_its_key(ray: SmallRay) -> None:
    seen: list[httpx.Request] = []
    ray.answers["plaudit"] = [at(7001)]
    with client_of(lambda request: seen.append(request) or httpx.Response(200)) as client:  # type: ignore[func-returns-value]
        client.get("/health", params={"a": "b"})
        client.get("/health")
    assert str(seen[0].url) == "http://10.0.0.1:7001/health?a=b"
    assert seen[0].headers["Host"] == "10.0.0.1:7001"
    assert seen[0].headers["Authorization"] == "Bearer k"
    assert ray.num_asked == 1


def test_a_key_of_ones_own_goes_before_that_of_the_deployment(ray: SmallRay) -> None:
    seen: list[str] = []
    ray.answers["plaudit"] = [at(7001)]
    with client_of(
        lambda request: seen.append(request.headers["Authorization"]) or httpx.Response(200), "own"
    ) as client:  # type: ignore[func-returns-value]
        client.get("/health")
    assert seen == ["Bearer own"]


def test_a_failed_connection_asks_the_deployment_again(ray: SmallRay) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.port == 7001:
            raise httpx.ConnectError("refused")
        return httpx.Response(200)

    ray.answers["plaudit"] = [at(7001), at(7002)]
    with client_of(answer) as client:
        with pytest.raises(httpx.ConnectError, match="refused"):
            client.get("/health")
        assert client.get("/health").status_code == 200
    assert ray.num_asked == 2


async def test_an_awaited_client_follows_the_deployment_too(ray: SmallRay) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.port == 7001:
            raise httpx.ReadError("gone")
        return httpx.Response(200, text=request.headers["Authorization"])

    ray.answers["plaudit"] = [at(7001), at(7002)]
    transport = AsyncRayTransport(RayAddress("ray://plaudit", None), httpx.MockTransport(answer))
    async with httpx.AsyncClient(base_url="http://plaudit", transport=transport) as client:
        with pytest.raises(httpx.ReadError):
            await client.get("/health")
        assert (await client.get("/health")).text == "Bearer k"


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({}, "this Ray cluster has no deployment of that name"),
        ({"plaudit": [None]}, "the API of the deployment is not up"),
        ({"plaudit": [RayError("actor died")]}, "the deployment does not answer"),
    ],
)
def test_what_may_pass_is_tried_again_and_then_unreachable(
    ray: SmallRay, answers: dict[str, list[Any]], message: str
) -> None:
    ray.answers = answers
    with plaudit.Client("ray://plaudit", max_tries=2) as client, pytest.raises(Unreachable) as caught:
        client.score([{"prompt": "p", "completions": ["c"]}])
    assert message in caught.value.detail


def test_a_process_outside_a_cluster_is_told_at_once(ray: SmallRay) -> None:
    ray.connected = False
    with plaudit.Client("ray://plaudit") as client, pytest.raises(UsageError, match=r'call ray.init\(address="auto"\)'):
        client.score([{"prompt": "p", "completions": ["c"]}])


def test_without_ray_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_address, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="the package 'ray' is not installed"):
        plaudit.Client("ray://plaudit")
    with pytest.raises(Misconfigured, match="give the http:// URL of a service, or pip install ray"):
        verl.compute_score()


@pytest.mark.parametrize("url", ["ray://", "ray://a/b", "ray://head:10001"])
def test_the_address_of_a_cluster_is_not_the_name_of_a_deployment(ray: SmallRay, url: str) -> None:
    with pytest.raises(UsageError, match="is not ray://NAME with the name of a deployment"):
        plaudit.Client(url)
    with pytest.raises(Misconfigured, match="is not ray://NAME"):
        RewardBatcher(url)


def test_plug_ins_need_no_url_inside_a_cluster(ray: SmallRay) -> None:
    for make in (verl.compute_score, verl.compute_score_blocking, openrlhf.reward_func, trl.reward_function):
        assert callable(make())
    ray.connected = False
    blocking = verl.compute_score_blocking(reward="tests")
    with pytest.raises(UsageError, match="this process is not part of one"):
        blocking("apps", "print(1)", {"inputs": [""], "outputs": ["1"]})
