"""`report.md` from the numbers of `report.json`, the most important first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from service.evidence.rounds import GROUP
from training.evaluation.plots import plot_all
from training.evaluation.rankers import MEAN, MODEL, ORACLE


def write_report(report: dict[str, Any], path: Path) -> None:
    """Write the report at `path`, and its plots beside it."""
    plot_all(report, path.parent)
    path.write_text("\n".join(_lines(report)) + "\n", encoding="utf-8")


def format_interval(estimate: dict[str, Any], scale: float = 1.0, digits: int = 3) -> str:
    """An estimate with its interval, times `scale`: `0.701 (0.652 to 0.748)`."""
    if estimate["value"] is None:
        return "none"
    value, low, high = (f"{estimate[key] * scale:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def _lines(report: dict[str, Any]) -> list[str]:
    stages = {name: record for name, record in report["stages"].items() if record}
    samplers = ", ".join(name or "unnamed" for name in report["samplers"][:4])
    size = "" if report["parameters"] is None else f"{report['parameters']:,} parameters, "
    unseen = "that nothing in the training saw" if report["own_checkpoint"] else "(another run's checkpoint: see there)"
    forgeable = [
        f"**{report['shared_process']} problems are judged by tests that run in the program's own process**, which a",
        "program can forge (`shared_process`).",
        "",
    ]
    return [
        f"# {report['name']}: report",
        "",
        f"{size}revision `{report['revision'][:19]}`. Test fold: {report['problems']} problems",
        f"{unseen}, {report['samples']} independent samples ({samplers}).",
        "Intervals: 95 %, bootstrap over problems.",
        "",
        *(forgeable if report["shared_process"] else ()),
        *_best_of_n(report["best_of_n"]),
        *_evidence_cost(report.get("evidence_cpu_s")),
        *_discrimination(report),
        *_pair_sets(report.get("pair_sets", [])),
        *_languages(report["languages"]),
        *_calibration(report),
        *_length(report["length"]),
        *_tests(report["tests"]),
        *_labels(stages.get("verify")),
        *_cost(stages),
    ]


def _best_of_n(rows: list[dict[str, Any]]) -> list[str]:
    sizes = [point["n"] for point in rows[0]["points"]]
    last = {row["ranker"]: f"{100 * row['points'][-1]['value']:.1f} %" for row in rows}
    lines = [
        "## Best of N",
        "",
        f"With {sizes[-1]} candidates a problem, no choice solves {last[MEAN]} of the problems, the reward model",
        f"{last[MODEL]}, the oracle {last[ORACLE]}.",
        "",
        "![Best of N](bestofn.svg)",
        "",
        "Percent of problems solved by the choice among N: the exact expectation over subsets for rankers that look at",
        "a program alone, the mean over drawn subsets for those that look at the set. No N is picked by its result.",
        "",
        "| ranker | " + " | ".join(f"N={n}" for n in sizes) + " |",
        "|---" + "|---:" * len(sizes) + "|",
    ]
    for row in rows:
        lines.append(f"| {row['ranker']} | " + " | ".join(f"{p['value'] * 100:.1f}" for p in row["points"]) + " |")
    lines += [
        "",
        f"| ranker, N={sizes[-1]} | points gained over no choice | % of the gap to the oracle closed |",
        "|---|---:|---:|",
    ]
    for row in rows:
        point = row["points"][-1]
        gain, gap = format_interval(point["gain"], 100, 1), format_interval(point["gap_closed"], 100, 0)
        lines.append(f"| {row['ranker']} | {gain} | {gap} |")
    if any(point["short"] for point in rows[0]["points"]):
        lines += [
            "",
            f"At N={sizes[-1]}, {rows[0]['points'][-1]['short']} problems have fewer samples, and count with those.",
        ]
    return [*lines, "", "![Gap closed](gap.svg)", ""]


def _evidence_cost(cost: dict[str, float] | None) -> list[str]:
    if not cost:
        return []
    group, most = (GROUP * cost[key] for key in ("mean", "most"))
    return [
        f"Examples and behavior cost {group:.2f} CPU-seconds for a group of {GROUP} different programs in the mean,",
        f"{most:.2f} at the costliest problem.",
        "",
    ]


def _discrimination(report: dict[str, Any]) -> list[str]:
    return [
        "## Does it tell passing from failing programs?",
        "",
        "| samples of the test problems | pair accuracy | AUC inside a problem | problems |",
        "|---|---|---|---|",
        _discrimination_row("independent samples", report["discrimination"]),
        _discrimination_row("programs of other models", report["discrimination_other_models"]),
        *_answers(report.get("answers", {})),
        "",
        "Chance is 0.5. Pairs by the rule of `training/data/preferences.py`; problems: with pairs, "
        "with both kinds of program.",
        "",
    ]


def _answers(by_language: dict[str, Any]) -> list[str]:
    """Rows of assistants' answers, of all languages and of each."""
    return [
        f"| the same as assistants' answers: {name} | {format_interval(value)} | | {value['problems']} |"
        for name, value in by_language.items()
        if value["problems"]
    ]


def _discrimination_row(name: str, numbers: dict[str, Any]) -> str:
    pairs, area = numbers["pair_accuracy"], numbers["auc"]
    return f"| {name} | {format_interval(pairs)} | {format_interval(area)} | {pairs['problems']}, {area['problems']} |"


