"""Percentiles and plots of an exporter that runs, or of saved snapshots."""
