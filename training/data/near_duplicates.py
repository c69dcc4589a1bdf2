"""Pairs of texts that are nearly the same, by the overlap of their words (Jaccard index).

- Up to `EXACT` texts every pair is found, by prefix filtering (Bayardo et al. 2007).
- More are first hashed: MinHash signatures in bands (Broder 1997; LSH, Indyk and Motwani 1998), by the package rensa.
  Texts that share a band are compared word by word, so a pair that is found is one. A pair at the threshold is missed
  with a chance of at most `MISSED`, a more similar one more rarely.
- The result is the same on every machine and in every run.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

EXACT = 5_000
MISSED = 1e-3
NUM_HASHES, SEED = 256, 1
BLOCK = 2048  # texts whose words are held as texts


def near_duplicates(texts: Iterable[frozenset[str]], threshold: float) -> Iterator[tuple[int, int]]:
    """Every pair of places (earlier, later) whose sets overlap by at least this Jaccard index; above `EXACT`, nearly.

    Args:
        texts: the words of each text; they are read once.
        threshold: the least overlap, from 0 to 1.
    """
    left = iter(texts)
    first = list(islice(left, EXACT + 1))
    if len(first) <= EXACT:
        yield from exact_near_duplicates(first, threshold)
    else:
        yield from _by_bands(first, left, threshold)


def exact_near_duplicates(sets: Sequence[frozenset[str]], threshold: float) -> Iterator[tuple[int, int]]:
    """Every pair, by prefix filtering.

    With the words of every set in order of rarity, two sets of such an overlap share a word within the first
    |s| - ceil(threshold * |s|) + 1 of each, so only those are looked up.
    """
    counts = Counter(word for words in sets for word in words)
    holders: dict[str, list[int]] = defaultdict(list)
    for at, words in enumerate(sets):
        ordered = sorted(words, key=lambda word: (counts[word], word))
        prefix = ordered[: len(ordered) - math.ceil(threshold * len(ordered) - 1e-9) + 1]
        for other in sorted({other for word in prefix for other in holders[word]}):
            if jaccard(sets[other], words) >= threshold:
                yield other, at
        for word in prefix:
            holders[word].append(at)


def band_rows(threshold: float) -> int:
    """How many hashes make a band: the most with which a pair at the threshold is missed by `MISSED`."""
    for rows in range(16, 1, -1):
        if (1 - threshold**rows) ** (NUM_HASHES // rows) <= MISSED:
            return rows
    return 1


def jaccard(left: frozenset[str] | frozenset[int], right: frozenset[str] | frozenset[int]) -> float:
    """Shared words per words of both; 0 for a text without words."""
    shared = len(left & right)
    return shared / (len(left) + len(right) - shared) if left and right else 0.0


def _by_bands(
    first: list[frozenset[str]], rest: Iterator[frozenset[str]], threshold: float
) -> Iterator[tuple[int, int]]:
    from rensa import RMinHash, RMinHashLSH

    num_bands = NUM_HASHES // band_rows(threshold)
    index = RMinHashLSH(threshold, num_bands * band_rows(threshold), num_bands)
    numbers: dict[str, int] = {}
    texts: list[array[int]] = []
    blocks = _blocks(first, rest)
    del first
    for block in blocks:
        begin = len(texts)
        texts += [array("I", sorted(numbers.setdefault(word, len(numbers)) for word in words)) for words in block]
        hashes = RMinHash.from_token_sets([sorted(words) for words in block], num_bands * band_rows(threshold), SEED)
        index.insert_many(hashes, begin)
        for at, found in enumerate(index.query_all(hashes), start=begin):
            mine, size = None, len(texts[at])
            for other in sorted(other for other in found if other < at):
                if threshold * size <= len(texts[other]) <= size / threshold:
                    mine = mine or frozenset(texts[at])
                    if jaccard(frozenset(texts[other]), mine) >= threshold:
                        yield other, at


def _blocks(first: list[frozenset[str]], rest: Iterator[frozenset[str]]) -> Iterator[list[frozenset[str]]]:
    for at in range(0, len(first), BLOCK):
        yield first[at : at + BLOCK]
    first.clear()
    while block := list(islice(rest, BLOCK)):
        yield block
