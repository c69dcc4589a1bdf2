"""How code is taken out of a completion. One module, so that every door and every training stage agree.

The rules, in this order:
1. Special tokens of chat templates that a client left at the end (`<|im_end|>`, `</s>` …) are no part of the text.
2. Thoughts do not answer. A completion that begins with `<think>` loses everything up to its `</think>`; one whose
   prompt had opened the tag already loses everything up to a `</think>` that ends its line. A thought that never ends
   leaves nothing.
3. Code stands in fences; the last one with anything in it counts. Where a language is asked for, fences with its tag
   go before fences without a tag, and those before fences of other languages: the sample output that follows a
   solution is not the solution.
4. A fence that is never closed ends with the completion: the program was cut off, and is judged as it is.
5. No fence, no code. Prose is never run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from sandbox.errors import UnsupportedLanguage
from sandbox.languages import resolve

# A fence opens with at least three backticks or tildes and closes with at least as many of the same at a line start.
_FENCE = re.compile(r"^[ \t]{0,3}(?P<mark>`{3,}|~{3,})(?P<info>[^\n`]*)\n"
                    r"(?P<code>.*?)(?P<end>^[ \t]{0,3}(?P=mark)[`~]*[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)  # fmt: skip
_THOUGHT = re.compile(r"\s*<think>.*?(?:</think>|\Z)", re.DOTALL)
_THOUGHT_END = re.compile(r"\A.*?</think>[ \t]*$", re.MULTILINE | re.DOTALL)
# Closing tokens of the chat templates in use; only at the very end, where no program has them.
CLOSING = ("<|im_end|>", "<|endoftext|>", "<|end|>", "<|eot_id|>", "<|end_of_text|>", "<|eom_id|>", "<|return|>",
           "</s>", "<eos>", "<end_of_turn>", "<｜end▁of▁sentence｜>")  # fmt: skip

Kind = Literal["fenced", "incomplete_fenced"]


@dataclass(frozen=True, slots=True)
class Code:
    """What was taken out of a completion, and from what kind of fence."""

    text: str
    kind: Kind
    tag: str


def answer(completion: str) -> str:
    """The completion without its thoughts and without a template's closing tokens."""
    text = closed(completion)
    thought = _THOUGHT.match(text) or _THOUGHT_END.match(text)
    return text[thought.end() :] if thought else text


def closed(completion: str) -> str:
    """The completion without the closing tokens at its end."""
    text = completion
    while (bare := text.rstrip()).endswith(CLOSING):
        text = bare[: -len(next(token for token in CLOSING if bare.endswith(token)))]
    return text


def blocks(completion: str) -> Iterator[Code]:
    """All fenced blocks of a text, in order; a fence that is never closed ends with the text."""
    for match in _FENCE.finditer(completion):
        words = match["info"].split()
        kind: Kind = "fenced" if match["end"] else "incomplete_fenced"
        yield Code(match["code"], kind, words[0].strip("{}.").lower() if words else "")


def fences(completion: str) -> list[str]:
    """The contents of all fenced blocks of the answer, in order."""
    return [block.text for block in blocks(answer(completion))]


def last_fence(completion: str) -> str | None:
    """The answer's last fenced block with anything in it, None where there is none."""
    filled = [block for block in fences(completion) if block.strip()]
    return filled[-1] if filled else None


def code_of(completion: str, language: str) -> Code | None:
    """The program of an answer in this language (any spelling); None where there is no fence with anything in it."""
    filled = [block for block in blocks(answer(completion)) if block.text.strip()]
    wanted = _canonical(language)
    tagged = [block for block in filled if block.tag and _canonical(block.tag) == wanted]
    untagged = [block for block in filled if not block.tag]
    best = tagged or untagged or filled
    return best[-1] if best else None


def _canonical(name: str) -> str:
    try:
        return resolve(name)
    except UnsupportedLanguage:
        return name.strip().lower()
