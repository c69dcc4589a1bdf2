"""The report of `iterate`: rows as in RewardRanker's table, columns by kind of problem, intervals over problems.

- Every reranked row is best of `candidates`, by the exact expectation over ties. Rows differ in whose candidates they
  choose from.
- *Gap closed* is (reranked - mean) / (oracle - mean) over the same candidates: a ratio of sums over problems, with a
  bootstrap over problems.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training.evaluation.diagnostics import ORDER as LANGUAGES
from training.pipeline.config import Recipe
from training.pipeline.files import read_jsonl, write_text
from training.pipeline.metrics import best_of_n, bootstrap, mean
from training.pipeline.records import Problem, ProgramRecord, read_programs
from training.pipeline.run import Run
from training.rewardranker.mining import by_task, mean_pass_rate

Values = dict[str, float]  # task id → share solved
Pool = Mapping[str, Sequence[tuple[float, bool]]]  # task id → (score, passed) of every candidate


@dataclass(frozen=True, slots=True)
class ReportRow:
    """A row of the table: its name, and what it solves of every test problem."""

    name: str
    values: Values


def write_report(
    recipe: Recipe, run: Run, shared: Run, rounds: Sequence[Run], problems: Sequence[Problem]
) -> dict[str, object]:
    """Write `iterate/seed-N/MODE/report.{json,md}`, and `blocks.json` beside them for `plaudit-train table`.

    Args:
        recipe: of the rounds; its seed names the folder.
        run: the run folder.
        shared: what all modes share: the SFT model's candidates.
        rounds: the folders of the rounds, in their order.
        problems: the test problems.

    Returns:
        numbers of the last round.
    """
    settings, seed = recipe.iterate, recipe.seed
    sft = by_task(read_programs(shared.path("held_out.jsonl")))
    rows = [
        ReportRow("generator (SFT), greedy", _solved(by_task(read_programs(shared.path("greedy.jsonl"))))),
        ReportRow("generator (SFT), mean of its samples", _solved(sft)),
        ReportRow("oracle over these", {t: float(any(p.pass_rate == 1.0 for p in group)) for t, group in sft.items()}),
    ]
    gaps, mined = [], []
    for number, folder in enumerate(rounds, start=1):
        pools = {pool: read_scores(folder, pool) for pool in ("sft", "ppo")}
        rows += round_rows(number, settings.mode, pools)
        for pool, scores in pools.items():
            value, low, high = gap_closed(scores, seed)
            gaps.append({"round": number, "pool": pool, "value": value, "low": low, "high": high})
        mined.append({"round": number, **(folder.record("mine") or {})["summary"]})
    columns = table_columns(problems)
    report = {
        "mode": settings.mode,
        "seed": seed,
        "problems": len(problems),
        "candidates": settings.candidates,
        "rows": [table_row(row, columns, seed) for row in rows],
        "gap_closed": gaps,
        "mined": mined,
        "samples": (shared.record("samples") or {})["summary"],
    }
    folder_name = f"iterate/seed-{seed}/{settings.mode}"
    write_text(run.path(f"{folder_name}/report.json"), json.dumps(report, indent=2) + "\n")
    write_text(run.path(f"{folder_name}/report.md"), markdown(report))
    blocks = best_of_n_blocks(recipe, shared, rounds, problems)
    write_text(run.path(f"{folder_name}/blocks.json"), json.dumps(blocks, indent=1) + "\n")
    last = gaps[-2]
    return {
        "mode": settings.mode,
        "rounds": len(rounds),
        "gap_closed": last["value"],
        "gap_low": last["low"],
        "gap_high": last["high"],
        "share_high_scoring": [m["share_of_failures"] for m in mined],
    }


def round_rows(number: int, mode: str, pools: Mapping[str, Pool]) -> list[ReportRow]:
    """The rows of a round: its reranker on both pools of candidates, and its PPO generator without a choice."""
    label = "RewardRanker" if number == 1 else f"RewardRanker {number} iter. {mode.replace('_', ' ')}"
    means = {task_id: mean([float(passed) for _, passed in group]) for task_id, group in pools["ppo"].items()}
    return [
        ReportRow(f"{label}: SFT candidates", reranked(pools["sft"])),
        ReportRow(f"{label}: PPO candidates", reranked(pools["ppo"])),
        ReportRow("its PPO generator, mean", means),
    ]


def read_scores(folder: Run, pool: str) -> dict[str, list[tuple[float, bool]]]:
    """(score, passed) of every candidate of the pool by task id, copies repeated."""
    scores: dict[str, list[tuple[float, bool]]] = {}
    for line in read_jsonl(folder.path("scores.jsonl")):
        if line["pool"] == pool:
            scores.setdefault(line["task_id"], []).extend([(line["score"], line["passed"])] * line["copies"])
    return scores


def reranked(pool: Pool) -> Values:
    """Best of all candidates of every problem."""
    return {
        task_id: best_of_n([score for score, _ in group], [passed for _, passed in group], len(group))
        for task_id, group in pool.items()
    }


def gap_closed(pool: Pool, seed: int, resamples: int = 1000) -> tuple[float, float, float]:
    """The share of the mean-to-oracle gap that choosing by score closes: (value, low, high), 95 % interval."""
    best = reranked(pool)
    triples = [
        (best[task_id], mean([float(passed) for _, passed in group]), float(any(passed for _, passed in group)))
        for task_id, group in pool.items()
    ]

    def share(picks: Sequence[float]) -> float:
        chosen = [triples[int(at)] for at in picks]
        gained, room = sum(b - m for b, m, _ in chosen), sum(o - m for _, m, o in chosen)
        return gained / room if room else 0.0

    places = [float(at) for at in range(len(triples))]
    low, high = bootstrap(places, resamples=resamples, seed=seed, statistic=share)
    return round(share(places), 4), round(low, 4), round(high, 4)


def table_columns(problems: Sequence[Problem]) -> dict[str, Callable[[str], bool]]:
    """Columns of the table, as predicates of task ids: languages where there are several, as in the paper's Table 1;
    else chain lengths in the micro-world, and sources elsewhere."""
    names = column_names(problems)
    return {
        name: lambda task_id, name=name: names.get(task_id) == name  # type: ignore[misc]
        for name in sorted(set(names.values()), key=_place)
    }


def column_names(problems: Sequence[Problem]) -> dict[str, str]:
    """The column of every problem, by task id."""
    if len({problem.language for problem in problems}) > 1:
        return {problem.task_id: problem.language for problem in problems}
    if {problem.source for problem in problems} == {"microworld"}:
        lengths = {problem.task_id: problem.task_id.split("/")[1] for problem in problems}
        return {name: f"{length} step{'s' if length != '1' else ''}" for name, length in lengths.items()}
    return {problem.task_id: problem.source for problem in problems}


def _place(name: str) -> tuple[int, str]:
    """The paper's languages first and in its order."""
    return (LANGUAGES.index(name) if name in LANGUAGES else len(LANGUAGES)), name


