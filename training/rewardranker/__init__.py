"""RewardRanker: a reranker, PPO against it, and mining of what PPO finds."""
