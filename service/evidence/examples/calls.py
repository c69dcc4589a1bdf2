"""Examples that show the call: doctests, `f(1) == 2`, `f(1) -> 2`, `f(1) returns 2`, `f(1)  # 2`."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from service.evidence.examples.asserted import ShownCall, asserted_example, rounded_call, with_tolerance
from service.evidence.examples.inputs_text import may_be_text
from service.evidence.examples.literals import NotLiteral
from service.evidence.examples.source import MAX_EXAMPLES, Source, rendered
from service.evidence.examples.types import Example

MAX_USED = 4_000  # characters before a call in which its object may have been called
ARROW = r"-{1,3}>|={1,3}>|[→⇒➞➔➜⟶⟹↦]|~>"
VERB = (
    r"(?:(?:should|must|would|will|shall|has to|needs to|ought to|is supposed to|is expected to)[ \t](?:just[ \t])?)?"
    r"(?:returns?|gives?|yields?|be|is|equals?(?: to)?|evaluates? to|outputs?|produces?|results? in|becomes?|returning"
    r"|ergibt|liefert|renvoie|retourne|donne|devuelve|retorna|返回|возвращает"
    r"|(?:you|we|I)(?:'ll|'d|[ \t]will|[ \t]would|[ \t]should)?[ \t](?:get|expect|want))"
    r"(?:[ \t](?:equal(?: to)?|exactly|back|us|you|me))?"
    r"(?:[ \t]the (?:value|list|string|tuple|number|integer|boolean|dictionary|dict|set|array|result))?:?"
    r"(?=[ \t\[({'\"`“‘])"
)
_SUBJECT = r"(?:it|which|that|this|the (?:(?:expected )?(?:result|output)|answer|function|return(?:ed)? value))"
SAID = rf"(?:{_SUBJECT}[ \t])?{VERB}"
_RELATION = re.compile(
    rf"[ \t]{{0,40}}[`*\"”]{{0,3}},?[ \t]{{0,40}}(?:(?P<arrow>{ARROW})|(?P<equality>===?|≡|=(?![=>]))"
    rf"|(?P<returns>{SAID})|(?P<colon>:)(?=[ \t])"
    rf"|;?[ \t]{{0,9}}(?P<comment>#|//|--)[ \t]{{0,20}}(?:(?:{ARROW}|==?)[ \t]{{0,9}})?"
    rf"(?:(?:(?:expected )?(?:output|result|out|expected|answer)(?:[ \t]is\b)?|expects?|prints|{SAID})[ \t]{{0,3}}[:=]?"
    rf"[ \t]{{0,9}}(?:{ARROW})?[ \t]{{0,9}})?)"
    rf"[ \t]{{0,40}}(?:returns?[ \t:]{{1,9}})?",
    re.IGNORECASE,
)
_NEXT_LINE = re.compile(
    rf"[ \t]{{0,80}}(?:(?:#|//|--|\*)[ \t]{{0,9}})?"
    rf"(?:{ARROW}|==|(?:expected )?(?:output|result|out|expected|returns?|answer)(?:\[\d{{1,4}}\])?[ \t]{{0,3}}[:=]"
    rf"|returns?(?=[ \t])|#)?"
    rf"[ \t]{{0,40}}",
    re.IGNORECASE,
)
_PROMPT = re.compile(
    r"[ \t]{0,80}(?:[*#/|-]{1,3}[ \t]{1,4})?(?:>>>|>>|In ?\[\d{1,4}\]:|(?:js|irb|php|node)?[ \t]?>)[ \t]{0,9}"
)
_BULLET = re.compile(
    r"[ \t]{0,80}(?:[*•#/+-]{1,3}|\d{1,3}[.)]|\(?[a-z\d]\))?[ \t]{0,9}"
    r"(?:(?:@example|(?:for )?(?:examples?|samples?|tests?|test cases?|cases?)[ \t]?#?\d{0,3}[:.]|e\.g\.?[:,]?|ex[.:])"
    r"[ \t]{1,9})?",
    re.IGNORECASE,
)
_ASSIGNED = re.compile(r"(?:(?:var|let|const|auto)[ \t])?([^\W\d][\w.]{0,60})[ \t]{0,9}=[ \t]{0,9}\Z")
_ASSIGNMENT = re.compile(r"^[ \t]{0,80}(?:>>>[ \t]{0,9})?([^\W\d]\w{0,60})[ \t]{0,9}=(?!=)[ \t]{0,9}", re.MULTILINE)
_BAD_WORD = re.compile(
    r"(?:\A[ \t]{0,40}while"
    r"|\b(?:not|if|return|elif|unless|until|lambda|in|whether|assume|suppose|yield|raise|or|was|were|del|await)"
    r"|[-+/%<>&|^~@=\[{]|[\w)\]'\"][ \t]*\*)[ \t]*\Z",
    re.IGNORECASE,
)
_FOLLOWING = re.compile(r"[ \t]{0,40}(?:#[^\n]{0,2000})?(?=\n|\Z)")
_EXPECTED_BELOW = re.compile(r"[ \t]{0,40}\n[^\n]{0,20}\bexpected\b", re.IGNORECASE)
_NUMBER_OF_LIST = re.compile(r"\d{1,2}[.:)][ \t]{1,4}[^\W\d]")  # behind a comment's mark
_CHANGED = re.compile(  # a name whose value is no longer what it was given
    r"^[ \t]{0,80}(?:>>>[ \t]{0,9})?([^\W\d]\w{0,60})"
    r"(?:\.\w{1,40}\(|\[[^\]\n]{0,80}\][ \t]{0,9}=(?!=)|[ \t]{0,9}[-+*/%|&^]{1,2}=)",
    re.MULTILINE,
)
_OPENS_MUTABLE = "[{s"  # a list, a dict, a set: what a call may change
_WRAPPER = re.compile(r"(?<![\w.])(?:print|pprint(?:\.pprint)?|console\.log|println!?|puts)[ \t]?\([ \t]{0,9}\Z")
_PRINTS = re.compile(r"[ \t`]{1,9}(?:(?:should|must|will|would)[ \t])?(?:prints?|displays?|outputs?|shows?)[ \t]{1,9}")
_BARE_WORD = re.compile(r"[^\W\d_]+(?: [^\W\d_]+){0,8}")
_SAID_END = re.compile(r"[ \t`]{0,4}(?:,|and\b)")
_CLOSED = re.compile(r"[ \t]{0,9}\)")


def call_examples(source: Source) -> Iterator[Example]:
    """The examples that call the entry point with literals, in the order of the text."""
    method = "." in (source.signature.entry_point or "")
    owner = r"(?:[^\W\d]\w{0,50}(?:\(\))?\.)?" if method else ""
    call = re.compile(rf"(?<![\w.]){owner}{re.escape(source.name)}[ \t]?\(")
    class_name = (source.signature.entry_point or "").rpartition(".")[0]
    has_state = class_name != "Solution" or any(d.name == f"{class_name}.__init__" for d in source.definitions)
    end = count = 0
    names = _Names(source)
    for match in call.finditer(source.text):
        if count >= MAX_EXAMPLES or source.reader.budget <= 0:
            break
        if match.start() < end or (has_state and _was_used(source, match)):
            continue
        source.reader.names = names.before(match.start())
        try:
            example = _example(source, match.start(), match.end())
        except NotLiteral:
            continue
        finally:
            source.reader.names = {}
        count, end = count + 1, example.end
        yield example


def _was_used(source: Source, call: re.Match[str]) -> bool:
    """Whether the object of a call was called before or made with arguments, so that it is not as it is made here."""
    name, dot, _ = call[0].partition(".")
    if not dot or name.endswith(")"):
        return False
    before = source.text[max(0, call.start() - MAX_USED) : call.start()]
    used = rf"(?<![\w.]){re.escape(name)}(?:\.\w{{1,60}}\(|[ \t]{{0,9}}=[ \t]{{0,9}}[\w.]{{1,60}}\([ \t]{{0,9}}[^) \t])"
    return re.search(used, before) is not None


def bare_call_examples(source: Source) -> Iterator[Example]:
    """The examples whose calls have a text without quotes: `is_happy(abcd) => True`.

    Only of a function of one text, where all its calls are written so, with different words.
    """
    names = {parameter.name for parameter in source.parameters}
    if len(names) != 1 or not may_be_text(source, *names):
        return
    call = re.compile(rf"(?<![\w.]){re.escape(source.name)}[ \t]?\((?P<word>[^()\n]{{1,80}})\)")
    matches = [m for m in call.finditer(source.text) if m["word"].split(":")[0].strip() not in names][:MAX_EXAMPLES]
    words = {match["word"] for match in matches}
    if len(words) < 2 or max(map(len, words)) < 2 or not all(_BARE_WORD.fullmatch(word) for word in words):
        return
    for match in matches:
        relation = _RELATION.match(source.text, match.end())
        if relation is None or source.denied(match.start()):
            continue
        try:
            expected, end = source.stated(relation.end())
        except NotLiteral:
            continue
        yield Example(match.start(), end, relation.lastgroup or "arrow", repr(match["word"]), expected)


def _example(source: Source, start: int, opening: int) -> Example:
    """The example of the call that begins at `start`. Raises `NotLiteral` if there is none."""
    text = source.text
    line_start = source.line(source.line_number(start))[0]
    if not text[line_start:start].strip() and text[max(0, line_start - 2) : line_start] == "(\n":
        line_start = source.line(source.line_number(line_start) - 1)[0]
    if start - line_start > 2_000:
        line_start = start - 2_000
    before = text[line_start:start]
    prompt = _PROMPT.match(before)
    lead = before[prompt.end() :] if prompt else before[(bullet.end() if (bullet := _BULLET.match(before)) else 0) :]
    arguments, end = source.arguments(opening)
    call, tolerance = rounded_call(source, ShownCall(start, end, lead, start - len(lead), arguments))
    example = asserted_example(source, call)
    if example is None:
        example = _shown(source, call, prompt=prompt is not None)
    return with_tolerance(example, tolerance)


def _shown(source: Source, call: ShownCall, *, prompt: bool) -> Example:
    """The example of a call that stands in no assertion. `prompt`: behind an interpreter's prompt."""
    text, lead, end = source.text, call.lead, call.end
    reversed_value = _reversed(source, call)
    if reversed_value is not None:
        if source.denied(call.lead_start) or not source.ends(end):
            raise NotLiteral
        return Example(call.lead_start, end, "equality", rendered(call.arguments), reversed_value)
    wrapper = _WRAPPER.search(lead)
    printed = wrapper is not None and lead[: wrapper.start()].strip() == ""
    assigned = _ASSIGNED.match(lead)
    if printed:
        closing = _CLOSED.match(text, end)
        if closing is None:
            raise NotLiteral
        end = closing.end()
    elif (assigned is None and lead and (_BAD_WORD.search(lead[-60:]) or lead[-1:] in "\\")) or _inside_call(lead):
        raise NotLiteral
    if source.denied(call.start):
        raise NotLiteral
    prints = _PRINTS.match(text, end) if printed else None
    if prints is not None:
        expected, end = source.stated(prints.end())
        return call.example(end, _printed(source, expected, printed=True), "returns")
    alone = printed or assigned is not None or not lead.strip()
    relation = (
        None if text[end : end + 1] in ("[", ".") and text[end + 1 : end + 2].isalnum() else _RELATION.match(text, end)
    )
    if relation is not None and "\n" not in relation[0]:
        style = relation.lastgroup or "arrow"
        if printed and style == "equality":
            raise NotLiteral
        if style != "comment" and assigned is None:
            expected, end = _related(source, relation, prompt=prompt)
            return call.example(end, expected, "arrow" if style == "colon" else style)
        if style == "comment" and _NUMBER_OF_LIST.match(text, relation.end()):
            raise NotLiteral
        if style == "comment" and alone and relation.end() < source.line_end(end):
            try:
                expected, comment_end = source.stated(relation.end())
            except NotLiteral:
                if not prompt:
                    raise
            else:
                return call.example(comment_end, _printed(source, expected, printed=printed), style)
    if assigned is not None:
        return _shown_by_name(source, call, assigned[1], prompt=prompt)
    if not alone:
        raise NotLiteral
    expected, end = _below(source, end, prompt=prompt)
    return call.example(end, _printed(source, expected, printed=printed), "doctest" if prompt else "comment")


