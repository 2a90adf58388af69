"""Code that tests and benchmarks share, one subject per module."""
