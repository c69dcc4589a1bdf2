"""RewardRanker (arXiv 2504.09643): a reranker and a PPO generator that trains against it, round by round."""