def candidate_counts(most: int) -> list[int]:
    """The N of best of N: powers of two from 2, and all of them."""
    return [2**power for power in range(1, most.bit_length()) if 2**power < most] + [most] * (most > 1)


def best_of_n_blocks(
    recipe: Recipe, shared: Run, rounds: Sequence[Run], problems: Sequence[Problem]
) -> list[dict[str, Any]]:
    """What `plaudit-train table` reads: each generator's candidates under the reranker of each round.

    A policy is the fine-tuned generator or a round's PPO generator, a reward model a round's reranker, and a column one
    of `table_columns`. The numbers of candidates are powers of two up to all of them.
    """
    columns = table_columns(problems)
    greedy = _solved(by_task(read_programs(shared.path("greedy.jsonl"))))

    def row(way: str, values: Values) -> dict[str, Any]:
        cells = {
            name: mean(own)
            for name, belongs in columns.items()
            if (own := [value for task_id, value in values.items() if belongs(task_id)])
        }
        return {"way": way, "languages": cells}

    blocks = []
    for number, folder in enumerate(rounds, start=1):
        for pool, policy in (("sft", "generator (SFT)"), ("ppo", f"PPO generator of round {number}")):
            scores = read_scores(folder, pool)
            if not scores:
                continue
            most = min(map(len, scores.values()))
            passed = {task_id: [float(ok) for _, ok in group] for task_id, group in scores.items()}
            rows = [row("greedy", greedy)] if pool == "sft" else []
            rows.append(row("mean of the samples", {task_id: mean(values) for task_id, values in passed.items()}))
            for size in candidate_counts(most):
                best = {
                    task_id: best_of_n([score for score, _ in group], [ok for _, ok in group], size)
                    for task_id, group in scores.items()
                }
                rows.append(row(f"reward model, best of {size}", best))
            rows.append(row(f"oracle, pass@{most}", {task_id: float(any(own)) for task_id, own in passed.items()}))
            blocks.append(
                {
                    "samplers": [policy],
                    "set": recipe.name,
                    "reward_model": f"reranker of round {number}",
                    "languages": rows,
                }
            )
    return blocks


def table_row(row: ReportRow, columns: Mapping[str, Callable[[str], bool]], seed: int) -> dict[str, Any]:
    """Percent solved, by column and over all problems, with the interval of the last."""
    low, high = bootstrap(list(row.values.values()), resamples=1000, seed=seed)
    cells = {
        name: round(100 * mean(values), 1)
        for name, belongs in columns.items()
        if (values := [value for task_id, value in row.values.items() if belongs(task_id)])
    }
    average = round(100 * mean(list(row.values.values())), 1)
    return {"row": row.name, **cells, "all": average, "low": round(100 * low, 1), "high": round(100 * high, 1)}


def markdown(report: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    columns = [name for name in report["rows"][0] if name not in ("row", "all", "low", "high")]
    lines = [
        f"# RewardRanker, {report['mode'].replace('_', ' ')}, seed {report['seed']}",
        "",
        f"{report['problems']} held-out problems, {report['candidates']} candidates each; per cent solved, "
        "95 % intervals over problems.",
        "",
        f"| | {' | '.join(columns)} | all | interval |",
        f"|---|{'---:|' * (len(columns) + 2)}",
        *(
            f"| {row['row']} | {' | '.join(str(row.get(column, '')) for column in columns)}"
            f" | {row['all']} | {row['low']} to {row['high']} |"
            for row in report["rows"]
        ),
        "",
        "| round | candidates of | gap closed | interval |",
        "|---|---|---:|---:|",
        *(
            f"| {g['round']} | {g['pool']} | {g['value']:.2f} | {g['low']:.2f} to {g['high']:.2f} |"
            for g in report["gap_closed"]
        ),
        "",
        "| round | completions mined | failures | high-scoring | share of failures |",
        "|---|---:|---:|---:|---:|",
        *(
            f"| {m['round']} | {m['completions']} | {m['failures']} | {m['high_scoring_failures']} | "
            f"{100 * m['share_of_failures']:.1f} % |"
            for m in report["mined"]
        ),
        "",
    ]
    return "\n".join(lines)


def _solved(groups: Mapping[str, Sequence[ProgramRecord]]) -> Values:
    return {task_id: mean_pass_rate(group) for task_id, group in groups.items()}
