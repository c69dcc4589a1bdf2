"""House rules that a program can check: one meaning per class name, modules that can be read, ruff's format."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("service", "sandbox", "training", "client")
CODE = (*ROOMS, "benchmarks", "examples", "tests")
MAX_LINES = 500
MAX_TEST_NAME = 100

EMPTY_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "manager"}


def modules(*folders: str) -> Iterator[Path]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if not {"build", "dist"} & set(path.relative_to(ROOT).parent.parts):  # copies that a wheel was made from
                yield path


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_a_class_name_has_one_meaning() -> None:
    trees = [ast.parse(path.read_text("utf-8")) for path in modules(*ROOMS)]
    count = Counter(node.name for tree in trees for node in tree.body if isinstance(node, ast.ClassDef))
    assert {name for name, times in count.items() if times > 1} == set()


def test_modules_are_short_enough_to_be_read() -> None:
    lengths = {name_of(path): len(path.read_text("utf-8").splitlines()) for path in modules(*ROOMS)}
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


def test_module_names_say_what_is_inside() -> None:
    parts = {name_of(path): {*path.relative_to(ROOT).parent.parts, path.stem} for path in modules(*CODE)}
    assert [name for name, words in parts.items() if words & EMPTY_NAMES] == []


def test_ruff_formats_every_line() -> None:
    skip = re.compile(r"#\s*fmt:\s*(?:skip|off)")
    assert [name_of(path) for path in modules(*CODE) if skip.search(path.read_text("utf-8"))] == []


def test_names_of_tests_fit_on_a_line() -> None:
    names = [
        f"{name_of(path)}: {name}"
        for path in modules("tests")
        for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text("utf-8"), re.MULTILINE)
        if len(name) > MAX_TEST_NAME
    ]
    assert names == []
