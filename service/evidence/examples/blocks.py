"""Examples that do not show the call: "Input: … Output: …", "For x = 3 the output should be 9", `[1, 2] ==> 3`."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from service.evidence.examples.calls import ARROW, VERB
from service.evidence.examples.inputs_text import inputs_at
from service.evidence.examples.literals import NotLiteral
from service.evidence.examples.source import Arguments, Source, rendered
from service.evidence.examples.types import Example

MAX_LINE = 4_000
MAX_LINES = 10_000  # that are looked at
MAX_INPUT = 20_000  # characters between the two labels
MAX_BETWEEN = 4  # lines between an assignment and its `return`

LABEL = re.compile(
    r"(?<![\w.])(?:(?:sample|example|expected|test)[ \t])?"
    r"(?P<word>input|output|expected|result|return|answer|argument|arg|explanation|note|constraint|reason)s?"
    r"(?:[ \t]{0,3}#?\d{1,3})?[*_`]{0,3}[ \t]{0,3}(?:\([^()\n]{0,60}\)[ \t]{0,3})?(?::|=(?!=))[*_`]{0,3}",
    re.IGNORECASE,
)
_INPUT_WORDS = ("input", "argument", "arg")
_OUTPUT_WORDS = ("output", "expected", "result", "return", "answer")
_REMAINS = re.compile(
    rf"(?:[\s,;|*_`#.•()-]|{ARROW}|the\b|expected\b|sample\b|example\b|```\w{{0,20}}){{0,80}}\Z", re.IGNORECASE
)
_FENCE = re.compile(r"[\s*_]{0,80}(?:`{3,}[\w+-]{0,20}[ \t]{0,9}\n)?[\s*_>]{0,80}")

_HEADING = re.compile(
    r"\b(?:examples?|exampels?|examble|e\.g|eg|samples?|test cases?|tests?|usage|for instance|ex)\b", re.IGNORECASE
)
_LEAD = re.compile(
    r"[ \t]{0,80}(?:[rR]?(?:\"{3}|'{3})[ \t]{0,9})?(?:(?:[*•#/>+-]{1,3}|\d{1,3}[.)])(?=[ \t]))?[ \t]{0,9}"
    r"(?P<heading>(?:(?:for )?(?:example|instance)|e\.g\.?|ex)[ \t]{0,3}\d{0,3}[ \t]{0,3}[,:.]?[ \t]{0,9})?"
    r"(?P<word>(?:for|given|with|when|if|input|on|passing|where)\b(?:[ \t](?:the |an? )?(?:inputs?|arguments?)\b)?"
    r"(?:[ \t](?:of|is)\b)?:?)?[ \t]{0,9}",
    re.IGNORECASE,
)
_RELATED = re.compile(
    rf"[`*\"]{{0,2}}[ \t]{{0,9}}(?:[,:;][ \t]{{0,9}})?(?:then[ \t]|so[ \t])?(?:(?P<arrow>{ARROW})|"
    rf"(?P<said>(?:(?:the|your|our|it|we|you|this|that)\b[ \t]{{0,3}})?"
    rf"(?:(?:expected |correct |final )?"
    rf"(?:function|output|result|answer|value|return value|call|method|code|response)[ \t]{{1,3}})?{VERB})"
    rf"|(?P<label>(?:the )?(?:expected )?(?:output|result|answer|expected)[ \t]{{0,3}}(?:[:=]|(?=[\d\[({{'\"]))))"
    rf"[ \t]{{0,9}}",
    re.IGNORECASE,
)
_RETURNED = re.compile(
    rf"[ \t]{{0,80}}(?:{ARROW})?[ \t]{{0,9}}(?:returns?|output|result|answer)[ \t]{{0,3}}[:=]?[ \t]{{1,9}}",
    re.IGNORECASE,
)
_SHOWS = re.compile(rf"{ARROW}|\breturns?\b|==")
_STRONG = ("return", "give", "yield", "output", "produce", "result", "evaluate")


def labelled_examples(source: Source) -> Iterator[Example]:
    """The examples in blocks of an input and an output."""
    labels = list(LABEL.finditer(source.text))
    for first, second in itertools.pairwise(labels):
        words = first["word"].lower(), second["word"].lower()
        if source.reader.budget <= 0:
            break
        if words[0] not in _INPUT_WORDS or words[1] not in _OUTPUT_WORDS or not _ours(source, first.start()):
            continue
        if second.start() - first.end() > MAX_INPUT or not source.free(first.start(), second.end()):
            continue
        try:
            arguments, end = inputs_at(source, _after_fence(source, first.end()), second.start())
            if _REMAINS.match(source.text[end : second.start()]) is None or source.denied(first.start()):
                continue
            expected, end = source.stated(_after_fence(source, second.end()))
        except NotLiteral:
            continue
        style = "leetcode" if "." in (source.signature.entry_point or "") else "input_output"
        yield Example(first.start(), end, style, rendered(arguments), expected)


def _after_fence(source: Source, place: int) -> int:
    opening = _FENCE.match(source.text, place)
    return opening.end() if opening else place


def _ours(source: Source, place: int) -> bool:
    """Whether a place is not inside another function than the one that is asked for."""
    return not any(
        definition.start <= place < definition.end and definition != source.signature.definition
        for definition in source.definitions
    )


def sentence_examples(source: Source) -> Iterator[Example]:
    """The examples of single lines, and of an assignment with its `return` below."""
    in_examples = False
    pending: tuple[int, int, Arguments] | None = None
    listing = False  # below a line such as "Legend:"
    previous = ""
    for number in range(min(len(source.line_starts), MAX_LINES)):
        if source.reader.budget <= 0:
            break
        start, end = source.line(number)
        line = source.text[start : min(end, start + MAX_LINE)]
        if not line.strip():
            listing, previous = False, ""
            continue
        heading = _HEADING.search(line[:200]) is not None
        in_examples = in_examples or heading
        listing = listing or (previous.rstrip().endswith(":") and _HEADING.search(previous[:200]) is None)
        docstring = source.in_docstring(start) and not listing
        lead = _LEAD.match(source.text, start, end)
        example = None
        if lead is not None and _ours(source, start):
            returned = _RETURNED.match(source.text, start, end)
            if pending is not None and returned is not None and number - pending[0] <= MAX_BETWEEN:
                example = _returned(source, pending, returned.end())
                pending = None
            else:
                try:
                    arguments, inputs_end = inputs_at(source, lead.end(), end)
                    if not source.text[inputs_end:end].strip():
                        pending = (number, start, arguments) if "=" in line else None
                    example = _sentence(source, lead, arguments, inputs_end, quiet=not (in_examples or docstring))
                except NotLiteral:
                    pass
        if example is not None and source.free(example.start, example.end):
            yield example
        elif not heading and not _SHOWS.search(line):
            in_examples = False
        previous = line if source.in_docstring(start) else ""


def _returned(source: Source, pending: tuple[int, int, Arguments], place: int) -> Example | None:
    try:
        expected, end = source.stated(place)
    except NotLiteral:
        return None
    return Example(pending[1], end, "input_output", rendered(pending[2]), expected)


def _sentence(source: Source, lead: re.Match[str], arguments: Arguments, end: int, *, quiet: bool) -> Example | None:
    """The example of one line, from behind its inputs.

    Args:
        source: of the prompt.
        lead: what stands before the inputs.
        arguments: the inputs.
        end: where they end.
        quiet: nothing around the line says that it is an example.
    """
    relation = _RELATED.match(source.text, end, source.line_end(end))
    if relation is None or source.denied(lead.end()):
        return None
    said = relation["said"]
    named = "=" in source.text[lead.end() : end].split("[")[0].split("'")[0]
    if lead["word"] is None and not named:
        strong = relation["arrow"] is not None or (said is not None and any(word in said.lower() for word in _STRONG))
        if quiet or not strong:
            return None
    elif (
        lead["word"] is not None
        and not named
        and said is not None
        and said.strip() in ("is", "be", "equals", "becomes")
    ):
        return None  # "for 6 is 3" says too little
    expected, value_end = source.stated(relation.end())
    return Example(
        lead.start() + len(lead[0]) - len(lead[0].lstrip()), value_end, "sentence", rendered(arguments), expected
    )
