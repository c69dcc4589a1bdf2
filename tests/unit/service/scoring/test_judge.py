"""Judges behind a real OpenAI-compatible server, against what that server's model itself says."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest
import torch

from plaudit.errors import HostLacks, Invalid, TooLong, UsageError
from service import metrics
from service.jobs import TokenIds, Truncation
from service.scoring.factory import open_engine
from service.scoring.fault_isolation import score_apart
from service.scoring.judge import client
from service.scoring.judge import engine as judge_engine
from service.scoring.judge.client import JudgeAnswer, JudgeFailure
from service.scoring.judge.engine import JudgedScore, JudgeEngine, number, transcript, verdict
from service.scoring.judge.spec import JudgeSpec, PairwiseVerdict, ParsedNumber, is_judge
from service.scoring.scheduler import Score, ScoreFailure
from service.settings import Settings
from support.judges import COMPARE, GRADE, NUMBER, PAIRWISE, grade_by_length, judge, prefer_first, prefer_longer
from support.openai_server import OpenAIServer, causal_model

PROMPT, COMPLETIONS = "Write add.", ["a + b", "ab", "sum", "a - b"]
TOKENS = {"type": "token_probability", "good": ["a", "e"], "bad": ["s", "t"]}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MIN_PAUSE_S", 0.01)
    monkeypatch.setattr(judge_engine, "POLL_S", 0.01)
    monkeypatch.setattr(judge_engine, "START_S", 0.5)


def scores(engine: JudgeEngine, completions: list[str], prompt: Any = PROMPT) -> list[Score]:
    encoded = engine.encode_group(prompt, completions)
    assert not any(isinstance(one, TooLong) for one in encoded)
    return list(score_apart(engine.score, encoded).scores)  # type: ignore[arg-type]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Any]:
    """Opens the judge of a server; all are closed at the end."""
    engines = []

    def opens(server: OpenAIServer, **spec: Any) -> JudgeEngine:
        engine, parity = open_engine("judge", str(judge(tmp_path, server.url, **spec)), Settings())
        assert isinstance(engine, JudgeEngine)
        assert (parity.ok, parity.n) == (True, 0)
        engines.append(engine)
        return engine

    yield opens
    for engine in engines:
        engine.close()


# --- scores ----------------------------------------------------------------------------------------------------------


def test_the_probability_of_a_token_is_the_model_s(tmp_path: Path, opened: Any) -> None:
    """Against the forward of the server's own model; every listed token is tried as good and as bad."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    (tmp_path / "causal").mkdir()
    folder = causal_model(tmp_path / "causal")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()

    def distribution(completion: str) -> tuple[Any, list[str]]:
        messages = [turn | {"content": turn["content"].format(prompt=PROMPT, completion=completion)} for turn in GRADE]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            logprobs = model(input_ids=ids).logits[0, -1].log_softmax(-1)
        return logprobs, [tokenizer.decode([at]) for at in logprobs.topk(20).indices.tolist()]

    listed = [set(map(str.strip, distribution(text)[1])) for text in COMPLETIONS]
    usable = sorted(token for token in set.intersection(*listed) if token and token.isprintable())
    assert len(usable) >= 2, listed
    method = {"type": "token_probability", "good": usable[:1], "bad": usable[1:]}
    with OpenAIServer(folder) as server:
        engine = opened(server, method=method)
        for completion, score in zip(COMPLETIONS, scores(engine, COMPLETIONS), strict=True):
            logprobs, top = distribution(completion)
            sums = [
                math.log(
                    sum(
                        math.exp(value)
                        for value, token in zip(logprobs.topk(20).values.tolist(), top, strict=True)
                        if token.strip() in side
                    )
                )
                for side in (method["good"], method["bad"])
            ]
            assert score == pytest.approx(sums[0] - sums[1], abs=1e-4)
        body = server.requests[-1]
        assert (body["max_tokens"], body["logprobs"], body["top_logprobs"], body["temperature"]) == (1, True, 20, 0)


def test_a_token_that_is_not_listed_has_no_probability_of_zero(tmp_path: Path, opened: Any) -> None:
    (tmp_path / "causal").mkdir()
    with OpenAIServer(causal_model(tmp_path / "causal")) as server:
        engine = opened(server, method={"type": "token_probability", "good": ["nowhere"], "bad": ["a"]})
        (score,) = scores(engine, ["a + b"])
    assert isinstance(score, ScoreFailure)
    assert (score.code, score.is_server_error) == ("judge_unreadable", False)
    assert "'nowhere'" in score.detail


