"""Examples in lists of data: JSON objects of an input and an output, and pytest's `parametrize`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from service.evidence.examples.inputs_text import as_arguments
from service.evidence.examples.literals import NotLiteral, as_source
from service.evidence.examples.source import MAX_EXAMPLES, Arguments, Source, rendered
from service.evidence.examples.types import Example

_INPUTS = ("input", "inputs", "args", "arguments", "params", "kwargs")
_OUTPUTS = ("output", "outputs", "expected", "expected_output", "result", "returns", "answer", "return")
_RECORD = re.compile(rf"\{{\s{{0,40}}['\"](?:{'|'.join(_INPUTS)})['\"]\s{{0,9}}:", re.IGNORECASE)
_PARAMETRIZE = re.compile(
    r"@pytest\.mark\.parametrize\(\s{0,40}(?P<names>(['\"])[\w, ]{1,200}\2|[(\[][\w, '\"]{1,200}[)\]])\s{0,9},"
    r"\s{0,40}[\[(]"
)
_ROW = re.compile(r"\s{0,80},?\s{0,80}(?=[\[(])")
_TEST = re.compile(
    r"\s{0,80},?\s{0,80}[\])],?\s{0,80}\)\s{0,40}def[ \t]{1,9}\w{1,100}\([^()\n]{0,400}\)[^\n:]{0,80}:"
    r"\s{0,80}assert[ \t]{1,9}"
)


def record_examples(source: Source) -> Iterator[Example]:
    """The examples of data in the order of their kinds."""
    for record in _RECORD.finditer(source.text):
        try:
            yield _record(source, record.start())
        except NotLiteral:
            continue
    for decorator in _PARAMETRIZE.finditer(source.text):
        try:
            yield from _parametrized(source, decorator)
        except NotLiteral:
            continue


def _record(source: Source, start: int) -> Example:
    """`{"input": ..., "output": ...}`: of one parameter, of several by name, or in their order."""
    text, end = source.value(start)
    value = ast.literal_eval(text)
    if not isinstance(value, dict):
        raise NotLiteral
    keys = {str(key).lower(): key for key in value}
    inputs = [keys[name] for name in _INPUTS if name in keys]
    outputs = [keys[name] for name in _OUTPUTS if name in keys]
    if len(inputs) != 1 or len(outputs) != 1:
        raise NotLiteral
    given, shown = value[inputs[0]], value[outputs[0]]
    if str(inputs[0]).lower() == "inputs" and str(outputs[0]).lower() == "outputs":
        raise NotLiteral  # lists of several examples
    if _is_encoded(given) and _is_encoded(shown) and not any(p.annotation == "str" for p in source.parameters):
        raise NotLiteral
    names = [parameter.name for parameter in source.parameters]
    num_required = sum(parameter.default is None for parameter in source.parameters)
    if isinstance(given, dict) and set(given) <= set(names) and given:
        items: Arguments = [(str(name), as_source(item)) for name, item in given.items()]
    elif isinstance(given, list) and (num_required > 1 or str(inputs[0]).lower() in ("args", "arguments", "params")):
        items = [(None, as_source(item)) for item in given]
    elif num_required == 1:
        items = [(None, as_source(given))]
    else:
        raise NotLiteral
    return Example(start, end, "record", rendered(as_arguments(source, items)), as_source(shown))


def _is_encoded(value: object) -> bool:
    """Whether a text is the source of a value that is no text."""
    try:
        return isinstance(value, str) and not isinstance(ast.literal_eval(value), str)
    except (SyntaxError, ValueError):
        return False


def _parametrized(source: Source, decorator: re.Match[str]) -> Iterator[Example]:
    """The rows of a `parametrize` whose test asserts that the call of all names but one equals that one."""
    names = [name for name in re.split(r"[\s,'\"()\[\]]+", decorator["names"]) if name]
    rows: list[tuple[int, int, str]] = []
    at = decorator.end()
    while len(rows) < MAX_EXAMPLES and (opening := _ROW.match(source.text, at)) is not None:
        text, at = source.value(opening.end())
        rows.append((opening.end(), at, text))
    test = _TEST.match(source.text, at)
    call = re.compile(
        rf"{re.escape(source.name)}\((?P<given>[\w, ]{{1,200}})\)[ \t]{{0,9}}(?:==|is)[ \t]{{0,9}}(?P<value>\w+)(?!\S)"
    )
    shown = None if test is None else call.match(source.text, test.end())
    given = [] if shown is None else [name.strip() for name in shown["given"].split(",")]
    if shown is None or len(names) < 2 or not {*given, shown["value"]} <= set(names):
        raise NotLiteral
    for start, end, text in rows:
        row = ast.literal_eval(text)
        if not isinstance(row, list | tuple) or len(row) != len(names):
            raise NotLiteral
        values = dict(zip(names, row, strict=True))
        items: Arguments = [(None, as_source(values[name])) for name in given]
        yield Example(start, end, "record", rendered(as_arguments(source, items)), as_source(values[shown["value"]]))