def _shown_by_name(source: Source, call: ShownCall, name: str, *, prompt: bool) -> Example:
    """The example of `x = f(1)`, whose value the next line shows: `x`, `print(x)  # 2`, `x == 2` or `assert x == 2`."""
    start, end = source.line(source.line_number(call.end) + 1)
    if source.text[call.end : start].strip("\n ;\t"):
        raise NotLiteral
    shown = re.compile(
        rf"[ \t]{{0,80}}(?:>>>[ \t]{{0,9}})?"
        rf"(?:(?:assert[ \t]{{1,9}})?{re.escape(name)}[ \t]{{0,9}}(?P<equal>===?)[ \t]{{0,9}}"
        rf"|(?P<print>(?:print|console\.log)\()?{re.escape(name)}(?(print)\));?[ \t]{{0,9}}"
        rf"(?P<comment>(?:#|//)[ \t]{{0,9}}(?:(?:{ARROW}|==?|[Oo]utputs?:?|[Pp]rints:?)[ \t]{{0,9}})?)?)"
    ).match(source.text, start, end)
    if shown is None:
        raise NotLiteral
    if shown["equal"] or shown["comment"]:
        expected, value_end = source.stated(shown.end())
    else:
        expected, value_end = _below(source, shown.end(), prompt=prompt)
    printed = shown["print"] is not None
    return call.example(value_end, _printed(source, expected, printed=printed), "doctest" if prompt else "comment")


