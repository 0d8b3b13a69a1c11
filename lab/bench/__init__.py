"""Benchmarks against peers: one file a benchmark, named in `lab.bench.registry`."""
