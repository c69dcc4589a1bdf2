"""The reward model: tokenizer, pretraining, the two trainers of `fit`, and what finishes a checkpoint."""
