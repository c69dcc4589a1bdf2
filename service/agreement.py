"""What the completions of one group say about each other: two rewards that need no model and no reference solution.

`consensus` looks at the text: the completion most like the others (the medoid) scores highest. `agreement` looks at
behaviour: CodeT's dual execution agreement (Chen et al. 2022, arXiv 2207.10397), where programs that pass exactly the
same tests vouch for each other and for those tests. Both compare inside one group only; their values mean nothing
across groups. Plain Python, so that the API process can join them without a numerical library.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Sequence

from plaudit.errors import Invalid

# A word, a number, a run of blanks that indents a line, or one other visible character: enough for any language.
TOKEN = re.compile(r"[^\W\d]\w*|\d+(?:\.\d+)?|(?<=\n)[ \t]+|[^\w\s]")


def consensus(completions: Sequence[str]) -> list[float]:
    """Mean TF-IDF cosine similarity of each completion to the others of its group, in [0, 1].

    Terms are the tokens of `TOKEN` and their neighbouring pairs; the idf is that of the group,
    log((1 + n) / (1 + df)) + 1. A group of one has nobody to agree with: 0.0. So has a completion without tokens.
    """
    n = len(completions)
    if n < 2:
        return [0.0] * n
    counts = [_terms(completion) for completion in completions]
    documents = Counter(term for count in counts for term in count)
    idf = {term: math.log((1 + n) / (1 + df)) + 1 for term, df in documents.items()}
    vectors = [_unit({term: times * idf[term] for term, times in count.items()}) for count in counts]
    # The cosines of one with all others add up to its product with the sum of all, less the one with itself.
    total: dict[str, float] = {}
    for vector in vectors:
        for term, weight in vector.items():
            total[term] = total.get(term, 0.0) + weight
    sums = [sum(weight * (total[term] - weight) for term, weight in vector.items()) for vector in vectors]
    return [min(1.0, max(0.0, value / (n - 1))) for value in sums]


def agreement(passes: Sequence[Sequence[bool]]) -> list[float]:
    """CodeT's dual execution agreement of each program, in [0, 1]; `passes[i][j]`: program i passes test j.

    Programs that pass exactly the same tests form a group; each of its members gets |group| · |tests passed|, divided
    by (programs · tests). The tests may be wrong: that is what the group is for. Without tests all values are 0.0.
    Raises `Invalid` if the rows differ in length.
    """
    if not passes:
        return []
    num_tests = len(passes[0])
    if any(len(row) != num_tests for row in passes):
        raise Invalid("every program must be judged by the same tests")
    keys = [tuple(map(bool, row)) for row in passes]
    sizes = Counter(keys)
    whole = len(passes) * num_tests
    return [sizes[key] * sum(key) / whole if whole else 0.0 for key in keys]


def _terms(text: str) -> Counter[str]:
    tokens: list[str] = TOKEN.findall(text)
    return Counter(tokens) + Counter(f"{left}\x00{right}" for left, right in itertools.pairwise(tokens))


def _unit(vector: dict[str, float]) -> dict[str, float]:
    norm = math.sqrt(sum(weight * weight for weight in vector.values()))
    return {term: weight / norm for term, weight in vector.items()}
