"""How code is taken out of a completion. One module, so that every endpoint and every training stage agree.

The rules, in this order:
1. Special tokens of chat templates that a client left at the end (`<|im_end|>`, `</s>` …) are not part of the text.
2. Thoughts do not answer. A completion that begins with `<think>` loses everything up to its `</think>`; one whose
   prompt had opened the tag already loses everything up to a `</think>` that ends its line. A thought that never ends
   leaves nothing.
3. Code stands in fences; the last one with anything in it counts. Where a language is asked for, fences with its tag
   go before fences without a tag, and those before fences of other languages: the sample output that follows a
   solution is not the solution.
4. A fence that is never closed ends with the completion: the program was cut off, and is judged as it is.
5. No fence, no code. Prose is never run.

Fences are CommonMark's: three or more backticks or tildes, closed by at least as many of the same; what the opening
line is indented by, up to three blanks or as a list item has it, comes off every line; a quote's marks come off, too.
Lines may end as on Windows. The tag is the info string's first word, without attributes (`{.python}`, `py title="x"`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from plaudit.languages import ALIASES, UnsupportedLanguage, base, resolve

_QUOTE = re.compile(r"[ \t]{0,3}>[ \t]?")
_OPENING = re.compile(
    r"(?P<margin>[ \t]*)(?:(?P<ticks>`{3,})(?P<info>[^`]*)|(?P<tildes>~{3,})(?P<words>.*))\Z", re.DOTALL
)
_ITEM = re.compile(r"[ \t]*(?:[-*+]|\d{1,9}[.)])(?:[ \t]{1,4}(?=[^ \t])|[ \t]*\Z)")
_TAG = re.compile(r"[^\s,;:=(){}\[\]]+")
MAX_QUOTES = 8  # marks of nested quotes
_THOUGHT = re.compile(r"\s*<think>.*?(?:</think>|\Z)", re.DOTALL)
_THOUGHT_END = re.compile(r"\A.*?</think>[ \t]*$", re.MULTILINE | re.DOTALL)
# Closing tokens of the chat templates in use; only at the very end, where no program has them.
CLOSING = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|end|>",
    "<|eot_id|>",
    "<|end_of_text|>",
    "<|eom_id|>",
    "<|return|>",
    "</s>",
    "<eos>",
    "<end_of_turn>",
    "<｜end▁of▁sentence｜>",
)

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
    end = len(completion)
    while completion.endswith(CLOSING, 0, bare := _bare_end(completion, end)):
        end = bare - len(next(token for token in CLOSING if completion.endswith(token, 0, bare)))
    return completion[:end]


def _bare_end(text: str, end: int) -> int:
    """Where `text[:end]` ends without its trailing blanks. Copies a piece at a time, never the whole text."""
    size = 64
    while end and (blanks := (piece := text[max(0, end - size) : end]).rstrip()) != piece:
        end -= len(piece) - len(blanks)
        if blanks:
            break
        size *= 2
    return end


def blocks(completion: str) -> Iterator[Code]:
    """All fenced blocks of a text, in order; a fence that is never closed ends with the text."""
    lines = iter(completion.split("\n"))
    in_list = after_blank = False
    for raw in lines:
        line, num_quotes = unquoted(raw.removesuffix("\r"))
        item = _ITEM.match(line)
        if item:
            in_list = True
        elif after_blank and line[:1] not in ("", " ", "\t"):
            in_list = False  # the list has ended
        after_blank = not line.strip()
        margin = width(line[: item.end()]) if item else 0
        opening = _OPENING.match(line, item.end() if item else 0)
        if opening is None:
            continue
        margin += width(opening["margin"])
        if margin > 3 and not in_list:
            continue  # indented code that shows a fence
        mark = opening["ticks"] or opening["tildes"]
        code, closed_by = body(lines, mark, margin, num_quotes, windows=raw.endswith("\r"))
        after_blank = False
        kind: Kind = "fenced" if closed_by else "incomplete_fenced"
        yield Code(code, kind, tag_of(opening["info"] or opening["words"] or ""))


def body(lines: Iterator[str], mark: str, margin: int, num_quotes: int, *, windows: bool) -> tuple[str, bool]:
    """What stands between a fence and its end, and whether it has one."""
    closing = re.compile(rf"[ \t]*{mark[0]}{{{len(mark)},}}[ \t\r]*\Z")
    code: list[str] = []
    for raw in lines:
        line = unquoted(raw, num_quotes)[0]
        if closing.match(line) and width(line[: len(line) - len(line.lstrip())]) <= margin + 3:
            return "".join(f"{code_line}\n" for code_line in code), True
        code.append(dedented(line.removesuffix("\r") if windows else line, margin))
    return "\n".join(code), False


def unquoted(line: str, most: int = MAX_QUOTES) -> tuple[str, int]:
    """A line without the marks of block quotes, and how many there were."""
    at = count = 0
    while count < most and (mark := _QUOTE.match(line, at)):
        at, count = mark.end(), count + 1
    return line[at:], count


def width(blanks: str) -> int:
    """How many columns a text without wide characters takes, tabs to the next multiple of four."""
    columns = 0
    for character in blanks:
        columns += 4 - columns % 4 if character == "\t" else 1
    return columns


def dedented(line: str, columns: int) -> str:
    """The line without its first blanks, as many columns of them as there are and at most `columns`."""
    taken = 0
    for at, character in enumerate(line):
        if taken >= columns or character not in " \t":
            return " " * (taken - columns) + line[at:]
        taken += 4 - taken % 4 if character == "\t" else 1
    return " " * (taken - columns)


def tag_of(info: str) -> str:
    """The language of an info string: its first word, or the first that names one (`{#id .python}`)."""
    words = [word.lstrip(".#").lower() for word in _TAG.findall(info) if word.strip(".#")]
    bare = [word.removeprefix("language-").removeprefix("lang-") for word in words]
    if info.strip().startswith("{"):
        return next((word for word in bare if _canonical(word) in ALIASES), bare[0] if bare else "")
    return bare[0] if bare else ""


def fences(completion: str) -> list[str]:
    """The contents of all fenced blocks of the answer, in order."""
    return [block.text for block in blocks(answer(completion))]


def last_fence(completion: str) -> str | None:
    """The answer's last fenced block with anything in it, None where there is none."""
    filled = [block for block in fences(completion) if block.strip()]
    return filled[-1] if filled else None


def code_of(completion: str, language: str, defines: re.Pattern[str] | None = None) -> Code | None:
    """The program of an answer in this language (any spelling); None where there is no fence with anything in it.

    `defines`: of the blocks that would do, the last one that has this, if one has.
    """
    filled = [block for block in blocks(answer(completion)) if block.text.strip()]
    wanted = _canonical(language)
    tagged = [block for block in filled if block.tag and _canonical(block.tag) == wanted]
    untagged = [block for block in filled if not block.tag]
    best = tagged or untagged or filled
    defining = [block for block in best if defines is not None and defines.search(block.text)]
    return (defining or best)[-1] if best else None


def _canonical(name: str) -> str:
    try:
        return base(resolve(name))
    except UnsupportedLanguage:
        return name.strip().lower()
