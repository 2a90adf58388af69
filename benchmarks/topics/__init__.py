"""The benchmarks: a file per topic."""
