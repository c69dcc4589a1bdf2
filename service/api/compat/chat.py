"""Chat messages as other protocols write them."""

from __future__ import annotations

from typing import Literal

from plaudit.schemas import Message
from service.api.compat.base import CompatRequest, Text

ROLES: dict[str, Literal["system", "assistant", "tool"]] = {
    "system": "system",
    "developer": "system",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}


class ChatTurn(CompatRequest):
    role: str
    content: Text | None = None


def to_messages(turns: list[ChatTurn]) -> list[Message]:
    """A conversation in the contract's roles; an unknown role is the user's."""
    return [Message(role=ROLES.get(turn.role, "user"), content=turn.content or "") for turn in turns]
