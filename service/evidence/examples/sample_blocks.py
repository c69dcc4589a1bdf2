"""Labelled blocks of a prompt: what stands under "Sample Input 1", "Output:", "### Input" and their like.

- A block ends at the next label, heading or fence; an output also at a blank line. Where it may go on, or may hold more
  than data, it is not certain.
- A short line that says input or output and is no label, as "My output:", ends a block and is one that is neither.
- Blocks hold the prompt's own characters: what other forms read is changed (tags, quote marks, continued lines).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from service.evidence.examples.source import MAX_EXAMPLES, Source

MAX_SAMPLE = 20_000  # characters of one input or output
MAX_LABEL = 80

STDIN = r"st(?:d|andard )\s?in(?:put)?"
_STDOUT = r"st(?:d|andard )\s?out(?:put)?"
LABEL = re.compile(
    r"[ \t]{0,40}(?:[-=]{2,20}|#{1,6}|[*_>-]{1,3}|\d{1,3}[.)])?[ \t]{0,9}[*_`]{0,3}"
    r"(?P<lead>(?:sample|examples?|test|expected|correct)(?:[ \t]case)?[ \t]{1,3}"
    r"(?:#?(?P<before>\d{1,3})[ \t]{0,3}[:.-]?[ \t]{0,3})?"
    r"|(?:for (?:example|instance)[,:]? )?(?:(?:if|when|for|given|then) )?the (?=[^\n]{0,40}:)"
    r"|exemple (?:d['’]|de )|beispiel[- ]?|ejemplos? de |exemplos? de |esempio di |пример(?:ы)? |예제 |[样示范]例)?"
    r"(?:"
    rf"(?P<input>{STDIN}|inputcopy|input|入力例|入力|entrada|entrée|eingabe|ввода?|входные данные"
    r"|входных данных|输入|輸入|입력)"
    rf"|(?P<output>{_STDOUT}|outputcopy|output|出力例|出力|saida|saída|salida|sortie|ausgabe|вывода?"
    r"|выходные данные|выходных данных|输出|輸出|출력))"
    r"(?P<tail>[ \t]{1,3}(?:sample|example|copy|data|format|specification|description|is|(?:should|will|would|must) be"
    r"|for (?:the )?sample(?: input)?|\((?:file [\w.]{1,40}|stdin|stdout)\))"
    r"|[ \t]?(?:[样示范]例|格式))?"
    r"(?:[ \t]{0,3}[#(]?(?P<after>\d{1,3})\)?)?(?:[ \t]{1,3}(?:복사|copy))?[*_`]{0,3}[ \t]{0,3}"
    r"(?P<colon>[:：])?[*_`]{0,3}[ \t]{0,9}(?:[-=]{2,20}|#{1,6})?[ \t]{0,9}",
    re.IGNORECASE,
)
_SECTION = re.compile(
    r"[ \t]{0,40}(?:[-=]{2,20}|#{1,6}|\*\*|[*_])?[ \t]{0,9}"
    r"(?:(?P<remark>notes?|(?:sample )?explanations?|constraints?|hints?|scoring|subtasks?|limits?|remarks?|warning"
    r"|authors?|source|recommend|problem credits|statistics?|(?:in|out)put details|explica\w{1,10}|comentários?"
    r"|解説|说明(?:/提示)?|提示|数据范围|样例解释|примечани[ея]|ограничения|пояснени[ея]|힌트|출처)"
    r"|(?P<sample>examples?|samples?|sample tests?|test cases?|tests?|примеры?|示例|样例|输入输出样例|예제)"
    r"|task|problem(?: statement)?)"
    r"(?:[ \t]{1,3}#?\d{1,3})?[*_]{0,3}[ \t]{0,3}[:：]?[*_]{0,3}[ \t]{0,9}(?:[-=]{2,20})?[ \t]{0,9}(?P<rest>.{0,200})",
    re.IGNORECASE,
)
_OTHER_LABEL = re.compile(r"[^\n.]{0,40}\b(?:in|out)puts?\b[^\n.]{0,40}", re.IGNORECASE)
_OUTPUT_BEHIND = re.compile(r"[,;]?[ \t]{1,9}(?:expected |sample )?output[ \t]{0,3}[:：][ \t]{0,9}", re.IGNORECASE)
_COPY = frozenset(("copy", "复制", "복사", "コピー", "copiar", "копировать"))  # a page's button
_FENCE = re.compile(r"[ \t]{0,9}(`{3,}|~{3,})[\w+-]{0,20}[ \t]{0,9}\Z")
VARIABLE = re.compile(r"[A-Za-z](?:_\{?\w{1,9}\}?)?|[A-Za-z]\d|\\?[a-z]?dots|[.:…]{1,3}|\w{1,9}_\w{1,9}")


@dataclass(frozen=True, slots=True)
class Block:
    """The text under one label.

    Attributes:
        start: of the label.
        end: of the text.
        is_input: whether the label says input; None: it is neither an input nor the output that is asked for.
        number: of the label, as it stands there.
        is_expected: whether the label says that this output is the expected one.
        is_sample: whether the label, or a heading above, says that it is a sample.
        is_code: whether the text is fenced or indented as code is, and more than names of variables.
        is_fenced: whether it is fenced.
        lines: as they are, without blank lines around them.
        certain: whether it is known where the text ends.
    """

    start: int
    end: int
    is_input: bool | None
    number: str = ""
    is_expected: bool = False
    is_sample: bool = False
    is_code: bool = False
    is_fenced: bool = False
    lines: tuple[str, ...] = ()
    certain: bool = False


def labelled_blocks(source: Source) -> list[Block]:
    """All labelled blocks, in order."""
    blocks: list[Block] = []
    number, heading = 0, False
    while number < len(source.line_starts) and len(blocks) < 4 * MAX_EXAMPLES:
        start, end = source.line(number)
        line = source.text[start : min(end, start + 400)]
        label = LABEL.match(line)
        rest = line[label.end() :].strip() if label else ""
        if label is None or (rest and not label["colon"]) or _is_format(label["tail"]):
            section = _SECTION.match(line)
            if section is not None and (not section["rest"].strip() or ":" in line[:MAX_LABEL]):
                heading = section["sample"] is not None
            elif label is None and _is_other_label(line):
                blocks.append(Block(start, end, None))
            number += 1
            continue
        block = Block(
            start,
            end,
            bool(label["input"]),
            number=label["after"] or label["before"] or "",
            is_expected=(label["lead"] or "").lower().startswith(("expected", "correct")),
            is_sample=_says_sample(label, heading=heading),
        )
        found = _inline(source, start + label.end(), block) if rest else [_filled(source, number + 1, block)]
        blocks += found
        number = source.line_number(found[-1].end) + 1
    return blocks


def _is_format(tail: str | None) -> bool:
    return "format" in (tail or "").lower() or "格式" in (tail or "")


def _says_sample(label: re.Match[str], *, heading: bool) -> bool:
    words = label[0].lower()
    return heading or bool(label["lead"] or label["tail"]) or any(w in words for w in ("copy", "例", "std", "standard"))


def _is_other_label(line: str) -> bool:
    """Whether a line is short, says input or output, and is no sentence."""
    text = line.strip()
    return len(text) <= MAX_LABEL and len(text.split()) <= 6 and _OTHER_LABEL.fullmatch(text) is not None


def _inline(source: Source, place: int, block: Block) -> list[Block]:
    """What stands behind a label on its line: its text, or both texts of `Input: 3 Output: 9`.

    Args:
        source: the prompt.
        place: behind the label.
        block: of the label, without text.
    """
    number, end = source.line_number(block.start), block.end
    raw = _characters(source, number)
    behind = _OUTPUT_BEHIND.search(raw[place : min(end, place + 400)]) if block.is_input else None
    if behind is not None:
        middle, second = place + behind.start(), place + behind.end()
        texts = raw[place:middle].strip(), raw[second:end].strip()
        ticked = all(len(text) > 1 and text[0] == text[-1] == "`" for text in texts)
        given, shown = (text.strip("`") for text in texts)
        both = replace(
            block,
            is_code=ticked and _is_more_than_names([given, shown]),
            certain=ticked or all(re.fullmatch(r"[-+\d., ]{1,80}", text) for text in texts),
        )
        return [
            replace(both, end=middle, lines=(given,)),
            replace(both, start=second, is_input=False, lines=(shown,)),
        ]
    below = source.text[slice(*source.line(number + 1))]
    certain = not below.strip() or LABEL.match(below) is not None or _SECTION.match(below) is not None
    return [replace(block, lines=(raw[place:end].strip().strip("`"),), certain=certain)]


def _characters(source: Source, number: int) -> str:
    """The prompt's own text, unless the label in this line was only read in the changed one."""
    start, end = source.line(number)
    return source.raw if source.raw[start:end] == source.text[start:end] else source.text


