"""What TorchScript compiles: the parts of routed sites, live rows and cascades that run in an artifact, and nothing else."""
