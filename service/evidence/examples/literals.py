"""Literals as people write them in prompts, as Python source.

- A recursive descent over the text: linear in what it reads, bounded in depth and length, and it never evaluates code.
- It reads Python's literals, JSON's words (`true`, `null`), curly quotes, infinity, and small constant expressions.
- What it writes is Python source that `ast.literal_eval` accepts. Infinity is written `1e999` for that reason.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

MAX_DEPTH = 40
MAX_CHARACTERS = 20_000  # of one literal, or of the arguments of one call
MAX_DIGITS = 1_000
ATTEMPT = 30  # what one attempt costs of the budget, beside its characters
MAX_CONSTANT = 10_000  # items or characters that a constant expression may grow to

_NUMBER = re.compile(
    r"0[xX][0-9a-fA-F]{1,1000}|0[oO][0-7]{1,1000}|0[bB][01]{1,1000}"
    r"|(?:\d[\d_]{0,1000}(?:\.\d{0,1000})?|\.\d{1,1000})(?:[eE][+-]?\d{1,4})?"
)
_WORD = re.compile(r"[A-Za-z_]\w{0,200}")
_PREFIX = re.compile(r"(?:[rR][bB]?|[bB][rR]?|[uU])?(?=['\"])")
_FLOAT_WORD = re.compile(r"float\(\s{0,9}(['\"])([+-]?)inf(?:inity)?\1\s{0,9}\)", re.IGNORECASE)
_EMPTY = re.compile(r"(set|dict|list|tuple)\(\s{0,9}\)")
_BLANKS = re.compile(r"\s*")
_WORDS = {
    "True": "True",
    "False": "False",
    "None": "None",
    "true": "True",
    "false": "False",
    "TRUE": "True",
    "FALSE": "False",
    "null": "None",
    "NULL": "None",
    "nil": "None",
    "inf": "1e999",
    "Infinity": "1e999",
}
_EMPTIES = {"set": "set()", "dict": "{}", "list": "[]", "tuple": "()"}
_CURLY = {"“": "”", "‘": "’", "„": "“", "«": "»"}
_OPERATORS: dict[str, tuple[int, Callable[[object, object], object]]] = {
    "+": (1, operator.add),
    "-": (1, operator.sub),
    "*": (2, operator.mul),
    "/": (2, operator.truediv),
    "%": (2, operator.mod),
    "**": (4, operator.pow),
}


class NotLiteral(ValueError):
    """The text at this place is not a literal."""


@dataclass(slots=True)
class LiteralReader:
    """Reads literals out of one text, and counts the characters it looked at.

    Attributes:
        text: what is read.
        budget: how many more characters may be looked at, all literals together; below zero nothing is read.
        names: source of the literals that names stand for.
        in_docstring: whether the text is the source of an ordinary docstring, where a backslash may be doubled.
    """

    text: str
    budget: int
    names: Mapping[str, str] = field(default_factory=dict)
    in_docstring: bool = False
    _limit: int = 0
    _at: int = 0

    def value(self, start: int, limit: int | None = None, *, constant: bool = True) -> tuple[str, int]:
        """The literal that begins at `start`.

        Args:
            start: where its first character stands; blanks before it on the same line are skipped.
            limit: the literal ends before this character.
            constant: also read a constant expression, and give its value.

        Returns:
            Its Python source, and the character after its end.

        Raises:
            NotLiteral: if there is none.
        """
        self._begin(start, limit)
        self._skip_line_blanks()
        try:
            return _checked(self._expression(0, constant=constant, lines=False)), self._at
        finally:
            self.budget -= self._at - start + ATTEMPT

    def arguments(self, start: int, limit: int | None = None) -> tuple[list[tuple[str | None, str]], int]:
        """The arguments of a call, from behind its opening parenthesis.

        Returns:
            Each argument's keyword, or None, and source; and the character after the closing parenthesis.

        Raises:
            NotLiteral: if one of them is not a literal, or a positional one follows a keyword.
        """
        self._begin(start, limit)
        try:
            given: list[tuple[str | None, str]] = []
            while True:
                self._skip()
                if self._take(")"):
                    return given, self._at
                name = self._keyword()
                if name is None and given and given[-1][0] is not None:
                    raise NotLiteral
                given.append((name, _checked(self._expression(0, constant=True, lines=True))))
                self._skip()
                if not self._take(",") and not self._peek(")"):
                    raise NotLiteral
        finally:
            self.budget -= self._at - start + ATTEMPT

    def _begin(self, start: int, limit: int | None) -> None:
        if self.budget <= 0:
            raise NotLiteral
        self._at = start
        self._limit = min(len(self.text) if limit is None else limit, start + MAX_CHARACTERS)

    def _skip(self) -> None:
        match = _BLANKS.match(self.text, self._at, self._limit)
        self._at = match.end() if match else self._at

    def _skip_line_blanks(self) -> None:
        while self._at < self._limit and self.text[self._at] in " \t":
            self._at += 1

    def _peek(self, mark: str) -> bool:
        return self.text.startswith(mark, self._at, self._limit)

    def _take(self, mark: str) -> bool:
        if self._peek(mark):
            self._at += len(mark)
            return True
        return False

    def _keyword(self) -> str | None:
        word = _WORD.match(self.text, self._at, self._limit)
        if word is None:
            return None
        at = word.end()
        while at < self._limit and self.text[at] in " \t":
            at += 1
        if not self.text.startswith("=", at) or self.text.startswith("==", at):
            return None
        self._at = at + 1
        self._skip()
        return word[0]

    def _expression(self, depth: int, *, constant: bool, lines: bool, least: int = 1) -> str:
        left = self._operand(depth)
        while constant:
            before = self._at
            if lines:
                self._skip()
            else:
                self._skip_line_blanks()
            sign = self._operator()
            if sign is None or _OPERATORS[sign][0] < least:
                self._at = before
                return left
            self._at += len(sign)
            self._skip_line_blanks()
            rank = _OPERATORS[sign][0]
            try:
                right = self._expression(depth + 1, constant=True, lines=lines, least=rank + (sign != "**"))
                left = self._computed(sign, left, right)
            except NotLiteral:
                if least > 1 or depth:
                    raise
                self._at = before
                return left
        return left

    def _computed(self, sign: str, left: str, right: str) -> str:
        self.budget -= len(left) + len(right)
        if self.budget <= 0:
            raise NotLiteral
        return computed(sign, left, right)

    def _operator(self) -> str | None:
        pair = self.text[self._at : min(self._at + 2, self._limit)]
        if pair in ("->", "--", "//", "+=", "-=", "*=", "/=", "%="):
            return None
        return next((sign for sign in (pair, pair[:1]) if sign in _OPERATORS), None)

    def _operand(self, depth: int) -> str:
        if depth > MAX_DEPTH or self._at >= self._limit:
            raise NotLiteral
        character = self.text[self._at]
        if character in "+-" and self.text[self._at + 1 : self._at + 2] not in ("", " ", "\n", "+", "-", ">"):
            self._at += 1
            operand = self._operand(depth + 1)
            while self._peek("**"):
                self._at += 2
                operand = self._computed("**", operand, self._operand(depth + 1))
            return _signed(character, operand)
        if character in "[({":
            return self._container(depth)
        if character in _CURLY:
            return self._curly()
        prefix = _PREFIX.match(self.text, self._at, self._limit)
        if prefix is not None:
            return self._string(prefix.end())
        if character.isdigit() or character == ".":
            return self._number()
        return self._word()

    def _number(self) -> str:
        number = _NUMBER.match(self.text, self._at, self._limit)
        if number is None:
            raise NotLiteral
        source, end = number[0], number.end()
        if source.endswith(".") and not self.text[end : end + 1].isdigit():
            after = self.text[end : end + 1]
            if after in ("", "\n", " ", "\t", "\r", '"', "'", "`"):  # a sentence ends here
                source, end = source[:-1], end - 1
        following = self.text[end : end + 1]
        if following.isalnum() or following == "_":
            raise NotLiteral
        if following == "." and self.text[end + 1 : end + 2].isalnum():
            raise NotLiteral  # a version, an address
        try:
            value = ast.literal_eval(source)
        except (SyntaxError, ValueError):
            raise NotLiteral from None  # 007
        self._at = end
        return source if isinstance(value, float) and value == float("inf") else repr(value)

    def _word(self) -> str:
        for pattern in (_FLOAT_WORD, _EMPTY):
            match = pattern.match(self.text, self._at, self._limit)
            if match is not None:
                self._at = match.end()
                return _EMPTIES[match[1]] if pattern is _EMPTY else f"{match[2].strip('+')}1e999"
        word = _WORD.match(self.text, self._at + 5 if self._peek("math.inf") else self._at, self._limit)
        source = None if word is None else _WORDS.get(word[0]) or self.names.get(word[0])
        if word is None or source is None or self.text[word.end() : word.end() + 1] in ("(", "[", "_"):
            raise NotLiteral
        if self.text[word.end() : word.end() + 1] == "." and self.text[word.end() + 1 : word.end() + 2].isalpha():
            raise NotLiteral
        self._at = word.end()
        return source

    def _container(self, depth: int) -> str:
        opening = self.text[self._at]
        closing = {"[": "]", "(": ")", "{": "}"}[opening]
        self._at += 1
        items: list[str] = []
        keyed = comma = False
        while True:
            self._skip()
            if self._take(closing):
                break
            if items and not comma:
                raise NotLiteral
            item = self._expression(depth + 1, constant=True, lines=True)
            self._skip()
            if opening == "{" and (not items or keyed) and self._take(":"):
                keyed = True
                self._skip()
                item = f"{item}: {self._expression(depth + 1, constant=True, lines=True)}"
                self._skip()
            elif keyed:
                raise NotLiteral
            items.append(item)
            comma = self._take(",")
        inside = ", ".join(items)
        if opening == "(" and len(items) == 1:
            return f"({inside},)" if comma else inside
        return f"{opening}{inside}{closing}"

    def _curly(self) -> str:
        closing = _CURLY[self.text[self._at]]
        end = self.text.find(closing, self._at + 1, self._limit)
        body = self.text[self._at + 1 : end]
        if end < 0 or "\n" in body:
            self._at = self._limit
            raise NotLiteral
        self._at = end + 1
        return repr(body)

    def _string(self, start: int) -> str:
        sources = []
        while True:
            sources.append(self._one_string(start))
            before = self._at
            self._skip_line_blanks()
            prefix = _PREFIX.match(self.text, self._at, self._limit)
            if prefix is None or self._at == before:
                self._at = before
                break
            start = prefix.end()
        try:
            return repr(ast.literal_eval(" ".join(sources)))
        except (SyntaxError, ValueError):
            raise NotLiteral from None

    def _one_string(self, start: int) -> str:
        prefix, quote = self.text[self._at : start], self.text[start]
        mark = quote * 3 if self.text.startswith(quote * 3, start) else quote
        at = start + len(mark)
        while True:
            end = self.text.find(mark, at, self._limit)
            if end < 0:
                self._at = self._limit
                raise NotLiteral
            backslashes = len(self.text[at:end]) - len(self.text[at:end].rstrip("\\"))
            if backslashes % 2 == 0:
                break
            at = end + 1
        body = self.text[start + len(mark) : end]
        if len(mark) == 1 and "\n" in body:
            self._at = end
            raise NotLiteral
        if self.in_docstring:
            body = body.replace("\\\\", "\\")
            if (len(body) - len(body.rstrip("\\"))) % 2:
                raise NotLiteral
        self._at = end + len(mark)
        return f"{prefix}{mark}{body}{mark}"


def computed(sign: str, left: str, right: str) -> str:
    """The value of a constant expression with one operator, as source; its size is bounded before it is computed."""
    first, second = ast.literal_eval(_checked(left)), ast.literal_eval(_checked(right))
    if isinstance(first, set | dict) or isinstance(second, set | dict):
        raise NotLiteral
    sizes = [abs(x) if isinstance(x, int | float) else len(x) for x in (first, second) if x is not None]
    if len(sizes) < 2 or (sign == "**" and (max(sizes) > MAX_CONSTANT or sizes[1] > MAX_DIGITS)):
        raise NotLiteral
    sized = [x for x in (first, second) if not isinstance(x, int | float)]
    if sized and (len(sized) == 1) and (sign != "*" or sizes[0] * sizes[1] > MAX_CONSTANT):
        raise NotLiteral
    try:
        value = _OPERATORS[sign][1](first, second)
        return as_source(value)
    except (TypeError, ValueError, ArithmeticError):
        raise NotLiteral from None


def as_source(value: object) -> str:
    """Python source of a plain value that `ast.literal_eval` accepts."""
    source = repr(value)
    if isinstance(value, float):
        source = source.replace("inf", "1e999")
    if len(source) > MAX_CHARACTERS:
        raise NotLiteral
    ast.literal_eval(source)
    return source


def _signed(sign: str, operand: str) -> str:
    if operand in ("True", "False", "None") or not (operand[0].isdigit() or operand[0] == "."):
        raise NotLiteral
    return operand if sign == "+" else f"-{operand}"


def _checked(source: str) -> str:
    """The source, if it has a value: a list cannot be a key. Raises `NotLiteral` if it has none."""
    try:
        ast.literal_eval(source)
    except (TypeError, SyntaxError, ValueError, RecursionError, MemoryError):
        raise NotLiteral from None
    return source
