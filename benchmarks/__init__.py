"""The benchmark: `python -m benchmarks.compare`."""
