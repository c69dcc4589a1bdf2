"""`plaudit-train table RUN... --out FOLDER`: the papers' best-of-N tables from the reports of several runs.

- A run after `evaluate` is one policy on one data set under one reward model; a run after `iterate` is several: its
  generators under the reranker of each round. Runs of one policy make a block. Its rows
  are greedy, the mean, the oracle, and each reward model at each N; its columns the data sets, or the languages of a
  data set that has several.
- Below them stands what the best row of a reward model gains over greedy (AceCoder calls a reward model effective only
  then) and over the mean. The best N is chosen by its average and not column by column, which would flatter it.
- `table.md`, `table.tex` and `table.svg` hold the same numbers; a cell without a run is empty, and so is the average of
  a row that lacks a cell.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plaudit.errors import UsageError
from training.evaluation.diagnostics import ORDER
from training.evaluation.plots import pyplot, save
from training.pipeline.files import write_text

SETS = (  # AceCoder's columns, in its order
    "humaneval",
    "humaneval+",
    "mbpp",
    "mbpp+",
    "bigcodebench",
    "bigcodebench-hard",
    "bigcodebench-instruct",
    "bigcodebench-instruct-hard",
    "livecodebench",
)
COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
PLAIN = ("greedy", "mean of the samples", "oracle")
Row = dict[str, float]  # column → share of problems solved


@dataclass(slots=True)
class PolicyBlock:
    """What one policy solves: rows by name, and those of reward models by (model, N)."""

    policy: str
    plain: dict[str, Row] = field(default_factory=lambda: defaultdict(dict))
    ranked: dict[tuple[str, int], Row] = field(default_factory=lambda: defaultdict(dict))


def table_command(arguments: Sequence[str]) -> None:
    """Run the command. Raises `UsageError` for a run without a report, and for two runs of one cell."""
    parser = argparse.ArgumentParser(
        prog="plaudit-train table", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folders after `evaluate` or `iterate`")
    parser.add_argument("--out", type=Path, required=True, help="folder of table.md, table.tex and table.svg")
    options = parser.parse_args(arguments)
    blocks = read_blocks(options.runs)
    columns = columns_of(blocks)
    options.out.mkdir(parents=True, exist_ok=True)
    write_text(options.out / "table.md", markdown(blocks, columns))
    write_text(options.out / "table.tex", latex(blocks, columns))
    draw(blocks, columns, options.out / "table.svg")
    print(markdown(blocks, columns), end="")


def read_blocks(runs: Sequence[Path]) -> list[PolicyBlock]:
    """The blocks of these runs' reports, policies in the order in which they come."""
    blocks: dict[str, PolicyBlock] = {}
    for run in runs:
        for report in _reports(run):
            policy = ", ".join(name or "unnamed" for name in report["samplers"]) or "unnamed"
            _add(blocks.setdefault(policy, PolicyBlock(policy)), report, run)
    return list(blocks.values())


def _reports(run: Path) -> list[dict[str, Any]]:
    """The run's reports; of several modes and seeds of `iterate`, the folder of one has to be named."""
    if (run / "report.json").is_file() and not (run / "blocks.json").is_file():
        report = json.loads((run / "report.json").read_text(encoding="utf-8"))
        if "set" not in report:
            raise UsageError(f"{run}/report.json is of an older version: run plaudit-train evaluate again")
        return [report]
    found = (
        [run / "blocks.json"] if (run / "blocks.json").is_file() else sorted(run.glob("iterate/seed-*/*/blocks.json"))
    )
    if not found:
        raise UsageError(f"{run} has no report.json: run plaudit-train evaluate first, or iterate")
    if len(found) > 1:
        folders = ", ".join(str(path.parent) for path in found)
        raise UsageError(f"{run} has several reports of iterate: name the folder of one of them ({folders})")
    return list(json.loads(found[0].read_text(encoding="utf-8")))


def _add(block: PolicyBlock, report: dict[str, Any], run: Path) -> None:
    languages = report["languages"]
    split = len(languages[0]["languages"]) > 1
    for row in languages:
        for language, value in row["languages"].items():
            column = f"{report['set']} {language}" if split else report["set"]
            way, _, number = row["way"].partition(", best of ")
            if way in PLAIN or way.startswith("oracle"):
                block.plain["oracle" if way.startswith("oracle") else way].setdefault(column, value)
                continue
            cells = block.ranked[report["reward_model"], int(number)]
            if column in cells:
                raise UsageError(f"{run}: another run has {report['reward_model']} on {column} for {block.policy}, too")
            cells[column] = value


def columns_of(blocks: Sequence[PolicyBlock]) -> list[str]:
    """Every column, the papers' first and in their order."""
    names = {name for block in blocks for cells in _all_cells(block) for name in cells}

    def place(name: str) -> tuple[int, int, str]:
        data_set, _, language = name.partition(" ")
        at = SETS.index(data_set) if data_set in SETS else len(SETS)
        return at, ORDER.index(language) if language in ORDER else len(ORDER), name

    return sorted(names, key=place)


