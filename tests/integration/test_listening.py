"""Deployment habits: a path behind a proxy, browsers, Unix sockets, TLS, HEAD, gzip, forwarded addresses."""

from __future__ import annotations

import asyncio
import gzip
import json
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from plaudit import AsyncClient, Client
from plaudit.errors import UsageError
from plaudit.schemas import ScoreRequest
from service.api import listening
from service.settings import Settings, load
from support.broker import Broker
from support.checkpoints import checkpoint
from support.stack import Stack, free_port, wait_for

ITEM = {"prompt": "add", "completions": ["a + b"]}
ORIGIN = "https://app.example.org"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def stack(model: Path) -> Iterator[Stack]:
    """An API under a root path, for pages of one origin, with a key."""
    settings = {"root_path": "/rm", "cors_origin": ORIGIN, "api_key": "secret", "admin_key": "boss"}
    with Broker() as broker, Stack(broker, model, executors=0, **settings) as one:
        with one.client(headers=KEY) as http:
            wait_for(lambda: http.get("/models").json()["models"], 60, "the model")
        yield one
    shutil.rmtree(one.folder, ignore_errors=True)


KEY = {"Authorization": "Bearer secret"}


@pytest.fixture
def http(stack: Stack) -> Iterator[httpx.Client]:
    with stack.client(headers=KEY) as client:
        yield client


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/health").is_success
    except httpx.TransportError:
        return False


async def health(url: str) -> str:
    async with AsyncClient(url) as client:
        return (await client.health()).status


def listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


# --- root path -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "/rm"], ids=["removed by the proxy", "left by the proxy"])
def test_every_route_is_below_the_root_path(http: httpx.Client, prefix: str) -> None:
    assert http.post(f"{prefix}/score", json={"items": [ITEM]}).json()["status"] == "complete"
    pair = {"text_1": "add", "text_2": "a + b"}
    assert http.post(f"{prefix}/score", json=pair).json()["object"] == "list", "vLLM's form is still told apart"
    assert http.post(f"{prefix}/v1/rerank", json={"query": "q", "documents": ["d"]}).status_code == 200
    assert http.get(f"{prefix}/").headers["content-type"].startswith("text/html")
    accepted = http.post(f"{prefix}/score", json={"items": [ITEM]}, headers={"Prefer": "respond-async"})
    assert accepted.headers["location"] == accepted.json()["status_url"]
    assert accepted.json()["status_url"].startswith("/rm/jobs/")
    status = accepted.headers["location"] + "?wait_ms=10000"  # it answers at the first news
    wait_for(lambda: http.get(status).json()["state"] == "done", what="the end of the request")


@pytest.mark.parametrize("prefix", ["", "/rm"])
def test_keys_are_asked_for_below_it_too(stack: Stack, prefix: str) -> None:
    with stack.client() as stranger:
        assert stranger.post(f"{prefix}/score", json={"items": [ITEM]}).status_code == 401
        assert stranger.get(f"{prefix}/health").status_code == 200
        assert stranger.get("/rmodels").status_code == 401
        activate = stranger.post(f"{prefix}/models/default/activate", json={"path": "x"}, headers=KEY)
        assert activate.status_code == 403


def test_the_schema_says_where_it_is_and_our_client_goes_there(stack: Stack, http: httpx.Client) -> None:
    assert http.get("/openapi.json").json()["servers"] == [{"url": "/rm"}]
    with Client(f"{stack.url}/rm", "secret") as client:
        assert client.score([ITEM]).status == "complete"
        request = ScoreRequest.model_validate({"items": [ITEM]})
        assert client.wait(client.submit(request).job_id).state == "done"


@pytest.mark.parametrize("path", ["rm", "/rm/", "/r m", "/rm?x", "//"])
def test_what_is_no_root_path_is_refused(path: str) -> None:
    with pytest.raises(UsageError, match="PLAUDIT_ROOT_PATH"):
        load({}, {"PLAUDIT_ROOT_PATH": path})


# --- browsers --------------------------------------------------------------------------------------------------------


def test_a_page_of_the_origin_may_call_and_read(stack: Stack) -> None:
    with stack.client() as browser:
        asked = {
            "Origin": ORIGIN,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type,idempotency-key",
        }
        allowed = browser.options("/score", headers=asked)
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == ORIGIN
        assert "authorization" in allowed.headers["access-control-allow-headers"].lower()
        answer = browser.post("/score", json={"items": [ITEM]}, headers={"Origin": ORIGIN, **KEY})
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert "Retry-After" in answer.headers["access-control-expose-headers"]
        refused = browser.post("/score", json={"items": [ITEM]}, headers={"Origin": ORIGIN})
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, ORIGIN)


