"""Comparing a routed module with others: controls, and the original beside it."""
