"""Ordinary programs and tests: each row passes for the right program and fails for a wrong one.

`ordinary.txt` and `alive.txt` have them: a program, and for each row of it a test, and what is replaced in the program,
by what, to make it wrong. All of them pass in a plain Python process (`test_ordinary_objects.py` sees to it).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

MARK = re.compile(r"^#### (program|row|wrong|by) ?(.*)\n", re.MULTILINE)


@dataclass(frozen=True)
class Row:
    area: str
    name: str
    right: str
    wrong: str
    test: str
    entry_point: str


def read(text: str) -> list[Row]:
    rows: list[Row] = []
    area = program = entry_point = name = test = old = ""
    _, *parts = MARK.split(text)
    for what, title, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        body = body.rstrip("\n")
        if what == "program":
            area, program = title, body
            found = re.search(r"^(?:async )?(?:def|class) (\w+)", program, re.MULTILINE)
            entry_point = found[1] if found else "f"
        elif what == "row":
            name, test = title, body
        elif what == "wrong":
            old = body
            if old not in program:
                raise ValueError(f"{name}: the program does not have {old!r}")
        else:
            rows.append(Row(area, name, program, program.replace(old, body, 1), test, entry_point))
    return rows


ROWS = [
    row for name in ("ordinary", "alive") for row in read(Path(__file__).with_name(f"{name}.txt").read_text("utf-8"))
]
