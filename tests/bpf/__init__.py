"""What is tested for real: BPF programs and maps, network namespaces, TCP."""
