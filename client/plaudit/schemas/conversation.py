"""Chat messages as OpenAI's API writes them: text parts, tool calls, the results of tools."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from plaudit.schemas.base import MAX_FIELDS, MAX_MESSAGES, Exact, Id, Strict, Text, is_none, survives_json

MAX_TOOL_CALLS = 1024  # of one message


class TextPart(Strict):
    type: Literal["text"]
    text: Text


class FunctionCall(Strict):
    """The function that a model calls. Arguments that are the text of a JSON object are kept as that object, because
    chat templates expect one; any other text stays as it is."""

    name: Id
    arguments: Annotated[
        Text | dict[Text, Exact], Field(description="an object, or its JSON text; other text is kept")
    ] = {}

    @field_validator("arguments")
    @classmethod
    def _as_object(cls, arguments: str | dict[str, Any]) -> str | dict[str, Any]:
        if isinstance(arguments, dict):
            return arguments
        if not arguments.strip():
            return {}
        try:
            parsed = survives_json(json.loads(arguments))
        except (ValueError, RecursionError):
            return arguments
        return parsed if isinstance(parsed, dict) else arguments


class ToolCall(Strict):
    id: Id | None = None
    type: Literal["function"] = "function"
    function: FunctionCall


class Message(Strict):
    """One turn of a conversation. Only an assistant's may be without content: it can be a tool call alone."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[
        Text | Annotated[list[TextPart], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)] | None,
        Field(description="text, or parts of text; an assistant's may be left out"),
    ] = None
    name: Annotated[Id | None, Field(exclude_if=is_none)] = None
    reasoning_content: Annotated[
        Text | None, Field(exclude_if=is_none, description="what an assistant thought before its content")
    ] = None
    tool_calls: Annotated[
        list[ToolCall] | None, Field(max_length=MAX_TOOL_CALLS, fail_fast=True, exclude_if=is_none)
    ] = None
    tool_call_id: Annotated[
        Id | None, Field(exclude_if=is_none, description="of a tool's turn: the call that it answers")
    ] = None

    @model_validator(mode="after")
    def _belongs_to_its_role(self) -> Message:
        if self.role != "assistant":
            if self.content is None:
                raise ValueError(f"content is missing; only an assistant's turn can do without, not one of {self.role}")
            for field in ("tool_calls", "reasoning_content"):
                if getattr(self, field) is not None:
                    raise ValueError(f"{field}: only an assistant's turn has them, not one of {self.role}")
        if self.role != "tool" and self.tool_call_id is not None:
            raise ValueError(f"tool_call_id: only a tool's turn has one, not one of {self.role}")
        return self

    @property
    def text(self) -> str:
        """The content as one text, its parts joined by line breaks; empty where there is none."""
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""

    @property
    def is_plain(self) -> bool:
        """Whether the role and one text say everything."""
        return isinstance(self.content, str) and not self.fields().keys() - {"role", "content"}

    def fields(self) -> dict[str, Any]:
        """The message as chat templates read it: without what is not given."""
        given = self.model_dump(mode="json", exclude_none=True)
        if not given.get("tool_calls", True):
            del given["tool_calls"]  # some templates take an empty list for a call
        return given


Messages = Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)]


def _which(given: Any) -> str:
    """Text or messages, by what is given: errors are then about one of the two. The names stand in their paths."""
    return "list[Message]" if isinstance(given, list | tuple) else "text"


TextOrMessages = Annotated[
    Annotated[Text, Tag("text")] | Annotated[Messages, Tag("list[Message]")], Discriminator(_which)
]
Prompt = Annotated[TextOrMessages, Field(description="text, or chat messages")]


class PromptedItem(Strict):
    """An item with a prompt, which may be called `messages` where it is a conversation. It is read as `prompt`."""

    id: Id | None = None
    prompt: Prompt = ""
    messages: Annotated[
        Messages | None,
        Field(exclude_if=is_none, description="a conversation in place of `prompt`; is read as if it were `prompt`"),
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _messages_are_the_prompt(cls, given: Any) -> Any:
        if not isinstance(given, dict) or given.get("messages") is None or len(given) > MAX_FIELDS:
            return given
        if "prompt" in given:
            raise ValueError("prompt and messages: an item has one of them, not both")
        if not isinstance(given["messages"], list | tuple):
            raise ValueError("messages: takes a list of chat messages")
        return {name: value for name, value in given.items() if name != "messages"} | {"prompt": given["messages"]}
