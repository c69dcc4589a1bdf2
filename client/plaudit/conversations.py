"""Conversations as trainers and other protocols write them, as the contract's messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from plaudit.errors import Invalid
from plaudit.schemas import Message

ROLES = {"function": "tool"}  # older names
TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
REASONING = ("reasoning_content", "reasoning")
# What would be part of a turn's text, and is not: dropping it would score another conversation.
UNREAD = ("function_call", "audio", "refusal", "images", "videos")


def messages_of(turns: Iterable[Any], field: str) -> list[Message]:
    """A conversation in the contract's types.

    Fields that say nothing about the text (ids, weights, annotations) are ignored. What does and cannot be scored is an
    error, so nothing of a conversation is dropped unnoticed.

    Args:
        turns: Dicts with `role`, `content`, `tool_calls`, … as OpenAI's API has them; or messages.
        field: Where the conversation stands in the request, for the error.

    Returns:
        The messages in order.

    Raises:
        Invalid: An unknown role, a part that is not text, a turn without content, …; the detail names the turn.
    """
    return [
        turn if isinstance(turn, Message) else _message(turn, f"{field}.{index}") for index, turn in enumerate(turns)
    ]


def _message(turn: Any, field: str) -> Message:
    if not isinstance(turn, Mapping):
        raise Invalid(f"{field}: a turn is an object with `role` and `content`, not {type(turn).__name__}")
    for name in UNREAD:
        if turn.get(name):
            raise Invalid(f"{field}.{name}: is not scored; a turn has content, tool_calls and reasoning_content")
    role = turn.get("role")
    reasoning = next((turn[name] for name in REASONING if turn.get(name) is not None), None)
    given = {
        "role": ROLES.get(role, role) if isinstance(role, str) else role,
        "content": _content(_as_list(turn.get("content")), f"{field}.content"),
        "name": turn.get("name") or None,
        "reasoning_content": reasoning,
        "tool_calls": _tool_calls(_as_list(turn.get("tool_calls")), f"{field}.tool_calls"),
        "tool_call_id": turn.get("tool_call_id") or None,
    }
    try:
        return Message.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join([field, *map(str, first["loc"])])
        raise Invalid(f"{where}: {first['msg'].removeprefix('Value error, ')}") from None


def _as_list(given: Any) -> Any:
    """An array of a data frame as the list that it holds."""
    as_list = getattr(given, "tolist", None)
    return as_list() if callable(as_list) else given


def _content(content: Any, field: str) -> Any:
    """Text, or parts of text with their `text` alone."""
    if not isinstance(content, list | tuple):
        return _encodable(content) if isinstance(content, str) else content
    parts = []
    for index, part in enumerate(content):
        kind = part.get("type", "text") if isinstance(part, Mapping) else "text" if isinstance(part, str) else None
        if kind not in TEXT_PARTS:
            raise Invalid(f"{field}.{index}: only parts of text can be scored, not {kind or type(part).__name__}")
        text = part.get("text") if isinstance(part, Mapping) else part
        parts.append({"type": "text", "text": _encodable(text) if isinstance(text, str) else text})
    return parts or None


def _tool_calls(calls: Any, field: str) -> Any:
    """Calls of functions with their `id`, name and arguments alone; None where there are none."""
    if calls is None or not isinstance(calls, list | tuple):
        return calls
    read = []
    for index, call in enumerate(calls):
        function = call.get("function", call) if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping):
            raise Invalid(f"{field}.{index}: a call is an object with `function`: its name and arguments")
        arguments = function.get("arguments")
        call_id = {"id": call["id"]} if call.get("id") else {}
        kind = {"type": call["type"]} if call.get("type") else {}
        given = {} if arguments is None else {"arguments": arguments}
        read.append({**call_id, **kind, "function": {"name": function.get("name"), **given}})
    return read or None


def _encodable(text: str) -> str:
    """Halves of surrogate pairs, which no encoding can write, become question marks."""
    return text.encode("utf-8", "replace").decode()
