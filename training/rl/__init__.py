"""Reinforcement learning of a policy on the rewards of a running service."""
