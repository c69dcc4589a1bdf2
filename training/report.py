"""`report.md` and its two plots from the numbers of `report.json`, and the model card."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def write_report(report: dict[str, Any], path: Path) -> None:
    """Write the report at `path`, and `bestofn.svg` and `calibration.svg` beside it."""
    plot_best_of_n(report["best_of_n"], path.with_name("bestofn.svg"))
    plot_calibration(report["calibration"], path.with_name("calibration.svg"))
    path.write_text("\n".join(_lines(report)) + "\n", encoding="utf-8")


def interval(estimate: dict[str, Any], scale: float = 1.0, digits: int = 3) -> str:
    """`0.701 (0.652 to 0.748)`."""
    if estimate["value"] is None:
        return "none"
    value, low, high = (f"{estimate[key] * scale:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def _lines(report: dict[str, Any]) -> list[str]:
    stages = {name: record for name, record in report["stages"].items() if record}
    revision, ece = report["revision"][:19], report["calibration"]["ece"]
    lines = [
        f"# {report['name']}: report",
        "",
        f"{report['parameters']:,} parameters, revision `{revision}`. Test fold: {report['problems']} problems that",
        f"nothing in the training saw, {report['samples']} independent samples of one model (CodeGen-16B-mono).",
        "Intervals: 95 %, bootstrap over problems.",
        "",
        "## Does it tell passing from failing programs?",
        "",
        "| samples of the test problems, by | pair accuracy | AUC inside a problem | problems |",
        "|---|---|---|---|",
        _discrimination_row("CodeGen-16B-mono", report["discrimination"]),
        _discrimination_row("other models", report["discrimination_other_models"]),
        "",
        "Chance is 0.5. Pairs by the rule of `training/pair.py`; problems: with pairs, with both kinds of program.",
        "",
        "## Best of N",
        "",
        "Share of problems solved by the choice, in percent: the exact expectation over subsets for rankers that score",
        "a program alone, the mean over drawn subsets for those that look at the set.",
        "",
    ]
    sizes = [point["n"] for point in report["best_of_n"][0]["points"]]
    lines += ["| ranker | " + " | ".join(f"N={n}" for n in sizes) + " |", "|---" * (len(sizes) + 1) + "|"]
    for row in report["best_of_n"]:
        lines.append(f"| {row['ranker']} | " + " | ".join(f"{p['value'] * 100:.1f}" for p in row["points"]) + " |")
    lines += ["", f"| ranker | points gained over no choice at N={sizes[-1]}, paired by problem |", "|---|---|"]
    for row in report["best_of_n"]:
        lines.append(f"| {row['ranker']} | {interval(row['points'][-1]['gain'], 100, 1)} |")
    lines += [
        "",
        "![Best of N](bestofn.svg)",
        "",
        "## Calibration and length",
        "",
        f"Expected calibration error of the pass probability on the test samples: {ece:.3f} (fitted on the validation",
        f"fold). Rank correlation of score and length inside a problem: {report['length_correlation']:+.2f}.",
        "",
        "![Calibration](calibration.svg)",
        "",
        *_labels(stages.get("verify")),
        "## What it took",
        "",
        "| stage | wall s | CPU s | result |",
        "|---|---|---|---|",
    ]
    for name, record in stages.items():
        summary = ", ".join(f"{key} {value}" for key, value in record["summary"].items())
        lines.append(f"| {name} | {record['wall_s']:.0f} | {record['cpu_s']:.0f} | {summary} |")
    wall, cpu = (sum(record[key] for record in stages.values()) for key in ("wall_s", "cpu_s"))
    lines.append(f"| sum | {wall:.0f} | {cpu:.0f} | one thread |")
    return lines


def _labels(record: dict[str, Any] | None) -> list[str]:
    if record is None:
        return []
    mutants, passing, checked, rate, outcome, broken = (
        record["summary"][key]
        for key in ("mutants", "mutants_passing", "checked", "same_rate", "same_pass", "infra_errors")
    )
    return [
        "## Where the labels come from",
        "",
        "Samples carry the pass rates that the data ships. Mutants of reference solutions were run in the sandbox:",
        f"{mutants}, of which {passing} pass. A drawn slice of {checked} samples was run there too: {rate} have",
        f"exactly the shipped pass rate, {outcome} the same pass or fail. Programs that could not be judged: {broken}.",
        "",
    ]


def _discrimination_row(name: str, found: dict[str, Any]) -> str:
    pairs, area = found["pair_accuracy"], found["auc"]
    return f"| {name} | {interval(pairs)} | {interval(area)} | {pairs['problems']}, {area['problems']} |"


def plot_best_of_n(rows: list[dict[str, Any]], path: Path) -> None:
    plt = _pyplot()
    figure, axes = plt.subplots(figsize=(6.4, 4.0))
    for row in rows:
        sizes = [point["n"] for point in row["points"]]
        style = {"oracle (pass@N)": "k--", "mean (no choice)": "k:"}.get(row["ranker"], "o-")
        axes.plot(sizes, [100 * p["value"] for p in row["points"]], style, label=row["ranker"], markersize=3)
        if row["ranker"] == "reward model":
            low, high = ([100 * p[key] for p in row["points"]] for key in ("low", "high"))
            axes.fill_between(sizes, low, high, alpha=0.15)
    axes.set_xscale("log", base=2)
    axes.set_xlabel("N candidates")
    axes.set_ylabel("problems solved, %")
    axes.legend(fontsize=7)
    _save(figure, path)


def plot_calibration(calibration: dict[str, Any], path: Path) -> None:
    plt = _pyplot()
    figure, axes = plt.subplots(figsize=(3.6, 3.4))
    axes.plot([0, 1], [0, 1], "k:")
    bins = calibration["bins"]
    axes.scatter(
        [b["predicted"] for b in bins], [b["passing"] for b in bins],
        s=[4 + 120 * b["samples"] / max(1, sum(x["samples"] for x in bins)) for b in bins],
    )  # fmt: skip
    axes.set_xlabel("predicted pass probability")
    axes.set_ylabel("share passing")
    _save(figure, path)


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.hashsalt": "plaudit", "svg.fonttype": "none", "font.size": 9})
    import matplotlib.pyplot as plt

    return plt


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    _pyplot().close(figure)
