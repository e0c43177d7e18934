"""Lowering a module to TorchScript, and what an artifact may hold."""