def _related(source: Source, relation: re.Match[str], *, prompt: bool) -> tuple[str, int]:
    """The value behind a relation; a doctest of an equality that shows False is none."""
    expected, end = source.stated(relation.end())
    if prompt:
        below = source.line(source.line_number(end) + 1)
        if source.text[slice(*below)].strip() == "False":
            raise NotLiteral
    return expected, end


def _reversed(source: Source, call: ShownCall) -> str | None:
    """The literal of `5 == f(2)`, where nothing but it and perhaps `assert` stands before the call."""
    bare = call.lead.rstrip()
    if not bare.endswith("==") or bare.endswith("==="):
        return None
    at = call.lead_start
    word = re.compile(r"[ \t]{0,9}(?:assert\b[ \t(]{1,4})?").match(source.text, at)
    value, end = source.value(word.end() if word else at, call.start)
    if source.text[end : call.start].strip() != "==":
        raise NotLiteral
    return value


def _inside_call(lead: str) -> bool:
    """Whether the call is an argument of another."""
    bare = lead.rstrip()
    return bare.endswith("(") and bool(re.search(r"[\w\])]\Z", bare[:-1]))


def _below(source: Source, end: int, *, prompt: bool) -> tuple[str, int]:
    """The value on the line below a call that stands alone."""
    text = source.text
    following = re.compile(r"[ \t`;:]{0,9}(?=\n|\Z)").match(text, end) or (
        _FOLLOWING.match(text, end) if prompt else None
    )
    number = source.line_number(end) + 1
    if following is None or number >= len(source.line_starts) or "doctest:" in following[0]:
        raise NotLiteral
    start, line_end = source.line(number)
    line = text[start : min(line_end, start + 4_000)]
    if prompt and (not line.strip() or line.strip() in ('"""', "'''")) and _says_none(source):
        return "None", end
    second = _PROMPT.match(line)
    mark = second if prompt and second else _NEXT_LINE.match(line)
    at = start + (mark.end() if mark else 0)
    if text[at : at + 3] in ('"""', "'''"):
        raise NotLiteral
    if prompt and second:
        source.reader.names = {}  # what the call may have changed
    value, end = source.value(at)
    if _EXPECTED_BELOW.match(text, end):
        raise NotLiteral  # this is what came out
    if _FOLLOWING.match(text, end) is None and not (mark and mark[0].strip() and source.ends(end)):
        raise NotLiteral
    last = source.line_number(end)
    after = text[slice(*source.line(last + 1))].strip()
    bare_value = mark is None or not mark[0].strip()
    if mark is not None and (sign := mark[0].strip()) in ("#", "//") and after.startswith(sign):
        try:
            source.value(text.index(sign, source.line(last + 1)[0]) + len(sign))
        except NotLiteral:
            pass  # words
        else:
            raise NotLiteral  # of several outputs nobody knows which is whose
    if (
        prompt
        and bare_value
        and after
        and not _PROMPT.match(after)
        and after[:3] not in ('"""', "'''", "```")
        and _goes_on(after)
    ):
        raise NotLiteral  # the output has more lines
    return value, end


