"""Judging: `judge(program, suite, limits, stop, box)` and what it is made of."""

from sandbox.judge.judge import judge

__all__ = ["judge"]
