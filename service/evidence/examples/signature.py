"""The function that a prompt asks for: its name and its parameters.

In this order: the last unfinished `def` of the prompt, the name that the text gives, the function that its asserts or
doctests call, the only `def` of the prompt, and what the completions define in common.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass

from service.evidence.examples.types import Parameter

MAX_SIGNATURE = 4_000  # characters
MAX_DEFINITIONS = 400
MAX_COMPLETIONS = 256  # that are looked at
MAX_COMPLETION = 100_000  # characters of each

_DEF = re.compile(r"^([ \t]{0,40})(?:async[ \t]{1,9})?def[ \t]{1,9}([^\W\d]\w{0,100})[ \t]{0,9}\(", re.MULTILINE)
_CLASS = re.compile(r"^([ \t]{0,40})class[ \t]{1,9}([^\W\d]\w{0,100})", re.MULTILINE)
_EMPTY_LINE = re.compile(
    r"\s*(?:#.*|pass|\.\.\.|raise NotImplementedError.*|(?:<|\[)?(?:your code|todo|fill in|code here|insert).*|)\s*\Z",
    re.IGNORECASE,
)
_DOCSTRING = re.compile(r"\s*[rRuUbB]{0,2}(\"\"\"|''')")
_TICKS = "[`'\"“‘*]{0,3}"
_FUNCTION = (
    r"(?:function|func|method|procedure|routine)s?|fonction|m[ée]thode|funci[oó]n|m[eé]todo|fun[cç][aã]o|funzione|Funktion"
    r"|Methode|функци[юяи]|метод"
)
_CALLED = (
    r"called|named|with (?:the )?name|nomm[ée]e?|appel[ée]e?|llamad[ao]|chamad[ao]|denominad[ao]|chiamata|namens"
    r"|mit (?:dem )?Namen?"
    r"|под названием|с именем"
)
_NAMED = re.compile(
    rf"(?:\b(?:{_FUNCTION}),?[ \t]{{1,9}}(?:that is |which is )?|(?:函数|函數|関数|方法|함수)[ \t：:]{{0,9}})"
    rf"(?P<said>(?:(?:{_CALLED})[ \t:]{{1,9}}|名为[ \t]{{0,9}}))?"
    rf"(?P<tick>{_TICKS})(?:def[ \t])?(?P<name>[^\W\d][a-zA-Z0-9_]{{0,100}})(?P<after>[ \t]{{0,3}}\(|[`'\"”’*])?",
    re.IGNORECASE,
)
_BEFORE_NOUN = re.compile(
    rf"\b(?:complete|implement|write|finish|define|create|fill in)[ \t]{{1,3}}the[ \t]{{1,3}}"
    rf"(?P<tick>{_TICKS})(?P<name>[^\W\d]\w{{0,100}})(?P<after>\(\)|[`'\"”’*])?[`'\"”’*]{{0,3}}[ \t]{{1,3}}"
    rf"(?:function|method)\b",
    re.IGNORECASE,
)
_IMPERATIVE = re.compile(
    rf"\b(?:implement|complete|write|define|create|finish)[ \t]{{1,3}}(?P<tick>{_TICKS})"
    rf"(?P<name>[^\W\d]\w{{0,100}})(?P<after>[`'\"”’*])?(?=[ \t]{{0,3}}(?:[.:,;\n]|\Z|so that|such that|in Python))",
    re.IGNORECASE,
)
_ENTRY = re.compile(
    rf"\b(?:entry point|function name|name (?:it|the function)|call (?:it|the function))[ \t]{{0,3}}(?:is|:|=|as)?"
    rf"[ \t]{{0,3}}(?P<tick>{_TICKS})(?P<name>[^\W\d]\w{{0,100}})(?P<after>\()?",
    re.IGNORECASE,
)
# Definitions of other languages: Rust, Go, Kotlin, Swift, JavaScript, PHP; then Java, C# and C; then Ruby.
_FOREIGN = re.compile(
    r"^[ \t]{0,40}(?:(?:export|pub|public|private|static|async|default)[ \t]{1,3}){0,4}"
    r"(?:(?:fn|func|fun|function)[ \t]{1,3}(?P<name>[^\W\d]\w{0,100})"
    r"|[A-Za-z_][\w<>,\[\]]{0,60}[ \t]{1,3}(?P<typed>[^\W\d]\w{0,100}))"
    r"[ \t]{0,3}\([^()\n]{0,400}\)[^\n;=]{0,80}\{[ \t]{0,9}\}?[ \t]{0,9}$"
    r"|^[ \t]{0,40}def[ \t]{1,3}(?P<ruby>[^\W\d]\w{0,100})[ \t]{0,3}\([^()\n]{0,400}\)[ \t]{0,9}$",
    re.MULTILINE,
)
_QUOTED_CALL = re.compile(
    r"`(?:def[ \t]{1,3})?(?P<name>[^\W\d]\w{0,100})\((?P<inside>[^()`\n]{0,400})\)(?:[ \t]{0,3}->[^`\n]{1,80})?:?`"
)
_BARE_CALL = re.compile(
    r"\b(?:write|implement|create|define|complete|code|build|design|make|provide|develop)[ \t]{1,3}"
    r"(?P<name>[^\W\d]\w{0,100})\((?P<inside>[^()\n]{0,400})\)",
    re.IGNORECASE,
)
_RETURNS = re.compile(r"[ \t]{0,3}->[ \t]{0,3}([A-Za-z][\w.\[\], ]{0,80})")
_TESTED = re.compile(
    r"^[ \t>*+/-]{0,40}(?:assert[ \t(]{1,4}(?:not[ \t]{1,3})?|>>>[ \t]{0,4}"
    r"|(?:self\.|console\.|[Tt]est\.)?(?:assert\w{0,30}!?|expect)[ \t]?\([ \t]{0,9}"
    r"|(?:[Ee]xample|[Ss]ample|[Tt]est|[Cc]ase)s?[ \t]?#?\d{0,3}[:.)][ \t]{1,9})(?:[^\W\d]\w{0,50}\(\)\.)?"
    r"(?P<name>[^\W\d]\w{0,100})[ \t]?\(",
    re.MULTILINE,
)
BUILTINS = frozenset(
    [
        "print",
        "len",
        "sorted",
        "set",
        "list",
        "dict",
        "tuple",
        "str",
        "int",
        "float",
        "bool",
        "round",
        "abs",
        "sum",
        "min",
        "max",
        "type",
        "isinstance",
        "all",
        "any",
        "map",
        "filter",
        "range",
        "repr",
        "zip",
        "enumerate",
        "next",
        "iter",
        "open",
        "input",
        "main",
        "__init__",
    ]
)


_SMALL_WORDS = frozenset(
    [
        "the",
        "a",
        "an",
        "it",
        "this",
        "that",
        "to",
        "which",
        "and",
        "for",
        "of",
        "in",
        "with",
        "takes",
        "returns",
        "should",
        "must",
    ]
)


@dataclass(frozen=True, slots=True)
class Definition:
    """A `def` of a text: where it begins, where its header and its body end, and whether it has a body."""

    name: str
    start: int
    header_end: int
    end: int
    parameters: tuple[Parameter, ...]
    returns: str | None
    unfinished: bool


@dataclass(frozen=True, slots=True)
class Signature:
    """What is called, and with what."""

    entry_point: str | None
    parameters: tuple[Parameter, ...] = ()
    returns: str | None = None
    definition: Definition | None = None  # of the prompt


def signature_of(prompt: str, definitions: Sequence[Definition]) -> Signature:
    """The signature that the prompt itself gives; its entry point is None where it gives none."""
    unfinished = [definition for definition in definitions if definition.unfinished]
    if unfinished:
        return _of(unfinished[-1])
    written = {definition.name.split(".")[-1] for definition in definitions}
    name = named_in_text(prompt, written)
    if name is None:
        names = Counter(match["name"] for match in _TESTED.finditer(prompt) if match["name"] not in BUILTINS)
        asked = Counter({name: count for name, count in names.items() if name not in written})
        name = (asked or names).most_common(1)[0][0] if names else None
    if name is None and (foreign := _FOREIGN.search(prompt)):
        name = foreign["name"] or foreign["typed"] or foreign["ruby"]
    defined = [definition for definition in definitions if definition.name.split(".")[-1] == name]
    if defined:
        return _of(defined[-1])
    if name is not None:
        return Signature(name, *quoted_signature(prompt, name))
    return _of(definitions[0]) if len(definitions) == 1 else Signature(None)


def signature_of_completions(completions: Sequence[str], prompt: str, name: str | None) -> Signature:
    """What the completions define in common: the function of this name, or the one that most of them have.

    Args:
        completions: of one prompt.
        prompt: a name that it mentions goes before one that it does not.
        name: the entry point, where it is known.
    """
    found: dict[str, list[Definition]] = {}
    texts = [completion[:MAX_COMPLETION] for completion in completions[:MAX_COMPLETIONS]]
    for text in texts:
        own = {d.name: d for d in definitions_of(text) if not d.name.split(".")[-1].startswith("__")}
        for own_name, definition in own.items():
            found.setdefault(own_name, []).append(definition)
    if name is not None:
        named = [item for own_name, items in found.items() if own_name.split(".")[-1] == name for item in items]
        return _of(_most_common(named)) if named else Signature(name)
    most = max(map(len, found.values()), default=0)
    if 2 * most <= len(texts):
        return Signature(None)
    common = [own_name for own_name, items in found.items() if len(items) == most]
    mentioned = [own_name for own_name in common if re.search(rf"\b{re.escape(own_name.split('.')[-1])}\b", prompt)]
    return _of(_most_common(found[(mentioned or common)[-1]]))


def _most_common(definitions: Sequence[Definition]) -> Definition:
    counts = Counter(definition.parameters for definition in definitions)
    parameters = counts.most_common(1)[0][0]
    return next(definition for definition in definitions if definition.parameters == parameters)


def _of(definition: Definition) -> Signature:
    return Signature(definition.name, definition.parameters, definition.returns, definition)


def named_in_text(prompt: str, written: Container[str] = ()) -> str | None:
    """The name that the words around it make a function's name, one that is not written yet before one that is."""
    named = [
        str(name)
        for pattern in (_ENTRY, _NAMED, _BEFORE_NOUN, _QUOTED_CALL, _BARE_CALL, _IMPERATIVE)
        for match in pattern.finditer(prompt)
        if (name := match["name"]) not in BUILTINS and name.lower() not in _SMALL_WORDS and _is_name(pattern, match)
    ]
    return next((name for name in named if name not in written), named[0] if named else None)


