"""The numbers of AceCoder's tables for this run's data: questions, tests and pairs by source, and how samples fare.

Kept as sums, so memory does not grow with the candidates. pass@k is the unbiased estimate from the n samples of a
question, averaged over the questions with at least k samples.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from training.pipeline.metrics import pass_at_n

SIZES = (1, 4, 8, 16)


class DatasetStats:
    """Sums over questions, added one by one."""

    def __init__(self) -> None:
        self._sources: dict[str, Counter[str]] = defaultdict(Counter)
        self._solved = {n: [0.0, 0] for n in SIZES}
        self._rates = [0.0, 0]
        self._sampled = self._all_pass = self._none_pass = 0

    def add(self, source: str, num_tests: int, num_pairs: int, sampled: Sequence[tuple[float, int]]) -> None:
        """Add a question: its tests, its pairs, and its samples as (pass rate, copies)."""
        counts = self._sources[source]
        counts["questions"] += 1
        counts["tests"] += num_tests
        counts["pairs"] += num_pairs
        counts["questions_with_pairs"] += num_pairs > 0
        counts["samples"] += (size := sum(copies for _, copies in sampled))
        if not size:
            return
        num_passing = sum(copies for rate, copies in sampled if rate == 1.0)
        passed = [True] * num_passing + [False] * (size - num_passing)
        for n in SIZES:
            if n <= size:
                self._solved[n][0] += pass_at_n(passed, n)
                self._solved[n][1] += 1
        self._rates[0] += sum(rate * copies for rate, copies in sampled)
        self._rates[1] += size
        self._sampled += 1
        self._all_pass += num_passing == size
        self._none_pass += num_passing == 0

    def tables(self) -> dict[str, Any]:
        """`sources`: counts by source and for all; `samples`: shares in [0, 1], empty where nothing was sampled."""
        sources = dict(sorted(self._sources.items()))
        if len(sources) > 1:
            sources["all"] = sum(self._sources.values(), Counter())
        samples: dict[str, float] = {}
        if self._sampled:
            samples = {f"pass@{n}": total / count for n, (total, count) in self._solved.items() if count}
            samples["mean_pass_rate"] = self._rates[0] / self._rates[1]
            samples["all_samples_pass"] = self._all_pass / self._sampled
            samples["no_sample_passes"] = self._none_pass / self._sampled
        return {"sources": {name: dict(counts) for name, counts in sources.items()}, "samples": samples}


def stats_markdown(tables: dict[str, Any]) -> str:
    """The tables as Markdown."""
    lines = [
        "# Data",
        "",
        "| source | questions | tests per question | samples | pairs | questions with pairs |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, counts in tables["sources"].items():
        each = counts["tests"] / counts["questions"]
        lines.append(
            f"| {name} | {counts['questions']} | {each:.2f} | {counts.get('samples', 0)} | {counts.get('pairs', 0)}"
            f" | {counts.get('questions_with_pairs', 0)} |"
        )
    if tables["samples"]:
        names = {
            "mean_pass_rate": "mean test pass rate",
            "all_samples_pass": "questions where all samples pass",
            "no_sample_passes": "questions where no sample passes",
        }
        lines += ["", "| samples | % |", "|---|---:|"]
        lines += [f"| {names.get(name, name)} | {100 * value:.2f} |" for name, value in tables["samples"].items()]
    return "\n".join(lines) + "\n"