def _filled(source: Source, number: int, block: Block) -> Block:
    """The block with the text from a line on."""
    label, last = number - 1, len(source.line_starts) - 1
    text = _characters(source, label)

    def line_at(at: int) -> str:
        return text[slice(*source.line(at))].rstrip()

    while number < last and (not line_at(number) or line_at(number).strip().lower() in _COPY):
        number += 1
    fence = _FENCE.match(line_at(number)[:40])
    if fence is not None:
        return _fenced(source, number, block, fence, line_at)
    lines: list[str] = []
    size = 0
    while number <= last and size < MAX_SAMPLE:
        line = line_at(number)
        if _stops(line) or _is_other_label(line) or (not block.is_input and not line):
            break
        lines.append(line)
        size += len(line) + 1
        number += 1
    while lines and not lines[-1]:
        lines.pop()
    is_whole = size < MAX_SAMPLE and not _holds_prose(lines)
    following = number
    while following <= last and not line_at(following):
        following += 1
    goes_on = not block.is_input and following <= last and _may_go_on(line_at(following).strip(), lines)
    return replace(
        block,
        end=source.line(number - 1 if lines else label)[1],
        is_code=bool(lines) and lines[0].startswith(("    ", "\t")) and _is_more_than_names(lines),
        lines=tuple(lines),
        certain=is_whole and not goes_on,
    )


