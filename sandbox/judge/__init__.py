"""Judging: `judge(program, suite, limits, stop, sandbox)` and what it is made of."""

from sandbox.judge.judge import judge

__all__ = ["judge"]
