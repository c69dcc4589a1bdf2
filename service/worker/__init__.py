"""Worker processes: one kind scores, one executes; each takes jobs from its queues in one loop."""
