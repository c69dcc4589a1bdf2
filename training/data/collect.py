"""`collect`: problems and programs from the public data, each problem in one fold.

Folds are cut between clusters of problems: the same base problem, nearly the same words, or the same reference
solution never stand on both sides. Whether a fold is `test`, `validation` or `train` is decided by a hash of the seed
and the cluster, so that another machine cuts the same way. Everything later asks this file's result; nothing that the
model learns from (tokenizer, language-model text, pairs) may come from a held-out cluster.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

from training.pipeline import config
from training.pipeline.config import Recipe
from training.pipeline.records import Fold, Problem, public_problems, public_programs, row
from training.pipeline.run import Run, write_jsonl

WORD = re.compile(r"[A-Za-z]+|\d+")
CODE = re.compile(r"[^\W\d]\w*|\d+|[^\w\s]")
# Words of the task language, not of the task.
COMMON = frozenset(
    WORD.findall(
        "a an the of to in is and or for if it be are as by on with from that this def return returns given write"
        " python function int str list bool float none true false typing import any optional"
    )
)


def collect(recipe: Recipe, run: Run) -> dict[str, object]:
    """Write `problems.jsonl` (with folds) and `programs.jsonl` (distinct programs, shipped pass rates), from `data` or
    from the hub."""
    if recipe.hub.adapter:
        from training.data.hub import collect_hub

        return collect_hub(recipe, run)
    problems = assign_folds(public_problems(recipe.data), recipe.split, recipe.seed)
    by_id = {problem.task_id: problem for problem in problems}
    programs = list(public_programs(recipe.data, by_id))
    write_jsonl(run.path("problems.jsonl"), map(row, problems))
    write_jsonl(run.path("programs.jsonl"), map(row, programs))
    folds = Counter(str(problem.fold) for problem in problems)
    return {"problems": len(problems), "programs": len(programs), **folds}


def assign_folds(problems: Sequence[Problem], split: config.Split, seed: int) -> list[Problem]:
    """The problems with their folds. The counts are lower bounds: a cluster is never cut to meet one exactly."""
    clusters = cluster(problems, split.near_duplicate)
    members: dict[int, list[Problem]] = defaultdict(list)
    for problem in problems:
        members[clusters[problem.task_id]].append(problem)
    names = {number: min(p.base_id for p in group) for number, group in members.items()}
    order = sorted(members, key=lambda number: hashlib.sha256(f"{seed}:{names[number]}".encode()).digest())
    fold: dict[int, Fold] = {}
    wanted: tuple[tuple[Fold, str, int], ...] = (
        ("test", "HumanEval/", split.test),
        ("validation", "HumanEval/", split.validation),
        ("validation", "MBPP/", split.validation_other),
    )
    for name, family, count in wanted:
        for number in order:
            if count <= 0:
                break
            size = sum(p.base_id.startswith(family) for p in members[number])
            if number not in fold and size:
                fold[number] = name
                count -= size
    room = math.ceil(split.validation_share * len(problems))
    for number in order:
        if number not in fold and len(members[number]) <= room:  # a large cluster would be the whole fold
            fold[number] = "validation"
            room -= len(members[number])
    return [dataclasses.replace(p, fold=fold.get(clusters[p.task_id], "train")) for p in problems]


def cluster(problems: Sequence[Problem], threshold: float) -> dict[str, int]:
    """task_id → cluster: linked by base problem, function name, words of the prompt, or reference solution."""
    parent = list(range(len(problems)))

    def root(at: int) -> int:
        while parent[at] != at:
            parent[at] = parent[parent[at]]
            at = parent[at]
        return at

    words = [frozenset(_words(problem)) for problem in problems]
    keys: dict[str, int] = {}
    for at, problem in enumerate(problems):
        for key in (problem.base_id, problem.entry_point.lower(), _canonical_key(problem)):
            if key and key in keys:
                parent[root(at)] = root(keys[key])
            elif key:
                keys[key] = at
    for left, right in near_pairs(words, threshold):
        parent[root(right)] = root(left)
    return {problem.task_id: root(at) for at, problem in enumerate(problems)}


def near_pairs(sets: Sequence[frozenset[str]], threshold: float) -> Iterator[tuple[int, int]]:
    """Every pair of places (earlier, later) whose sets overlap by at least this Jaccard index.

    Exact, by prefix filtering (Bayardo et al. 2007): with the words of every set in order of rarity, two sets of such
    an overlap share a word within the first |s| - ceil(threshold * |s|) + 1 of each, so only those are looked up.
    """
    counts = Counter(word for words in sets for word in words)
    holders: dict[str, list[int]] = defaultdict(list)
    for at, words in enumerate(sets):
        ordered = sorted(words, key=lambda word: (counts[word], word))
        prefix = ordered[: len(ordered) - math.ceil(threshold * len(ordered) - 1e-9) + 1]
        for other in sorted({other for word in prefix for other in holders[word]}):
            if _jaccard(sets[other], words) >= threshold:
                yield other, at
        for word in prefix:
            holders[word].append(at)


def ngrams(text: str, n: int) -> set[tuple[str, ...]]:
    """Every run of `n` code tokens in the text."""
    tokens = CODE.findall(text)
    return {tuple(tokens[at : at + n]) for at in range(len(tokens) - n + 1)}


class HeldOut:
    """What a training text must not contain: token runs and function names of the held-out problems."""

    def __init__(self, problems: Iterable[Problem], n: int) -> None:
        self._n = n
        held = [problem for problem in problems if problem.fold != "train"]
        self._names = {problem.entry_point for problem in held}
        self._runs = {run for p in held for text in (p.prompt, p.canonical or "") for run in ngrams(text, n)}

    def touches(self, text: str, name: str | None = None) -> bool:
        """Whether the text shares a run with a held-out problem, or the function has the name of one."""
        return name in self._names or not self._runs.isdisjoint(ngrams(text, self._n))


def _words(problem: Problem) -> list[str]:
    # The examples of a docstring repeat the entry point and numbers; what is asked stands in the words.
    text = "\n".join(line for line in problem.prompt.splitlines() if ">>>" not in line)
    return [word for word in map(str.lower, WORD.findall(text)) if word not in COMMON]


def _canonical_key(problem: Problem) -> str:
    if problem.canonical is None:
        return ""
    body = problem.canonical.removeprefix(problem.prompt).replace(problem.entry_point, "f")
    tokens = CODE.findall(body)
    return " ".join(tokens) if len(tokens) > 12 else ""


def _jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    return len(left & right) / len(left | right) if left and right else 0.0
