"""Conversations of agents through the checkpoint's own template, against Hugging Face's template and forward."""

from __future__ import annotations

import contextlib
import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from plaudit.errors import Invalid
from plaudit.schemas import ScoreItem
from service.api.handlers.score import _completions, _plain_prompt
from service.scoring.conversation import ChatForm
from service.scoring.encoder import Encoder
from service.scoring.reward_model import RewardModel
from support import chat_templates
from support.checkpoints import checkpoint, write_family

USER = {"role": "user", "content": "What is 1 + 2?"}


def call(arguments: Any) -> dict[str, Any]:
    return {"id": "call00001", "type": "function", "function": {"name": "add", "arguments": arguments}}


def agent(arguments: Any = '{"a": 1, "b": 2}', result: Any = "3", **turn: Any) -> list[dict[str, Any]]:
    """A conversation with a call of a tool, its result, and the answer."""
    return [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [call(arguments)]} | turn,
        {"role": "tool", "content": result, "tool_call_id": "call00001"},
        {"role": "assistant", "content": "It is 3."},
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_family(tmp_path_factory.mktemp("chat"), "qwen2")


def encoder(folder: Path, template: str) -> Encoder:
    loaded = Encoder.load(folder)
    loaded.tokenizer.chat_template = template
    loaded._form = ChatForm(loaded._chat)  # what is known of the template before is of that one
    return loaded


def ids(encoder: Encoder, conversation: list[dict[str, Any]]) -> tuple[int, ...]:
    """As the native contract sends them: what is before the last turn as the prompt."""
    *prompt, last = conversation
    item = ScoreItem.model_validate({"messages": prompt, "completions": [[last]]})
    encoded = encoder.encode_group(_plain_prompt(item.prompt), _completions(item))[0]
    assert not isinstance(encoded, Exception)
    return encoded.ids


