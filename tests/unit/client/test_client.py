"""The client: one body, one key and one deadline over all tries; errors come back as what they were on the server."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from plaudit import AsyncClient, BestOfN, Client, Unreachable, errors
from plaudit.calls import Calls
from plaudit.retries import GRACE_S, Attempt, AttemptOutcome, CallSteps, RetryPolicy
from plaudit.schemas import RankAnswer, ScoreItem, ScoreRequest

ITEM = {"prompt": "p", "completions": ["a", "b"]}
SCORED = {
    "request_id": "r",
    "status": "complete",
    "model": {"name": "default"},
    "timing": {},
    "results": [{"best": 0, "completions": [{"status": "ok", "score": 1.0, "trainable": True}]}],
}


def answer(status: int, body: Any = None, **headers: str) -> httpx.Response:
    request = httpx.Request("POST", "http://127.0.0.1/score")
    return httpx.Response(status, json=body, headers=headers, request=request)


def problem(status: int, code: str, *, retryable: bool, retry_after_ms: int | None = None) -> httpx.Response:
    return answer(
        status,
        {
            "type": "about:blank",
            "title": "t",
            "status": status,
            "detail": "because",
            "code": code,
            "retryable": retryable,
            "retry_after_ms": retry_after_ms,
            "request_id": "r7",
        },
    )


def play(steps: CallSteps[Any], *outcomes: AttemptOutcome) -> tuple[Any, list[Attempt], list[float]]:
    """Carry out a call against these outcomes; answers its result or error, what it sent, and how long it waited."""
    sent: list[Attempt] = []
    waits: list[float] = []
    left = iter(outcomes)
    outcome: AttemptOutcome = None
    try:
        while True:
            step = steps.send(outcome)
            outcome = None
            if isinstance(step, float):
                waits.append(step)
            else:
                sent.append(step)
                outcome = next(left)
    except StopIteration as end:
        return end.value, sent, waits
    except errors.PlauditError as error:
        return error, sent, waits


def calls(timeout_s: float = 60.0, max_tries: int = 4) -> Calls:
    return Calls(RetryPolicy(timeout_s, max_tries))


def test_a_retry_has_the_same_body_and_key_and_less_time() -> None:
    refused = problem(429, "overloaded", retryable=True, retry_after_ms=30)
    result, sent, waits = play(calls().score([ITEM]), refused, httpx.ConnectError("no"), answer(200, SCORED))
    assert result.results[0].completions[0].score == 1.0
    assert len({(one.body, one.headers["Idempotency-Key"]) for one in sent}) == 1
    left = [int(one.headers["X-Deadline-Ms"]) for one in sent]
    assert left == sorted(left, reverse=True)
    assert left[0] <= 60_000
    assert 0.030 <= waits[0] <= 0.030 * 1.25


def test_two_calls_have_two_keys() -> None:
    keys = {play(calls().score([ITEM]), answer(200, SCORED))[1][0].headers["Idempotency-Key"] for _ in range(2)}
    assert len(keys) == 2


def test_a_requests_deadline_travels_beside_the_body_and_bounds_every_try() -> None:
    _, sent, _ = play(calls().score([ITEM], deadline_ms=2000), answer(200, SCORED))
    assert 1900 < int(sent[0].headers["X-Deadline-Ms"]) <= 2000
    assert sent[0].timeout_s <= 2.0 + GRACE_S
    assert json.loads(sent[0].body or b"") == {"items": [ITEM]}


def test_a_wait_that_would_miss_the_deadline_is_not_begun() -> None:
    refused = problem(429, "overloaded", retryable=True, retry_after_ms=3000)
    error, sent, waits = play(calls().score([ITEM], deadline_ms=2000), refused)
    assert (type(error), len(sent), waits) == (errors.Overloaded, 1, [])
    assert error.retry_after_s == 3.0


def test_named_waits_are_kept_without_counting_tries_and_unnamed_ones_count() -> None:
    named = [problem(503, "no_worker", retryable=True, retry_after_ms=10)] * 9
    result, sent, _ = play(calls().score([ITEM]), *named, answer(200, SCORED))
    assert (result.status, len(sent)) == ("complete", 10)
    error, sent, waits = play(calls().score([ITEM]), *[httpx.ReadError("broken")] * 4)
    assert (type(error), len(sent), len(waits)) == (Unreachable, 4, 3)


def test_both_forms_of_retry_after_are_understood() -> None:
    in_two_seconds = format_datetime(datetime.now(UTC) + timedelta(seconds=2.5), usegmt=True)
    for header, low in (("1", 1.0), (in_two_seconds, 0.5)):
        _, _, waits = play(calls().score([ITEM]), answer(503, None, **{"Retry-After": header}), answer(200, SCORED))
        assert low <= waits[0] <= 2.5 * 1.25


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        (problem(422, "invalid", retryable=False), errors.Invalid),
        (problem(404, "testset_unknown", retryable=False), errors.TestsetUnknown),
        (problem(409, "idempotency_conflict", retryable=False), errors.Conflict),
        (problem(422, "a_code_of_tomorrow", retryable=False), errors.Invalid),
        (answer(401, {"detail": "a proxy's own words"}), errors.Unauthorized),
        (answer(418, "tea"), errors.BadRequest),
        (answer(500, "oops"), errors.InfraError),
        (httpx.UnsupportedProtocol("no scheme"), errors.UsageError),
    ],
)
def test_what_no_retry_mends_is_raised_at_once_as_what_it_is(
    outcome: httpx.Response | httpx.TransportError, kind: type[errors.PlauditError]
) -> None:
    error, sent, waits = play(calls().score([ITEM]), outcome)
    assert (type(error), len(sent), waits) == (kind, 1, [])


def test_an_error_names_the_request_it_belongs_to() -> None:
    error, _, _ = play(calls().score([ITEM]), problem(422, "invalid", retryable=False))
    assert (error.detail, error.__notes__) == ("because", ["request r7"])


def test_items_are_checked_before_they_are_sent() -> None:
    with pytest.raises(errors.Invalid, match="promt"):
        calls().score([{"promt": "p", "completions": ["c"]}])
    with pytest.raises(errors.UsageError, match="calibrated would be ignored"):
        calls().score(ScoreRequest(items=[ScoreItem(prompt="p", completions=["c"])]), calibrated=True)


def ranking(best: int | None) -> dict[str, Any]:
    failed = {"status": "infra_error", "error": {"code": "no_worker", "detail": "no scoring worker is alive"}}
    part = {"status": "ok", "decided": True} if best else failed
    one = {"status": "ok", "reward": 0.5, "trainable": True, "components": {"rm": part}}
    group = {"n": 2, "n_ok": 2, "degenerate": False, "best": best}
    return SCORED | {"results": [{"completions": [one, one], "group": group, "order": [1, 0]}]}


def test_best_of_n_takes_the_winner_by_tests_or_by_the_model_alone() -> None:
    best, sent, _ = play(calls().best_of_n("p", ["a", "b"]), answer(200, ranking(1)))
    assert isinstance(best, BestOfN)
    assert (best.index, best.completion, best.decided_by) == (1, "b", "rm")
    body = json.loads(sent[0].body or b"")
    assert ("spec" in body, "tests" in body["items"][0]) == (False, False)  # the service decides by what there is
    tests = {"kind": "assert", "asserts": ["assert True"]}
    _, sent, _ = play(calls().best_of_n("p", ["a", "b"], tests, language="python"), answer(200, ranking(1)))
    body = json.loads(sent[0].body or b"")
    assert "spec" not in body
    assert (body["items"][0]["tests"], body["items"][0]["language"]) == (tests, "python")


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"langage": "python"}, TypeError, "no option 'langage'; did you mean 'language'"),
        ({"limit": {}}, TypeError, "did you mean 'limits'"),
        ({"earlystop": True}, TypeError, "did you mean 'early_stop'"),
        ({"timeout": 5}, TypeError, "no option 'timeout'"),
        ({"extract": "raw"}, errors.Invalid, "extract"),
        ({"language": "cobol"}, errors.Invalid, "language 'cobol' is not one of"),
        ({"limits": {"cpu_s": -1}}, errors.Invalid, "cpu_s"),
        ({"limits": {"cpu": 1}}, errors.Invalid, "cpu"),
    ],
)
def test_best_of_n_raises_options_that_cannot_be(options: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        next(calls().best_of_n("p", ["a", "b"], **options))


def test_best_of_n_does_not_guess_when_nothing_has_a_reward() -> None:
    error, _, _ = play(calls().best_of_n("p", ["a", "b"]), answer(200, ranking(None)))
    assert isinstance(error, errors.InfraError)
    assert "no scoring worker is alive" in error.detail


def test_rank_is_typed_and_says_when_to_stop_early() -> None:
    item = {"prompt": "p", "completions": ["a", "b"], "tests": {"kind": "assert", "asserts": ["assert True"]}}
    result, sent, _ = play(calls().rank([item], early_stop=True, deadline_ms=2000), answer(200, ranking(1)))
    assert isinstance(result, RankAnswer)
    assert (result.results[0].order, result.results[0].group.best) == ([1, 0], 1)
    assert (sent[0].path, json.loads(sent[0].body or b"")) == ("/rank", {"items": [item], "early_stop": True})
    assert int(sent[0].headers["X-Deadline-Ms"]) <= 2000


def test_not_ready_is_an_answer() -> None:
    body = {"ready": False, "broker": True, "scorers": 0, "executors": 2, "reasons": ["no scorer"]}
    result, _, _ = play(calls().ready(), answer(503, body))
    assert (result.ready, result.reasons) == (False, ["no scorer"])


def test_waiting_for_a_job_asks_only_for_what_is_new_until_it_has_ended() -> None:
    running = {"job_id": "j", "state": "running", "cursor": "c1", "items": [], "total": 1}
    done = running | {"state": "done", "answer": SCORED}
    result, sent, _ = play(calls().wait("j"), answer(200, running), answer(200, done))
    assert result.answer == SCORED
    assert [one.path.split("?")[1] for one in sent] == ["wait_ms=20000", f"wait_ms={_wait_of(sent[1])}&cursor=c1"]


def _wait_of(send: Attempt) -> str:
    return dict(httpx.QueryParams(send.path.split("?")[1]))["wait_ms"]


# --- over a real socket ----------------------------------------------------------------------------------------------


class Server:
    """Answers the listed responses one after the other, and remembers what came over how many connections."""

    def __init__(self, *answers: tuple[int, dict[str, str], Any]) -> None:
        self.answers = list(answers)
        self.seen: list[tuple[str, dict[str, str], bytes]] = []
        self.connections: set[Any] = set()


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple[Server, str]]]:
    running: list[tuple[ThreadingHTTPServer, threading.Thread]] = []

    def start(*answers: tuple[int, dict[str, str], Any]) -> tuple[Server, str]:
        server = Server(*answers)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                server.seen.append((self.path, dict(self.headers), body))
                server.connections.add(self.client_address)
                status, headers, answer = server.answers.pop(0)
                frame = json.dumps(answer).encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(frame))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(frame)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the standard library
                pass

        http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        http.daemon_threads = True
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        running.append((http, thread))
        return server, f"http://127.0.0.1:{http.server_address[1]}"

    yield start
    for http, thread in running:
        http.shutdown()
        http.server_close()
        thread.join()


BUSY = (429, {"Retry-After": "0"}, {"detail": "full"})


def test_the_blocking_client_retries_over_one_pooled_connection_with_its_key(serve: Any) -> None:
    server, url = serve(BUSY, (200, {}, SCORED), (200, {}, SCORED))
    with Client(url, "sesame") as client:
        assert client.score([ITEM]).status == "complete"
        assert client.score([ITEM]).status == "complete"
    assert len(server.connections) == 1
    assert {headers["Authorization"] for _, headers, _ in server.seen} == {"Bearer sesame"}
    keys = [headers["Idempotency-Key"] for _, headers, _ in server.seen]
    assert (keys[0] == keys[1], keys[1] == keys[2]) == (True, False)


async def test_the_async_client_does_the_same_and_many_at_once(serve: Any) -> None:
    server, url = serve(BUSY, *[(200, {}, SCORED)] * 8)
    async with AsyncClient(url) as client:
        answers = await asyncio.gather(*(client.score([ITEM]) for _ in range(8)))
    assert [one.status for one in answers] == ["complete"] * 8
    assert len(server.seen) == 9


async def test_calls_beyond_the_connections_wait_for_their_turn_and_no_longer_than_they_may(serve: Any) -> None:
    server, url = serve(*[(200, {}, SCORED)] * 40)
    async with AsyncClient(url, max_connections=2) as client:
        answers = await asyncio.gather(*(client.score([ITEM]) for _ in range(40)))
        assert [one.status for one in answers] == ["complete"] * 40
        assert len(server.connections) <= 2
        async with client._connections, client._connections:
            late = await client._send(Attempt("POST", "/score", {}, b"", timeout_s=0.05))
    assert isinstance(late, httpx.ReadTimeout)


def test_nobody_there_is_unreachable_within_the_deadline() -> None:
    with Client("http://127.0.0.1:9", max_tries=2) as client, pytest.raises(Unreachable):
        client.score([ITEM], deadline_ms=2000)


def test_both_clients_have_the_same_calls() -> None:
    assert {name for name in dir(Client) if name[0] != "_"} == {name for name in dir(AsyncClient) if name[0] != "_"}
