"""Is this question one of the evaluation problems, or does it contain one?

Exact: the same words in the same order, whatever the case and the punctuation. N-gram: a run of `n` code tokens in
common with the statement or the reference solution of an evaluation problem. A hit names the problem and the run, so
that a person can look at what was dropped and why.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from training.data.collect import WORD, ngrams


@dataclass(frozen=True, slots=True)
class Hit:
    """Which evaluation problem a text touches, and by what."""

    task_id: str
    how: str  # "exact" or "ngram"
    run: str


class Contamination:
    """An index over evaluation problems: (task_id, its texts: statement, reference solution)."""

    def __init__(self, problems: Iterable[tuple[str, Iterable[str]]], n: int) -> None:
        self._n = n
        self._whole: dict[tuple[str, ...], str] = {}
        self._runs: dict[int, str] = {}
        self.size = 0
        for task_id, texts in problems:
            self.size += 1
            for text in texts:
                if words := normal(text):
                    self._whole.setdefault(words, task_id)
                for run in ngrams(text.lower(), n):
                    self._runs.setdefault(hash(run), task_id)

    def hit(self, text: str) -> Hit | None:
        """The first reason to drop this text, None where there is none."""
        task_id = self._whole.get(normal(text))
        if task_id is not None:
            return Hit(task_id, "exact", text[:80])
        for run in sorted(ngrams(text.lower(), self._n)):
            task_id = self._runs.get(hash(run))
            if task_id is not None:
                return Hit(task_id, "ngram", " ".join(run))
        return None


def normal(text: str) -> tuple[str, ...]:
    """The words and numbers of a text, lower case."""
    return tuple(WORD.findall(text.lower()))
