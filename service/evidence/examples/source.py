"""The prompt as the forms of examples see it: its text, its lines, its signature and one reader of literals."""

from __future__ import annotations

import ast
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

from service.evidence.examples.literals import LiteralReader, NotLiteral
from service.evidence.examples.signature import Definition, Signature
from service.evidence.examples.types import Example, Parameter

MAX_EXAMPLES = 64
BUDGET = 200_000  # characters of literals that are looked at in one prompt, and the attempts
Arguments = list[tuple[str | None, str]]  # keyword or None, source

# One character for another, so that places stay as they are.
_PLAIN = str.maketrans({"\u00a0": " ", "\u202f": " ", "\u2009": " ", "\r": " ", "\u2212": "-", "\u200b": " "})
_CONTINUED = re.compile(r"^([ \t]{0,80})\.\.\.(?=[ \t])", re.MULTILINE)  # a doctest's second line
_TAG = re.compile(r"</?(?:input|output|example)s?>", re.IGNORECASE)
_MARKUP = re.compile(r"</?(?:strong|b|em|i|code|pre|p|ul|li|span|font|div|sup|sub)(?:[ ][^<>\n]{0,200})?>")
_WORD_OF_TAG = {"<input>": "Input: ", "<output>": "Output: "}  # as long as the tags
_QUOTED = re.compile(r"(?:^[ \t]{0,9}>(?!>)[^\n]{0,4000}(?:\n|\Z)){2,400}", re.MULTILINE)  # a block quote of Markdown
_QUOTE_MARK = re.compile(r"^([ \t]{0,9})>(?!>)", re.MULTILINE)

# A sentence goes on behind a value only in these ways; after anything else the value may be part of more.
_END = re.compile(
    r"[ \t`\"”*)\]]{0,12}(?:\Z|\n|'{3}|(?:[.;,:]|(?<!\d)!)(?=[\s`\"”)]|'{3}|\Z)|#|//(?![ \t]?[\d({\[])|--|\((?!or\b)"
    r"|[—–](?!or\b)(?![ \t]?(?:[\d({\['\"]|\w{1,60}\())|-[ \t](?!(?:[\d({\['\"]|\w{1,60}\())|[✓✔✅。；，]"
    r"|(?:because|since|as|and|but|while|whereas|for|where|so|which|that is|with|when|due|given|after)\b)"
)
_STEP = re.compile(r"[ \t`]{0,8}(?:-{1,3}>|={1,3}>|[→⇒➞]|,?[ \t]then\b)")  # the value is a step on the way to another
_MORE = re.compile(r"[ \t`]{0,8}(?:,|and|or)[ \t]{1,8}(?=`?(?:[-+]?\d|['\"\[({“‘]|True\b|False\b|None\b))")
_TAKEN_BACK = re.compile(
    r"[^\n]{0,80}\b(?:but|which is|instead|however|though|rather)\b[^\n]{0,80}"
    r"\b(?:should|expected|wrong|incorrect|not|bug|actual|correct)\b",
    re.IGNORECASE,
)
_SAYS_SHOULD = re.compile(r"\b(?:should|must|expect\w*|want\w*)\b", re.IGNORECASE)
_DOUBTED = re.compile(
    r"\b(?:(?:should|ought to)(?: have| be| return| give| equal)|(?<!as )expected|(?:I|we) (?:want|expect)"
    r"|supposed to|wrong|incorrect|rather than|the optimum)\b",
    re.IGNORECASE,
)
_NEGATED = re.compile(r"\b(?:not|never|isn't|doesn't|don't|shouldn't|cannot|can't|won't|no longer)\b", re.IGNORECASE)
_WRONG = re.compile(
    r"\b(?:wrong(?:ly)?|incorrect(?:ly)?|bug(?:gy)?|invalid examples?|currently|bad|mistake(?:nly)?|broken"
    r"|counter-?example|reproduc\w{1,4}|observed|neither|avoid|prevent|why (?:does|do|is)|how come|false that"
    r"|(?:possible|old) (?:output|result|answer|code)|before the change|instead of|unlike|actual(?:ly)?"
    r"|previously|old version)\b",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"[.;:,](?=\s)")