def expected(encoder: Encoder, conversation: list[dict[str, Any]]) -> tuple[int, ...]:
    """Hugging Face's, with arguments as objects, as its documentation asks for."""
    conversation = copy.deepcopy(conversation)
    for turn in conversation:
        for one in turn.get("tool_calls") or []:
            if isinstance(one["function"]["arguments"], str):
                one["function"]["arguments"] = json.loads(one["function"]["arguments"])
    text = encoder.tokenizer.apply_chat_template(conversation, tokenize=False)
    return tuple(encoder.tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("template", ["TOOLS", "PARTS", "KNOWN_ROLES", "THINKS", "ITEMS"])
@pytest.mark.parametrize("arguments", ['{"a": 1, "b": 2}', {"a": 9, "b": [9, {"c": "ü"}]}, "{}", {}, {"a": 10**30}])
def test_tool_calls_and_results_go_through_the_template(folder: Path, template: str, arguments: Any) -> None:
    loaded = encoder(folder, getattr(chat_templates, template))
    conversation = agent(arguments)
    assert ids(loaded, conversation) == expected(loaded, conversation)
    assert ids(loaded, conversation[:2]) == expected(loaded, conversation[:2]), "a call may be the last turn"


def test_the_score_is_hugging_face_s(folder: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    model = RewardModel.load(folder)
    model.encoder.tokenizer.chat_template = chat_templates.TOOLS
    plain = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    scores = []
    for arguments in ('{"a": 1, "b": 2}', '{"a": 9, "b": 9}'):
        conversation = agent(arguments)
        item = ScoreItem.model_validate({"messages": conversation[:-1], "completions": ["It is 3."]})
        (encoded,) = model.encode_group(_plain_prompt(item.prompt), _completions(item))
        assert not isinstance(encoded, Exception)
        (score,) = model.score([encoded])
        with torch.no_grad():
            logit = plain(input_ids=torch.tensor([expected(model.encoder, conversation)])).logits.item()
        assert score == pytest.approx(logit, abs=1e-4)
        scores.append(score)
    assert abs(scores[0] - scores[1]) > 1e-3


@pytest.mark.parametrize("broken", ["{", "[1]", "add(1, 2)", '"text"'])
def test_arguments_that_are_no_object_are_written_as_they_are(folder: Path, broken: str) -> None:
    loaded = encoder(folder, chat_templates.TOOLS)
    text = loaded.tokenizer.decode(ids(loaded, agent(broken)))
    assert json.dumps(broken).strip('"')[:4] in text
    with pytest.raises(Invalid, match="chat template rejects"):
        ids(encoder(folder, chat_templates.ITEMS), agent(broken))


@pytest.mark.parametrize("template", ["PLAIN", "STRICT"])
def test_a_template_that_writes_no_calls_has_no_score_for_them(folder: Path, template: str) -> None:
    with pytest.raises(Invalid, match=r"does not write tool_calls\.0 of turn 2|only user and assistant"):
        ids(encoder(folder, getattr(chat_templates, template)), agent())


def test_calls_that_are_written_only_without_content_have_no_score_beside_it(folder: Path) -> None:
    loaded = encoder(folder, chat_templates.CALLS_ALONE)
    assert ids(loaded, agent(content="")) == expected(loaded, agent(content=""))
    with pytest.raises(Invalid, match=r"does not write tool_calls\.0 of turn 2"):
        ids(loaded, agent(content="I call it."))
    kept = encoder(folder, chat_templates.TOOLS)
    assert ids(kept, agent(content="I call it.")) == expected(kept, agent(content="I call it."))


def test_a_text_template_has_no_score_for_calls(tmp_path: Path) -> None:
    loaded = Encoder.load(checkpoint(tmp_path))
    with pytest.raises(Invalid, match="plain text, which has no tool calls"):
        ids(loaded, agent())
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert ids(loaded, [{"role": "user", "content": parts}, USER | {"role": "assistant"}]) == ids(
        loaded, [{"role": "user", "content": "a\nb"}, USER | {"role": "assistant"}]
    )


@pytest.mark.parametrize("template", ["PLAIN", "TOOLS", "PARTS", "STRICT", "KNOWN_ROLES"])
def test_parts_of_text_are_read_as_the_template_reads_them(folder: Path, template: str) -> None:
    loaded = encoder(folder, getattr(chat_templates, template))
    parts = [{"type": "text", "text": "What is"}, {"type": "text", "text": "1 + 2?"}]
    conversation = [{"role": "user", "content": parts}, {"role": "assistant", "content": "3"}]
    as_it_is = conversation if template == "PARTS" else [USER | {"content": "What is\n1 + 2?"}, conversation[1]]
    assert ids(loaded, conversation) == expected(loaded, as_it_is)
    answer_in_parts = [USER, {"role": "assistant", "content": parts}]
    assert ids(loaded, answer_in_parts) == expected(
        loaded, answer_in_parts if template == "PARTS" else [USER, {"role": "assistant", "content": "What is\n1 + 2?"}]
    )


@pytest.mark.parametrize("template", ["PLAIN", "TOOLS", "PARTS"])
def test_a_developer_s_turn_is_written_by_its_name(folder: Path, template: str) -> None:
    loaded = encoder(folder, getattr(chat_templates, template))
    conversation = [{"role": "developer", "content": "Be brief."}, USER, {"role": "assistant", "content": "3"}]
    assert ids(loaded, conversation) == expected(loaded, conversation)


def test_a_developer_s_turn_that_would_be_left_out_is_the_system_s(folder: Path) -> None:
    loaded = encoder(folder, chat_templates.KNOWN_ROLES)
    conversation = [{"role": "developer", "content": "Be brief."}, USER, {"role": "assistant", "content": "3"}]
    assert ids(loaded, conversation) == expected(loaded, [conversation[0] | {"role": "system"}, *conversation[1:]])


def test_a_role_that_the_template_rejects_is_an_error_with_its_reason(folder: Path) -> None:
    with pytest.raises(Invalid, match="only user and assistant"):
        ids(encoder(folder, chat_templates.STRICT), [USER | {"role": "developer"}, USER, USER | {"role": "assistant"}])


@pytest.mark.parametrize("template", ["PLAIN", "TOOLS", "PARTS", "CALLS_ALONE"])
def test_an_answer_without_content_is_an_empty_one(folder: Path, template: str) -> None:
    loaded = encoder(folder, getattr(chat_templates, template))
    conversation = [USER, {"role": "assistant"}, USER, {"role": "assistant", "content": "3"}]
    assert ids(loaded, conversation) == expected(
        loaded, [USER, {"role": "assistant", "content": ""}, USER, conversation[-1]]
    )


def test_reasoning_goes_through_the_template(folder: Path) -> None:
    loaded = encoder(folder, chat_templates.THINKS)
    conversation = agent(reasoning_content="I add them.")
    assert ids(loaded, conversation) == expected(loaded, conversation)


def test_several_turns_may_follow_the_prompt(folder: Path) -> None:
    loaded = encoder(folder, chat_templates.TOOLS)
    conversation = agent()
    item = ScoreItem.model_validate({"messages": conversation[:1], "completions": [conversation[1:]]})
    (encoded,) = loaded.encode_group(_plain_prompt(item.prompt), _completions(item))
    assert not isinstance(encoded, Exception)
    assert encoded.ids == expected(loaded, conversation)
    assert encoded.prompt_tokens > 0


LEAVES_OUT = {
    "a system turn": (
        "{{ '<s>' }}{% for m in messages if m.role in ('user', 'assistant') %}<|{{ m.role }}|>{{ m.content }}<|end|>"
        "{% endfor %}",
        [{"role": "system", "content": "be brief"}, USER, {"role": "assistant", "content": "3"}],
        "the content of turn 1 (role 'system')",
    ),
    "a developer's turn": (
        "{{ '<s>' }}{% for m in messages if m.role in ('user', 'assistant') %}<|{{ m.role }}|>{{ m.content }}<|end|>"
        "{% endfor %}",
        [{"role": "developer", "content": "be brief"}, USER, {"role": "assistant", "content": "3"}],
        "the content of turn 1 (role 'system')",
    ),
    "text beside a call": (
        chat_templates.OPENING
        + "{% if m.tool_calls %}"
        + chat_templates.CALLS
        + "{% else %}{{ m.content }}{% endif %}"
        + chat_templates.CLOSING,
        agent(content="I call it."),
        "the content of turn 2 (role 'assistant')",
    ),
    "the second call": (
        chat_templates.TOOLS.replace("in m.tool_calls or []", "in (m.tool_calls or [])[:1]"),
        agent(tool_calls=[call({"a": 1}), call({"a": 2})]),
        "tool_calls.1 of turn 2 (role 'assistant')",
    ),
    "the arguments": (
        chat_templates.TOOLS.replace("{{ c.function.arguments | tojson }}", "1"),
        agent({"word": "three"}),
        "the arguments of tool_calls.0 of turn 2 (role 'assistant')",
    ),
    "early turns": (
        chat_templates.TOOLS.replace("for m in messages", "for m in messages[-2:]"),
        [USER, {"role": "assistant", "content": "4"}, USER, {"role": "assistant", "content": "3"}],
        "the content of turn 1 (role 'user')",
    ),
    "thoughts": (
        chat_templates.TOOLS,
        [USER, {"role": "assistant", "reasoning_content": "hm", "content": "3"}],
        "reasoning_content",
    ),
}


@pytest.mark.parametrize("name", LEAVES_OUT)
def test_what_a_template_leaves_out_is_named(folder: Path, name: str) -> None:
    template, conversation, what = LEAVES_OUT[name]
    with pytest.raises(Invalid, match=re.escape(f"does not write {what}; it would be left out")):
        ids(encoder(folder, template), conversation)


def test_a_template_that_reads_parts_alone_gets_parts(folder: Path) -> None:
    template = (
        "{{ '<s>' }}{% for m in messages %}<|{{ m.role }}|>"
        "{% for p in m.content | selectattr('type', 'equalto', 'text') %}{{ p.text }}{% endfor %}<|end|>{% endfor %}"
    )
    answers = [[USER, {"role": "assistant", "content": text}] for text in ("3", "4")]
    first, second = (ids(encoder(folder, template), answer) for answer in answers)
    assert first != second
    parts = [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in answers[0]]
    assert first == expected(encoder(folder, template), parts)


@pytest.mark.parametrize(
    "expression",
    [
        "m.content.index('never')",
        "1 // (m.content | length - m.content | length)",
        "(m.content | list)[0].nothing.more",
    ],
)
def test_whatever_a_template_raises_is_a_conversation_that_it_rejects(folder: Path, expression: str) -> None:
    template = (
        chat_templates.OPENING + "{% if m.content == 'wrong' %}{{ " + expression + " }}{% endif %}{{ m.content }}"
    )
    loaded = encoder(folder, template + chat_templates.CLOSING)
    with pytest.raises(Invalid, match="chat template rejects this conversation"):
        ids(loaded, [USER, {"role": "assistant", "content": "wrong"}])


@pytest.mark.parametrize("depth", [50, 500, 900, 5000])
def test_deep_arguments_are_written_or_refused(folder: Path, depth: int) -> None:
    form = encoder(folder, chat_templates.TOOLS)._form
    conversation = agent('{"a": ' + "[" * depth + "]" * depth + "}")
    if depth == 50:
        assert len(form.messages(conversation)) == 4
    else:
        with contextlib.suppress(Invalid):  # and no RecursionError
            form.messages(conversation)
