"""Folds of problems: equal or nearly equal problems are always in one fold.

- Folds are cut between clusters of problems: the same base problem or function name, nearly the same words, or the same
  reference solution.
- A hash of the seed and the cluster decides whether it is `test`, `validation` or `train`, so every machine cuts the
  same way.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence

from training.data.near_duplicates import near_duplicates
from training.data.tokens import CODE, WORD
from training.pipeline import config
from training.pipeline.records import Fold, Problem

# Words of the task language, not of the task.
COMMON = frozenset(
    WORD.findall(
        "a an the of to in is and or for if it be are as by on with from that this def return returns given write"
        " python function int str list bool float none true false typing import any optional"
    )
)


def assign_folds(problems: Sequence[Problem], split: config.SplitConfig, seed: int) -> list[Problem]:
    """The problems with their folds. The counts are lower bounds, the shares upper ones: a cluster is never cut."""
    clusters = cluster(problems, split.near_duplicate)
    members: dict[int, list[Problem]] = defaultdict(list)
    for problem in problems:
        members[clusters[problem.task_id]].append(problem)
    names = {number: min(p.base_id for p in group) for number, group in members.items()}
    order = sorted(members, key=lambda number: hashlib.sha256(f"{seed}:{names[number]}".encode()).digest())
    fold: dict[int, Fold] = {}
    if split.parts:
        for number, part in parts_of(members, order, split.parts, "HumanEval/").items():
            if part == split.part:
                fold[number] = "test"
        order = [number for number in order if number not in fold]
    quotas: tuple[tuple[Fold, str, int], ...] = (
        ("test", "HumanEval/", 0 if split.parts else split.test),
        ("validation", "HumanEval/", split.validation),
        ("validation", "MBPP/", split.validation_other),
    )
    for name, family, count in quotas:
        for number in order:
            if count <= 0:
                break
            size = sum(p.base_id.startswith(family) for p in members[number])
            if number not in fold and size:
                fold[number] = name
                count -= size
    shares: tuple[tuple[Fold, float], ...] = (("test", split.test_share), ("validation", split.validation_share))
    for name, share in shares:
        room = math.ceil(share * len(problems))
        for number in order:
            if number not in fold and len(members[number]) <= room:  # a large cluster would be the whole fold
                fold[number] = name
                room -= len(members[number])
    return [dataclasses.replace(p, fold=fold.get(clusters[p.task_id], "train")) for p in problems]


def parts_of(members: dict[int, list[Problem]], order: Sequence[int], count: int, family: str) -> dict[int, int]:
    """cluster → part, for the clusters that hold problems of this family; parts hold nearly the same number of them."""
    sizes = [0] * count
    part: dict[int, int] = {}
    for number in order:
        size = sum(p.base_id.startswith(family) for p in members[number])
        if size:
            part[number] = sizes.index(min(sizes))
            sizes[part[number]] += size
    return part


def cluster(problems: Sequence[Problem], threshold: float) -> dict[str, int]:
    """task_id → cluster: linked by base problem, function name, words of the prompt, or reference solution."""
    parent = list(range(len(problems)))

    def root(at: int) -> int:
        while parent[at] != at:
            parent[at] = parent[parent[at]]
            at = parent[at]
        return at

    keys: dict[str, int] = {}
    for at, problem in enumerate(problems):
        for key in (problem.base_id, problem.entry_point.lower(), _canonical_key(problem)):
            if key and key in keys:
                parent[root(at)] = root(keys[key])
            elif key:
                keys[key] = at
    for left, right in near_duplicates((frozenset(_words(problem)) for problem in problems), threshold):
        parent[root(right)] = root(left)
    return {problem.task_id: root(at) for at, problem in enumerate(problems)}


def _words(problem: Problem) -> list[str]:
    # The examples of a docstring repeat the entry point and numbers; the task itself is in the words.
    text = "\n".join(line for line in problem.prompt.splitlines() if ">>>" not in line)
    return [word for word in map(str.lower, WORD.findall(text)) if word not in COMMON]


def _canonical_key(problem: Problem) -> str:
    if problem.canonical is None:
        return ""
    body = problem.canonical.removeprefix(problem.prompt).replace(problem.entry_point, "f")
    tokens = CODE.findall(body)
    return " ".join(tokens) if len(tokens) > 12 else ""