def _goes_on(line: str) -> bool:
    """Whether a line below a doctest's value looks like more output, not like prose."""
    return line[0] in "[({'\"-+0123456789" or line in ("True", "False", "None")


def _says_none(source: Source) -> bool:
    """Whether the signature or the text speaks of None, so that a doctest without output may show it."""
    returns = source.signature.returns or ""
    return "Optional" in returns or "None" in returns or re.search(r"\bNone\b", source.text) is not None


def _printed(source: Source, expected: str, *, printed: bool) -> str:
    """What was returned where this was printed. Raises `NotLiteral` where a text may have looked the same."""
    if not printed:
        return expected
    returns = source.signature.returns or ""
    if returns == "str" or expected[0] in "'\"" or expected.startswith(("b'", 'b"')):
        raise NotLiteral
    return expected


class _Names:
    """The literals that lines of their own before a place have given names."""

    def __init__(self, source: Source) -> None:
        self._text = source.text
        self._given: list[tuple[int, str, str]] = []
        for assignment in _ASSIGNMENT.finditer(source.text):
            if len(self._given) >= MAX_EXAMPLES:
                break
            try:
                value, end = source.value(assignment.end())
            except NotLiteral:
                value, end = "", -1
            usable = end >= 0 and _FOLLOWING.match(source.text, end) is not None
            self._given.append((assignment.start(), assignment[1], value if usable else ""))
        changes = itertools.islice(_CHANGED.finditer(source.text), MAX_EXAMPLES)
        self._given += [(change.start(), change[1], "") for change in changes]
        self._given += _said(source)
        self._given.sort(key=lambda given: given[0])

    def before(self, place: int) -> dict[str, str]:
        names = {name: (start, value) for start, name, value in self._given if start < place}  # the last one counts
        return {
            name: value
            for name, (start, value) in names.items()
            if value and not (value[0] in _OPENS_MUTABLE and self._is_used(name, start, place))
        }

    def _is_used(self, name: str, start: int, place: int) -> bool:
        """Whether a line of an interpreter between two places has the name, so that its value may have changed."""
        return any(
            line.lstrip().startswith((">>>", "...")) and re.search(rf"(?<![\w.]){re.escape(name)}\b", line)
            for line in self._text[start:place].split("\n")[1:-1]
        )


def _said(source: Source) -> Iterator[tuple[int, str, str]]:
    """Where a sentence gives a parameter a value, "For nums = [3, 6], the output should be": place, name, value."""
    names = "|".join(re.escape(parameter.name) for parameter in source.parameters)
    said = re.compile(
        rf"(?:\b(?:for|given|and|with)|,)[ \t]{{1,4}}`?({names})[ \t]{{0,9}}=(?!=)[ \t]{{0,9}}", re.IGNORECASE
    )
    for match in itertools.islice(said.finditer(source.text) if names else (), MAX_EXAMPLES):
        try:
            value, end = source.value(match.end())
        except NotLiteral:
            continue
        if _SAID_END.match(source.text, end):
            yield match.start(), match[1], value
