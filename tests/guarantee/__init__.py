"""Budgets, their tests, certificates and audits."""
