"""Connections without a request end, and take nobody's place meanwhile."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.broker import Broker
from support.stack import Stack, free_port, wait_for

HEAD = b"POST /score HTTP/1.1\r\nHost: plaudit\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def api() -> Iterator[Stack]:
    """An API without workers, whose patience is short."""
    settings = {"header_timeout_s": "1", "idle_timeout_s": "2"}
    with Broker() as broker, Stack(broker, Path(), scorers=0, executors=0, **settings) as stack:
        yield stack


def connection(stack: Stack, sent: bytes = b"") -> socket.socket:
    one = socket.create_connection(("127.0.0.1", stack.port), timeout=20)
    one.sendall(sent)
    return one


def received(one: socket.socket) -> bytes:
    """All that comes until the server closes the connection."""
    chunks = []
    with contextlib.suppress(ConnectionResetError):
        while chunk := one.recv(65536):
            chunks.append(chunk)
    one.close()
    return b"".join(chunks)


def test_half_heads_are_closed_and_ordinary_clients_answered(api: Stack) -> None:
    halves = [connection(api, HEAD if at % 2 else b"") for at in range(300)]
    with api.client() as client:
        for _ in range(20):
            assert client.get("/health").status_code == 200
    began = time.monotonic()
    assert {received(one) for one in halves} == {b""}
    assert time.monotonic() - began < 15
    assert api.metric('plaudit_rejected_total{reason="slow_head"}') >= 300


def test_a_head_that_drips_is_closed_too(api: Stack) -> None:
    one = connection(api, HEAD)

    def closed() -> bool:
        try:
            one.sendall(b"X")
        except OSError:
            return True
        time.sleep(0.1)
        return False

    wait_for(closed, 15)
    one.close()


def test_line_ends_between_requests_do_not_keep_a_connection(api: Stack) -> None:
    one = connection(api, b"GET /health HTTP/1.1\r\nHost: plaudit\r\n\r\n")
    answer = one.recv(65536)
    while not answer.endswith(b"}"):  # head and body may come apart
        answer += one.recv(65536)
    assert answer.startswith(b"HTTP/1.1 200")
    one.sendall(b"\r\n")
    began = time.monotonic()
    assert received(one) == b""
    assert time.monotonic() - began < 15


def test_a_body_that_stops_is_closed_and_a_slow_one_answered(api: Stack) -> None:
    slow = connection(api, HEAD + b"Content-Length: 8\r\n\r\n")
    stopped = connection(api, HEAD + b"Content-Length: 8\r\n\r\n{")
    for byte in b"not json":
        time.sleep(0.4)  # longer than a head may take, all in all
        slow.sendall(bytes([byte]))
    assert slow.recv(65536).startswith(b"HTTP/1.1 400")
    slow.close()
    assert b" 200 " not in received(stopped)
    assert api.metric('plaudit_rejected_total{reason="slow_body"}') >= 1


def test_an_idle_connection_is_closed(api: Stack) -> None:
    one = connection(api, b"GET /health HTTP/1.1\r\nHost: plaudit\r\n\r\n")
    began = time.monotonic()
    assert received(one).startswith(b"HTTP/1.1 200")
    assert 1.5 < time.monotonic() - began < 15


def test_a_long_answer_is_not_slow(api: Stack) -> None:
    """What takes the server its time is not the client's pause: a long-poll may outlast every timeout."""
    body = b'{"state": "running"}'
    with api.broker.client() as client:
        name = f"{1:032x}"
        client.hset(
            f"plaudit:request:{name}",
            mapping={"tenant": "", "state": "running", "items": 1, "owner": "somebody", "answer": "", "problem": ""},
        )
        client.set("plaudit:api:somebody", body)
    with api.client() as http:
        began = time.monotonic()
        answer = http.get(f"/jobs/{name}", params={"wait_ms": 4000})
    assert (answer.status_code, answer.json()["state"]) == (200, "running")
    assert time.monotonic() - began >= 3.9


def test_more_connections_than_descriptors_shut_nobody_out(tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PLAUDIT_")}
    with Broker() as broker, log.open("wb") as stderr:
        serve = f"exec {sys.executable} -m service.cli serve --port {port} --redis-url {broker.url}"
        argv = ["sh", "-c", f"ulimit -Sn 100; ulimit -Hn 256; {serve}"]
        process = subprocess.Popen(argv, env=environ | {"PLAUDIT_HEADER_TIMEOUT_S": "300"}, stderr=stderr)
        halves: list[socket.socket] = []
        try:

            def healthy() -> bool:
                with contextlib.suppress(httpx.TransportError):
                    return httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).status_code == 200
                return False

            wait_for(healthy, 60)
            for _ in range(400):
                halves.append(socket.create_connection(("127.0.0.1", port), timeout=20))
                halves[-1].sendall(HEAD)
            assert all(healthy() for _ in range(20))
            assert "limit of open descriptors raised from 100 to 256" in log.read_text()
            assert "connections are closed: connections" in log.read_text()
        finally:
            for one in halves:
                one.close()
            process.terminate()
            process.wait(30)
