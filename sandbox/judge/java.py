"""What Java wants to know before it compiles: the file must be named after its public class, and a run after a class.

Read from the text, outside the jail, so every pattern here takes time in proportion to the text, whatever it says. A
text that fools it (there is a `main` where none is) is not started, which is that program's own loss.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Classes:
    """What a text says of its top-level classes: the first public one, and those that have a `main`, in order."""

    public: str
    startable: tuple[str, ...]
    package: str

    def start(self, *preferred: str) -> str:
        """The class to start, package included: the first of `preferred` that can be; else the public one, else `Main`,
        else the last. Where none has a `main`, it is the public one, or `Main`."""
        wanted = [name for name in (*preferred, self.public, "Main") if name in self.startable]
        name = (*wanted[:1], *self.startable[-1:], self.public or "Main")[0]
        return f"{self.package}.{name}" if self.package else name


def classes(source: bytes) -> Classes:
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
    package = PACKAGE.match(text)
    return Classes(public_class, tuple(startable), package[1] if package else "")
