"""Reinforcement learning of a generator on rewards from a running service."""
