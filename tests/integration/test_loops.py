"""Background loops outlive what they meet: frames of other versions, a full Redis, a proxy that resets connections."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from service.queue.protocol import now_ms
from support.stack import Stack, wait_for

MakeStack = Callable[..., Stack]

SUITE = {"kind": "assert", "asserts": ["assert f() == 1"], "entry_point": "f"}


def execute(stack: Stack, text: str, **options: Any) -> dict[str, Any]:
    """A program of its own, so that nothing kept answers for it."""
    program = f"def f():\n    return 1\n# {text}\n"
    with stack.client() as client:
        answer = client.post(
            "/execute", json={"items": [{"language": "python", "programs": [program], "tests": SUITE}], **options}
        )
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()["results"][0]["programs"][0]
    return result


@contextmanager
def unharmed(stack: Stack) -> Iterator[None]:
    """The API of before is the API of after, and still answers rightly."""
    assert stack.api is not None
    pid = stack.api.pid
    yield
    assert stack.api.popen.poll() is None, stack.api.log.read_text()[-3000:]
    assert stack.api.pid == pid
    assert execute(stack, f"after {time.monotonic()}")["verdict"] == "passed"


def reply_channel(stack: Stack) -> bytes:
    """The list that the API reads its replies from: it is there while the API waits for a job."""
    with stack.broker.client() as client:
        (name,) = client.keys("plaudit:api:*")  # type: ignore[misc]
        return name.replace(b":api:", b":reply:")


REPLIES = {
    "no msgpack": b"\xc1",
    "a text": msgspec.msgpack.encode("hello"),
    "without a job": msgspec.msgpack.encode({"body": {"type": "executed"}}),
    "of a kind not known": msgspec.msgpack.encode({"job": "x", "body": {"type": "pondered"}}),
    "with a field of another type": msgspec.msgpack.encode({"job": "x", "body": {"type": "executed", "report": 7}}),
}


def test_a_reply_that_cannot_be_read_costs_no_other(make_stack: MakeStack) -> None:
    stack = make_stack()
    for count, (name, frame) in enumerate(REPLIES.items(), 1):
        with unharmed(stack), stack.broker.client() as client:
            client.rpush(reply_channel(stack), frame)
            wait_for(lambda: stack.metric('plaudit_unreadable_total{what="reply"}') >= count, what=name)  # noqa: B023
            assert execute(stack, name)["verdict"] == "passed"


ANNOUNCEMENTS: dict[str, Any] = {
    "no kind": {"models": []},
    "a kind not known": {"kind": "ponder"},
    "a model without a revision": {"kind": "score", "models": [{"name": "default"}]},
    "no toolchain": {"kind": "execute", "isolation": "strong", "languages": []},
    "a level not known": {"kind": "execute", "isolation": "moon", "languages": [], "toolchain": "x"},
    "no object": [1],
}


@pytest.mark.extended
def test_a_worker_of_another_version_is_as_good_as_none(make_stack: MakeStack) -> None:
    stack = make_stack()
    with unharmed(stack), stack.broker.client() as client:
        for name, announcement in ANNOUNCEMENTS.items():
            client.hset("plaudit:workers:info", name, json.dumps(announcement))
            client.zadd("plaudit:workers", {name: now_ms() + 20_000})
        looks = 2 * len(ANNOUNCEMENTS)
        wait_for(lambda: stack.metric('plaudit_unreadable_total{what="announcement"}') >= looks, what="two looks")
        with stack.client() as http:
            info = http.get("/info")
            assert info.status_code == 200
            assert info.json()["workers"] == {"score": 1, "execute": 1}
            assert http.get("/ready").status_code == 200


def test_a_cached_verdict_of_another_version_is_a_miss(make_stack: MakeStack) -> None:
    stack = make_stack()
    with unharmed(stack), stack.broker.client() as client:
        assert execute(stack, "kept")["cached"] is False
        for key in client.keys("plaudit:cache:*"):  # type: ignore[union-attr]
            client.set(key, msgspec.msgpack.encode({"job": "x", "body": {"type": "pondered"}}))
        again = execute(stack, "kept")
        assert (again["verdict"], again["cached"]) == ("passed", False)
        assert execute(stack, "kept")["cached"] is True


def test_a_verdict_of_the_same_job_under_another_id_answers_at_once(make_stack: MakeStack) -> None:
    """While a fleet changes its toolchain, a result is cached under the id of the toolchain that judged."""
    stack = make_stack()
    with unharmed(stack), stack.broker.client() as client:
        execute(stack, "moved")
        for key in client.keys("plaudit:cache:*"):  # type: ignore[union-attr]
            reply = msgspec.msgpack.decode(client.get(key))
            client.set(key, msgspec.msgpack.encode(reply | {"job": "admitted for another toolchain"}))
        again = execute(stack, "moved", deadline_ms=10_000)
        assert (again["verdict"], again["cached"]) == ("passed", True)


def test_a_remembered_score_of_another_version_is_a_miss(make_stack: MakeStack) -> None:
    stack = make_stack()
    body = {"items": [{"prompt": "Say it.", "completions": ["it", "that"]}]}
    with unharmed(stack), stack.client() as http, stack.broker.client() as client:
        first = http.post("/score", json=body).json()["results"]
        wait_for(lambda: client.keys("plaudit:score:*"), what="remembered scores")
        for key in client.keys("plaudit:score:*"):  # type: ignore[union-attr]
            client.set(key, b"\xc1")
        second = http.post("/score", json=body)
        assert second.status_code == 200
        assert [one["score"] for one in second.json()["results"][0]["completions"]] == [
            one["score"] for one in first[0]["completions"]
        ]


def test_a_full_redis_ends_no_process_and_no_work_in_hand(make_stack: MakeStack) -> None:
    stack = make_stack()
    slow = {
        "items": [
            {
                "language": "python",
                "tests": SUITE,
                "programs": ["import time\ntime.sleep(2.5)\ndef f():\n    return 1\n"],
            }
        ]
    }
    answers: list[Any] = []

    def ask() -> None:
        with stack.client() as client:
            answers.append(client.post("/execute", json=slow).json())

    with unharmed(stack), stack.broker.client() as redis, stack.client() as http:
        thread = threading.Thread(target=ask)
        thread.start()
        wait_for(lambda: http.get("/info").json()["queues"]["execute"]["depth"] == 1, what="work in hand")
        redis.config_set("maxmemory", "1")  # everything is too much
        try:
            refused = http.post(
                "/execute", json={"items": [{"language": "python", "programs": ["x = 1"], "tests": SUITE}]}
            )
            assert refused.status_code == 429, refused.text
            assert refused.json()["code"] == "overloaded"
            thread.join(20)
            assert not thread.is_alive()
            for _ in range(8):  # longer than a lease and an announcement last
                time.sleep(0.5)
                assert http.get("/health").status_code == 200
            assert http.get("/ready").status_code == 200
        finally:
            redis.config_set("maxmemory", "0")
        assert answers[0]["results"][0]["programs"][0]["verdict"] == "passed"


class ResettingProxy:
    """A TCP proxy before a Unix socket that now and then resets every connection, as a load balancer does."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.server.getsockname()[1]
        self.pairs: list[tuple[socket.socket, socket.socket]] = []
        self.refuse = False
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                inner, _ = self.server.accept()
            except OSError:
                return
            if self.refuse:
                self._reset(inner)
                continue
            outer = socket.socket(socket.AF_UNIX)
            outer.connect(self.target)
            self.pairs.append((inner, outer))
            for source, sink in ((inner, outer), (outer, inner)):
                threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(1 << 16):
                sink.sendall(data)
        except OSError:
            return

    @staticmethod
    def _reset(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        connection.close()

    def reset_all(self) -> None:
        for inner, outer in self.pairs:
            self._reset(inner)
            outer.close()
        self.pairs.clear()

    def close(self) -> None:
        self.server.close()
        self.reset_all()


@pytest.mark.extended
def test_connections_reset_by_a_proxy_end_no_process(make_stack: MakeStack) -> None:
    stack = make_stack()
    proxy = ResettingProxy(str(stack.broker.socket))
    try:
        assert stack.api is not None
        stack.api.stop()
        direct = stack.broker.url
        stack.broker.url = f"redis://127.0.0.1:{proxy.port}"
        stack.start_api()
        stack.broker.url = direct
        with unharmed(stack):
            for _ in range(4):
                proxy.refuse = True
                proxy.reset_all()
                time.sleep(0.7)
                proxy.refuse = False
                wait_for(lambda: _works(stack), what="an answer after the reset")
    finally:
        stack.close()
        proxy.close()


def _works(stack: Stack) -> bool:
    program = f"def f():\n    return 1\n# {time.monotonic()}\n"
    with stack.client() as client:
        answer = client.post(
            "/execute", json={"items": [{"language": "python", "programs": [program], "tests": SUITE}]}
        )
        return answer.status_code == 200 and answer.json()["results"][0]["programs"][0]["verdict"] == "passed"


@pytest.mark.extended
def test_proof_outlives_an_outage_while_workers_are_busy(make_stack: MakeStack) -> None:
    stack = make_stack()
    slow = {
        "items": [
            {
                "language": "python",
                "tests": SUITE,
                "limits": {"cpu_s": 5},
                "programs": ["import time\ntime.sleep(6)\ndef f():\n    return 1\n"],
            }
        ]
    }
    with stack.client() as http, stack.broker.client():
        job = http.post("/execute", json=slow, headers={"Prefer": "respond-async"}).json()
        assert job["job_id"]
        wait_for(lambda: http.get("/info").json()["queues"]["execute"]["depth"] == 1, what="work in hand")
        stack.broker.kill()
        wait_for(lambda: http.get("/ready").status_code == 503, what="the outage")
        stack.broker.start()
        began = time.monotonic()
        wait_for(lambda: http.get("/ready").status_code == 200, what="ready again")
        assert time.monotonic() - began < 5.0


def test_what_a_drain_does_not_finish_is_told_so(make_stack: MakeStack) -> None:
    stack = make_stack(drain_s="3")
    answers: list[Any] = []

    def ask(at: int) -> None:
        program = f"import time\ntime.sleep(8)\ndef f():\n    return 1\n# {at}\n"
        body = {"items": [{"language": "python", "tests": SUITE, "programs": [program]}]}
        with stack.client() as client:
            answers.append(client.post("/execute", json=body))

    threads = [threading.Thread(target=ask, args=(at,)) for at in range(4)]
    for thread in threads:
        thread.start()
    with stack.client() as http:
        wait_for(lambda: http.get("/info").json()["queues"]["execute"]["depth"] == 4, what="work in hand")
    assert stack.api is not None
    assert stack.api.stop() == 0
    for thread in threads:
        thread.join(10)
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(503, "shutting_down")] * 4
    assert all(answer.headers["content-type"] == "application/problem+json" for answer in answers)
    assert all(answer.headers["retry-after"] == "1" for answer in answers)


@pytest.mark.parametrize("kind", ["scorers", "executors"])
def test_a_deployment_of_one_kind_becomes_ready(make_stack: MakeStack, kind: str) -> None:
    other = {"scorers": "executors", "executors": "scorers"}[kind]
    stack = make_stack(**{other: 0})
    stack.environ[f"PLAUDIT_{other.upper()}"] = "0"
    assert stack.api is not None
    assert stack.api.stop() == 0
    stack.start_api()  # waits for its ready line
    with stack.client() as http:
        assert http.get("/ready").json()["reasons"] == []
