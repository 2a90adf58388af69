"""What is measured: a file per topic."""
