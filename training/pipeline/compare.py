"""`plaudit-train diff RUN RUN`: what two runs were made with, and what came out, where they differ.

Recipes are compared field by field, stages by their summaries, environments by package and machine, inputs by digest.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from plaudit.errors import UsageError
from training.pipeline.run import Run
from training.pipeline.stages import STAGES

FILES = ("recipe.json", "environment.json", "inputs.json")
TIMES = ("wall_s", "cpu_s")  # differ between equal runs


def diff_command(arguments: Sequence[str]) -> bool:
    """Print a line per difference. Answers whether there is none. Raises `UsageError` for what is no run folder."""
    parser = argparse.ArgumentParser(prog="plaudit-train diff", description=__doc__.splitlines()[0])
    parser.add_argument("left", type=Path)
    parser.add_argument("right", type=Path)
    options = parser.parse_args(arguments)
    lines = list(differences(options.left, options.right))
    print("\n".join(lines) if lines else "the same recipe, environment, inputs and summaries")
    return not lines


def differences(left: Path, right: Path) -> Iterator[str]:
    """Lines `file: field: left → right`, in a fixed order."""
    for folder in (left, right):
        if not (folder / "recipe.json").is_file():
            raise UsageError(f"{folder} is not a run folder: it has no recipe.json")
    for name in FILES:
        yield from _lines(name.removesuffix(".json"), _flat(_read(left / name)), _flat(_read(right / name)))
    runs = [Run(folder, quiet=True) for folder in (left, right)]
    for stage in STAGES:
        one, other = (_flat((run.record(stage) or {}).get("summary")) for run in runs)
        yield from _lines(f"stages/{stage}", one, other)


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Every leaf by its path."""
    if isinstance(value, dict):
        return {
            path: leaf
            for name, inner in value.items()
            for path, leaf in _flat(inner, f"{prefix}.{name}".strip(".")).items()
        }
    return {prefix: value} if prefix else {}


def _lines(name: str, left: dict[str, Any], right: dict[str, Any]) -> Iterator[str]:
    for path in sorted(left.keys() | right.keys()):
        one, other = left.get(path, "none"), right.get(path, "none")
        if one != other and path.rpartition(".")[2] not in TIMES:
            yield f"{name}: {path}: {_shown(one)} → {_shown(other)}"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
