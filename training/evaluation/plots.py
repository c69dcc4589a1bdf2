"""The report's plots, as SVG with text, the same bytes for the same numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.evaluation.rankers import EVIDENCE, MEAN, MODEL, ORACLE

FILES = ("bestofn.svg", "gap.svg", "calibration.svg", "length.svg")
# The rankers that matter, each with a colour of its own and whether its interval is drawn. The table has all of them.
LOOKS: dict[str, tuple[str, bool]] = {
    ORACLE: ("black", False),
    EVIDENCE: ("#0072b2", True),
    "examples": ("#56b4e9", False),
    "behavior alone": ("#009e73", False),
    "filtered generated tests": ("#cc79a7", False),
    "agreement on raw generated tests": ("#e69f00", False),
    MODEL: ("#d55e00", True),
    "consensus": ("#8c6d31", False),
    MEAN: ("gray", False),
}
LABEL_GAP = 0.045  # between two labels, as a share of the axis


def plot_all(report: dict[str, Any], folder: Path) -> None:
    """Write the plots of `FILES` into the folder; without a calibration there is none of it."""
    plot_best_of_n(report["best_of_n"], folder / "bestofn.svg")
    plot_gap(report["best_of_n"], folder / "gap.svg")
    if report["calibration"] is None:
        (folder / "calibration.svg").unlink(missing_ok=True)
    else:
        plot_calibration(report["calibration"], folder / "calibration.svg")
    plot_length(report["length"], folder / "length.svg")


def plot_best_of_n(rows: list[dict[str, Any]], path: Path) -> None:
    """Problems solved at each measured N, for the rankers of `LOOKS`; each line is named at its end."""
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(8.4, 4.6))
    shown = [row for name in LOOKS for row in rows if row["ranker"] == name]
    for row in shown:
        colour, with_band = LOOKS[row["ranker"]]
        points = row["points"]
        sizes = [point["n"] for point in points]
        line = "--" if row["ranker"] in (ORACLE, MEAN) else "-"
        values = [100 * point["value"] for point in points]
        axes.plot(sizes, values, line, color=colour, marker="o", markersize=3, linewidth=2.0 if with_band else 1.2)
        if with_band:
            low, high = ([100 * point[key] for point in points] for key in ("low", "high"))
            axes.fill_between(sizes, low, high, alpha=0.12, color=colour, linewidth=0)
    axes.set_xscale("log", base=2)
    axes.set_xticks([point["n"] for point in rows[0]["points"]], [str(point["n"]) for point in rows[0]["points"]])
    axes.minorticks_off()
    axes.set_ylim(0, 100)
    axes.set_xlabel("N candidates")
    axes.set_ylabel("problems solved, %")
    axes.grid(alpha=0.2)
    ends = [row["points"][-1]["value"] for row in shown]
    for row, place in zip(shown, label_places(ends), strict=True):
        name = "auto" if row["ranker"] == EVIDENCE else row["ranker"]
        colour = LOOKS[row["ranker"]][0]
        axes.text(1.02, place, name, color=colour, fontsize=8, va="center", transform=axes.transAxes)
    save(figure, path)


def label_places(values: list[float]) -> list[float]:
    """Heights of labels in [0, 1]: near these values, in their order, and at least `LABEL_GAP` apart."""
    order = sorted(range(len(values)), key=lambda at: (values[at], -at))
    places = [0.0] * len(values)
    last = -LABEL_GAP
    for at in order:
        last = places[at] = max(values[at], last + LABEL_GAP)
    top = 1.0 + LABEL_GAP / 2
    for at in reversed(order):
        top = places[at] = min(places[at], top - LABEL_GAP / 2)
        top -= LABEL_GAP / 2
    return places


def plot_gap(rows: list[dict[str, Any]], path: Path) -> None:
    """Share of the mean-to-oracle gap that each ranker closes at the largest N, with intervals."""
    plt = pyplot()
    shown = sorted(
        (row for row in rows if row["ranker"] not in (MEAN, ORACLE)),
        key=lambda row: float(row["points"][-1]["gap_closed"]["value"]),
    )
    figure, axes = plt.subplots(figsize=(6.8, 0.6 + 0.3 * len(shown)))
    for at, row in enumerate(shown):
        gap = row["points"][-1]["gap_closed"]
        value, low, high = (100 * gap[key] for key in ("value", "low", "high"))
        axes.barh(at, value, color=LOOKS.get(row["ranker"], ("silver", False))[0], alpha=0.7, height=0.65)
        axes.plot([low, high], [at, at], "k-", linewidth=1)
    axes.set_yticks(range(len(shown)), [row["ranker"] for row in shown], fontsize=8)
    axes.axvline(0, color="k", linewidth=0.8)
    size = rows[0]["points"][-1]["n"]
    axes.set_xlabel(f"% of the gap to the oracle closed, N = {size}")
    save(figure, path)


def plot_calibration(calibration: dict[str, Any], path: Path) -> None:
    """Reliability: predicted probability against the share that passes; area is the number of samples."""
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(3.8, 3.6))
    axes.plot([0, 1], [0, 1], "k:")
    bins = calibration["bins"]
    total = max(1, sum(bin_["samples"] for bin_ in bins))
    axes.plot([bin_["predicted"] for bin_ in bins], [bin_["passing"] for bin_ in bins], color="tab:red", linewidth=0.8)
    axes.scatter(
        [bin_["predicted"] for bin_ in bins],
        [bin_["passing"] for bin_ in bins],
        color="tab:red",
        s=[8 + 240 * bin_["samples"] / total for bin_ in bins],
    )
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel("predicted pass probability")
    axes.set_ylabel("share passing")
    save(figure, path)


def plot_length(length: dict[str, Any], path: Path) -> None:
    """Score against length, passing and failing programs apart."""
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(5.2, 3.6))
    for ok, colour, label in ((False, "tab:gray", "failing"), (True, "tab:red", "passing")):
        points = [(size, score) for size, score, passed in length["points"] if passed is ok]
        axes.scatter(
            [size for size, _ in points],
            [score for _, score in points],
            s=3,
            alpha=0.35,
            color=colour,
            label=label,
            linewidths=0,
            rasterized=True,
        )
    axes.set_xscale("log")
    axes.set_xlabel("characters of the completion")
    axes.set_ylabel("score")
    axes.legend(fontsize=8, frameon=False, markerscale=3)
    save(figure, path)


def pyplot() -> Any:
    """matplotlib without a display, which writes the same bytes for the same numbers."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.hashsalt": "plaudit", "svg.fonttype": "none", "font.size": 9})
    import matplotlib.pyplot as plt

    return plt


def save(figure: Any, path: Path) -> None:
    """Write a figure and close it."""
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None}, dpi=150)
    pyplot().close(figure)