def test_a_number_is_read_out_of_the_answer(opened: Any) -> None:
    with OpenAIServer(answer=grade_by_length) as server:
        engine = opened(server)
        assert scores(engine, COMPLETIONS) == [5.0, 2.0, 3.0, 5.0]
        assert server.requests[-1]["messages"][0] == {"role": "system", "content": "You grade answers."}
        assert engine.num_computed > 0


def test_pairs_are_asked_in_both_orders(opened: Any) -> None:
    with OpenAIServer(answer=prefer_longer) as server:
        engine = opened(server, messages=COMPARE, method=PAIRWISE)
        num_before = len(server.requests)
        assert scores(engine, COMPLETIONS) == [pytest.approx(value) for value in (2.5 / 3, 0, 1 / 3, 2.5 / 3)]
        asked = [body["messages"][0]["content"] for body in server.requests[num_before:]]
        assert len(asked) == len(set(asked)) == 12, "each pair twice, and nothing more often"


def test_a_judge_that_prefers_a_place_prefers_nobody(opened: Any) -> None:
    with OpenAIServer(answer=prefer_first) as server:
        engine = opened(server, messages=COMPARE, method=PAIRWISE)
        assert scores(engine, COMPLETIONS) == [0.5] * 4


@pytest.mark.parametrize("completions", [["one"], [str(n) for n in range(17)]])
def test_a_group_that_cannot_be_compared_is_named(opened: Any, completions: list[str]) -> None:
    with OpenAIServer(answer=prefer_longer) as server:
        engine = opened(server, messages=COMPARE, method=PAIRWISE)
        with pytest.raises(Invalid, match="this judge compares 2 to 16"):
            engine.encode_group(PROMPT, completions)


def test_texts_do_not_move_the_places(opened: Any) -> None:
    with OpenAIServer(answer=lambda body: ["Score: 7"]) as server:
        engine = opened(server)
        scores(engine, ["{prompt} {completion} {x} \\1"], prompt="{completion}")
        assert server.requests[-1]["messages"][1]["content"].startswith(
            "Question: {completion}\nAnswer: {prompt} {completion} {x} \\1\n"
        )


def test_a_conversation_is_a_transcript(opened: Any) -> None:
    function = {"name": "add", "arguments": {"a": 1}}
    turns = [
        {"role": "user", "content": [{"type": "text", "text": "1"}, {"type": "text", "text": "2"}]},
        {"role": "assistant", "tool_calls": [{"type": "function", "function": function}]},
        {"role": "tool", "content": "3"},
    ]
    expected = 'user: 1\n2\n\nassistant: {"name": "add", "arguments": {"a": 1}}\n\ntool: 3'
    assert transcript(turns) == expected
    with OpenAIServer(answer=lambda body: ["Score: 7"]) as server:
        scores(opened(server), ["x"], prompt=turns)
        assert expected in server.requests[-1]["messages"][1]["content"]


# --- failures: typed, and never a number -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("", "does not match"),
        ("Good.", "does not match"),
        ("Score: 11", "not between 0 and 10"),
        ("Score: -1", "not between 0 and 10"),
        ("Score: 3 or Score: 99", "not between 0 and 10"),
    ],
)
def test_an_answer_that_cannot_be_read_is_no_score(opened: Any, said: str, words: str) -> None:
    def answers(body: dict[str, Any]) -> list[str]:
        return [said if "Answer: bad\n" in body["messages"][1]["content"] else "Score: 4"]

    with OpenAIServer(answer=answers) as server:
        good, bad = scores(opened(server), ["good", "bad"])
    assert good == 4.0
    assert isinstance(bad, ScoreFailure)
    assert (bad.code, bad.is_server_error) == ("judge_unreadable", False)
    assert words in bad.detail


def test_an_answer_that_was_cut_is_no_score() -> None:
    """What it would have come to is not known."""
    with pytest.raises(JudgeFailure, match="cut at max_answer_tokens"):
        number(JudgeAnswer("Score: 1", True, None, 9), msgspec.convert(NUMBER, ParsedNumber))
    with pytest.raises(JudgeFailure, match="cut at max_answer_tokens"):
        verdict(JudgeAnswer("[[A]] would be hasty; let me", True, None, 9), msgspec.convert(PAIRWISE, PairwiseVerdict))


