"""The report of `synthesize`: how many questions were written, what was dropped and why, how strong the suites are."""

from __future__ import annotations

from typing import Any

DROP_REASONS = {
    "unreadable": "no question and tests in the reply",
    "no_function": "the tests do not call a function of the question",
    "evaluation_exact": "is an evaluation problem",
    "evaluation_ngram": "shares a run of tokens with an evaluation problem",
    "no_oracle_program": "the oracle answered without code",
    "not_judged": "could not be run, by a server error (a second run of the stage tries again)",
    "too_few_tests": "too few tests left",
    "duplicate": "the same question came before",
    "near_duplicate": "nearly the same question came before",
}
TEST_DROP_REASONS = {
    "tests_no_single_assert": "not a single assert that calls something, or written twice",
    "tests_failed_by_oracle": "failed by the oracle's program",
    "tests_flaky": "passed at first and failed the second time",
    "tests_nothing_fails": "failed by no wrong program",
}


def report_markdown(report: dict[str, Any]) -> str:
    """`report.json` for reading."""
    counts = report["counts"]
    lines = [
        "# Synthesis",
        "",
        f"Writer {report['models']['writer'] or 'unnamed'}, oracle {report['models']['oracle'] or 'unnamed'}.",
        "",
        "| source | questions written | tests each | questions kept | tests each |",
        "|---|---:|---:|---:|---:|",
    ]
    rows = dict(report["sources"])
    if len(rows) > 1:
        rows["all"] = {key: sum(row[key] for row in rows.values()) for key in next(iter(rows.values()))}
    for source, row in rows.items():
        lines.append(
            f"| {source} | {row['before']} | {_each(row['before_tests'], row['before'])} | {row['after']} | "
            f"{_each(row['after_tests'], row['after'])} |"
        )
    seeds, repaired = counts.get("seeds", 0), counts.get("repaired", 0)
    lines += [
        "",
        f"Seeds: {seeds}. Replies whose JSON had to be repaired: {repaired}.",
        "",
        "| questions dropped because | |",
        "|---|---:|",
    ]
    lines += [f"| {why} | {counts.get(f'dropped_{reason}', 0)} |" for reason, why in DROP_REASONS.items()]
    lines += ["", "| tests dropped because | |", "|---|---:|"]
    lines += [f"| {why} | {counts.get(name, 0)} |" for name, why in TEST_DROP_REASONS.items()]
    if report["killed"] is not None:
        killed, weak = f"{100 * report['killed']:.1f} %", report["weak"]
        lines += [
            "",
            "## Strength",
            "",
            f"The suites kill {killed} of their mutants on average; {weak} are weak",
            f"and flagged in `suites.jsonl`. Suites extended: {counts.get('suites_extended', 0)}, by "
            f"{counts.get('tests_asked_later', 0)} tests.",
        ]
    problems, sets = counts.get("evaluation_problems", 0), ", ".join(report["evaluation"]) or "no set"
    lines += ["", "## Evaluation sets kept out", "", f"{problems} problems of {sets}."]
    if report["examples"]:
        lines += [
            "",
            "## Examples of what was dropped (all: `dropped.jsonl`)",
            "",
            "| question | because | detail |",
            "|---|---|---|",
        ]
        lines += [
            f"| {row['task_id']} | {row['reason']} | {row['detail'].replace('|', '/')[:100]} |"
            for row in report["examples"]
        ]
    tokens = "; ".join(f"{name} {prompt} in, {out} out" for name, (prompt, out) in report["tokens"].items())
    lines += ["", f"Tokens: {tokens}. Cost: {report['cost']:.2f}.", ""]
    return "\n".join(lines)


def _each(tests: int, questions: int) -> str:
    return f"{tests / questions:.2f}" if questions else "–"
