"""The reward model itself: tokenizer, language model, both trainers, calibration and the checkpoint folder."""
