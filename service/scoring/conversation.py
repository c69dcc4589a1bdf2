"""What a checkpoint's chat template writes of a conversation, found out by trial, and messages in the form it reads.

A template that does not know tool calls, a role or a list of text parts often leaves them out without an error. A score
would then be that of another conversation, so what a template does not write is written in another way that means the
same, or the conversation is rejected:

| a message has | the template |
|---|---|
| parts of text | gets them as they are if it writes them like one text, else joined by line breaks, as vLLM does |
| no content | gets none, as from Hugging Face |
| role developer | gets it if it writes such turns, else as the system's |
| tool calls, role tool | has to write them |
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from plaudit.errors import Invalid

ChatMessage = dict[str, Any]
Render = Callable[[Sequence[ChatMessage]], str]
WORD = "qzplauditqz"  # in no template, and a part of no other word


def with_arguments(message: ChatMessage) -> ChatMessage:
    """A message whose tool calls have arguments as objects, as templates expect; text that is none stays as it is."""
    if not message.get("tool_calls"):
        return message
    calls = [
        {**call, "function": {**call["function"], "arguments": _arguments(call["function"].get("arguments"))}}
        for call in message["tool_calls"]
    ]
    return {**message, "tool_calls": calls}


def _arguments(given: Any) -> Any:
    if not isinstance(given, str):
        return {} if given is None else given
    try:
        parsed = json.loads(given)
    except (ValueError, RecursionError):
        return given
    return parsed if isinstance(parsed, dict) else given


class ChatForm:
    """The form in which one template reads messages.

    Args:
        render: the template; it raises Invalid for a conversation that it rejects.
    """

    def __init__(self, render: Render) -> None:
        self._render = render
        self._tried: dict[str, bool] = {}

    def messages(self, messages: Sequence[ChatMessage]) -> list[ChatMessage]:
        """The conversation in this form. Raises Invalid for one of which the template would leave something out."""
        return [self._message(with_arguments(message)) for message in messages]

    def _message(self, message: ChatMessage) -> ChatMessage:
        role, content = message["role"], message.get("content")
        if role == "tool" and not self._writes("tool", _TOOL_TURN):
            raise Invalid("the model's chat template does not write turns of role 'tool'; they would be left out")
        if message.get("tool_calls") and not self._writes_calls(beside_text=bool(content)):
            beside = " beside content" if content else ""
            raise Invalid(f"the model's chat template does not write tool calls{beside}; they would be left out")
        if role == "developer" and not self._writes("developer", _DEVELOPER_TURN):
            message = {**message, "role": "system"}
        if isinstance(content, list) and (role == "tool" or not self._reads_parts()):
            message = {**message, "content": "\n".join(part["text"] for part in content)}
        return message

    def _writes_calls(self, *, beside_text: bool) -> bool:
        calling = _CALLING | {"content": "b"} if beside_text else _CALLING
        return self._writes("calls beside text" if beside_text else "calls", [_USER, calling])

    def _writes(self, name: str, conversation: Sequence[ChatMessage]) -> bool:
        """Whether the template writes the word in a conversation. One that rejects it is asked again with the real
        one, whose error then says why."""
        if name not in self._tried:
            try:
                self._tried[name] = WORD in self._render(conversation)
            except Invalid:
                self._tried[name] = True
        return self._tried[name]

    def _reads_parts(self) -> bool:
        """Whether a part of text is written as the same text alone is."""
        if "parts" not in self._tried:
            try:
                parts, text = (
                    self._render([_USER | {"content": content}, _ASSISTANT])
                    for content in ([{"type": "text", "text": WORD}], WORD)
                )
                self._tried["parts"] = parts == text
            except Invalid:
                self._tried["parts"] = False
        return self._tried["parts"]


_USER: ChatMessage = {"role": "user", "content": "a"}
_ASSISTANT: ChatMessage = {"role": "assistant", "content": "b"}
_CALLING: ChatMessage = {
    "role": "assistant",
    "tool_calls": [{"id": "call00000", "type": "function", "function": {"name": WORD, "arguments": {"x": 1}}}],
}
_TOOL_TURN: list[ChatMessage] = [
    _USER,
    {
        "role": "assistant",
        "tool_calls": [{"id": "call00000", "type": "function", "function": {"name": "f", "arguments": {"x": 1}}}],
    },
    {"role": "tool", "content": WORD, "tool_call_id": "call00000", "name": "f"},
    _ASSISTANT,
]
_DEVELOPER_TURN: list[ChatMessage] = [{"role": "developer", "content": WORD}, _USER, _ASSISTANT]
