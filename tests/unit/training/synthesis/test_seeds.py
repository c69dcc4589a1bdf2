"""Seed programs come out of code data by AceCoder's rules, each once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from training.pipeline.cli import main
from training.pipeline.files import read_jsonl, write_jsonl
from training.synthesis.synthesize import read_seeds

FUNCTION = "def add(a, b):\n    total = a + b\n    print(total)\n    return total\n"
LONG = f"def scale(xs, by):\n    return [{' + '.join(['by'] * 40)} * x for x in xs]\n"
FILE = (
    "import os\n\n"
    'def area(width, height):\n    """The area of a rectangle with these two sides, in their unit."""\n'
    "    size = width * height\n    print(size)\n    return size\n\n"
    "def bare(x):\n    return x\n\n"
    'def test_area():\n    """A test with a docstring that is long enough to be a seed."""\n'
)
ROWS: dict[str, tuple[list[dict[str, Any]], list[str]]] = {
    "evol": (
        [
            {"instruction": "Add.", "response": f"Sure:\n```python\n{FUNCTION}```\n```python\nx = 1\n```"},
            {"instruction": "Add again.", "response": f"```python\n{FUNCTION}```"},
            {"instruction": "No function.", "response": f"```python\nx = 1\n```\n```python\n{FUNCTION}```"},
            {"instruction": "C.", "response": "```c\nint x;\n```"},
        ],
        [FUNCTION.replace("    print(total)\n", "")],
    ),
    "oss": (
        [
            {"lang": "python", "problem": "Add.", "solution": f"```python\n{FUNCTION}```"},
            {"lang": "cpp", "problem": "Add.", "solution": f"```python\n{LONG}```"},
        ],
        [FUNCTION.replace("    print(total)\n", "")],
    ),
    "functions": ([{"content": FUNCTION}, {"content": LONG}], [LONG]),
    "files": (
        [{"text": FILE, "path": "a.py", "license": "MIT"}, {"content": "def broken("}],
        [FILE.split("\n\n")[1].replace("    print(size)\n", "") + "\n"],
    ),
}


@pytest.mark.parametrize("form", ROWS)
def test_each_form_gives_its_seeds(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, programs = ROWS[form]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    out = tmp_path / "seeds.jsonl"
    assert main(["seeds", form, str(tmp_path / "rows.jsonl"), "--out", str(out), "--license", "CC0"]) == 0
    found = list(read_jsonl(out))
    assert [seed["program"] for seed in found] == programs
    assert found[0]["license"] == ("MIT" if form == "files" else "CC0")
    assert json.loads(capsys.readouterr().out)["seeds"] == len(programs)
    assert [key for key, _ in read_seeds(str(out))] == [seed["id"] for seed in found]


def test_most_and_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"content": f"{LONG}# {at}\n"} for at in range(5)])
    arguments = ["seeds", "functions", str(tmp_path / "rows.jsonl"), "--out", str(tmp_path / "out.jsonl")]
    assert main([*arguments, "--most", "3"]) == 0
    assert len(list(read_jsonl(tmp_path / "out.jsonl"))) == 3
    assert main([*arguments, "--min-chars", "100000"]) == 2
    assert "no seed in it" in capsys.readouterr().err
    assert main(["seeds", "functions", str(tmp_path / "none.jsonl"), "--out", str(tmp_path / "out.jsonl")]) == 2
