"""Runs untrusted programs and judges them outside their reach. Imports the standard library and libseccomp only."""
