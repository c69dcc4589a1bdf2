"""Moves the imports of an appended test to the head of the program, in languages that require imports first.

The imports go on existing lines of the program's head, so that its line numbers do not change. Only heads are read,
token by token, in time proportional to the text. Text that does not look like a head is not changed, and the compiler
reports it.
"""

from __future__ import annotations

import re

BLANK = re.compile(rb"(?:[ \t\r\n;]+|//[^\n]*|/\*(?:(?!\*/).)*\*/)*", re.DOTALL)
GO_PACKAGE = re.compile(rb"package[ \t]+\w+")
GO_ONE = re.compile(rb"import[ \t]*((?:[\w.]+[ \t]+)?(?:\"[^\"\n]*\"|`[^`\n]*`))")
GO_MANY = re.compile(rb"import[ \t]*\(((?:[^()\"`]|\"[^\"\n]*\"|`[^`\n]*`)*)\)")
GO_SPEC = re.compile(rb"//[^\n]*|((?:[\w.]+[ \t]+)?(?:\"[^\"\n]*\"|`[^`\n]*`))")
JAVA_PACKAGE = re.compile(rb"package[ \t\r\n]+[\w.]+[ \t\r\n]*;")
JAVA_IMPORT = re.compile(rb"import[ \t\r\n]+(?:static[ \t\r\n]+)?[\w.]+(?:\.\*)?[ \t\r\n]*;")
USING = re.compile(rb"using[ \t\r\n]+(?:static[ \t\r\n]+)?[\w.]+(?:[ \t\r\n]*=[ \t\r\n]*[\w.<>,]+)?[ \t\r\n]*;")


def with_hoisted_imports(language: str, program: bytes, test: bytes) -> tuple[bytes, bytes]:
    """Program and test, the imports of the test's head moved to the program's."""
    if language == "go":
        return with_hoisted_go_imports(program, test)
    pattern = JAVA_IMPORT if language == "java" else USING
    imports, rest = taken(test, pattern)
    if not imports:
        return program, test
    at = 0
    if language == "java":
        start = BLANK.match(program)
        package = JAVA_PACKAGE.match(program, start.end() if start else 0)
        at = package.end() if package else 0
    return program[:at] + b" " + b" ".join(imports) + b" " + program[at:], rest


def taken(text: bytes, pattern: re.Pattern[bytes]) -> tuple[list[bytes], bytes]:
    """What matches in the head of a text, and the rest of it."""
    imports = []
    at = end_of_blank(text, 0)
    while match := pattern.match(text, at):
        imports.append(match[0].replace(b"\r", b" ").replace(b"\n", b" "))
        at = end_of_blank(text, match.end())
    return imports, text[at:] if imports else text


def end_of_blank(text: bytes, at: int) -> int:
    match = BLANK.match(text, at)
    return match.end() if match else at


def go_head(text: bytes) -> tuple[int, list[bytes], int]:
    """Of a Go file: where its package clause ends (0 without one), its imports, and where they end."""
    at = end_of_blank(text, 0)
    package = GO_PACKAGE.match(text, at)
    clause = at = package.end() if package else 0
    end, specs = at, []
    while True:
        at = end_of_blank(text, at)
        one, many = GO_ONE.match(text, at), GO_MANY.match(text, at)
        if one:
            specs.append(b" ".join(one[1].split()))
        elif many:
            specs += [b" ".join(spec.split()) for spec in GO_SPEC.findall(many[1]) if spec]
        else:
            return clause, specs, end
        match = one or many
        assert match is not None
        at = end = match.end()


def with_hoisted_go_imports(program: bytes, test: bytes) -> tuple[bytes, bytes]:
    """Imports that the program has already are dropped: Go refuses a name that is imported twice."""
    clause, there, _ = go_head(program)
    test_clause, specs, end = go_head(test)
    if not specs and not test_clause:
        return program, test
    missing = [spec for spec in dict.fromkeys(specs) if spec not in there]
    rest = test[max(end, test_clause) :]
    if not clause or not missing:
        return program, rest
    return program[:clause] + b"; import (" + b"; ".join(missing) + b")" + program[clause:], rest
