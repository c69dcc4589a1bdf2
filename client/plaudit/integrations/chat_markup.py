"""Reads the messages out of a prompt that a trainer has rendered by a chat template already.

OpenRLHF with `--data.apply_chat_template`, for one, hands prompts over as the policy reads them. A reward model has a
template of its own: the rendered text as the content of a user message would be a text that no model was trained on.

| markup | used by |
|---|---|
| `<|im_start|>role … <|im_end|>` | ChatML: Qwen, Yi, InternLM, SmolLM, Hermes |
| `<|start_header_id|>role<|end_header_id|> … <|eot_id|>` | Llama 3 |
| `<start_of_turn>role … <end_of_turn>` | Gemma |
| `<|role|> … <|end|>` | Phi 3 and 4 |
| `[INST] … [/INST]` | Mistral, Llama 2 |
| `<｜User｜> … <｜Assistant｜>` | DeepSeek |
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from plaudit.schemas import Message

_ROLES = {"model": "assistant", "developer": "system", "ipython": "tool", "function": "tool"}
_KNOWN = ("system", "user", "assistant", "tool")
_THOUGHT = r"(?:<think>\n*(?:</think>\n*)?)?"  # some templates open the thought, and some close it


@dataclass(frozen=True, slots=True)
class Markup:
    """One way to mark turns.

    Args:
        opens: what may stand before the first turn.
        turn: one turn, with groups `text` and `role`, or else of the role that the group's name says.
        ends: what the last turn is followed by: the beginning of the answer.
        marks: a text that no ordinary prompt contains.
    """

    opens: str
    turn: re.Pattern[str]
    ends: re.Pattern[str]
    marks: str

    def read(self, text: str) -> list[Message] | None:
        """The messages, if the whole text is turns of this markup and the beginning of an answer."""
        at = len(self.opens) if text.startswith(self.opens) else 0
        messages = []
        while (found := self.turn.match(text, at)) is not None and found.end() > at:
            groups = found.groupdict()
            role = groups.get("role") or next(name for name in _KNOWN if groups.get(name) is not None)
            role = _ROLES.get(role, role)
            if role not in _KNOWN:
                return None
            content = groups["text"] if "text" in groups else groups[role]
            messages.append(Message(role=role, content=content))  # type: ignore[arg-type]
            at = found.end()
        return messages if messages and self.ends.fullmatch(text, at) else None


def _markup(opens: str, turn: str, ends: str, marks: str) -> Markup:
    return Markup(opens, re.compile(turn, re.DOTALL), re.compile(ends + _THOUGHT), marks)


MARKUPS = (
    _markup(
        "",
        r"<\|im_start\|>(?P<role>\w+)\n(?P<text>(?:(?!<\|im_).)*)<\|im_end\|>\n?",
        r"<\|im_start\|>assistant\n",
        "<|im_start|>",
    ),
    _markup(
        "<|begin_of_text|>",
        r"<\|start_header_id\|>(?P<role>\w+)<\|end_header_id\|>\n\n(?P<text>(?:(?!<\|(?:eot|start_h)).)*)<\|eot_id\|>",
        r"<\|start_header_id\|>assistant<\|end_header_id\|>\n\n",
        "<|start_header_id|>",
    ),
    _markup(
        "<bos>",
        r"<start_of_turn>(?P<role>\w+)\n(?P<text>(?:(?!<(?:start|end)_of_turn>).)*)<end_of_turn>\n?",
        r"<start_of_turn>model\n",
        "<start_of_turn>",
    ),
    _markup(
        "",
        r"<\|(?P<role>system|user|assistant|tool)\|>\n?(?P<text>(?:(?!<\|(?:end|system|user|assistant)\|>).)*)<\|end\|>\n?",
        r"<\|assistant\|>\n?",
        "<|assistant|>",
    ),
    _markup(
        "<s>",
        r"\[INST\] ?(?P<user>(?:(?!\[/?INST\]).)*?) ?\[/INST\]|(?P<assistant>(?:(?!\[/?INST\]).)+?)</s>(?:<s>)?",
        r"",
        "[/INST]",
    ),
    _markup(
        "<｜begin▁of▁sentence｜>",
        r"<｜User｜>(?P<user>(?:(?!<｜).)*)|<｜Assistant｜>(?P<assistant>(?:(?!<｜).)*)<｜end▁of▁sentence｜>"
        r"|(?P<system>(?:(?!<｜).)+)",
        r"<｜Assistant｜>",
        "<｜Assistant｜>",
    ),
)


def rendered_messages(text: str) -> list[Message] | None:
    """The messages of a rendered prompt; None for a text that is not turns of one markup from end to end."""
    for markup in MARKUPS:
        if markup.marks in text and (messages := markup.read(text)) is not None:
            return messages
    return None


_ANSWER_BEGINS = re.compile(
    r"(?:<\|im_start\|>assistant|<\|start_header_id\|>assistant<\|end_header_id\|>|<start_of_turn>model|<\|assistant\|>"
    r"|\[/INST\]|<｜Assistant｜>)\s*(?:<think>\s*(?:</think>\s*)?)?\Z"
)


def is_rendered(text: str) -> bool:
    """Whether a text ends as the prompts of chat templates do: with the beginning of an answer."""
    return _ANSWER_BEGINS.search(text, max(0, len(text) - 200)) is not None
