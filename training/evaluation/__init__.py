"""Evaluation of a checkpoint on unseen problems, its report, and its publication."""
