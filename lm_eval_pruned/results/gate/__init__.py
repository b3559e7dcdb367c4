"""Regression gate: compare runs with a stored baseline."""
