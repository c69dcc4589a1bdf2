"""Chat messages as other protocols write them: read leniently, and never with a part of the text left out."""

from __future__ import annotations

from typing import Any

from plaudit.conversations import messages_of
from plaudit.errors import Invalid
from plaudit.schemas import Message
from service.api.compat.base import FailFastList

ChatTurn = dict[str, Any]
ChatTurns = FailFastList[ChatTurn]


def to_messages(turns: list[ChatTurn], field: str) -> list[Message]:
    """A conversation in the contract's types. Raises Invalid, which names the field and the turn."""
    if not turns:
        raise Invalid(f"{field}: a conversation has at least one turn")
    return messages_of(turns, field)
