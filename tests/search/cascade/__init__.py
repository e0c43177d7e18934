"""Cascades: a light model on all samples, the original on those in doubt."""
