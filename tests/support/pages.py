"""The written pages and their code blocks, for the tests that check them and the ones that run them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("**/*.md"))]


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    info: str
    code: str

    @property
    def name(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks that carry an info string, in order."""
    text = page.read_text("utf-8")
    for found in re.finditer(r"^```(\S[^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield Block(page, text.count("\n", 0, found.start()) + 1, found.group(1).strip(), found.group(2))


def table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def publish(page: Path, name: str, made: Callable[[str], str], *, rewrite: bool) -> None:
    """The table between `<!-- measured: NAME -->` and its end is what `made` makes of it, or becomes that."""
    text = page.read_text("utf-8")
    found = re.search(rf"(?<=<!-- measured: {name} -->\n)(.*?)(?=\n<!-- end -->)", text, re.DOTALL)
    assert found is not None, f"{page.name} has no table {name}"
    new = made(found[0])
    if rewrite:
        page.write_text(text[: found.start()] + new + text[found.end() :], "utf-8")
    else:
        assert new == found[0], f"{page.name} tells otherwise of {name}; if it is right now: pytest --rewrite"


def with_column(old: str, head: str, cells: dict[str, str]) -> str:
    """A table with this column for these rows: in its place if it is there, at the end if not."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in old.splitlines()]
    heads, known = lines[0], {line[0]: line[1:] for line in lines[2:]}
    at = heads.index(head) if head in heads else len(heads)
    rows = []
    for row, cell in cells.items():
        others = known.get(row, [""] * (len(heads) - 1))
        rows.append([row, *others[: at - 1], cell, *others[at:]])
    return table([*heads[:at], head, *heads[at + 1 :]], rows)
