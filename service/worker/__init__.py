"""Processes that do the work: one scores, one executes; each reads its queues in one loop."""
