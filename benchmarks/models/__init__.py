"""Models that the benchmark trains or loads."""
