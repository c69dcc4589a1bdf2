"""The audit of a test suite: which programs to run, and what their results say of the suite."""