def _is_name(pattern: re.Pattern[str], match: re.Match[str]) -> bool:
    """Whether a word is written as a name: said to be one, quoted, called, or with more than small letters."""
    name, shaped = match["name"], "_" in match["name"]
    if pattern is _QUOTED_CALL:
        return _are_names(match["inside"])
    if pattern is _BARE_CALL:
        return True
    opened, closed = match["tick"] or "", match["after"] or ""
    camel = name[0].islower() and not name.islower()
    if pattern is _ENTRY:
        return shaped or opened != "" or closed == "("
    if pattern is _IMPERATIVE:
        return shaped or camel
    said = match["said"] if pattern is _NAMED else None
    return bool(said or (opened and closed) or "(" in closed or shaped or camel)


def _are_names(inside: str) -> bool:
    parts = [part.split(":")[0].split("=")[0].strip() for part in inside.split(",")]
    return all(part.isidentifier() for part in parts) and inside.strip() != ""


def quoted_signature(prompt: str, name: str) -> tuple[tuple[Parameter, ...], str | None]:
    """The parameters of a call in the text that names them, `name(a, b)`, and what it returns where that is said."""
    for match in re.finditer(rf"\b{re.escape(name)}[ \t]{{0,3}}\(", prompt):
        inside, end = bracketed(prompt, match.end())
        parameters = parameters_of(inside) if end else ()
        if parameters and all(p.name.lstrip("*").isidentifier() for p in parameters):
            plain = [p.name for p in parameters if p.name not in ("None", "True", "False", "true", "false", "null")]
            if len(plain) == len(parameters):
                returns = _RETURNS.match(prompt, end)
                return parameters, returns[1].strip(" .,") if returns else None
    return (), None


