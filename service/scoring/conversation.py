"""What a checkpoint's chat template writes of a conversation, found out by trial, and messages in the form it reads.

A template that does not know tool calls, a role or a list of text parts often leaves them out without an error. A score
would then be that of another conversation, so what a template does not write is written in another way that means the
same, or the conversation is rejected:

| a message has | the template |
|---|---|
| parts of text | gets them as they are if it writes them like one text, else joined by line breaks, as vLLM does |
| one text | gets one part of text if it writes nothing else |
| no content | gets none, as from Hugging Face |
| role developer | gets it if it writes such turns, else as the system's |
| thoughts (`reasoning_content`) | has to write those of the last turn; what it does with earlier ones is its own way |

Whether everything else is written is tried with each conversation: with a word of its own in the place of every text,
every name of a tool and every text among its arguments, it is rendered once per shape, and every word has to be there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from plaudit.errors import Invalid

ChatMessage = dict[str, Any]
Render = Callable[[Sequence[ChatMessage]], str]
WORD = "qzplauditqz"  # in no template, and a part of no other word
MAX_SHAPES = 4096  # of conversations that are remembered


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


class _Words:
    """Puts a word of its own in the place of every text of a conversation, and knows which stands where."""

    def __init__(self) -> None:
        self.places: list[tuple[str, str]] = []

    def message(self, at: int, message: ChatMessage) -> ChatMessage:
        """The message with words; `at` is its place in the conversation."""
        where = f"of turn {at + 1} (role {message['role']!r})"
        marked = {name: value for name, value in message.items() if name != "reasoning_content"}
        marked["content"] = self._value(message.get("content"), f"the content {where}")
        if calls := message.get("tool_calls"):
            marked["tool_calls"] = [
                {
                    **call,
                    "function": {
                        **call["function"],
                        "name": self._value(call["function"]["name"], f"tool_calls.{number} {where}"),
                        "arguments": self._value(
                            call["function"].get("arguments"), f"the arguments of tool_calls.{number} {where}"
                        ),
                    },
                }
                for number, call in enumerate(calls)
            ]
        return marked

    def _value(self, value: Any, place: str) -> Any:
        if isinstance(value, str):
            if not value.strip():
                return value
            word = f"{WORD}{len(self.places)}z"
            self.places.append((word, place))
            return word
        if isinstance(value, list):
            return [self._value(one, place) for one in value]
        if isinstance(value, dict):
            kept = ("type",) if "text" in value else ()
            return {name: one if name in kept else self._value(one, place) for name, one in value.items()}
        return value


class ChatForm:
    """The form in which one template reads messages.

    Args:
        render: the template; it raises Invalid for a conversation that it rejects.
    """

    def __init__(self, render: Render) -> None:
        self._render = render
        self._tried: dict[str, bool] = {}
        self._left: dict[str, str] = {}

    def messages(self, messages: Sequence[ChatMessage]) -> list[ChatMessage]:
        """The conversation in this form. Raises Invalid for one of which the template would leave something out."""
        given = [self._message(with_arguments(message)) for message in messages]
        if given and given[-1].get("reasoning_content") and not self._writes("thoughts", _THINKING):
            raise Invalid("the model's chat template does not write reasoning_content; it would be left out")
        if missing := self._left_out(given):
            raise Invalid(f"the model's chat template does not write {missing}; it would be left out")
        return given

    def _message(self, message: ChatMessage) -> ChatMessage:
        role, content = message["role"], message.get("content")
        if role == "developer" and not self._writes("developer", _DEVELOPER_TURN):
            message = {**message, "role": "system"}
        if isinstance(content, list) and (role == "tool" or not self._reads_parts()):
            message = {**message, "content": "\n".join(part["text"] for part in content)}
        content = message.get("content")
        if isinstance(content, str) and not self._writes("text", _TEXT) and self._writes("a part", _PART):
            message = {**message, "content": [{"type": "text", "text": content}]}
        return message

    def _left_out(self, messages: Sequence[ChatMessage]) -> str:
        """What the template does not write of a conversation of this shape; "" where it writes everything."""
        words = _Words()
        try:
            marked = [words.message(at, message) for at, message in enumerate(messages)]
            shape = json.dumps(marked, sort_keys=True)
        except RecursionError:
            raise Invalid("tool_calls: the arguments are nested too deeply to be written") from None
        if shape not in self._left:
            try:
                text = self._render(marked)
            except Invalid:
                return ""  # the conversation's own rendering says why
            if len(self._left) >= MAX_SHAPES:
                self._left.clear()
            self._left[shape] = next((place for word, place in words.places if word not in text), "")
        return self._left[shape]

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
                self._tried["parts"] = self._render(_PART) == self._render(_TEXT) or not self._writes("text", _TEXT)
            except Invalid:
                self._tried["parts"] = False
        return self._tried["parts"]


_USER: ChatMessage = {"role": "user", "content": "a"}
_ASSISTANT: ChatMessage = {"role": "assistant", "content": "b"}
_TEXT: list[ChatMessage] = [_USER | {"content": WORD}, _ASSISTANT]
_PART: list[ChatMessage] = [_USER | {"content": [{"type": "text", "text": WORD}]}, _ASSISTANT]
_THINKING: list[ChatMessage] = [_USER, _ASSISTANT | {"reasoning_content": WORD}]
_DEVELOPER_TURN: list[ChatMessage] = [{"role": "developer", "content": WORD}, _USER, _ASSISTANT]
