"""Two rewards from comparing the completions of one group, without a model or a reference solution.

- `consensus` compares texts: the completion most like the others (the medoid) scores highest.
- `agreement` compares behaviour: CodeT's dual execution agreement (Chen et al. 2022, arXiv 2207.10397). Programs that
  pass exactly the same tests support each other and those tests.
- Both compare inside one group only; their values mean nothing across groups.
- Plain Python, so that the API process needs no numerical library.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Sequence

from plaudit.errors import Invalid, TooLarge

# A word, a number, the blanks that indent a line, or one other visible character: enough for any language.
TOKEN = re.compile(r"[^\W\d]\w*|\d+(?:\.\d+)?|(?<=\n)[ \t]+|[^\w\s]")


MAX_CONSENSUS_CHARACTERS = 4_000_000  # of one group: some seconds of work, in a thread


def consensus(completions: Sequence[str]) -> list[float]:
    """Mean TF-IDF cosine similarity of each completion to the others of its group.

    Terms are the tokens of `TOKEN` and their neighbouring pairs; the idf is that of the group,
    log((1 + n) / (1 + df)) + 1.

    Args:
        completions: of one group.

    Returns:
        One value in [0, 1] per completion. It is 0.0 in a group of one, and for a completion without tokens.

    Raises:
        TooLarge: if the completions have more than `MAX_CONSENSUS_CHARACTERS` together.
    """
    num_completions = len(completions)
    if num_completions < 2:
        return [0.0] * num_completions
    num_characters = sum(map(len, completions))
    if num_characters > MAX_CONSENSUS_CHARACTERS:
        raise TooLarge(
            f"the group has {num_characters} characters, and consensus compares at most {MAX_CONSENSUS_CHARACTERS}"
        )
    numbers: dict[str, int] = {}
    term_counts = [_terms(completion, numbers) for completion in completions]
    document_counts = Counter(term for counts in term_counts for term in counts)
    idf = {term: math.log((1 + num_completions) / (1 + df)) + 1 for term, df in document_counts.items()}
    vectors = [_unit({term: count * idf[term] for term, count in counts.items()}) for counts in term_counts]
    # The cosines of one vector with all others add up to its product with the sum of all, less the one with itself.
    total: dict[int, float] = {}
    for vector in vectors:
        for term, weight in vector.items():
            total[term] = total.get(term, 0.0) + weight
    sums = [sum(weight * (total[term] - weight) for term, weight in vector.items()) for vector in vectors]
    return [min(1.0, max(0.0, value / (num_completions - 1))) for value in sums]


def agreement(passes: Sequence[Sequence[bool]]) -> list[float]:
    """CodeT's dual execution agreement of each program.

    Programs that pass exactly the same tests form a group. Each of its members gets |group| · |tests passed|, divided
    by (programs · tests). The tests may be wrong: that is what the group is for.

    Args:
        passes: `passes[i][j]` is whether program i passes test j.

    Returns:
        One value in [0, 1] per program; 0.0 without tests.

    Raises:
        Invalid: if the rows differ in length.
    """
    if not passes:
        return []
    num_tests = len(passes[0])
    if any(len(row) != num_tests for row in passes):
        raise Invalid("every program of a group must be judged by the same tests")
    passed_tests = [tuple(map(bool, row)) for row in passes]
    group_sizes = Counter(passed_tests)
    largest = len(passes) * num_tests
    return [group_sizes[row] * sum(row) / largest if largest else 0.0 for row in passed_tests]


def _terms(text: str, numbers: dict[str, int]) -> Counter[int]:
    """How often each token and each neighbouring pair occurs; `numbers` numbers the tokens, from 1 on."""
    tokens = [numbers.setdefault(match[0], len(numbers) + 1) for match in TOKEN.finditer(text)]
    counts = Counter(tokens)
    counts.update(left << 32 | right for left, right in itertools.pairwise(tokens))
    return counts


def _unit(vector: dict[int, float]) -> dict[int, float]:
    norm = math.sqrt(sum(weight * weight for weight in vector.values()))
    return {term: weight / norm for term, weight in vector.items()}