def _all_cells(block: PolicyBlock) -> Iterator[Row]:
    yield from block.plain.values()
    yield from block.ranked.values()


def average(row: Row, columns: Sequence[str]) -> float | None:
    """The mean over the columns; None where one is missing."""
    return sum(row[name] for name in columns) / len(columns) if all(name in row for name in columns) else None


def gains(block: PolicyBlock, columns: Sequence[str]) -> list[tuple[str, Row]]:
    """Per reward model what its best N, by the average over its columns, gains over greedy and over the mean."""
    found = []
    for model in dict.fromkeys(name for name, _ in block.ranked):
        rows = {n: row for (name, n), row in block.ranked.items() if name == model}
        best = max(rows, key=lambda n: (sum(rows[n].values()) / len(rows[n]), -n))
        for base in ("greedy", "mean of the samples"):
            other = block.plain.get(base, {})
            difference = {
                name: rows[best][name] - other[name] for name in columns if name in rows[best] and name in other
            }
            if difference:
                found.append((f"{model}, best of {best}, less {base.partition(' ')[0]}", difference))
    return found


def rows_of(block: PolicyBlock, columns: Sequence[str]) -> list[tuple[str, Row, bool]]:
    """(name, cells, whether they are differences), in the papers' order."""
    rows = [(name, block.plain[name], False) for name in PLAIN if name in block.plain]
    rows += [(f"{model}, best of {n}", cells, False) for (model, n), cells in block.ranked.items()]
    return rows + [(name, cells, True) for name, cells in gains(block, columns)]


def _cells(row: Row, columns: Sequence[str], *, signed: bool) -> list[str]:
    values = [*(row.get(name) for name in columns), average(row, columns)]
    return ["" if value is None else f"{100 * value:+.1f}" if signed else f"{100 * value:.1f}" for value in values]


def markdown(blocks: Sequence[PolicyBlock], columns: Sequence[str]) -> str:
    """Percent of problems solved."""
    lines = ["# Best of N", "", "Percent of problems solved.", ""]
    for block in blocks:
        lines += [f"## {block.policy}", "", "| | " + " | ".join([*columns, "average"]) + " |"]
        lines.append("|---" + "|---:" * (len(columns) + 1) + "|")
        for name, row, signed in rows_of(block, columns):
            lines.append(f"| {name} | " + " | ".join(_cells(row, columns, signed=signed)) + " |")
        lines.append("")
    return "\n".join(lines)


def latex(blocks: Sequence[PolicyBlock], columns: Sequence[str]) -> str:
    """The same as a `tabular`, with the rules of booktabs."""
    lines = [r"\begin{tabular}{l" + "r" * (len(columns) + 1) + "}", r"\toprule"]
    lines.append(" & ".join(["", *map(_escaped, columns), "average"]) + r" \\")
    for block in blocks:
        lines += [r"\midrule", rf"\multicolumn{{{len(columns) + 2}}}{{l}}{{{_escaped(block.policy)}}} \\"]
        for name, row, signed in rows_of(block, columns):
            lines.append(" & ".join([_escaped(name), *_cells(row, columns, signed=signed)]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _escaped(text: str) -> str:
    return "".join({"_": r"\_", "&": r"\&", "%": r"\%", "#": r"\#"}.get(letter, letter) for letter in text)


def draw(blocks: Sequence[PolicyBlock], columns: Sequence[str], path: Path) -> None:
    """A row per policy and column: greedy, mean and oracle as marks, the reward models at each N as points."""
    plt = pyplot()
    places = [(block, column) for block in blocks for column in columns if column in block.plain["mean of the samples"]]
    figure, axes = plt.subplots(figsize=(7.6, 1.2 + 0.36 * len(places)))
    marks = {"greedy": ("|", "black"), "mean of the samples": ("|", "gray"), "oracle": ("D", "black")}
    models = list(dict.fromkeys(model for block in blocks for model, _ in block.ranked))
    named: set[str] = set()
    for at, (block, column) in enumerate(places):
        for name, (mark, colour) in marks.items():
            if column in block.plain.get(name, {}):
                label = None if name in named else name
                named.add(name)
                axes.plot(100 * block.plain[name][column], -at, mark, color=colour, markersize=8, label=label)
        for (model, n), cells in block.ranked.items():
            if column in cells:
                label = None if model in named else model
                named.add(model)
                colour = COLOURS[models.index(model) % len(COLOURS)]
                axes.plot(100 * cells[column], -at, "o", color=colour, markersize=5, alpha=0.8, label=label)
                axes.annotate(
                    str(n), (100 * cells[column], -at), (0, 5), textcoords="offset points", fontsize=6, ha="center"
                )
    names = [f"{block.policy}: {column}" if len(blocks) > 1 else column for block, column in places]
    axes.set_yticks([-at for at in range(len(places))], names, fontsize=8)
    axes.set_xlim(0, 100)
    axes.set_ylim(0.4 - len(places), 0.6)
    axes.set_xlabel("problems solved, %; the number at a point is its N")
    axes.grid(axis="x", alpha=0.2)
    axes.legend(fontsize=7, frameon=False, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    save(figure, path)
