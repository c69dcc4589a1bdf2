"""What a checkpoint's chat template writes of a conversation, found out by trial, and messages in the form it reads.

A template that does not know tool calls, a role or a list of text parts often leaves them out without an error. A score
would then be that of another conversation, so what a template does not write is written in another way that means the
same, or the conversation is rejected:

| a message has | the template |
|---|---|
| parts of text | gets them as they are if it writes them like one text, else joined by line breaks, as vLLM does |
| no content | gets None, as from Hugging Face, unless it prints that word; then an empty text |
| role developer | gets it if it writes such turns, else as the system's |
| tool calls, role tool | has to write them |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from plaudit.errors import Invalid

ChatMessage = dict[str, Any]
Render = Callable[[Sequence[ChatMessage]], str]
WORD = "qzplauditqz"  # in no template, and a part of no other word


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
        return [self._message(message) for message in messages]

    def _message(self, message: ChatMessage) -> ChatMessage:
        role, content = message["role"], message.get("content")
        if message.get("tool_calls") and not self._writes("tool_calls", _CALLED):
            raise Invalid(
                "the model's chat template does not write tool calls, so a conversation with them has no score"
            )
        if role == "tool" and not self._writes("tool", _TOOL_TURN):
            raise Invalid("the model's chat template does not write turns of role 'tool'; they would be left out")
        if role == "developer" and not self._writes("developer", _DEVELOPER_TURN):
            message = {**message, "role": "system"}
        if isinstance(content, list) and (role == "tool" or not self._reads_parts()):
            message = {**message, "content": "\n".join(part["text"] for part in content)}
        if content is None and self._prints_none(message):
            message = {**message, "content": ""}
        return message

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

    def _prints_none(self, message: ChatMessage) -> bool:
        """Whether a turn like this without content is written with the word None, or not at all."""
        name = "none with calls" if message.get("tool_calls") else "none"
        if name not in self._tried:
            calls = {"tool_calls": _CALLS} if message.get("tool_calls") else {}
            try:
                none, empty = (
                    self._render([_USER, {"role": "assistant", "content": content, **calls}]) for content in (None, "")
                )
                self._tried[name] = none.count("None") > empty.count("None")
            except Invalid:
                self._tried[name] = True
        return self._tried[name]


_USER: ChatMessage = {"role": "user", "content": "a"}
_ASSISTANT: ChatMessage = {"role": "assistant", "content": "b"}
_CALLS = [{"id": "call00000", "type": "function", "function": {"name": WORD, "arguments": {"x": 1}}}]
_CALLED: list[ChatMessage] = [_USER, {"role": "assistant", "content": "", "tool_calls": _CALLS}]
_CALL = [{"id": "call00000", "type": "function", "function": {"name": "f", "arguments": {"x": 1}}}]
_TOOL_TURN: list[ChatMessage] = [
    _USER,
    {"role": "assistant", "content": "", "tool_calls": _CALL},
    {"role": "tool", "content": WORD, "tool_call_id": "call00000", "name": "f"},
    _ASSISTANT,
]
_DEVELOPER_TURN: list[ChatMessage] = [{"role": "developer", "content": WORD}, _USER, _ASSISTANT]
