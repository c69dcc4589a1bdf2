"""Whether a training run came out as the published checkpoint did: the same data, and numbers inside its intervals.

    python -m training.evaluation.reproduce PUBLISHED AGAIN

Both are folders that `publish` wrote. Weights are not compared: another number of threads or another processor adds up
in another order. Exit code 1, and the rows marked, where data or a number differ by more than they may.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plaudit.errors import UsageError

DIGEST = re.compile(r"^\| (\S+) \| `([0-9a-f]{32})` \|$", re.MULTILINE)
COUNTED = ("collect", "pair")  # stages whose numbers of rows are not up to chance


@dataclass(frozen=True, slots=True)
class Comparison:
    """One line: what was published, what came now, and whether that is the same."""

    name: str
    published: str
    again: str
    same: bool


def compare(published: Path, again: Path) -> list[Comparison]:
    """Every line, data first. Raises `UsageError` for a folder that `publish` has not written."""
    (old_card, old), (new_card, new) = (_read(folder) for folder in (published, again))
    return [*_digests(old_card, new_card), *_counts(old, new), *_numbers(old, new)]


def _read(folder: Path) -> tuple[str, dict[str, Any]]:
    try:
        card, report = (folder / "README.md").read_text(), json.loads((folder / "report.json").read_text())
    except OSError as error:
        raise UsageError(f"{folder} is not a published checkpoint: {error}") from error
    return card, report


def _digests(old: str, new: str) -> Iterator[Comparison]:
    now = dict(DIGEST.findall(new))
    for name, digest in DIGEST.findall(old):
        yield Comparison(name, digest[:12], now.get(name, "missing")[:12], digest == now.get(name))


def _counts(old: dict[str, Any], new: dict[str, Any]) -> Iterator[Comparison]:
    for stage in COUNTED:
        before, after = ((report["stages"].get(stage) or {}).get("summary", {}) for report in (old, new))
        for name, count in before.items():
            yield Comparison(f"{stage}: {name}", str(count), str(after.get(name, "missing")), count == after.get(name))


def _numbers(old: dict[str, Any], new: dict[str, Any]) -> Iterator[Comparison]:
    """What has an interval: pair accuracy, AUC, and every ranker's share of problems solved at every N."""
    for name in ("pair_accuracy", "auc"):
        yield _inside(name, old["discrimination"][name], new["discrimination"][name]["value"])
    now = {(row["ranker"], point["n"]): point["value"] for row in new["best_of_n"] for point in row["points"]}
    for row in old["best_of_n"]:
        for point in row["points"]:
            if (row["ranker"], point["n"]) in now:
                yield _inside(f"{row['ranker']}, N = {point['n']}", point, now[row["ranker"], point["n"]])


def _inside(name: str, was: dict[str, float], value: float) -> Comparison:
    """Reports round nothing, but a sum in another order may differ in its last digits: hence the tolerance."""
    same = was["low"] - 1e-9 <= value <= was["high"] + 1e-9
    return Comparison(name, f"{was['value']:.3f} ({was['low']:.3f} to {was['high']:.3f})", f"{value:.3f}", same)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; 0 if all of it is the same."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if len(arguments) != 2:
        print("usage: python -m training.evaluation.reproduce PUBLISHED AGAIN", file=sys.stderr)
        return 2
    try:
        lines = compare(Path(arguments[0]), Path(arguments[1]))
    except UsageError as error:
        print(f"reproduce: {error}", file=sys.stderr)
        return 2
    print("| | published | again | |\n|---|---|---|---|")
    for line in lines:
        print(f"| {line.name} | {line.published} | {line.again} | {'same' if line.same else 'DIFFERENT'} |")
    return 0 if all(line.same for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
