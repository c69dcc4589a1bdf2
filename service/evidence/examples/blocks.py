"""Examples that do not show the call: "Input: … Output: …", "For x = 3 the output should be 9", `[1, 2] ==> 3`."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from service.evidence.examples.calls import ARROW, VERB
from service.evidence.examples.inputs_text import bare_text, inputs_at
from service.evidence.examples.literals import NotLiteral
from service.evidence.examples.source import Arguments, Source, rendered
from service.evidence.examples.types import Example

MAX_LINE = 4_000
MAX_LINES = 10_000  # that are looked at
MAX_INPUT = 20_000  # characters between the two labels
MAX_INSIDE = 20  # sentences of a line
MAX_BETWEEN = 4  # lines between an assignment and its `return`

_FOREIGN_INPUT = "entrée|entree|eingabe|entrada|ingresso|ввод|входные данные|вход|输入|輸入|入力|입력"
_FOREIGN_OUTPUT = "sortie|ausgabe|salida|saída|saida|uscita|вывод|выходные данные|выход|输出|輸出|出力|출력"
LABEL = re.compile(
    r"(?:(?<![\w.])|(?<=[样示范]例))(?:(?:sample|example|expected|test)[ \t])?"
    r"(?P<word>input|output|expected|result|return|answer|argument|arg|explanation|note|constraint|reason"
    rf"|{_FOREIGN_INPUT}|{_FOREIGN_OUTPUT})s?"
    r"(?:[ \t]{0,3}#?\d{1,3})?[*_`]{0,3}[ \t]{0,3}(?:\([^()\n]{0,60}\)[ \t]{0,3})?"
    r"(?:(?P<sign>[:：]|=(?!=))[*_`]{0,3}|[ \t]{0,9}$)",
    re.IGNORECASE | re.MULTILINE,
)
_INPUT_WORDS = ("input", "argument", "arg", *_FOREIGN_INPUT.split("|"))
_OUTPUT_WORDS = ("output", "expected", "result", "return", "answer", *_FOREIGN_OUTPUT.split("|"))
_HEADLINE = re.compile(r"[\s#*_`>-]{0,80}\Z")  # before a label that ends its line without a colon
_REMAINS = re.compile(
    rf"(?:[\s,;|*_`#.•()-]|{ARROW}|the\b|expected\b|sample\b|example\b|```\w{{0,20}}){{0,80}}\Z", re.IGNORECASE
)
_FENCE = re.compile(r"[\s*_]{0,80}(?:`{3,}[\w+-]{0,20}[ \t]{0,9}\n)?[\s*_>]{0,80}")

_HEADING = re.compile(
    r"\b(?:examples?|exampels?|examble|e\.g|eg|samples?|test cases?|tests?|usage|for instance|ex)\b", re.IGNORECASE
)
_LEAD = re.compile(
    r"[ \t]{0,80}(?:[rR]?(?:\"{3}|'{3})[ \t]{0,9})?(?:(?:[*•#/>+-]{1,3}|\d{1,3}[.)])(?=[ \t]))?[ \t]{0,9}"
    r"(?P<heading>(?:(?:for )?(?:examples?|instance)|e\.g\.?|ex|(?:test[ \t])?case|test)"
    r"(?:[ \t]{0,3}#?\d{1,3}(?=[ \t]?[,:.)](?:[ \t]|\Z)))?[ \t]{0,3}(?:[,:.)](?=[ \t]|\Z))?[ \t]{0,9})?"
    r"(?P<word>(?:for|(?:when |if )?given|with|when|if|input|on|passing|where)\b"
    r"(?:[ \t](?:the |an? )?(?:inputs?|arguments?)\b)?"
    r"(?:[ \t](?:of|is)\b)?:?)?[ \t]{0,9}",
    re.IGNORECASE,
)
_INSIDE = re.compile(  # where a sentence begins inside a line
    r"[.:;!?][ \t]{1,3}(?=[A-Za-z])|(?:,[ \t]{1,3}|\(|[—–-][ \t]{1,3})(?=(?:for (?:example|instance)|e\.g)\b)",
    re.IGNORECASE,
)
_LISTED = re.compile(r"[ \t`]{0,8}(?:[,;](?:[ \t]and)?|and)[ \t]{1,3}")  # between the examples of a list in a line
_SO_ON = re.compile(r"[ \t`]{0,8}[,;]?[ \t]{0,3}(?:\.\.\.|…|etc\b|and so (?:on|forth)\b)", re.IGNORECASE)
_RELATED = re.compile(
    rf"[`*\"]{{0,2}}[ \t]{{0,80}}(?:[,:;][ \t]{{0,9}})?(?:then[ \t]|so[ \t])?(?:(?P<arrow>{ARROW})|"
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
_PLAIN_FENCE = re.compile(r"\s{0,80}`{3,}(?:te?xt|plain|plaintext|console|output)?[ \t]{0,9}\Z")
_SHOWS = re.compile(rf"{ARROW}|\breturns?\b|==")
_STRONG = ("return", "give", "yield", "output", "produce", "result", "evaluate")


def labelled_examples(source: Source) -> Iterator[Example]:
    """The examples in blocks of an input and an output."""
    labels = [label for label in LABEL.finditer(source.text) if label["sign"] or _is_headline(source, label.start())]
    for first, second, third in itertools.zip_longest(labels, labels[1:], labels[2:]):
        if second is None:
            break
        words = first["word"].lower(), second["word"].lower()
        if source.reader.budget <= 0:
            break
        if words[0] not in _INPUT_WORDS or words[1] not in _OUTPUT_WORDS or not _ours(source, first.start()):
            continue
        if _is_what_came_out(source, second, third):
            source.taken.append((first.start(), second.end()))
            continue
        if second.start() - first.end() > MAX_INPUT or not source.free(first.start(), second.end()):
            continue
        try:
            arguments, end = inputs_at(source, _after_fence(source, first.end()), second.start())
            bare = _is_bare(source, arguments, first.end(), end)
            if _REMAINS.match(source.text[end : second.start()]) is None or source.denied(first.start()):
                continue
            expected, end = _stated(source, _after_fence(source, second.end()), bare=bare)
        except NotLiteral:
            continue
        style = "leetcode" if "." in (source.signature.entry_point or "") else "input_output"
        yield Example(first.start(), end, style, rendered(arguments), expected)


def _is_what_came_out(source: Source, shown: re.Match[str], following: re.Match[str] | None) -> bool:
    """Whether an output is followed by the expected one, as a report of a wrong answer shows them."""
    return (
        following is not None
        and "expected" not in shown[0].lower()
        and "expected" in following[0].lower()
        and source.text.count("\n", shown.end(), following.start()) <= 2
    )


def _is_headline(source: Source, place: int) -> bool:
    """Whether nothing but marks stands before a label on its line."""
    start = source.line(source.line_number(place))[0]
    return place - start <= 80 and _HEADLINE.match(source.text[start:place]) is not None


def _is_bare(source: Source, arguments: Arguments, start: int, end: int) -> bool:
    """Whether a text among the arguments is written without quotes."""
    return any(value[0] in "'\"" and value not in source.text[start:end] for _, value in arguments) and not re.search(
        r"['\"“‘]", source.text[start:end]
    )


def _stated(source: Source, place: int, *, bare: bool) -> tuple[str, int]:
    """The stated value, or a text without quotes where the function returns a text, or its inputs have no quotes."""
    try:
        return source.stated(place)
    except NotLiteral:
        return bare_text(source, place, source.line_end(place), known=bare or source.signature.returns == "str")


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
    in_examples = fenced = False
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
        if line.lstrip().startswith("```"):
            fenced = not fenced and _PLAIN_FENCE.match(line) is not None
            continue
        heading = fenced or _HEADING.search(line[:200]) is not None
        in_examples = in_examples or heading
        listing = listing or (previous.rstrip().endswith(":") and _HEADING.search(previous[:200]) is None)
        quiet = not (in_examples or (source.in_docstring(start) and not listing))
        lead = _LEAD.match(source.text, start, end)
        examples = []
        if lead is not None and _ours(source, start):
            example = None
            returned = _RETURNED.match(source.text, start, end)
            if pending is not None and returned is not None and number - pending[0] <= MAX_BETWEEN:
                example = _returned(source, pending, returned.end())
                pending = None
            else:
                try:
                    arguments, inputs_end = inputs_at(source, lead.end(), end)
                    if not source.text[inputs_end:end].strip(" \t,.;"):
                        pending = (number, start, arguments) if "=" in line else None
                    example = _sentence(source, lead, arguments, inputs_end, quiet=quiet)
                except NotLiteral:
                    pass
            read = [] if example is None else [example]
            read += _later_sentences(source, example, start, end, quiet=quiet)
            if read and not _is_mapping(source, read):
                examples = [one for one in read if source.free(one.start, one.end)]
        yield from examples
        if not examples and not heading and not _SHOWS.search(line):
            in_examples = False
        previous = line if source.in_docstring(start) else ""


def _is_mapping(source: Source, examples: list[Example]) -> bool:
    """Whether a line shows the steps or the edges of something, or how elements are mapped: 'a' -> 1, 'b' -> 2, ..."""
    return _SO_ON.match(source.text, examples[-1].end) is not None or any(
        first.expected == second.arguments for first, second in itertools.pairwise(examples)
    )


def _later_sentences(source: Source, first: Example | None, start: int, end: int, *, quiet: bool) -> Iterator[Example]:
    """The examples of a line behind its first: "given 3, return 9", and a list's: `7 -> True, 8 -> False`.

    Args:
        source: of the prompt.
        first: the example that the line begins with, if it does.
        start: of the line.
        end: of the line.
        quiet: nothing around the line says that it has examples.
    """
    example = first
    for _ in range(MAX_INSIDE):
        listed = None if example is None else _LISTED.match(source.text, example.end, end)
        begin = listed or _INSIDE.search(source.text, start if example is None else example.end, end)
        lead = None if begin is None else _LEAD.match(source.text, begin.end(), end)
        if begin is None or lead is None:
            return
        example, start = None, begin.end()
        if listed or lead["heading"] or lead["word"]:
            try:
                arguments, inputs_end = inputs_at(source, lead.end(), end)
                example = _sentence(source, lead, arguments, inputs_end, quiet=quiet)
            except NotLiteral:
                continue
        if example is not None:
            yield example


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
