"""The inputs of an example that does not show the call: `nums = [2, 7], target = 9`, `[1, 2], 3`, or one per line."""

from __future__ import annotations

import re

from service.evidence.examples.literals import LiteralReader, NotLiteral
from service.evidence.examples.source import Arguments, Source, fits

MAX_INPUTS = 20
MAX_BARE = 80  # characters of a text without quotes

_NAME = re.compile(r"[`*]{0,2}([^\W\d]\w{0,60})[`*]{0,2}[ \t]{0,9}(?P<sign>=(?!=)|:|is(?=[ \t]))[ \t]{0,9}`?")
_NOUN = re.compile(
    r"(?:(?:the|an?)[ \t])?(?:list|array|string|integer|int|number|tuple|dict|dictionary|matrix|set|value|word)"
    r"[ \t]{1,4}",
    re.IGNORECASE,
)
_SEPARATOR = re.compile(
    r"[`*]{0,2}"
    r"(?:[ \t]{0,9}(?:,|;|&|\band\b(?=[ \t]))(?:[ \t]{0,9}and(?=[ \t]))?|(?=[ \t]{0,9}\n))\s{0,40}"
)
_BARE = re.compile(rf"[^\W_][^\n`'\"“”\[\](){{}}=,;:|<>]{{0,{MAX_BARE}}}")
_BARE_END = re.compile(r"[ \t]{0,9}(?=\n|\Z|,[ \t]{0,9}[^\W\d]\w{0,60}[ \t]{0,9}=|\|)")
_DESCRIBES = re.compile(
    r"\b(?:the|an?|of|is|are|some|each|any|all|with|or|and|to|in|one|no|not|if|contain\w*|represent\w*|denot\w*|given"
    r"|returns?|raises?|errors?|exception|lists?|strings?|str|texts?|words?|sentences?|characters?|integers?|int|numbers?"
    r"|floats?|arrays?|tuples?|dict\w*|sets?|bool\w*|values?|size|length|none|null|true|false|inputs?|outputs?|same"
    r"|un|une|eine?|el|la|les?|der|die|das|los)\b",
    re.IGNORECASE,
)
_SPEAKS_OF_TEXT = re.compile(r"\b(?:strings?|texts?|words?|sentences?|characters?|letters?)\b", re.IGNORECASE)
_OPENING = re.compile(r"[\s`*]{0,80}(?:[-•][ \t]{1,4})?")


def inputs_at(source: Source, start: int, limit: int) -> tuple[Arguments, int]:
    """The inputs from `start` on, as the arguments of a call, and where they end.

    Raises `NotLiteral` where there are none, or where the signature does not take them.
    """
    call = re.compile(rf"[\s`*]{{0,80}}(?<![\w.]){re.escape(source.name)}[ \t]?\(").match(source.text, start, limit)
    if call is not None and source.name:
        return source.arguments(call.end(), limit)
    items: Arguments = []
    end = start
    at = start
    while len(items) < MAX_INPUTS:
        opening = _OPENING.match(source.text, at, limit)
        at = opening.end() if opening else at
        try:
            item, at = _item(source, at, limit)
        except NotLiteral:
            if not items:
                raise
            break
        items.append(item)
        ticks = re.compile(r"[`*]{0,2}").match(source.text, at, limit)
        end = ticks.end() if ticks else at
        separator = _SEPARATOR.match(source.text, at, limit)
        if separator is None:
            break
        at = separator.end()
    return as_arguments(source, items), end


def _item(source: Source, at: int, limit: int) -> tuple[tuple[str | None, str], int]:
    named = _NAME.match(source.text, at, limit)
    names = {parameter.name for parameter in source.parameters}
    if named is not None and (named["sign"] == "=" or named[1] in names):
        try:
            value, end = source.value(named.end(), limit)
        except NotLiteral:
            known = named["sign"] == "=" and (named[1] in names or not names) and may_be_text(source, named[1])
            value, end = bare_text(source, named.end(), limit, known=known)
        return (named[1], value), end
    noun = _NOUN.match(source.text, at, limit)
    try:
        value, end = source.value(noun.end() if noun else at, limit)
    except NotLiteral:
        known = len(source.parameters) == 1 and source.parameters[0].annotation == "str"
        value, end = bare_text(source, at, limit, known=known)
    return (None, value), end


def bare_text(source: Source, start: int, limit: int, *, known: bool) -> tuple[str, int]:
    """A text that is written without quotes, to the end of its line or to the next `name =`, as a literal.

    `known`: that a text stands here. Raises `NotLiteral` where that is not known, or where words describe a value.
    """
    while start < limit and source.text[start] in " \t":
        start += 1
    text = _BARE.match(source.text, start, limit)
    if not known or text is None or _BARE_END.match(source.text, text.end(), limit) is None:
        raise NotLiteral
    words = text[0].strip()
    names = {parameter.name for parameter in source.parameters}
    if describes(words) or words in names or words.endswith((".", "...")):
        raise NotLiteral
    return repr(words), text.end()


def describes(words: str) -> bool:
    """Whether words say what a value is like, and are none themselves."""
    return len(words) > 1 and _DESCRIBES.search(words) is not None


def may_be_text(source: Source, name: str) -> bool:
    """Whether a parameter may take a text: it is annotated so, or it is not and the prompt speaks of texts."""
    annotation = next((p.annotation for p in source.parameters if p.name == name), None)
    return annotation == "str" or (annotation is None and _SPEAKS_OF_TEXT.search(source.text) is not None)


def as_arguments(source: Source, items: Arguments) -> Arguments:
    """The items as arguments: by place where that says the same as their names.

    Raises `NotLiteral` where the signature does not take them.
    """
    parameters = [p for p in source.parameters if not p.name.startswith("*")]
    known = [parameter.name for parameter in parameters]
    by_lower = {name.lower(): name for name in known}
    items = [(name and by_lower.get(name.lower(), name), value) for name, value in items]
    names = [name for name, _ in items]
    if None in names and any(name is not None for name in names):
        raise NotLiteral
    if len(set(names)) < len(names) and None not in names:
        raise NotLiteral
    if items and names[0] is not None and known:
        if set(names) <= set(known):
            ordered = sorted(items, key=lambda item: known.index(str(item[0])))
            in_place = [item[0] == known[place] for place, item in enumerate(ordered)]
            items = [(None if all(in_place[: place + 1]) else item[0], item[1]) for place, item in enumerate(ordered)]
        elif any(name in known for name in names):
            raise NotLiteral
        else:
            items = [(None, value) for _, value in items]
    elif names and names[0] is not None:
        items = [(None, value) for _, value in items]
    required = [parameter for parameter in parameters if parameter.default is None]
    if len(items) == 1 and len(required) > 1 and items[0][1].startswith("("):
        items = _unpacked(items[0][1])
    if not items or not fits(items, source.parameters):
        raise NotLiteral
    return items


def _unpacked(value: str) -> Arguments:
    """The items of a tuple's source, for `Input: (1, 2)` of a function with two parameters."""
    arguments, end = LiteralReader(value, 2 * len(value) + 2).arguments(1)
    if end != len(value) or any(name is not None for name, _ in arguments):
        raise NotLiteral
    return arguments
