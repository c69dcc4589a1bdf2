"""Draws the README's picture from the results that stand in `benchmarks/results/`: nothing in it is typed by hand."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "forgery.md"
PICTURE = ROOT / "docs" / "images" / "forgery.svg"
BAR_HEIGHT, ROW, LEFT, FULL, WIDTH = 22, 36, 130, 470, 720


def false_passes(text: str) -> tuple[int, dict[str, int]]:
    """How many wrong programs there were, and how many of them each harness paid, fewest first."""
    names = re.search(r"^\| family \| (.+) \|$", text, re.MULTILINE)
    total = re.search(r"^\| \*\*all false passes\*\* of (\d+) \| (.+) \|$", text, re.MULTILINE)
    assert names is not None, "the results have no head of the table"
    assert total is not None, "the results have no row of false passes"
    paid = dict(zip(names[1].split(" | "), map(int, total[2].split(" | ")), strict=True))
    return int(total[1]), dict(sorted(paid.items(), key=lambda pair: pair[1]))


def draw(text: str) -> str:
    """The picture as SVG; it is readable on a light and on a dark page."""
    programs, paid = false_passes(text)
    lines = []
    for at, (name, count) in enumerate(paid.items()):
        top = 58 + at * ROW
        colour = "#2da44e" if not count else "#cf222e"
        lines.append(f'<text x="{LEFT - 12}" y="{top + 16}" text-anchor="end" class="ink">{escape(name)}</text>')
        width = max(2, FULL * count // programs)
        lines.append(f'<rect x="{LEFT}" y="{top}" width="{width}" height="{BAR_HEIGHT}" fill="{colour}"/>')
        lines.append(f'<text x="{LEFT + width + 10}" y="{top + 16}" class="ink">{count:,}</text>')
    height = 58 + len(paid) * ROW + 10
    title = f"Paid, of {programs:,} wrong programs that attack the judge"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{title}">'
        "<style>text{font:15px system-ui,sans-serif}.ink{fill:#24292f}"
        "@media (prefers-color-scheme:dark){.ink{fill:#e6edf3}}</style>"
        f'<text x="12" y="30" class="ink" font-weight="600">{title}</text>' + "".join(lines) + "</svg>\n"
    )


if __name__ == "__main__":
    PICTURE.write_text(draw(RESULTS.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"drawn: {PICTURE.relative_to(ROOT)}")
