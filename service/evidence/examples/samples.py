"""Samples of programs that read stdin: "Sample Input 1", Codeforces' "Input" and "Output" blocks, "### Input" fences.

A block under a plain "Input" is often the description of the format. Prose is never a sample, and neither is what an
honest program need not print: a dialogue with a judge, or one of several right answers.
"""

from __future__ import annotations

import html
import itertools
import re
from collections.abc import Iterator

from service.evidence.examples.sample_blocks import LABEL, VARIABLE, Block, labelled_blocks
from service.evidence.examples.source import Source
from service.evidence.examples.types import Example

_NOT_BY_SAMPLES = re.compile(
    r"interactive (?:problem|task)|\binteractor\b|^\W{0,9}interaction\W{0,9}$|\bfflush\b|stdout\.flush"
    r"|\bflush\w{0,3} (?:the )?(?:output|stdout)|интерактивн|interativo|interactif|交互题|インタラクティブ"
    r"|\bany of them\b|\b(?:print|output|find|give|report) any\b"
    r"(?! (?:prompts?|other|extra|additional|text|messages?|more|unnecessary))"
    r"|\bany (?:valid|correct|such|one)\b[^.\n]{0,60}accept"
    r"|multiple (?:valid |correct |possible |optimal )?(?:answers|solutions|outputs)|another valid|special judge"
    r"|\b(?:print|output|list|write)\b[^.\n]{0,60}in any order|any (?:valid )?order is|любо[йе] из|任意一个|どれを出力"
    r"|any (?:answer|solution|output) (?:will be|is|are)",
    re.IGNORECASE | re.MULTILINE,
)
_FILES = re.compile(r"\(file \w{1,40}\.(?:in|out)\)", re.IGNORECASE)
_NO_INPUT = re.compile(
    r"\bno input\b|(?:does not|doesn't) (?:take|have|read|need) (?:any )?input|input is empty|empty input"
    r"|keine eingabe|нет входных",
    re.IGNORECASE,
)
_PROSE_WORD = re.compile(
    r"\b(?:the|contains?|line|integers?|consists?|single|each|given|print|output|first|second|denot\w+|number of|should"
    r"|you|where|separated|followed|string|one|will|an?|for|of)\b",
    re.IGNORECASE,
)
_DATA = re.compile(r"[-+]?\d[\d.,eE+-]*|[-+#.*@_/\\|<>=!?^~$%&]+|YES|NO|Yes|No|true|false|True|False|[A-Za-z]")
_ARGUMENTS = re.compile(r"[ \t]{0,9}(?:[A-Za-z_]\w{0,40}(?:\[\w{0,9}\])? ?= ?\S|[\[\"'({])")
# What stands for data, or beside it, and is not the data.
_ELISION = re.compile(
    r"[ \t]{0,9}(?:\[?\.{3}\]?|\[?…\]?|⋮|:|\(\d* ?more [^\n]{0,40}\))[ \t]{0,9}|[^\n]{0,4000} (?:\.{3}|…)"
)
_STAND_IN = re.compile(
    r"\W{0,3}(?:empty(?: (?:line|string|output|input))?|nothing(?: is printed)?|none|no (?:in|out)put|blank)\W{0,3}"
    r"|(?:<[^<>\n]{1,80}>\s{0,9}){1,40}|\$[^\n]{0,400}\$",
    re.IGNORECASE,
)
_MARKED = re.compile(
    r"<-|←|⏎|↵|␣|(?:\A|\n)(?:<EOF>|\^[DZ])(?:\n|\Z)|\S[ \t]{1,20}(?:#|//) [A-Za-z]{2,20} [A-Za-z]{2,20}"
)
_ASKS = re.compile(r"(?:enter|please|input)\b[^\n]{0,80}:", re.IGNORECASE)
_NUMBERED = re.compile(r"[ \t]{0,9}\d{1,4}\|")
_TAGS_OF_CELLS = re.compile(r"</?(?:pre|code)>", re.IGNORECASE)


def sample_examples(source: Source, *, reads_stdin: bool) -> Iterator[Example]:
    """The samples of a program that reads stdin, in the order of the text.

    Args:
        source: the prompt.
        reads_stdin: whether it says so; if it does not, arguments as `nums = [1, 2]` are no input.
    """
    if not _is_judged_by_samples(source):
        return
    blocks = labelled_blocks(source)
    for at, first in enumerate(blocks):
        outputs = list(itertools.takewhile(lambda block: block.is_input is False, blocks[at + 1 : at + 9]))
        second = _output_of(first, outputs)
        if not first.is_input or second is None or not (first.certain and second.certain):
            continue
        given, shown = _texts(first, second)
        if not shown and not (second.is_fenced and second.is_sample):
            continue
        if not given and not first.is_fenced and _NO_INPUT.search(source.text) is None:
            continue
        sample = first.is_sample or second.is_sample or (first.is_code and second.is_code)
        if not (_is_data(given, sample=sample) and _is_data(shown, sample=sample)) or source.denied(first.start):
            continue
        if is_pair(given, shown, reads_stdin=reads_stdin):
            yield Example(first.start, second.end, "sample", stdin=_ended(given), stdout=_ended(shown))


