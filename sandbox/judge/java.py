"""What Java wants to know before it compiles: the file must be named after its public class, and a run after a class.

Read from the text, outside the jail, so every pattern here takes time in proportion to the text, whatever it says. A
text that fools it (there is a `main` where none is) is not started, which is that program's own loss.
"""

from __future__ import annotations

import re

QUIET = re.compile(
    r"//[^\n]*"
    r"|/\*(?:.*?\*/|.*)"
    r'|"""(?:\\.|[^\\])*?(?:"""|\Z)'
    r'|"(?:\\.|[^"\\\n])*"?'
    r"|'(?:\\.|[^'\\\n])*'?",
    re.DOTALL,
)  # comments and literals
WORD = re.compile(r"[{};]|\bpublic\b|\b(?:class|interface|enum|record)\s+(\w+)|\bvoid\s+(main)\s*\(")
PACKAGE = re.compile(r"\s*package\s+([\w.]+)\s*;")


def names(source: bytes) -> tuple[str, str]:
    """The name of the public class (empty if there is none), and that of the class to start, package included.

    The class to start is the public one where it has a `main`, else `Main`, else the last that has one; where none has,
    it is the public class, or `Main`.
    """
    text = QUIET.sub(" ", source.decode("utf-8", "replace"))
    depth, public, current = 0, False, ""
    public_class = ""
    startable: list[str] = []
    for match in WORD.finditer(text):
        word = match[0]
        if word == "{":
            depth += 1
        elif word == "}":
            depth -= 1
            public = False
        elif word == ";":
            public = False
        elif word == "public":
            public = True
        elif match[2]:
            if depth == 1:
                startable.append(current)
        elif depth == 0:
            current = match[1]
            if public and not public_class:
                public_class = current
    preferred = [name for name in (public_class, "Main") if name in startable]
    start = (preferred or startable[-1:] or [public_class or "Main"])[0]
    package = PACKAGE.match(text)
    return public_class, f"{package[1]}.{start}" if package else start