def _fenced(source: Source, number: int, block: Block, fence: re.Match[str], line_at: Callable[[int], str]) -> Block:
    """The block in a fence that begins in this line."""
    indent, lines, size = len(fence[0]) - len(fence[0].lstrip(" ")), list[str](), 0
    for at in range(number + 1, len(source.line_starts)):
        line = line_at(at)
        size += len(line) + 1
        if size >= MAX_SAMPLE:
            break
        if line.strip().startswith(fence[1]):
            end = source.line(at)[1]
            is_code = _is_more_than_names(lines)
            return replace(block, end=end, is_code=is_code, is_fenced=True, lines=tuple(lines), certain=True)
        lines.append(line[min(indent, len(line) - len(line.lstrip(" "))) :])
    return replace(block, end=source.line(number)[1])


def _is_more_than_names(lines: list[str]) -> bool:
    return any(VARIABLE.fullmatch(token) is None for token in "\n".join(lines)[:2_000].split())


def _stops(line: str) -> bool:
    """Whether a line is a label, a heading or a fence, and so no part of a sample."""
    label = LABEL.match(line)
    if label is not None and (label.end() == len(line) or label["colon"]):
        return True
    section = _SECTION.match(line)
    if section is not None and (not section["rest"].strip() or (section["remark"] and ":" in line[:MAX_LABEL])):
        return True
    return _FENCE.match(line[:40]) is not None


def _holds_prose(lines: list[str]) -> bool:
    """Whether words about the data may have got into it: a sentence, or below a blank line words or brackets."""
    if not lines or len(re.findall(r"[^\W\d_]{2,}", lines[0][:400])) >= 2:
        return False
    below_blank = [later for above, later in itertools.pairwise(lines) if not above and later]
    return any(map(_is_sentence, lines[1:])) or any(
        line.startswith("(") or reads_as_prose(line) for line in map(str.strip, below_blank)
    )


def _is_sentence(line: str) -> bool:
    return line.rstrip().endswith((".", "。", ":")) and len(re.findall(r"[^\W\d_]{2,}", line[:400])) >= 4


def _may_go_on(line: str, lines: list[str]) -> bool:
    """Whether the line below an output's blank line may be more of it: data, or made as its first line is."""
    if _stops(line) or not lines:
        return False
    return not reads_as_prose(line) or lines[-1].endswith(",") or _shape(line) == _shape(lines[0].strip())


def _shape(line: str) -> str:
    return re.sub(r"\d+", "0", line[:200])


def reads_as_prose(line: str) -> bool:
    """Whether a line is of words, not data."""
    return (
        len(re.findall(r"[^\W\d_]{2,}", line[:400])) >= 3
        or line.endswith((".", ":", "。", '"""', "'''"))
        or line.startswith(("#", "def ", "class ", "import "))
        or re.search(r"[\u3040-\u30ff\uac00-\ud7af]", line[:400]) is not None
    )