def _pair_sets(sets: list[dict[str, Any]]) -> list[str]:
    if not sets:
        return []
    lines = [
        "## Pair sets",
        "",
        "How often the better of two answers has the higher score; 0.5 is chance. Hard pairs of RM-Bench are those in",
        "which the worse answer has the richer style. The code of an answer is scored, or all of it.",
        "",
        "| set | slice | code | whole answer | pairs | prompts |",
        "|---|---|---|---|---:|---:|",
    ]
    for code, whole in zip(sets[::2], sets[1::2], strict=True):
        for part, other in zip(code["slices"], whole["slices"], strict=True):
            cells = format_interval(part), format_interval(other)
            form, _, name = code["set"].partition("=")
            lines.append(
                f"| {form}, {name} | {part['slice']} | {' | '.join(cells)} | {part['pairs']} | {part['prompts']} |"
            )
    return [*lines, ""]


def _languages(rows: list[dict[str, Any]]) -> list[str]:
    names = list(rows[0]["languages"])
    if len(names) < 2:
        return []
    lines = [
        "## By language",
        "",
        "Percent of problems solved.",
        "",
        "| | " + " | ".join(names) + " | average |",
        "|---" + "|---:" * (len(names) + 1) + "|",
    ]
    for row in rows:
        cells = [f"{100 * row['languages'][name]:.1f}" for name in names]
        lines.append(f"| {row['way']} | " + " | ".join(cells) + f" | {100 * row['average']:.1f} |")
    return [*lines, ""]


def _calibration(report: dict[str, Any]) -> list[str]:
    if report["calibration"] is None:
        return ["## Is its probability one?", "", "The checkpoint has no calibration, so it gives no probability.", ""]
    return [
        "## Is its probability one?",
        "",
        f"Expected calibration error on the test samples: {report['calibration']['ece']:.3f}, fitted on the validation",
        "fold. On the diagonal, the probability is right; the area of a point is its number of samples.",
        "",
        "![Calibration](calibration.svg)",
        "",
    ]


def _length(length: dict[str, Any]) -> list[str]:
    return [
        "## Is it measuring length?",
        "",
        f"Rank correlation with length inside a problem: of the score {_signed(length['score'])}, of passing",
        f"{_signed(length['passing'])}. A model of length alone would be right on all pairs of one row and none of the",
        "other.",
        "",
        "| pairs whose better program is | pair accuracy | problems |",
        "|---|---|---:|",
        f"| the longer | {format_interval(length['better_is_longer'])} | {length['better_is_longer']['problems']} |",
        f"| the shorter | {format_interval(length['better_is_shorter'])} | {length['better_is_shorter']['problems']} |",
        "",
        "![Score against length](length.svg)",
        "",
    ]


def _tests(agreement: dict[str, Any]) -> list[str]:
    table = agreement["table"]
    rank = _signed(agreement["rank"])
    if table is None:
        return [
            "## Where the model and the tests agree",
            "",
            "Without a calibration the model gives no verdict. Rank correlation of score and pass rate inside a",
            f"problem: {rank}.",
            "",
        ]
    kappa = "none" if agreement["kappa"] is None else f"{agreement['kappa']:.2f}"
    lines = [
        "## Where the model and the tests agree",
        "",
        "| samples | tests: pass | tests: fail |",
        "|---|---:|---:|",
        f"| model: pass (probability of one half or more) | {table['both_pass']} | {table['model_only']} |",
        f"| model: fail | {table['tests_only']} | {table['both_fail']} |",
        "",
        f"Cohen's kappa {kappa}; rank correlation of score and pass rate inside a problem {rank}.",
        "",
        "The failures it likes best, one a problem: what it has not understood, or what the tests do not see.",
        "",
        "| problem | probability | pass rate |",
        "|---|---:|---:|",
    ]
    failures = agreement["high_failures"]
    lines += [
        f"| {sample['task_id']} | {sample['probability']:.2f} | {sample['pass_rate']:.2f} |" for sample in failures
    ]
    lines.append("")
    for sample in failures[:2]:
        lines += [f"`{sample['task_id']}`, failing:", "", "```python", sample["completion"].rstrip()[:600], "```", ""]
    return lines


def _labels(record: dict[str, Any] | None) -> list[str]:
    if record is None:
        return []
    summary = record["summary"]
    checked, mutants = summary["checked"], summary["mutants"]
    lines = ["## Where the labels come from", ""]
    if summary.get("samples"):
        lines.append(f"{summary['samples']} samples came without a pass rate and were run with their problems' tests.")
    if checked:
        lines += [
            f"Samples carry the pass rates that the data ships. A drawn slice of {checked} was run here too:",
            f"{summary['same_rate']} have exactly the shipped pass rate, {summary['same_pass']} the same pass or fail.",
        ]
    if mutants:
        lines.append(f"Mutants of reference solutions: {mutants}, of which {summary['mutants_passing']} pass.")
    return [*lines, f"Programs that could not be judged, and so have no label: {summary['infra_errors']}.", ""]


def _cost(stages: dict[str, Any]) -> list[str]:
    lines = ["## What it took", "", "| stage | wall s | CPU s | result |", "|---|---:|---:|---|"]
    for name, record in stages.items():
        summary = ", ".join(f"{key} {value}" for key, value in record["summary"].items())
        lines.append(f"| {name} | {record['wall_s']:.0f} | {record['cpu_s']:.0f} | {summary} |")
    wall, cpu = (sum(record[key] for record in stages.values()) for key in ("wall_s", "cpu_s"))
    return [*lines, f"| sum | {wall:.0f} | {cpu:.0f} | one thread |"]


def _signed(value: float | None) -> str:
    return "none" if value is None else f"{value:+.2f}"
