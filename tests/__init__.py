"""The tests of lblatency; those in `tests.bpf` need root and a kernel that runs BPF."""
