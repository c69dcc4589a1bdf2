"""Runs programs that nobody trusts and judges them where they cannot reach: standard library and libseccomp only."""
