"""How many tokens a batch may have: what fits in memory and, on a CPU, what is computed in `MAX_BATCH_S`.

Between two batches a scorer ends what nobody waits for and lets a higher lane or another model go first, so the time of
a batch is what everybody else waits. A GPU computes the configured number of tokens in a fraction of a second. On a CPU
the same number takes a large model minutes, so there the budget follows the speed that is measured.
"""

from __future__ import annotations

MAX_BATCH_S = 0.5
FIRST_TOKENS = 4096  # before a CPU's speed is known
MIN_TOKENS = 256  # a smaller batch would cost more than it frees


class BatchBudget:
    """The budget of one loaded model.

    Args:
        max_tokens: what is configured; the budget is never larger.
        max_s: how long a batch may take, in seconds; None: bounded in tokens only.
    """

    def __init__(self, max_tokens: int, max_s: float | None = None) -> None:
        self._in_memory = max_tokens
        self._max_s = max_s
        self._in_time = max_tokens if max_s is None else min(max_tokens, FIRST_TOKENS)

    @property
    def tokens(self) -> int:
        return min(self._in_memory, self._in_time)

    def ran_out_of_memory(self, tokens: int, halvings: int) -> None:
        """A batch of so many tokens had to be halved so often before its parts fitted."""
        self._in_memory = max(1, min(self._in_memory, tokens >> halvings))

    def took(self, tokens: int, seconds: float) -> None:
        """A batch was computed. One that took too long makes the next ones smaller, at its speed; a full one that took
        less than half of the time lets them be twice as large."""
        if self._max_s is None:
            return
        if seconds > self._max_s:
            self._in_time = max(MIN_TOKENS, min(self._in_time, int(tokens * self._max_s / seconds)))
        elif seconds < self._max_s / 2 and 2 * tokens > self.tokens:
            self._in_time = min(self._in_memory, 2 * self._in_time)
