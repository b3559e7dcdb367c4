"""Regression gate: compare new runs with a baseline file and report what got worse."""