def cell_samples(source: Source, rows: Iterator[tuple[int, int, str, str]], *, reads_stdin: bool) -> Iterator[Example]:
    """The samples of a table's rows.

    Args:
        source: the prompt.
        rows: where a row begins and ends, and its cells of input and output.
        reads_stdin: as in `sample_examples`.
    """
    if not _is_judged_by_samples(source):
        return
    for start, end, given, shown in rows:
        if r"\n" in given + shown or (VARIABLE.fullmatch(given) and len(shown.split()) > 1):
            continue
        given, shown = (_cell(text) for text in (given, shown))
        if given and shown and is_pair(given, shown, reads_stdin=reads_stdin):
            yield Example(start, end, "table", stdin=_ended(given), stdout=_ended(shown))


def is_stdin_header(name: str) -> bool | None:
    """Whether a table's header names inputs, False for outputs, None for something else."""
    label = LABEL.fullmatch(name)
    return None if label is None else bool(label["input"])


def is_pair(given: str, shown: str, *, reads_stdin: bool) -> bool:
    """Whether two texts are what goes in and what comes out, and nothing that only stands for it."""
    if any(_STAND_IN.fullmatch(text.strip()) or _MARKED.search(text) or _is_cut(text) for text in (given, shown)):
        return False
    lines = given.split("\n")
    if not reads_stdin and any(_ARGUMENTS.match(line) for line in lines[:20]):
        return False
    if _ASKS.match(given) or all(map(_NUMBERED.match, lines)) or all(map(_NUMBERED.match, shown.split("\n"))):
        return False
    in_quotes = [len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" for text in (given, shown)]
    return not all(in_quotes) and not any(line.strip().lower() == "or" for line in shown.split("\n"))


def _is_judged_by_samples(source: Source) -> bool:
    """Whether a right program prints the samples' outputs, to stdout."""
    if _NOT_BY_SAMPLES.search(source.text):
        return False
    return _FILES.search(source.text) is None or re.search(r"\bstd(?:in|out)\b|standard", source.text) is not None


def _output_of(first: Block, outputs: list[Block]) -> Block | None:
    """The output of an input: the one that follows, of several the expected one or that of its number."""
    if len(outputs) > 1:
        chosen = [block for block in outputs if block.is_expected or (block.number and block.number == first.number)]
        outputs = chosen if len(chosen) == 1 else []
    if not outputs or (first.number and outputs[0].number and first.number != outputs[0].number):
        return None
    return outputs[0]


def _texts(first: Block, second: Block) -> tuple[str, str]:
    """Both texts without the blanks that both begin with: an output's own first blanks are data."""
    margin = _margin(first.lines)
    own = _margin(second.lines)
    if first.is_fenced or second.is_fenced or not any(first.lines):
        least = 0 if second.is_fenced else own
    else:
        least = min(own, margin)
    given, shown = (
        "\n".join(line[cut:] for line in lines).strip("\n")
        for lines, cut in ((first.lines, 0 if first.is_fenced else margin), (second.lines, least))
    )
    return given, shown


def _margin(lines: tuple[str, ...]) -> int:
    return min((len(line) - len(line.lstrip(" \t")) for line in lines if line.strip()), default=0)


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


def _is_variable(token: str) -> bool:
    return len(token) == 1 and token.isalpha()


def _is_cut(text: str) -> bool:
    """Whether a line says that some are left out. A line of dots beside others of its length is part of a picture."""
    lines = text.split("\n")
    for at, line in enumerate(lines[:2_000]):
        if _ELISION.fullmatch(line) is None:
            continue
        beside = lines[max(0, at - 1) : at] + lines[at + 1 : at + 2]
        if not (set(line) <= {"."} and any(len(other) == len(line) for other in beside)):
            return True
    return False


def _cell(text: str) -> str:
    """A cell's text as lines."""
    plain = re.sub(r"[ \t]*<br[ ]?/?>[ \t]*", "\n", _TAGS_OF_CELLS.sub("", text)).replace(r"\|", "|")
    return html.unescape(plain).strip(" \t`")


def _ended(text: str) -> str:
    return f"{text}\n" if text else ""
