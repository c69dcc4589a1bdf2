"""Conversations as trainers have them become the contract's messages, or an error that names the turn."""

from __future__ import annotations

import json
from typing import Any

import pytest

from plaudit.calls import Calls
from plaudit.conversations import messages_of
from plaudit.errors import Invalid
from plaudit.integrations.config import BatcherConfig, Misconfigured
from plaudit.integrations.rows import TrainerRow, item_of
from plaudit.retries import RetryPolicy
from plaudit.schemas import Message, RankRequest, RewardItem, ScoreItem, ScoreRequest

CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
AGENT = [
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "1"}, {"type": "text", "text": "+ 2?", "annotations": []}]},
    {"role": "assistant", "content": None, "tool_calls": [CALL | {"index": 0}], "refusal": None, "weight": 0},
    {"role": "function", "name": "add", "content": "3"},
    {"role": "assistant", "content": "3", "reasoning": "I add.", "tool_calls": []},
]


def test_what_is_said_is_kept_and_what_is_not_text_is_left_out() -> None:
    assert [message.fields() for message in messages_of(AGENT, "prompt")] == [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "1"}, {"type": "text", "text": "+ 2?"}]},
        {"role": "assistant", "tool_calls": [CALL | {"function": {"name": "add", "arguments": {"a": 1}}}]},
        {"role": "tool", "name": "add", "content": "3"},
        {"role": "assistant", "content": "3", "reasoning_content": "I add."},
    ]
    messages = [Message(role="user", content="x")]
    assert messages_of(messages, "prompt") == messages


class Array(list[Any]):
    """As a column of a data frame holds lists."""

    def tolist(self) -> list[Any]:
        return list(self)


def test_arrays_of_a_data_frame_are_lists() -> None:
    turn = {"role": "user", "content": Array([{"type": "text", "text": "x"}])}
    assert messages_of(Array([turn]), "prompt")[0].text == "x"


@pytest.mark.parametrize(
    ("turn", "words"),
    [
        ("text", "prompt.1: a turn is an object"),
        ({"role": "critic", "content": "x"}, "prompt.1.role"),
        ({"role": None, "content": "x"}, "prompt.1.role"),
        ({"content": "x"}, "prompt.1.role"),
        ({"role": "user"}, "content is missing"),
        ({"role": "tool", "content": None}, "content is missing"),
        ({"role": "user", "content": []}, "content is missing"),
        ({"role": "user", "content": 7}, "prompt.1.content"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "prompt.1.content.0: only parts of text"),
        ({"role": "user", "content": [7]}, "prompt.1.content.0: only parts of text"),
        ({"role": "user", "content": [{"type": "text"}]}, "prompt.1.content"),
        ({"role": "user", "content": "x", "tool_calls": [CALL]}, "tool_calls: only an assistant's"),
        ({"role": "user", "content": "x", "tool_call_id": "c1"}, "tool_call_id: only a tool's"),
        ({"role": "assistant", "tool_calls": ["f()"]}, "prompt.1.tool_calls.0"),
        ({"role": "assistant", "tool_calls": [{"function": {}}]}, "prompt.1.tool_calls.0.function.name"),
        ({"role": "assistant", "tool_calls": [CALL | {"type": "custom"}]}, "prompt.1.tool_calls.0.type"),
        ({"role": "assistant", "content": "", "function_call": {"name": "f"}}, "prompt.1.function_call"),
        ({"role": "assistant", "content": "", "refusal": "No."}, "prompt.1.refusal"),
    ],
)
def test_a_turn_that_cannot_be_scored_is_named(turn: Any, words: str) -> None:
    with pytest.raises(Invalid) as error:
        messages_of([{"role": "user", "content": "x"}, turn], "prompt")
    assert words in error.value.detail


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        ('{"a": [1, {"b": null}]}', {"a": [1, {"b": None}]}),
        ({"a": 1}, {"a": 1}),
        ("", {}),
        (" ", {}),
        ("{", "{"),
        ("[1]", "[1]"),
        ("f(1)", "f(1)"),
        ('{"a": NaN}', '{"a": NaN}'),
        ('{"a": 123456789012345678901234567890}', {"a": 123456789012345678901234567890}),
        ('{"a": ' + "[" * 200 + "]" * 200 + "}", '{"a": ' + "[" * 200 + "]" * 200 + "}"),
    ],
)
def test_arguments_are_an_object_where_they_can_be(arguments: Any, kept: Any) -> None:
    call = {"function": {"name": "f", "arguments": arguments}}
    (message,) = messages_of([{"role": "assistant", "tool_calls": [call]}], "m")
    assert message.tool_calls is not None
    assert message.tool_calls[0].function.arguments == kept


@pytest.mark.parametrize("kind", [ScoreItem, RewardItem])
def test_messages_stand_for_the_prompt(kind: type[ScoreItem] | type[RewardItem]) -> None:
    turns = [{"role": "user", "content": "x"}]
    by_prompt = kind.model_validate({"prompt": turns, "completions": ["c"]})
    assert kind.model_validate({"messages": turns, "completions": ["c"]}) == by_prompt
    assert kind(messages=[Message(role="user", content="x")], completions=["c"]) == by_prompt
    assert "messages" not in by_prompt.model_dump_json()


def test_our_client_takes_them() -> None:
    calls = Calls(RetryPolicy(1.0, 1))
    item = {"messages": [{"role": "user", "content": "x"}], "completions": ["c"]}
    step = calls.score([item]).send(None)
    assert not isinstance(step, float)
    assert json.loads(step.body or b"")["items"][0]["prompt"] == item["messages"]
    step = calls.rank([item]).send(None)
    assert not isinstance(step, float)
    assert RankRequest.model_validate_json(step.body or b"").items[0].prompt == [Message(role="user", content="x")]
    digest = f"sha256:{'0' * 64}"
    step = calls.score([{"token_ids": [[1, 2]]}], tokenizer_digest=digest).send(None)
    assert not isinstance(step, float)
    assert ScoreRequest.model_validate_json(step.body or b"").items[0].token_ids == [[1, 2]]


def test_a_trainer_s_row_keeps_its_tool_calls_and_refuses_unknown_roles() -> None:
    config = BatcherConfig.of({"reward": "model"})
    item = item_of(config, 3, TrainerRow(AGENT, "3", None, "label")).item
    assert isinstance(item.prompt, list)
    assert item.prompt[2].tool_calls is not None
    critic = [{"role": "critic", "content": "x"}]
    with pytest.raises(Misconfigured, match=r"row 3: prompt\.0\.role.*say reward=\"tests\""):
        item_of(config, 3, TrainerRow(critic, "3", None, "label"))
    tested = item_of(BatcherConfig.of({"reward": "tests"}), 3, TrainerRow(critic, "3", ["assert True"], "label")).item
    assert tested.prompt == [Message(role="user", content="x")], "what no model reads is no reason to stop"
