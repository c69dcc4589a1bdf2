"""Every source keeps the same promise: as many texts as asked for, by key and seed, or an error."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from plaudit.errors import InfraError, Invalid, PlauditError, Unauthorized, UsageError
from support.openai_server import OpenAIServer, causal_model
from training.generation.sources import open_source
from training.generation.sources.base import CompletionReply, CompletionRequest, TokenUsage
from training.pipeline.config import SourceConfig
from training.pipeline.journal import Journal

REQUESTS = [CompletionRequest(f"p{at}", f"def f{at}(x):\n", 3, 100 * at) for at in range(4)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return causal_model(tmp_path_factory.mktemp("causal"))


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[OpenAIServer]:
    with OpenAIServer(model, max_n=2) as server:
        yield server


def complete(settings: SourceConfig, requests: list[CompletionRequest] = REQUESTS) -> dict[str, CompletionReply]:
    with open_source(settings) as source:
        return {reply.key: reply for reply in source.replies(requests)}


def by_server(server: OpenAIServer, **fields: object) -> SourceConfig:
    return SourceConfig(url=server.url, model="tiny", chat=False, max_tokens=8, concurrency=2, **fields)  # type: ignore[arg-type]


def test_a_server_and_the_model_itself_say_the_same_and_repeat_themselves(server: OpenAIServer, model: Path) -> None:
    local = complete(
        SourceConfig(kind="hf", path=str(model), max_tokens=8), [CompletionRequest("p", "def f(x):\n", 2, 5)]
    )["p"]
    served = complete(by_server(server), [CompletionRequest("p", "def f(x):\n", 2, 5)])["p"]
    assert served == local
    assert len(set(local.texts)) == 2
    assert local.completion_tokens > 0


def test_a_server_that_gives_fewer_choices_is_asked_for_the_rest(server: OpenAIServer) -> None:
    server.requests.clear()
    replies = complete(by_server(server))
    assert {key: len(reply.texts) for key, reply in replies.items()} == {f"p{at}": 3 for at in range(4)}
    assert len(server.requests) == 8
    assert len({request["seed"] for request in server.requests}) == 8


def test_chat_messages_go_through_the_models_own_template(server: OpenAIServer, model: Path) -> None:
    request = CompletionRequest("c", (("system", "Be brief."), ("user", "Add two numbers.")), 2, 1)
    assert complete(by_server(server), [request]) == complete(
        SourceConfig(kind="hf", path=str(model), max_tokens=8), [request]
    )


def test_greedy_is_one_text_and_stop_strings_end_it(model: Path) -> None:
    settings = SourceConfig(kind="hf", path=str(model), temperature=0.0, max_tokens=12)
    whole = complete(settings, REQUESTS[:1])["p0"]
    assert len(set(whole.texts)) == 1
    stop = whole.texts[0][2:4]
    cut = complete(
        SourceConfig(kind="hf", path=str(model), temperature=0.0, max_tokens=12, stop=(stop,)), REQUESTS[:1]
    )["p0"]
    assert cut.texts[0] == whole.texts[0][: whole.texts[0].find(stop)]
    assert set(cut.endings) == {"stop"}


def test_retry_after_is_kept_and_faults_cost_no_reply() -> None:
    faults = ((429, {"Retry-After": "1"}), (500, {}), "drop", (503, {}))
    with OpenAIServer(answer=lambda body: ["x"] * body["n"], faults=faults) as server:
        began = time.monotonic()
        replies = complete(by_server(server), REQUESTS[:1])
        assert time.monotonic() - began >= 1.0
    assert replies["p0"].texts == ("x", "x", "x")
    assert len(server.requests) == 5


def test_what_cannot_be_had_is_an_error_and_never_an_empty_text() -> None:
    with OpenAIServer(answer=lambda body: ["x"], faults=((500, {}),) * 9) as server, pytest.raises(PlauditError):
        complete(by_server(server, max_tries=2), REQUESTS[:1])
    with OpenAIServer(answer=lambda body: []) as server, pytest.raises(InfraError, match="without a choice"):
        complete(by_server(server), REQUESTS[:1])
    with pytest.raises(PlauditError):
        complete(by_server(server, max_tries=2, timeout_s=2.0), REQUESTS[:1])  # nobody is at home


def test_a_key_comes_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("s3cret\n")
    with OpenAIServer(answer=lambda body: ["x"] * body["n"], key="s3cret") as server:
        assert complete(by_server(server, key_file=str(tmp_path / "key")), REQUESTS[:1])
        with pytest.raises(Unauthorized):
            complete(by_server(server), REQUESTS[:1])


def test_no_more_requests_are_in_flight_than_allowed() -> None:
    requests = [CompletionRequest(str(at), "x", 1, at) for at in range(12)]
    with OpenAIServer(answer=lambda body: ["x"], least_s=0.03) as server:
        assert len(complete(by_server(server), requests)) == 12
    assert server.most == 2


def test_an_endless_stream_of_asks_is_taken_as_it_is_needed() -> None:
    taken = []

    def endless() -> Iterator[CompletionRequest]:
        while True:
            taken.append(len(taken))
            yield CompletionRequest(str(len(taken)), "x", 1, 0)

    with OpenAIServer(answer=lambda body: ["x"]) as server, open_source(by_server(server)) as source:
        for _, _ in zip(range(5), source.replies(endless()), strict=False):
            pass
    assert len(taken) < 12


@pytest.mark.parametrize("name", ["r.jsonl", "r.jsonl.gz"])
def test_recorded_completions_are_given_back_in_their_order(tmp_path: Path, name: str) -> None:
    rows = [{"task_id": "a", "completion": f"a{at}"} for at in range(3)] + [{"key": "b", "texts": ["b0", "b1"]}]
    rows.insert(1, {"task_id": "c", "completion": "c0"})
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    settings = SourceConfig(kind="recorded", path=str(tmp_path / name), model="them")
    replies = complete(
        settings, [CompletionRequest("a", "", 2, 0), CompletionRequest("b", "", 2, 0), CompletionRequest("c", "", 1, 0)]
    )
    assert [replies[key].texts for key in "abc"] == [("a0", "a1"), ("b0", "b1"), ("c0",)]
    with pytest.raises(Invalid, match="3 completions of a; 4"):
        complete(settings, [CompletionRequest("a", "", 4, 0)])


def test_an_unknown_kind_and_a_missing_file_are_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"source\.kind"):
        open_source(SourceConfig(kind="oracle"))
    with pytest.raises(UsageError, match=r"source\.path"):
        complete(SourceConfig(kind="recorded", path=str(tmp_path / "none")))


def test_costs_add_up() -> None:
    usage = TokenUsage()
    usage.add(CompletionReply("a", ("x", "y"), ("stop", "length"), 1000, 500))
    usage.add(CompletionReply("b", ("x",), ("stop",), 1000, 500))
    assert (usage.requests, usage.completions, usage.cut) == (2, 3, 1)
    assert usage.cost(SourceConfig(prompt_price=1.0, completion_price=10.0)) == pytest.approx(0.012)


def test_a_journal_keeps_what_was_flushed_and_drops_half_a_line(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        journal.add({"key": "a", "v": 1})
        journal.add({"key": "b", "v": 1})
        journal.add({"key": "a", "v": 2})
    with (tmp_path / "j").open("a") as out:
        out.write('{"key": "c", "v"')
    with Journal(tmp_path / "j") as journal:
        assert dict(journal) == {"a": {"key": "a", "v": 2}, "b": {"key": "b", "v": 1}}
        journal.add({"key": "c", "v": 3})
    assert set(Journal(tmp_path / "j")) == {"a", "b", "c"}