def definitions_of(text: str) -> list[Definition]:
    """The functions and methods of a text in order, without those that are nested in functions."""
    found = itertools.islice(_CLASS.finditer(text), MAX_DEFINITIONS)
    classes = [(match.start(), len(match[1].expandtabs(4)), match[2]) for match in found]
    definitions: list[Definition] = []
    inside_until = -1  # of a function that is being read; what is nested in it is not listed
    inside_indent = 0
    for number, match in enumerate(_DEF.finditer(text)):
        if number >= MAX_DEFINITIONS:
            break
        indent = len(match[1].expandtabs(4))
        if match.start() < inside_until and indent > inside_indent:
            continue
        inside, end = bracketed(text, match.end())
        if not end:
            continue
        colon = text.find(":", end, end + 400)
        returns = text[end:colon].strip() if colon >= 0 else ""
        if colon < 0 or "\n" in returns:
            continue
        body_end = _body_end(text, colon + 1, indent)
        owner = next((name for start, width, name in reversed(classes) if start < match.start() and width < indent), "")
        parameters = parameters_of(inside)
        if owner and parameters and parameters[0].name in ("self", "cls"):
            parameters = parameters[1:]
        definitions.append(
            Definition(
                f"{owner}.{match[2]}" if owner and indent else match[2],
                match.start(),
                colon + 1,
                body_end,
                parameters,
                returns.removeprefix("->").strip() or None,
                _is_empty(text[colon + 1 : body_end]),
            )
        )
        inside_until, inside_indent = body_end, indent
    return definitions