@dataclass(slots=True)
class Source:
    """A prompt that is being read.

    Attributes:
        text: the prompt, with unusual blanks and signs, tags, quote marks and marks of continued lines replaced by
            plain ones of the same length.
        raw: the prompt with plain blanks and signs, and otherwise as it is: what samples are made of.
        signature: what is called.
        definitions: the functions of the prompt.
        reader: reads literals, on one budget for the whole prompt.
        line_starts: where its lines begin.
        taken: the places that examples were read from.
        called: the function's name in the examples, where that is not the signature's.
    """

    text: str
    raw: str
    signature: Signature
    definitions: Sequence[Definition]
    reader: LiteralReader
    line_starts: list[int] = field(default_factory=list)
    taken: list[tuple[int, int]] = field(default_factory=list)
    called: str = ""

    @classmethod
    def of(cls, prompt: str, signature: Signature, definitions: Sequence[Definition]) -> Source:
        """The prompt with everything that the forms share."""
        raw = prompt.translate(_PLAIN)
        text = _CONTINUED.sub(r"\1   ", raw)
        text = _TAG.sub(lambda tag: _WORD_OF_TAG.get(tag[0].lower(), " " * len(tag[0])), text)
        text = _MARKUP.sub(lambda tag: " " * len(tag[0]), text)
        text = _QUOTED.sub(lambda quote: _QUOTE_MARK.sub(r"\1 ", quote[0]), text)
        starts = [0, *(match.end() for match in re.finditer("\n", text))]
        return cls(text, raw, signature, definitions, LiteralReader(text, BUDGET), starts)

    @property
    def name(self) -> str:
        """The entry point without its class."""
        return self.called or (self.signature.entry_point or "").rpartition(".")[2]

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return self.signature.parameters

    def line_number(self, place: int) -> int:
        return bisect_right(self.line_starts, place) - 1

    def line(self, number: int) -> tuple[int, int]:
        """Where a line begins and ends, without its newline; an empty place behind the text if there is none."""
        if number >= len(self.line_starts):
            return len(self.text), len(self.text)
        end = self.line_starts[number + 1] - 1 if number + 1 < len(self.line_starts) else len(self.text)
        return self.line_starts[number], end

    def line_end(self, place: int) -> int:
        return self.line(self.line_number(place))[1]

    def arguments(self, start: int, limit: int | None = None) -> tuple[Arguments, int]:
        """The literal arguments of a call that the signature can take. Raises `NotLiteral` for any other."""
        self.reader.in_docstring = self.in_docstring(start)
        arguments, end = self.reader.arguments(start, limit)
        if not fits(arguments, self.parameters):
            raise NotLiteral
        return arguments, end

    def value(self, start: int, limit: int | None = None) -> tuple[str, int]:
        """The literal at this place, on its line unless it is in brackets. Raises `NotLiteral` if there is none."""
        self.reader.in_docstring = self.in_docstring(start)
        return self.reader.value(start, limit)

    def stated(self, start: int) -> tuple[str, int]:
        """A value that a sentence states: the literal, or both sides of `1 + 2 = 3` where they are equal.

        Raises `NotLiteral` where something behind it makes it doubtful.
        """
        while start < len(self.text) and self.text[start] in " \t`*":
            start += 1
        value, end = self.value(start)
        if self.text[start] == "(" and not value.startswith("(") and self.text[end - 1 : end] == ")":
            raise NotLiteral  # ("a") may be meant as a tuple
        chain = re.compile(r"[ \t]{0,8}={1,2}[ \t]{0,8}(?=[^\s=>])").match(self.text, end)
        if chain is not None:
            second, end = self.value(chain.end())
            if not same(value, second):
                raise NotLiteral
            value = second
        if not self.ends(end):
            raise NotLiteral
        return value, end

    def ends(self, place: int) -> bool:
        """Whether a value that ends here is all of the value."""
        more = _MORE.match(self.text, place)
        return (
            _END.match(self.text, place) is not None
            and _STEP.match(self.text, place) is None
            and (more is None or self._begins_example(more.end()))
            and _TAKEN_BACK.match(self.text, place) is None
            and not self._doubted(place)
        )

    def _doubted(self, place: int) -> bool:
        """Whether the rest of the line, up to the next call, says what the value should have been."""
        start, end = self.line(self.line_number(place))
        if _SAYS_SHOULD.search(self.text, max(start, place - 300), place):
            return False
        rest = self.text[place : min(end, place + 120)]
        return _DOUBTED.search(rest.partition(f"{self.name}(")[0] if self.name else rest) is not None

    def _begins_example(self, place: int) -> bool:
        """Whether the value here is an input, as 8 is in `7 -> True, 8 -> False`, and not more of the value before."""
        try:
            _, end = self.value(place)
        except NotLiteral:
            return False
        return _STEP.match(self.text, end) is not None

    def in_docstring(self, place: int) -> bool:
        """Whether a place is inside the docstring of an unfinished function, where a backslash may be doubled."""
        definition = self.signature.definition
        if definition is None or not definition.header_end <= place < definition.end:
            return False
        head = self.text[definition.header_end : definition.header_end + 200].lstrip()
        return head[:3] in ('"""', "'''")

    def denied(self, place: int) -> bool:
        """Whether the words before this place say that what follows is not so."""
        number = self.line_number(place)
        before = self.text[max(self.line(number)[0], place - 300) : place]
        if (
            before.lstrip().startswith(("❌", "✗", "✘"))
            or _WRONG.search(before)
            or _NEGATED.search(_SENTENCE.split(before)[-1])
        ):
            return True
        crossed = False  # a blank line or a fence, above which only a heading speaks of what is here
        for above in range(number - 1, max(-1, number - 8), -1):
            start, end = self.line(above)
            heading = self.text[start : min(end, start + 300)].strip()
            if not heading or heading.startswith("```"):
                crossed = True
            elif heading.endswith((":", ":**")) or heading.startswith("#") or heading[:2] == heading[-2:] == "**":
                return _WRONG.search(heading) is not None or _NEGATED.search(heading) is not None
            elif crossed:
                return False
        return False

    def free(self, start: int, end: int) -> bool:
        """Whether no example was read from these characters."""
        return all(end <= first or last <= start for first, last in self.taken)

    def add(self, examples: list[Example], example: Example) -> None:
        """Keep an example, and its place as read."""
        self.taken.append((example.start, example.end))
        examples.append(example)


def rendered(arguments: Arguments) -> str:
    """The source of a call's arguments."""
    return ", ".join(value if name is None else f"{name}={value}" for name, value in arguments)


def fits(arguments: Arguments, parameters: Sequence[Parameter]) -> bool:
    """Whether a function with these parameters takes these arguments; true where the parameters are not known."""
    if not parameters:
        return True
    plain = [parameter for parameter in parameters if not parameter.name.startswith("*")]
    many = any(p.name.startswith("*") and not p.name.startswith("**") for p in parameters)
    keywords = any(parameter.name.startswith("**") for parameter in parameters)
    names = {parameter.name for parameter in plain}
    given = {name for name, _ in arguments if name is not None}
    num_positional = sum(name is None for name, _ in arguments)
    if (num_positional > len(plain) and not many) or (not given <= names and not keywords):
        return False
    return all(p.default is not None or p.name in given for p in plain[num_positional:])


def same(first: str, second: str) -> bool:
    """Whether two literals have equal values."""
    return bool(ast.literal_eval(first) == ast.literal_eval(second))
