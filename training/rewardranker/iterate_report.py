"""The report of `iterate`: rows as in RewardRanker's table, columns by kind of problem, intervals over problems.

Every reranked row is best of `candidates`, by the exact expectation over ties; rows differ in whose candidates they
choose from. *Gap closed* is (reranked - mean) / (oracle - mean) over the same candidates, a ratio of sums over
problems, with a bootstrap over problems.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from training.pipeline.files import write_text
from training.pipeline.metrics import best_of_n, bootstrap, mean
from training.pipeline.records import Problem, ProgramRecord, read_programs
from training.rewardranker.iterate import mean_pass, read_scores

if TYPE_CHECKING:
    from training.rewardranker.iterate import Loop

Values = dict[str, float]  # task → share solved
Pool = Mapping[str, Sequence[tuple[float, bool]]]


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    values: Values


def write_report(loop: Loop) -> dict[str, object]:
    """Write `iterate/seed-N/MODE/report.{json,md}`; the numbers of the last round."""
    settings, seed = loop.recipe.iterate, loop.seeded.seed
    sft = _by_task(read_programs(loop.base.path("held_out.jsonl")))
    rows = [
        Row("generator (SFT), greedy", _solved(_by_task(read_programs(loop.base.path("greedy.jsonl"))))),
        Row("generator (SFT), mean of its samples", _solved(sft)),
        Row("oracle over these", {t: float(any(p.pass_rate == 1.0 for p in group)) for t, group in sft.items()}),
    ]
    gaps, mined = [], []
    for number in range(1, settings.rounds + 1):
        here = loop.folder(number)
        label = "RewardRanker" if number == 1 else f"RewardRanker {number} iter. {settings.mode.replace('_', ' ')}"
        theirs, ours = read_scores(here, "sft"), read_scores(here, "ppo")
        rows += [
            Row(f"{label}: SFT candidates", reranked(theirs)),
            Row(f"{label}: PPO candidates", reranked(ours)),
            Row("its PPO generator, mean", {task: mean([float(ok) for _, ok in own]) for task, own in ours.items()}),
        ]
        for pool, scores in (("sft", theirs), ("ppo", ours)):
            value, low, high = gap_closed(scores, seed)
            gaps.append({"round": number, "pool": pool, "value": value, "low": low, "high": high})
        mined.append({"round": number, **(here.record("mine") or {})["summary"]})
    columns = columns_of(loop.held)
    table = [row_of(row, columns, seed) for row in rows]
    report = {
        "mode": settings.mode,
        "seed": seed,
        "problems": len(loop.held),
        "candidates": settings.candidates,
        "rows": table,
        "gap_closed": gaps,
        "mined": mined,
        "samples": (loop.base.record("samples") or {})["summary"],
    }
    folder = f"iterate/seed-{seed}/{settings.mode}"
    write_text(loop.run.path(f"{folder}/report.json"), json.dumps(report, indent=2) + "\n")
    write_text(loop.run.path(f"{folder}/report.md"), markdown(report))
    last = gaps[-2]
    return {
        "mode": settings.mode,
        "rounds": settings.rounds,
        "gap_closed": last["value"],
        "gap_low": last["low"],
        "gap_high": last["high"],
        "share_high_scoring": [m["share_of_failures"] for m in mined],
    }


def reranked(pool: Pool) -> Values:
    """Best of all candidates of every problem."""
    return {
        task: best_of_n([score for score, _ in group], [ok for _, ok in group], len(group))
        for task, group in pool.items()
    }


def gap_closed(pool: Pool, seed: int, resamples: int = 1000) -> tuple[float, float, float]:
    """(value, low, high) of the share of the mean-to-oracle gap that choosing by score closes."""
    best = reranked(pool)
    triples = [
        (best[task], mean([float(ok) for _, ok in group]), float(any(ok for _, ok in group)))
        for task, group in pool.items()
    ]

    def share(picks: Sequence[float]) -> float:
        chosen = [triples[int(at)] for at in picks]
        gained, room = sum(b - m for b, m, _ in chosen), sum(o - m for _, m, o in chosen)
        return gained / room if room else 0.0

    numbers = [float(at) for at in range(len(triples))]
    low, high = bootstrap(numbers, resamples=resamples, seed=seed, statistic=share)
    return round(share(numbers), 4), round(low, 4), round(high, 4)


def columns_of(problems: Sequence[Problem]) -> dict[str, Callable[[str], bool]]:
    """Columns of the table: chain lengths in the micro-world, sources elsewhere."""
    sources = {problem.task_id: problem.source for problem in problems}
    if set(sources.values()) == {"microworld"}:
        lengths = {task: task.split("/")[1] for task in sources}
        names = {length: f"{length} step{'s' if length != '1' else ''}" for length in sorted(set(lengths.values()))}
        return {name: lambda task, length=length: lengths.get(task) == length for length, name in names.items()}  # type: ignore[misc]
    return {name: lambda task, name=name: sources.get(task) == name for name in sorted(set(sources.values()))}  # type: ignore[misc]


def row_of(row: Row, columns: Mapping[str, Callable[[str], bool]], seed: int) -> dict[str, Any]:
    """Per cent solved, by column and over all problems, with the interval of the last."""
    low, high = bootstrap(list(row.values.values()), resamples=1000, seed=seed)
    found = {
        name: round(100 * mean(part), 1)
        for name, belongs in columns.items()
        if (part := [value for task, value in row.values.items() if belongs(task)])
    }
    all_ = round(100 * mean(list(row.values.values())), 1)
    return {"row": row.name, **found, "all": all_, "low": round(100 * low, 1), "high": round(100 * high, 1)}


def markdown(report: Mapping[str, Any]) -> str:
    """The report to read."""
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


def _by_task(programs: Sequence[ProgramRecord]) -> dict[str, list[ProgramRecord]]:
    found: dict[str, list[ProgramRecord]] = {}
    for program in programs:
        found.setdefault(program.task_id, []).append(program)
    return found


def _solved(groups: Mapping[str, Sequence[ProgramRecord]]) -> Values:
    return {task: mean_pass(group) for task, group in groups.items()}