def _body_end(text: str, start: int, indent: int) -> int:
    """Where a body ends: before a line at its `def`'s level or further left. A docstring's lines stand anywhere."""
    at = start
    opening = _DOCSTRING.match(text, start)
    if opening is not None:
        closing = text.find(opening[1], opening.end())
        if closing < 0:
            return len(text)
        at = closing + 3
    at = text.find("\n", at)
    while at >= 0:
        line_end = text.find("\n", at + 1)
        line = text[at + 1 : line_end if line_end >= 0 else len(text)]
        bare = line.strip()
        if bare and len(line.expandtabs(4)) - len(line.expandtabs(4).lstrip()) <= indent:
            return at + 1
        at = line_end
    return len(text)


def _is_empty(body: str) -> bool:
    opening = _DOCSTRING.match(body)
    if opening is not None:
        closing = body.find(opening[1], opening.end())
        body = "" if closing < 0 else body[closing + 3 :]
    return all(_EMPTY_LINE.match(line[:400]) for line in body.splitlines() if line.strip())


def bracketed(text: str, start: int) -> tuple[str, int]:
    """What stands up to the parenthesis that closes the one before `start`, and the place behind it, 0 if none does."""
    depth, at, limit = 1, start, min(len(text), start + MAX_SIGNATURE)
    while at < limit:
        character = text[at]
        if character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
            if depth == 0:
                return text[start:at], at + 1
        elif character in "'\"":
            closing = text.find(character, at + 1, limit)
            if closing < 0:
                return "", 0
            at = closing
        at += 1
    return "", 0


def parameters_of(inside: str) -> tuple[Parameter, ...]:
    """The parameters of a signature, from the text between its parentheses."""
    parameters = []
    for part in _split(inside):
        bare = " ".join(part.split())
        head, _, default = bare.partition("=")
        name, _, annotation = head.partition(":")
        if name.strip() and name.strip() not in ("*", "/"):
            parameters.append(Parameter(name.strip(), annotation.strip() or None, default.strip() or None))
    return tuple(parameters)


def _split(inside: str) -> list[str]:
    """The text at its commas, but not at those inside brackets or quotes."""
    parts, depth, start, quote = [], 0, 0, ""
    for at, character in enumerate(inside):
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif character == "," and depth == 0:
            parts.append(inside[start:at])
            start = at + 1
    return [*parts, inside[start:]]
