"""A batch is bounded by memory, and on a CPU by the time that it takes."""

from __future__ import annotations

from service.scoring.batch_budget import FIRST_TOKENS, MAX_BATCH_S, MIN_TOKENS, BatchBudget


def settled(tokens_per_s: float, max_tokens: int = 16384, batches: int = 12) -> BatchBudget:
    """The budget after full batches at this speed."""
    budget = BatchBudget(max_tokens, MAX_BATCH_S)
    for _ in range(batches):
        budget.took(budget.tokens, budget.tokens / tokens_per_s)
    return budget


def test_a_slow_model_gets_batches_that_take_no_longer_than_the_bound() -> None:
    budget = settled(2000.0)
    assert MAX_BATCH_S / 2 <= budget.tokens / 2000.0 <= MAX_BATCH_S


def test_a_fast_model_gets_the_configured_batches() -> None:
    assert settled(200_000.0).tokens == 16384
    assert settled(200_000.0, max_tokens=1000).tokens == 1000


def test_small_batches_say_nothing_about_what_a_full_one_takes() -> None:
    budget = BatchBudget(16384, MAX_BATCH_S)
    for _ in range(10):
        budget.took(50, 0.01)
    assert budget.tokens == FIRST_TOKENS


def test_one_slow_batch_is_forgotten_after_some_full_ones() -> None:
    budget = settled(100_000.0)
    budget.took(budget.tokens, 60.0)
    assert budget.tokens == MIN_TOKENS
    for _ in range(10):
        budget.took(budget.tokens, budget.tokens / 100_000.0)
    assert budget.tokens == 16384


def test_memory_that_ran_out_bounds_every_later_batch() -> None:
    budget = settled(200_000.0)
    budget.ran_out_of_memory(16384, 2)
    for _ in range(5):
        budget.took(budget.tokens, 0.001)
    assert budget.tokens == 4096


def test_without_a_bound_in_time_only_tokens_count() -> None:
    budget = BatchBudget(16384)
    budget.took(16384, 60.0)
    assert budget.tokens == 16384
