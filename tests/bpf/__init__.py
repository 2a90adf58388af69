"""Tests with real BPF programs and maps, network namespaces and TCP."""