def test_a_page_of_another_origin_may_not(stack: Stack) -> None:
    with stack.client() as browser:
        asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
        assert "access-control-allow-origin" not in browser.options("/score", headers=asked).headers
        answer = browser.get("/health", headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("origin", ["example.org", "https://example.org/path", "ftp://example.org", "https://a.b/"])
def test_what_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(UsageError, match=r"PLAUDIT_CORS_ORIGIN.*scheme"):
        load({}, {"PLAUDIT_CORS_ORIGIN": origin})


# --- HEAD and gzip ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/health", "/ready", "/metrics", "/models", "/info", "/openapi.json", "/docs"])
def test_head_is_get_without_its_body(http: httpx.Client, path: str) -> None:
    got, head = http.get(path), http.head(path)
    assert (head.status_code, head.content) == (got.status_code, b"")
    assert head.headers["content-type"] == got.headers["content-type"]
    assert http.get("/health").json() == {"status": "ok"}, "the connection goes on"


def test_head_where_there_is_no_get(http: httpx.Client) -> None:
    assert http.head("/nothing").status_code == 404
    assert http.head("/score").status_code == 405


def test_head_of_a_stream_of_events_ends(http: httpx.Client) -> None:
    accepted = http.post("/score", json={"items": [ITEM]}, headers={"Prefer": "respond-async"}).json()
    head = http.head(accepted["events_url"], timeout=10)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"].startswith("text/event-stream")


def test_large_answers_are_compressed_for_who_takes_it(stack: Stack) -> None:
    body = {"items": [ITEM | {"completions": [f"a + {n}" for n in range(200)]}]}
    with stack.client(headers=KEY) as client, client.stream("POST", "/score", json=body) as answer:
        assert answer.headers["content-encoding"] == "gzip"
        assert "accept-encoding" in answer.headers["vary"].lower()
        raw = b"".join(answer.iter_raw())
    scores = json.loads(gzip.decompress(raw))["results"][0]["completions"]
    assert len(scores) == 200
    with stack.client(headers=KEY | {"Accept-Encoding": "identity"}) as client:
        plain = client.post("/score", json=body)
        assert "content-encoding" not in plain.headers
        assert [one["score"] for one in plain.json()["results"][0]["completions"]] == [one["score"] for one in scores]
        assert len(raw) < len(plain.content) / 3
    with stack.client() as client:
        assert "content-encoding" not in client.get("/health").headers, "small answers stay as they are"


def test_events_are_not_compressed(http: httpx.Client) -> None:
    accepted = http.post("/score", json={"items": [ITEM]}, headers={"Prefer": "respond-async"}).json()
    answer = http.get(accepted["events_url"], headers={"Accept-Encoding": "gzip"}, timeout=20)
    assert "content-encoding" not in answer.headers
    assert "event: " in answer.text


# --- forwarded addresses ---------------------------------------------------------------------------------------------


def test_the_address_that_a_trusted_proxy_names_is_logged(stack: Stack, http: httpx.Client) -> None:
    http.get("/models", headers={"X-Forwarded-For": "203.0.113.7", "X-Request-Id": "forwarded-1"})
    assert stack.api is not None

    def logged() -> list[Any]:
        assert stack.api is not None
        lines = [line for line in stack.api.log.read_text().splitlines() if '"forwarded-1"' in line]
        return [json.loads(line)["client"] for line in lines]

    assert wait_for(logged, what="the log line") == ["203.0.113.7"]


# --- Unix socket and TLS ---------------------------------------------------------------------------------------------


def test_it_listens_on_a_unix_socket_and_leaves_none_behind(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    stale = listening.bind_unix(str(path))
    stale.close()  # as a process that crashed leaves it
    with Broker() as broker, Stack(broker, model, scorers=0, executors=0) as stack:
        process = stack._start("uds", ["serve", "--uds", str(path)])
        transport = httpx.HTTPTransport(uds=str(path))
        with httpx.Client(transport=transport, base_url="http://plaudit") as client:
            wait_for(lambda: listens(path), 60, "the API on the socket")
            assert client.get("/health").is_success
            with Client(f"http+unix:{path}") as ours:
                assert ours.health().status == "ok"
            assert asyncio.run(health(f"http+unix:{path}")) == "ok"
            with pytest.raises(UsageError, match="another process listens on it"):
                listening.bind_unix(str(path))
        assert process.stop() == 0
        assert not path.exists()


def test_a_socket_s_path_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at most 107"):
        listening.bind_unix(str(tmp_path / ("x" * 120)))
    with pytest.raises(UsageError, match="No such file or directory"):
        listening.bind_unix(str(tmp_path / "no" / "s"))
    with pytest.raises(UsageError, match="one API process"):
        listening.listen(Settings(uds=tmp_path / "s", apis=2))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    key, chain = folder / "key.pem", folder / "chain.pem"
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    subprocess.run(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost "
        f"-addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout {key} -out {chain}".split(),
        check=True,
        capture_output=True,
    )
    return chain, key


def test_it_speaks_tls(model: Path, certificate: tuple[Path, Path]) -> None:
    chain, key = certificate
    with Broker() as broker, Stack(broker, model, executors=0) as stack:
        port = free_port()
        stack._start("tls", ["serve", "--port", str(port), "--ssl-certfile", str(chain), "--ssl-keyfile", str(key)])
        url = f"https://127.0.0.1:{port}"
        trusted = ssl.create_default_context(cafile=str(chain))
        with httpx.Client(base_url=url, verify=trusted, trust_env=False, timeout=60) as client:
            wait_for(lambda: answers(client), 60, "the API")
            wait_for(lambda: client.get("/models").json()["models"], 60, "the model")
            assert client.post("/score", json={"items": [ITEM]}).json()["status"] == "complete"
        with httpx.Client(base_url=url, trust_env=False) as stranger, pytest.raises(httpx.ConnectError):
            stranger.get("/health")


def test_certificates_that_cannot_be_used_are_named(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    chain, key = certificate
    for settings, words in (
        ({"ssl_keyfile": key}, "needs --ssl-certfile"),
        ({"ssl_certfile": tmp_path / "no.pem"}, "No such file"),
        ({"ssl_certfile": chain}, "ssl-certfile"),
        ({"ssl_certfile": key, "ssl_keyfile": chain}, "ssl-keyfile"),
    ):
        with pytest.raises(UsageError, match=words):
            listening.tls_options(Settings(**settings))