@pytest.mark.parametrize(("said", "listed"), [(-0.5000001, -0.5), (0.0, -0.5)])
def test_the_token_that_was_said_counts_once(said: float, listed: float) -> None:
    top = [{"token": token, "logprob": value} for token, value in (("a", listed), ("b", -2.0), ("c", -9999.0))]
    position = {"token": "a", "logprob": said, "top_logprobs": top}
    body = {"message": {"content": "a"}, "logprobs": {"content": [position]}}
    choice = msgspec.convert(body, client._Choice)
    assert client.JudgeClient._logprobs(Mock(), choice) == [("a", listed), ("b", -2.0)]


def test_a_verdict_that_cannot_be_read_takes_the_scores_of_its_pair(opened: Any) -> None:
    def answers(body: dict[str, Any]) -> list[str]:
        return ["neither"] if "odd" in body["messages"][0]["content"] else prefer_longer(body)

    with OpenAIServer(answer=answers) as server:
        got = scores(opened(server, messages=COMPARE, method=PAIRWISE), ["a", "ab", "odd"])
    assert all(isinstance(score, ScoreFailure) and score.code == "judge_unreadable" for score in got)


def test_what_may_pass_is_tried_again(opened: Any) -> None:
    with OpenAIServer(answer=grade_by_length) as server:
        engine = opened(server)
        server.faults = [(503, {}), (429, {"retry-after": "0.01"})]
        assert scores(engine, ["abc"]) == [3.0]
        server.faults = ["drop"]
        assert scores(engine, ["abcd"]) == [4.0]


@pytest.mark.parametrize(
    ("faults", "code", "is_server_error"),
    [
        (((500, {}),) * 3, "judge_unavailable", True),
        (((429, {}),) * 3, "judge_unavailable", True),
        (("drop",) * 3, "judge_unavailable", True),
        (((401, {}),), "judge_refused", True),
        (((402, {}),), "judge_refused", True),
        (((404, {}),), "judge_refused", True),
        (((307, {}),), "judge_refused", True),
        (((400, {}),), "judge_rejected", False),
        (((422, {}),), "judge_rejected", False),
    ],
)
def test_a_failure_has_a_code(opened: Any, faults: Any, code: str, is_server_error: bool) -> None:
    with OpenAIServer(answer=grade_by_length) as server:
        engine = opened(server)
        server.faults = list(faults)
        (score,) = scores(engine, ["abc"])
        assert isinstance(score, ScoreFailure)
        assert (score.code, score.is_server_error) == (code, is_server_error)
        assert scores(engine, ["abc"]) == [3.0], "a failure is not remembered"


def test_a_server_without_logprobs_is_refused_at_the_start(tmp_path: Path) -> None:
    with OpenAIServer(answer=lambda body: ["a"]) as server, pytest.raises(HostLacks, match="gives no logprobs"):
        open_engine("judge", str(judge(tmp_path, server.url, method=TOKENS)), Settings())


def test_a_server_may_come_up_after_the_scorer(opened: Any) -> None:
    with OpenAIServer(answer=grade_by_length, faults=((503, {}),) * 5) as server:
        assert scores(opened(server), ["abc"]) == [3.0]


def test_a_server_that_is_down_or_lets_nobody_in_is_refused_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(HostLacks, match=r"judge_unavailable.*does not answer"):
        open_engine("judge", str(judge(tmp_path, "http://127.0.0.1:9/v1")), Settings())
    with OpenAIServer(answer=grade_by_length, key="right") as server:
        with pytest.raises(HostLacks, match=r"judge_refused.*401"):
            open_engine("judge", str(judge(tmp_path, server.url)), Settings())
        folder = judge(tmp_path, server.url, api_key_env="JUDGE_KEY_OF_A_TEST")
        monkeypatch.delenv("JUDGE_KEY_OF_A_TEST", raising=False)
        with pytest.raises(HostLacks, match=r"JUDGE_KEY_OF_A_TEST.*is not set"):
            open_engine("judge", str(folder), Settings())
        monkeypatch.setenv("JUDGE_KEY_OF_A_TEST", "right")
        engine, _ = open_engine("judge", str(folder), Settings())
        engine.close()
        assert "right" not in (folder / "reward_model.json").read_text()


# --- costs -----------------------------------------------------------------------------------------------------------


def counted(metric: Any, *labels: str) -> float:
    return float(metric.labels(*labels)._value.get())


def test_what_it_costs_is_counted_and_told(opened: Any) -> None:
    with OpenAIServer(answer=grade_by_length) as server:
        engine = opened(server)
        before = [counted(metrics.judge_tokens, "judge", kind) for kind in ("prompt", "completion")]
        num_before = counted(metrics.judge_requests, "judge", "ok")
        (score,) = scores(engine, ["abc"])
        after = [counted(metrics.judge_tokens, "judge", kind) for kind in ("prompt", "completion")]
        assert isinstance(score, JudgedScore)
        assert score.tokens == sum(after) - sum(before) > 0
        assert counted(metrics.judge_requests, "judge", "ok") == num_before + 1
        server.faults = [(500, {})]
        scores(engine, ["abcde"])
        assert counted(metrics.judge_requests, "judge", "judge_unavailable") >= 1


