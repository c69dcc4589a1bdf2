"""Samples of programs that read stdin: "Sample Input 1", Codeforces' "Input" and "Output" blocks, "### Input" fences.

A block under a plain "Input" is often the description of the format. Prose is never a sample.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from service.evidence.examples.source import MAX_EXAMPLES, Source
from service.evidence.examples.types import Example

MAX_SAMPLE = 20_000  # characters of one input or output
MAX_LABEL = 80

_LABEL = re.compile(
    r"[ \t]{0,40}(?:[-=]{2,20}|#{1,6}|[*_>-]{1,3}|\d{1,3}[.)])?[ \t]{0,9}[*_`]{0,3}"
    r"(?P<lead>(?:sample|examples?|test|expected)(?:[ \t]case)?[ \t]{1,3}(?:\d{1,3}[ \t]{0,3}[:.-]?[ \t]{0,3})?"
    r"|(?:for (?:example|instance)[,:]? )?(?:(?:if|when|for|given|then) )?the (?=[^\n]{0,40}:)"
    r"|exemple (?:d['’]|de )|beispiel[- ]?|ejemplo de |exemplo de |esempio di |пример(?:ы)? |[样示范]例)?"
    r"(?:"
    r"(?P<input>std(?:ard )?in(?:put)?|inputcopy|input|入力例|入力|entrada|entrée|eingabe|ввода?|входные данные"
    r"|входных данных|输入|輸入|입력)"
    r"|(?P<output>std(?:ard )?out(?:put)?|outputcopy|output|出力例|出力|saida|saída|salida|sortie|ausgabe|вывода?"
    r"|выходные данные|выходных данных|输出|輸出|출력))"
    r"(?P<tail>[ \t]{1,3}(?:sample|example|copy|data|format|specification|description|is|(?:should|will|would|must) be)"
    r"|[ \t]?(?:[样示范]例|格式))?"
    r"(?:[ \t]{0,3}[#(]?\d{1,3}\)?)?[*_`]{0,3}[ \t]{0,3}"
    r"(?P<colon>[:：])?[*_`]{0,3}[ \t]{0,9}(?:[-=]{2,20}|#{1,6})?[ \t]{0,9}",
    re.IGNORECASE,
)
_SECTION = re.compile(
    r"[ \t]{0,40}(?:[-=]{2,20}|#{1,6}|\*\*|[*_])?[ \t]{0,9}"
    r"(?:examples?|samples?|sample tests?|notes?|explanations?|constraints?"
    r"|hints?|scoring|subtasks?|limits?|task|problem(?: statement)?|解説|test cases?|remarks?|sample explanation)"
    r"(?:[ \t]{1,3}#?\d{1,3})?[*_]{0,3}[ \t]{0,3}[:：]?[*_]{0,3}[ \t]{0,9}(?:[-=]{2,20})?[ \t]{0,9}(?P<rest>.{0,200})",
    re.IGNORECASE,
)
_FENCE = re.compile(r"[ \t]{0,9}(`{3,}|~{3,})[\w+-]{0,20}[ \t]{0,9}\Z")
_PROSE_WORD = re.compile(
    r"\b(?:the|contains?|line|integers?|consists?|single|each|given|print|output|first|second|denot\w+|number of|should"
    r"|you|where|separated|followed|string|one|will|an?|for|of)\b",
    re.IGNORECASE,
)
_VARIABLE = re.compile(r"[A-Za-z](?:_\{?\w{1,9}\}?)?|[A-Za-z]\d|\\?[a-z]?dots|[.:…]{1,3}|\w{1,9}_\w{1,9}")
_DATA = re.compile(r"[-+]?\d[\d.,eE+-]*|[-+#.*@_/\\|<>=!?^~$%&]+|YES|NO|Yes|No|true|false|True|False|[A-Za-z]")


@dataclass(frozen=True, slots=True)
class Block:
    """The text under one label.

    Attributes:
        start: of the label.
        end: of the text.
        is_input: whether the label says input.
        is_sample: whether the label, or a heading above, says that it is a sample.
        text: without the fence and without blank lines around it.
        certain: whether it is known where the text ends.
    """

    start: int
    end: int
    is_input: bool
    is_sample: bool
    text: str
    certain: bool


def sample_examples(source: Source) -> Iterator[Example]:
    """The samples of a program that reads stdin, in the order of the text."""
    blocks = _blocks(source)
    for first, second in itertools.pairwise(blocks):
        if not first.is_input or second.is_input or not (first.certain and second.certain):
            continue
        sample = first.is_sample or second.is_sample
        if not second.text or not (_is_data(first.text, sample=sample) and _is_data(second.text, sample=sample)):
            continue
        stdin = f"{first.text}\n" if first.text else ""
        yield Example(first.start, second.end, "sample", stdin=stdin, stdout=f"{second.text}\n")


def _is_data(text: str, *, sample: bool) -> bool:
    """Whether a block is data, not the description of a format."""
    lines = text.split("\n")
    if sample:
        return not any(len(_PROSE_WORD.findall(line[:400])) >= 4 and not line[:1].isdigit() for line in lines[:20])
    if any(len(_PROSE_WORD.findall(line[:400])) >= 2 for line in lines[:20]):
        return False
    tokens = text[:2_000].split()
    return (
        sum(_DATA.fullmatch(token) is not None and not _is_variable(token) for token in tokens) * 2 >= len(tokens) > 0
    )


def _is_code_block(source: Source, number: int, text: str) -> bool:
    """Whether the text that begins below is fenced or indented as code is, and more than names of variables."""
    last = len(source.line_starts) - 1
    while number < last and not source.text[slice(*source.line(number))].strip():
        number += 1
    first = source.text[slice(*source.line(number))]
    is_code = _FENCE.match(first[:40]) is not None or first.startswith(("    ", "\t"))
    return is_code and any(_VARIABLE.fullmatch(token) is None for token in text[:2_000].split())


def _is_format(tail: str | None) -> bool:
    return "format" in (tail or "").lower() or "格式" in (tail or "")


def _is_variable(token: str) -> bool:
    return len(token) == 1 and token.isalpha()


def _blocks(source: Source) -> list[Block]:
    """All labelled blocks, in order."""
    blocks: list[Block] = []
    number, heading = 0, False
    while number < len(source.line_starts) and len(blocks) < 4 * MAX_EXAMPLES:
        start, end = source.line(number)
        line = source.text[start : min(end, start + 400)]
        label = _LABEL.match(line)
        rest = line[label.end() :].strip() if label else ""
        if label is None or (rest and not label["colon"]) or _is_format(label["tail"]):
            section = _SECTION.match(line)
            if section is not None and (not section["rest"].strip() or ":" in line[:MAX_LABEL]):
                heading = "ample" in line.lower() or "test case" in line.lower()
            number += 1
            continue
        sample = heading or bool(label["lead"]) or bool(label["tail"]) or "copy" in label[0].lower() or "例" in label[0]
        if rest:
            text, last, certain = source.text[start + label.end() : end].strip().strip("`"), number, True
            below = source.text[slice(*source.line(number + 1))]
            certain = not below.strip() or _LABEL.match(below) is not None or _SECTION.match(below) is not None
        else:
            text, last, certain = _content(source, number + 1, is_input=bool(label["input"]))
            sample = sample or _is_code_block(source, number + 1, text)
        blocks.append(Block(start, source.line(last)[1], bool(label["input"]), sample, text, certain))
        number = last + 1
    return blocks


def _content(source: Source, number: int, *, is_input: bool) -> tuple[str, int, bool]:
    """The text from a line on, the number of its last line, and whether it is known to end there."""
    last = len(source.line_starts) - 1
    while number < last and not source.text[slice(*source.line(number))].strip():
        number += 1
    fence = _FENCE.match(source.text[slice(*source.line(number))][:40])
    indent = 0 if fence is None else len(fence[0]) - len(fence[0].lstrip(" "))
    lines: list[str] = []
    size = 0
    first = number
    while number <= last and size < MAX_SAMPLE:
        start, end = source.line(number)
        line = source.text[start:end].rstrip()
        size += len(line) + 1
        if fence is not None and number > first:
            if line.strip().startswith(fence[1]):
                return "\n".join(lines), number, True
            margin = min(indent, len(line) - len(line.lstrip(" ")))
            lines.append(line[margin:])
        elif fence is None:
            if _stops(line) or (not is_input and not line):
                break
            lines.append(line)
        number += 1
    if fence is not None or size >= MAX_SAMPLE:
        return "", max(first, number - 1), False
    return _dedented(lines), number - 1, is_input or not _goes_on(source, number)


def _stops(line: str) -> bool:
    """Whether a line is a label, a heading or a fence, and so no part of a sample."""
    label = _LABEL.match(line)
    if label is not None and (label.end() == len(line) or label["colon"]):
        return True
    section = _SECTION.match(line)
    if section is not None and (not section["rest"].strip() or ":" in line[:MAX_LABEL]):
        return True
    return line.lstrip().startswith("```")


def _goes_on(source: Source, number: int) -> bool:
    """Whether what follows an output's blank line may be more output: data, and no label."""
    last = len(source.line_starts) - 1
    while number <= last and not (line := source.text[slice(*source.line(number))].strip()):
        number += 1
    return number <= last and not _stops(line) and not _reads_as_prose(line)


def _reads_as_prose(line: str) -> bool:
    words = re.findall(r"[^\W\d_]{2,}", line[:400])
    return (
        len(words) >= 3
        or line.endswith((".", ":", '"""', "'''"))
        or line.startswith(("#", "def ", "class ", "import "))
    )


def _dedented(lines: list[str]) -> str:
    """The lines without the blanks that all of them begin with, and without blank lines around them."""
    filled = [line for line in lines if line]
    margin = min((len(line) - len(line.lstrip(" ")) for line in filled), default=0)
    return "\n".join(line[margin:] for line in lines).strip("\n")
