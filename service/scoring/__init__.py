"""What computes a score: the reward model, its scheduler, and the two rankers that need no model."""