def test_a_job_that_is_tried_again_asks_only_what_was_not_answered(opened: Any) -> None:
    with OpenAIServer(answer=grade_by_length) as server:
        engine = opened(server, concurrency=1)
        server.faults = [(400, {})]
        first = scores(engine, ["a", "ab", "abc"])
        assert sum(isinstance(score, ScoreFailure) for score in first) == 1
        num_before = len(server.requests)
        assert scores(engine, ["a", "ab", "abc"]) == [1.0, 2.0, 3.0]
        assert len(server.requests) == num_before + 1


def test_requests_are_open_at_once_and_no_more_than_said(opened: Any) -> None:
    with OpenAIServer(answer=lambda body: ["Score: 1"], least_s=0.1) as server:
        scores(opened(server, concurrency=4), [str(n) for n in range(12)])
        assert server.most == 4


# --- what a judge cannot do ------------------------------------------------------------------------------------------


def test_what_has_no_prompt_or_would_be_cut_is_refused(opened: Any) -> None:
    with OpenAIServer(answer=grade_by_length) as server:
        engine = opened(server, max_length=100)
        with pytest.raises(Invalid, match="takes a prompt"):
            engine.encode_group(None, ["whole"])
        with pytest.raises(Invalid, match="takes a prompt"):
            engine.encode_group(None, [TokenIds((1,))])
        with pytest.raises(Invalid, match="max_tokens_per_doc"):
            engine.encode_group("p", ["c"], Truncation("nothing", max_completion_tokens=3))
        for overflow in ("error", "truncate_left", Truncation("completion")):
            (long,) = engine.encode_group("p", ["x" * 1000], overflow)  # type: ignore[arg-type]
            assert isinstance(long, TooLong)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"url": "127.0.0.1:8000"}, "url"),
    ({"url": "http://user:key@host/v1"}, "url"),
    ({"model": ""}, "model"),
    ({"messages": [{"role": "user", "content": "{prompt}"}]}, r"\{completion\} is missing"),
    ({"messages": COMPARE}, r"\{completion\} is missing"),
    ({"messages": [{"role": "user", "content": "{completion} {first}"}]}, r"\{first\} has no meaning"),
    ({"messages": [{"role": "judge", "content": "{completion}"}]}, "role"),
    ({"method": PAIRWISE}, r"\{first\} is missing"),
    ({"method": NUMBER | {"pattern": "("}}, "pattern"),
    ({"method": NUMBER | {"pattern": r"\d+"}}, "one group"),
    ({"method": NUMBER | {"min": 10}}, "min"),
    ({"method": {"type": "vibes"}}, "vibes"),
    ({"method": TOKENS | {"good": []}}, "good"),
    ({"method": TOKENS | {"good": [" a"]}}, "blanks"),
    ({"method": TOKENS | {"bad": ["a"]}}, "bad"),
    ({"method": PAIRWISE | {"second": "A"}, "messages": COMPARE}, "three different verdicts"),
    ({"api_key": "secret"}, "api_key"),
    ({"api_key_env": "sk-123"}, "api_key_env"),
    ({"concurrency": 0}, "concurrency"),
    ({"request": {"max_tokens": 3}}, "max_tokens"),
]


@pytest.mark.parametrize(("spec", "words"), WRONG)
def test_a_wrong_spec_is_refused_by_its_field(tmp_path: Path, spec: dict[str, Any], words: str) -> None:
    folder = judge(tmp_path, "http://127.0.0.1:9/v1", **spec)
    assert is_judge(folder)
    with pytest.raises(UsageError, match=words):
        JudgeSpec.read(folder)


def test_the_revision_is_that_of_the_spec(tmp_path: Path, opened: Any) -> None:
    with OpenAIServer(answer=grade_by_length) as server:
        first, same = opened(server).revision, opened(server).revision
        assert first == same != opened(server, max_answer_tokens=9).revision


def test_other_folders_are_no_judges(tmp_path: Path) -> None:
    assert not is_judge(tmp_path)
    for text in ("{", "[]", json.dumps({"template": "chat_template"})):
        (tmp_path / "reward_model.json").write_text(text)
        assert not is_judge(tmp_path)
