"""Examples in Markdown tables: a column of inputs, or one per parameter, and a column of outputs."""

from __future__ import annotations

import re
from collections.abc import Iterator

from service.evidence.examples.inputs_text import as_arguments, bare_text, describes, inputs_at
from service.evidence.examples.literals import NotLiteral
from service.evidence.examples.samples import is_stdin_header
from service.evidence.examples.source import MAX_EXAMPLES, Arguments, Source, rendered
from service.evidence.examples.types import Example

MAX_ROW = 4_000
MAX_COLUMNS = 20

_RULE = re.compile(r"[ \t]{0,40}[|+]?[ \t:+=|-]{3,400}\Z")
_OUTPUT = re.compile(r"(?:expected|output|out|result|returns?|return(?:ed)? value|answer|value)(?:[ ]\w{1,20})?\Z")
_INPUT = re.compile(r"(?:sample |example )?(?:inputs?|arguments?|args|call|function call|expression|parameters?)\Z")
_IGNORED = re.compile(
    r"(?:#|no\.?|case|test|test case|example|id|explanation|reason|notes?|comments?|why|description|name)?\Z"
)
_CLOSING = re.compile(r"[\s`*]{0,80}\Z")

Cell = tuple[int, int]


def table_examples(source: Source) -> Iterator[Example]:
    """The examples of every table whose header names an output and the inputs."""
    number = count = 0
    while number + 1 < len(source.line_starts) and count < MAX_EXAMPLES:
        number += 1
        if not _is_rule(source, number):
            continue
        header = [source.text[slice(*cell)].strip(" \t`*").lower() for cell in _cells(source, number - 1)]
        columns = _columns(source, header)
        if columns is None:
            continue
        while "|" in source.text[slice(*source.line(number + 1))] and count < MAX_EXAMPLES:
            number += 1
            cells = _cells(source, number)
            if len(cells) != len(header):
                continue
            try:
                yield _row(source, cells, columns)
            except NotLiteral:
                continue
            count += 1


def sample_rows(source: Source) -> Iterator[tuple[int, int, str, str]]:
    """The rows of tables of one input and one output column: their place, and both cells' texts."""
    number = 0
    while number + 1 < len(source.line_starts):
        number += 1
        if not _is_rule(source, number):
            continue
        header = [source.text[slice(*cell)].strip(" \t`*") for cell in _cells(source, number - 1)]
        kinds = [is_stdin_header(name) for name in header]
        if kinds.count(True) != 1 or kinds.count(False) != 1:
            continue
        while "|" in source.text[slice(*source.line(number + 1))]:
            number += 1
            cells = _cells(source, number)
            if len(cells) == len(header):
                texts = [source.raw[slice(*cell)].strip(" \t`") for cell in cells]
                given, shown = texts[kinds.index(True)], texts[kinds.index(False)]
                if not describes(given) and not describes(shown):
                    yield cells[0][0], cells[-1][1], given, shown


def _is_rule(source: Source, number: int) -> bool:
    start, end = source.line(number)
    return (
        end - start < MAX_ROW
        and "-" in source.text[start:end]
        and ("|" in source.text[start:end] or "+" in source.text[start:end])
        and bool(_RULE.match(source.text[start:end]))
    )


def _columns(source: Source, header: list[str]) -> tuple[list[int], int, list[str]] | None:
    """The columns of the inputs and of the output, and the parameters' names; None for another table."""
    called = source.name.lower()
    outputs = [place for place, name in enumerate(header) if _OUTPUT.match(name) or name == called != ""]
    if not outputs:
        return None
    own = {parameter.name.lower() for parameter in source.parameters}
    ignored = [place for place, name in enumerate(header) if _IGNORED.match(name) and name not in own]
    inputs = [place for place in range(len(header)) if place != outputs[-1] and place not in ignored]
    known = [parameter.name for parameter in source.parameters]
    originals = {name.lower(): name for name in known}
    names = [originals.get(header[place], header[place]) for place in inputs]
    if len(inputs) == 1 and _INPUT.match(header[inputs[0]]):
        return inputs, outputs[-1], []
    if not inputs or (known and not set(names) <= set(known)) or not all(name.isidentifier() for name in names):
        return None
    return inputs, outputs[-1], names


def _row(source: Source, cells: list[Cell], columns: tuple[list[int], int, list[str]]) -> Example:
    inputs, output, names = columns
    expected = _value(source, cells[output], is_text=source.signature.returns == "str")
    if names:
        texts = {parameter.name for parameter in source.parameters if parameter.annotation == "str"}
        items: Arguments = [
            (name, _value(source, cells[place], is_text=name in texts))
            for name, place in zip(names, inputs, strict=True)
        ]
        arguments = as_arguments(source, items)
    else:
        start, limit = cells[inputs[0]]
        arguments, end = inputs_at(source, start, limit)
        if _CLOSING.match(source.text[end:limit]) is None:
            raise NotLiteral
    return Example(cells[0][0], cells[-1][1], "table", rendered(arguments), expected)


def _value(source: Source, cell: Cell, *, is_text: bool) -> str:
    start, limit = cell
    while start < limit and source.text[start] in " \t`*":
        start += 1
    try:
        value, end = source.value(start, limit)
    except NotLiteral:
        value, end = bare_text(source, start, limit, known=is_text)
    if _CLOSING.match(source.text[end:limit]) is None:
        raise NotLiteral
    return value


def _cells(source: Source, number: int) -> list[Cell]:
    """Where the cells of a row begin and end, without their blanks; a bar in quotes or after a backslash is text."""
    start, end = source.line(number)
    if end - start > MAX_ROW:
        return []
    cells: list[Cell] = []
    first, quote = start, ""
    for at in range(start, end):
        character = source.text[at]
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"" and character in source.text[at + 1 : end]:
            quote = character
        elif character == "|" and source.text[at - 1 : at] != "\\":
            cells.append((first, at))
            first = at + 1
    cells.append((first, end))
    spans = [_trimmed(source.text, *cell) for cell in cells]
    if spans and spans[0][0] == spans[0][1]:
        spans = spans[1:]
    if spans and spans[-1][0] == spans[-1][1]:
        spans = spans[:-1]
    return spans if 2 <= len(spans) <= MAX_COLUMNS else []


def _trimmed(text: str, start: int, end: int) -> Cell:
    piece = text[start:end]
    lead = len(piece) - len(piece.lstrip())
    return (start + lead, start + max(lead, len(piece.rstrip())))
