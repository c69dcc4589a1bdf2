"""Examples in the words of test frameworks: `assert`, unittest, `assert_eq!`, `expect(...).toBe`, nearly equal values.

A call stands in such words, or in `round(...)` or `abs(... - value)`. What is before the call decides which it is.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, replace

from service.evidence.examples.literals import NotLiteral
from service.evidence.examples.source import Arguments, Source, rendered
from service.evidence.examples.types import Example

PLACES = 7  # of unittest's assertAlmostEqual
MAX_TOLERANCE = 1.0

_EQUAL = re.compile(
    r"(?:self\.|assert\.|np\.testing\.|Assert\.)?(?:assertEquals?|assert_equals?|assertListEqual|assertDictEqual|assertTupleEqual"
    r"|assertSetEqual|assertSequenceEqual|assertMultiLineEqual|assert_eq!|strictEqual|deepEqual|deepStrictEqual|AreEqual"
    r"|(?<=assert\.)equal|eq)[ \t]?\([ \t]{0,9}"
)
_NEARLY = re.compile(
    r"(?P<head>(?:assert|self\.assertTrue\()?[ \t]{0,9}(?:not[ \t])?)"
    r"(?:(?:math|np|numpy|self|cmath)\.)?(?:isclose|allclose|assertAlmostEqual|assert_allclose)[ \t]?\([ \t]{0,9}\Z"
)
_TRUE = re.compile(
    r"(?P<not>(?:self\.)?assertFalse[ \t]?\([ \t]{0,9}|assert[ \t]{1,4}not[ \t]{1,4})\Z"
    r"|(?:(?:self\.)?assertTrue|console\.assert|assert!|assert|[Tt]est\.expect)(?:[ \t]{0,9}\([ \t]{0,9}|[ \t]{1,9})\Z"
)
_NONE = re.compile(r"(?:self\.)?assertIsNone[ \t]?\([ \t]{0,9}\Z")
_EXPECT = re.compile(r"(?<![Tt]est\.)expect[ \t]?\([ \t]{0,9}\Z")
_TO_BE = re.compile(
    r"[ \t]{0,9}\)[ \t]{0,9}\.(?:(?P<word>toBeTruthy|toBeFalsy|toBeNull|toBeUndefined)\(|"
    r"(?:toBe|toEqual|toStrictEqual|to\.equal|to\.eql|to\.deep\.equal)\([ \t]{0,9})"
)
_WORDS = {"toBeTruthy": "True", "toBeFalsy": "False", "toBeNull": "None", "toBeUndefined": "None"}
_RELATION = re.compile(r"[ \t]{0,9}(?:===?|is(?=[ \t])|-{1,3}>|={1,3}>|[→⇒➞➔➜⟶⟹↦]|~>)[ \t]{0,9}\\?\s{0,40}")
_APPROX = re.compile(r"(?:pytest\.)?approx\([ \t]{0,9}")
_MESSAGE = re.compile(
    r"[ \t]{0,40}\)?[ \t]{0,9}(?:,[ \t]{0,9}(?=[fr]?['\"])[^\n]{0,2000}|[;#][^\n]{0,2000})?[ \t]{0,40}(?=\n|\Z|`)"
)
_COMMA = re.compile(r"[ \t]{0,9},\s{0,40}")
_CLOSED = re.compile(r"\s{0,40}[),]")
_PARENTHESIS = re.compile(r"\s{0,40}\)")
_ROUND = re.compile(r"\bround[ \t]?\([ \t]{0,9}\Z")
_DIGITS = re.compile(r"[ \t]{0,9},[ \t]{0,9}(?:ndigits[ \t]?=[ \t]?)?(\d{1,2})[ \t]{0,9}\)")
_ABSOLUTE = re.compile(r"(?P<outer>(?:assert|(?:self\.)?assertTrue\()?[ \t]{0,9})(?:math\.)?f?abs[ \t]?\([ \t]{0,9}\Z")
_MINUS = re.compile(r"[ \t]{0,9}-[ \t]{0,9}")
_LESS = re.compile(r"[ \t]{0,9}\)[ \t]{0,9}<=?[ \t]{0,9}")
_OPTION = re.compile(r"(?:(?P<name>rel_tol|abs_tol|rel|abs|atol|rtol|delta|places)[ \t]?=[ \t]?)?")
_YES_NO = re.compile(r"(?:is|has|can|are|contains|should|will)(?:_|[A-Z])")


@dataclass(frozen=True, slots=True)
class ShownCall:
    """A call with literal arguments: where it begins and ends, what stands before it on its line, and from where on."""

    start: int
    end: int
    lead: str
    lead_start: int
    arguments: Arguments

    def example(self, end: int, expected: str, style: str = "equality") -> Example:
        return Example(self.start, end, style, rendered(self.arguments), expected)


def rounded_call(source: Source, call: ShownCall) -> tuple[ShownCall, float | None]:
    """The call without `round(...)` around it, and how far from the value it may then be; the same call without one."""
    around = _ROUND.search(call.lead)
    if around is None:
        return call, None
    digits = _DIGITS.match(source.text, call.end)
    if digits is None:
        raise NotLiteral
    return replace(call, lead=call.lead[: around.start()], end=digits.end()), 0.5 * 10.0 ** -int(digits[1])


def with_tolerance(example: Example, tolerance: float | None) -> Example:
    """The example, nearly: of a number only. Raises `NotLiteral` for another value."""
    if tolerance is None:
        return example
    value = None if example.expected is None else ast.literal_eval(example.expected)
    if not isinstance(value, int | float) or isinstance(value, bool) or tolerance > MAX_TOLERANCE:
        raise NotLiteral
    return replace(example, tolerance=tolerance)


def asserted_example(source: Source, call: ShownCall) -> Example | None:
    """The example of a call in an assertion, None outside of one. Raises `NotLiteral` where it cannot be read."""
    lead = call.lead
    if (equal := _EQUAL.search(lead)) is not None:
        return _equal(source, call, call.lead_start + equal.end())
    if (nearly := _NEARLY.search(lead)) is not None:
        return _nearly(source, call, denied="not" in nearly["head"])
    if _ABSOLUTE.search(lead):
        return _absolute(source, call)
    if _NONE.search(lead):
        return _closed(source, call, "None")
    if _EXPECT.search(lead):
        return _expected(source, call)
    if (true := _TRUE.search(lead)) is not None:
        return _true(source, call, negated=true["not"] is not None)
    return None


def _equal(source: Source, call: ShownCall, inside: int) -> Example:
    """`assertEqual(f(1), 2)`, or the other way round."""
    if inside < call.start:
        expected, end = source.value(inside, call.start)
        if source.text[end : call.start].strip() != "," or _CLOSED.match(source.text, call.end) is None:
            raise NotLiteral
        return call.example(call.end, expected)
    comma = _COMMA.match(source.text, call.end)
    if comma is None:
        raise NotLiteral
    expected, end = source.value(comma.end())
    if _CLOSED.match(source.text, end) is None:
        raise NotLiteral
    return call.example(end, expected)


def _nearly(source: Source, call: ShownCall, *, denied: bool) -> Example:
    """`math.isclose(f(1), 2.5, abs_tol=0.1)`."""
    comma = _COMMA.match(source.text, call.end)
    if comma is None or denied:
        raise NotLiteral
    expected, end = source.value(comma.end())
    is_unittest = "assertAlmostEqual" in call.lead
    tolerance, end = _tolerance(source, end, expected, default=0.5 * 10.0**-PLACES if is_unittest else None)
    return with_tolerance(call.example(end, expected), tolerance)


def _tolerance(source: Source, end: int, expected: str, default: float | None) -> tuple[float | None, int]:
    """The tolerance behind a value in an argument list that ends here, and the place behind the list."""
    comma = _COMMA.match(source.text, end)
    tolerance = default
    if comma is not None:
        option = _OPTION.match(source.text, comma.end())
        assert option is not None
        text, end = source.value(option.end())
        number = ast.literal_eval(text)
        if not isinstance(number, int | float):
            raise NotLiteral
        if option["name"] in ("rel_tol", "rel", "rtol"):
            base = ast.literal_eval(expected)
            tolerance = abs(base) * number if isinstance(base, int | float) else None
        elif option["name"] in ("abs_tol", "abs", "atol", "delta"):
            tolerance = float(number)
        elif isinstance(number, int) and 0 <= number <= 15:  # places, by name or by place
            tolerance = 0.5 * 10.0**-number
        else:
            raise NotLiteral
    closing = _PARENTHESIS.match(source.text, end)
    if closing is None:
        raise NotLiteral
    return tolerance, closing.end()


def _absolute(source: Source, call: ShownCall) -> Example:
    """`abs(f(1) - 2.5) < 0.1`."""
    minus = _MINUS.match(source.text, call.end)
    if minus is None or source.denied(call.start):
        raise NotLiteral
    expected, end = source.value(minus.end())
    less = _LESS.match(source.text, end)
    if less is None:
        raise NotLiteral
    bound, end = source.value(less.end())
    return with_tolerance(call.example(end, expected), float(ast.literal_eval(bound)))


def _closed(source: Source, call: ShownCall, expected: str) -> Example:
    if _CLOSED.match(source.text, call.end) is None:
        raise NotLiteral
    return call.example(call.end, expected)


def _expected(source: Source, call: ShownCall) -> Example:
    """`expect(f(1)).toBe(2)`."""
    relation = _TO_BE.match(source.text, call.end)
    if relation is None:
        raise NotLiteral
    if relation["word"]:
        return call.example(relation.end(), _WORDS[relation["word"]])
    expected, end = source.value(relation.end())
    return _closed(source, replace(call, end=end), expected)


def _true(source: Source, call: ShownCall, *, negated: bool) -> Example:
    """`assert f(1) == 2`, or `assert f(1)` of a function that answers yes or no."""
    if source.denied(call.lead_start):
        raise NotLiteral
    relation = _RELATION.match(source.text, call.end)
    if relation is None:
        says_yes = source.signature.returns == "bool" or _YES_NO.match(source.name) is not None
        if not says_yes or _MESSAGE.match(source.text, call.end) is None:
            raise NotLiteral
        return call.example(call.end, str(not negated))
    if negated:
        raise NotLiteral
    approx = _APPROX.match(source.text, relation.end())
    expected, end = source.value(approx.end() if approx else relation.end())
    tolerance = None
    if approx is not None:
        tolerance, end = _tolerance(source, end, expected, default=None)
    if _MESSAGE.match(source.text, end) is None:
        raise NotLiteral
    return with_tolerance(call.example(end, expected), tolerance)
