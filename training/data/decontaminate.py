"""Finds texts that overlap with problems that must not be trained on: held-out problems, and evaluation sets.

- `HeldOut` guards what the model learns from against the run's own held-out problems.
- `ContaminationIndex` finds the evaluation problem that a question is, or contains. Exact: the same words in the same
  order, whatever the case and the punctuation. N-gram: a run of `n` code tokens in common with the statement or the
  reference solution. A hit names the problem and the run, so that a person can look at what was dropped and why.
- A run in which hardly a word stands is a literal, such as a list of numbers. It says nothing, and does not count.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from training.data.tokens import ngrams, words_of
from training.pipeline.records import Problem

_QUOTED = re.compile(
    r"""(?<![\w'"])(?:'[^'\n]*'|"[^"\n]*")(?![\w'"])"""
)  # a text in a list of texts, and no apostrophe


class HeldOut:
    """Token runs and function names of the held-out problems, which no training text may contain."""

    def __init__(self, problems: Iterable[Problem], n: int) -> None:
        self._n = n
        held = [problem for problem in problems if problem.fold != "train"]
        self._names = {problem.entry_point for problem in held}
        self._runs = {run for p in held for text in (p.prompt, p.canonical or "") for run in ngrams(text, n)}

    def touches(self, text: str, name: str | None = None) -> bool:
        """Whether the text shares a token run with a held-out problem, or the function has the name of one."""
        return name in self._names or not self._runs.isdisjoint(ngrams(text, self._n))


def telling_runs(text: str, n: int) -> set[tuple[str, ...]]:
    """The runs of `n` code tokens, in lower case, in which at least a third are different words."""
    runs = ngrams(_QUOTED.sub("''", text.lower()), n)
    return {run for run in runs if 3 * len({token for token in run if token[0].isalpha() or token[0] == "_"}) >= n}


@dataclass(frozen=True, slots=True)
class ContaminationHit:
    """Which evaluation problem a text touches, and by what."""

    task_id: str
    how: str  # "exact" or "ngram"
    run: str


class ContaminationIndex:
    """An index over evaluation problems: (task_id, its texts: statement, reference solution)."""

    def __init__(self, problems: Iterable[tuple[str, Iterable[str]]], n: int) -> None:
        self._n = n
        self._whole: dict[tuple[str, ...], str] = {}
        self._runs: dict[int, str] = {}
        self.size = 0
        for task_id, texts in problems:
            self.size += 1
            for text in texts:
                if words := words_of(text):
                    self._whole.setdefault(words, task_id)
                for run in telling_runs(text, n):
                    self._runs.setdefault(hash(run), task_id)

    def hit(self, text: str) -> ContaminationHit | None:
        """The first reason to drop this text, None where there is none."""
        if not self.size:
            return None
        task_id = self._whole.get(words_of(text))
        if task_id is not None:
            return ContaminationHit(task_id, "exact", text[:80])
        for run in sorted(telling_runs(text, self._n)):
            task_id = self._runs.get(hash(run))
            if task_id is not None:
                return ContaminationHit(task_id, "ngram", " ".join(run))
        return None
